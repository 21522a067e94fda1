"""Exact search from stage to stage, in spaces too large to list. Knows neither accuracy nor latency models."""
