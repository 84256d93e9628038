"""Sets of images packed into one array."""
