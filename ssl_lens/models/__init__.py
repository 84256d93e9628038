"""Backbones, stems and heads: one architecture a file."""
