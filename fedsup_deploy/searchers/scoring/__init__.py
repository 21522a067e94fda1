"""What architectures are worth: scores, those found before, and a predictor of all others. Measures nothing."""
