"""What a network is shown: images, cards that say how they are prepared, and what was measured on them."""
