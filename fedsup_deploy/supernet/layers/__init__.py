"""What layers compute: in training and evaluation on given tensors, and as modules with tensors of their own."""
