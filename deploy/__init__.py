"""What runs Turnpoint somewhere, and what watches it there."""
