"""Kinds of layers. Each module says which tensors a layer has, what it costs and which ONNX nodes it is. Torch-free."""
