"""Looking into networks: their channels, and where quantization noise arises."""
