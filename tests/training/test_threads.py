"""A training that has ended leaves no thread behind that could abort the end of its process."""

from pathlib import Path

import pytest

from pix2pix.run.distributed import Distributed
from pix2pix.training.trainer import Trainer
from tests.ranks import run_ranks
from tests.small_training import tiny_config


def threads_after(config):
    with Distributed(timeout_minutes=1, num_threads=1) as distributed:
        Trainer(config, distributed).fit()
    return [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_no_thread_of_a_process_group_outlives_it(tiny_shards, tmp_path, precision):
    """Gloo's abort the process if they release a tensor while the interpreter ends."""
    config = tiny_config(
        tiny_shards,
        tmp_path / "run",
        global_batch=2,
        sample_every=2,
        evaluate_every=4,
        checkpoint_every=2,
        precision=precision,
    )
    for names in run_ranks(threads_after, 2, config):
        assert not [name for name in names if "gloo" in name or "tcpstore" in name], names
