"""What a person reads: results in words and tables."""
