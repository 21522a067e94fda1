"""Which subnet a device should get: limits, prices, searchers and their result. Knows accuracy only as a callable."""
