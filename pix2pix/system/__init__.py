"""Durable files, the machine, signals."""
