"""Models for other programs: ONNX, and packages for bioimage.io."""
