"""Published latencies of known networks, and how profiles compare with them."""
