"""What `benchmarks/profile.py` measures of a training step."""
