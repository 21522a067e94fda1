"""The weight-sharing network: one set of weights, any architecture of its search space."""
