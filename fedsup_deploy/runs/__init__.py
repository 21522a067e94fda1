"""The folder one training run leaves: what it is, where its images are, and the federation it can ask again."""
