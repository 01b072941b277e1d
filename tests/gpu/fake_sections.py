"""Sections that measure nothing, in a module of their own: without torch they start at once."""

import time


def a_device(trial):
    yield {"where": "a device; torch 1"}


def good(trial):
    yield {"batch": 1, "photographs/s": 3000.0}
    yield {"batch": 2, "photographs/s": 4000.5}


def stops_halfway(trial):
    yield {"batch": 1, "photographs/s": 3000.0}
    raise RuntimeError("CUDA error: an | illegal address")


def hangs_halfway(trial):
    yield {"batch": 1, "photographs/s": 3000.0}
    time.sleep(600)


def measures_nothing(trial):
    yield from ()
