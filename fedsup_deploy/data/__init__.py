"""Labelled images: loading, splitting among clients, and turning pixels into a model's input. NumPy only."""
