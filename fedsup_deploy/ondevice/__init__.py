"""What runs on a device, in its Python: checks and times models, and needs nothing else of this package.

Python 3.6, its standard library, NumPy and onnxruntime 1.8 are enough, and Pillow 8.1 where images are classified.
`fedsup_deploy.artifact.packing` makes one file of these modules.
"""
