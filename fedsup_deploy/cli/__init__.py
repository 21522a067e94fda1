"""The command line: reads arguments, calls `commands`, prints. The only package that prints, and it does no work."""
