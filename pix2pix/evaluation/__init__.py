"""Metrics, baselines and the report on a run."""
