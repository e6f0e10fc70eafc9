"""Walks over a network: moments, ranges, gains, free channel scales, and what becomes integer."""
