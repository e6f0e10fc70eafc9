"""Frozen values: a network's graph, what is known of its tensors, and the algebra on their fields."""
