"""What `scripts/benchmark.py` measures, a file each. Both sides of a ratio come from one run."""
