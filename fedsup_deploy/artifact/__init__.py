"""Bundles: their manifest, the folder as a whole, and the one-file program that checks and times them on a device."""
