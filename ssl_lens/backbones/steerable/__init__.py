"""Layers that turn with the image."""
