"""The .tflite format: its schema, its tables read and written, float networks brought to ONNX."""
