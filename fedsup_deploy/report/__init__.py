"""The report: what runs, searches and bundles have found, as one page to look at, and its plots as pictures."""
