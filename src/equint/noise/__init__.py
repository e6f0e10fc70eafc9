"""The noise that quantization makes, predicted from weights and moments."""
