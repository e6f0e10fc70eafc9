"""How good a network is: measures of its task, and verdicts in words."""
