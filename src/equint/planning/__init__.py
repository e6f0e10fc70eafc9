"""Recipes: which passes run on a network, in which order and with which options."""
