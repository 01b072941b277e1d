"""A generator as a folder, as ONNX, on the hub."""
