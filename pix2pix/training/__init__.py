"""The step, the log, the trainer."""
