"""Integer programs as LiteRT runs them: written as .tflite, channels last."""
