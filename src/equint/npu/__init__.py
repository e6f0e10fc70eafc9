"""Networks as NPUs execute them: integers alone, and the files that carry them."""
