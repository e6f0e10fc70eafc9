"""Reading and writing ONNX files. The only folder that imports onnx."""
