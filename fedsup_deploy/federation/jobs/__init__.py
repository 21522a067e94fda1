"""What can be asked of a client: one module each, a frozen value and what a client does with it."""
