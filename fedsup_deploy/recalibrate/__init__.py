"""Normalisation statistics from clients: exact sums, and the folding of what they determine into convolutions."""
