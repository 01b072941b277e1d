"""Is this machine ready to train? Checks, each in a process of its own, and their table."""
