"""Networks in integers alone, from lowering to the engine that runs them."""
