"""One federation, any engine: who trains what, how clients train, how their updates are averaged. No transport."""
