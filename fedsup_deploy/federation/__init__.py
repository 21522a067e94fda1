"""One federation, any engine: what is asked of clients, what they do, and what the server makes of it. No transport."""
