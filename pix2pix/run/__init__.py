"""State, ranks, checkpoints, the run directory and its one writer."""
