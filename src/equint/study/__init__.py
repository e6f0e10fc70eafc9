"""Many variants of one network, or many networks, measured beside one another."""
