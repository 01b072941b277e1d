"""One command that proves a GPU: its tests and benchmarks, section by section, and a report."""
