"""Walks over a network: moments, ranges, free channel scales, and what becomes integer."""
