"""The command line: reads arguments, calls the pipeline, prints. The only package that prints, and it does no work."""
