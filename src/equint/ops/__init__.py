"""Operators: what each one does, told once."""
