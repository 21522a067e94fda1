"""Subnets as files: one exporter per format, and the gate that every file passes before anybody sees it."""
