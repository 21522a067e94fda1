"""Measuring on another machine, over SSH."""
