"""What a person reads: results in words, tables and pages."""
