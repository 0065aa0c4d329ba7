"""snow-export: SAM3's video tracker as ONNX graphs that snow-ort runs without Python."""

__version__ = "0.1.0"
