"""One `nn.Module` per ONNX graph. They hold the reference model's own parameters and are also what training runs."""
