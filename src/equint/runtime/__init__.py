"""Running networks with onnxruntime. The only folder that imports it."""
