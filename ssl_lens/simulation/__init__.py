"""Simulated lenses."""
