"""Recipes, and the parts that they name."""
