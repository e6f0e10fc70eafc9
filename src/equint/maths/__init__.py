"""Formulas: arrays in, arrays out. Nothing here knows what a graph is."""
