"""Wiring: each module joins the packages below it into one command. No algorithm, no printing."""
