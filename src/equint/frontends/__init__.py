"""Networks of other libraries, brought to ONNX; and back."""
