"""Command lines: flags, help, charts."""
