"""The server's side: rounds, strategies, aggregation, recalibration. It never sees an image of a client."""
