"""What hardware takes, as data."""
