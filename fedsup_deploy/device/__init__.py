"""Target devices: their profiles, what a subnet will cost on one (predicted), and what it did cost (measured)."""
