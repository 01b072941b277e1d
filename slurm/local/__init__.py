"""A real SLURM on one machine, to try things and for the tests."""
