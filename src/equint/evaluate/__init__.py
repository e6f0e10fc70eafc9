"""Data, cards and measures: how good a network is."""
