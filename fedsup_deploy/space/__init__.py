"""What may be built: architectures, search spaces, layer plans and their closed-form costs. Pure Python and NumPy."""
