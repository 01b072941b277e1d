"""What many tests use, made once per test process: shards by the real data preparation, and a real
SLURM.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data_prep.make_shards import MakeShardsOptions, make_shards
from slurm.local.cluster import LocalCluster
from tests.photographs import write_folder
from tests.ranks import run_ranks
from tests.shard_runs import NUM_PHOTOS, plans_for, write, write_photos
from tests.small_training import fit, tiny_config


def pytest_configure() -> None:
    # A shell ignores Ctrl-C for what it starts in the background, and so would every process here.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training photographs in 5 shards and 7 for validation, short side 72: crops of 64."""
    folder = tmp_path_factory.mktemp("tiny")
    for split, count in (("train", 24), ("val", 7)):
        photos = write_folder(folder / split, count, width=90, height=72)
        make_shards(
            MakeShardsOptions(
                photos=photos,
                out=folder / "shards",
                split=split,
                short_side=72,
                samples_per_shard=5,
                num_workers=1,
            )
        )
    return folder / "shards"


@pytest.fixture(scope="session")
def trained_run(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of 4 steps on `tiny_shards`, evaluated at 2 and 4; it averages its weights."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    run_ranks(fit, 1, tiny_config(tiny_shards, run_dir, evaluate_every=2))
    return run_dir


@pytest.fixture(scope="session")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two nodes. A cluster for each test process: tests that kill nodes cannot share one."""
    with LocalCluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def cluster(
    running_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalCluster]:
    """A SLURM without jobs and with all its nodes, which `sbatch` and the like talk to."""
    monkeypatch.setenv("SLURM_CONF", running_cluster.environment["SLURM_CONF"])
    yield running_cluster
    running_cluster.clear()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `write_photos` writes: photographs to use, and four to reject."""
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def clean_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of `photos`, made in one go by one process."""
    out = tmp_path_factory.mktemp("clean")
    assert write(plans_for(photos, out)) == NUM_PHOTOS
    return out


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests that need a GPU out, unless `-m gpu` asks for them, as `make gpu` does."""
    if "gpu" in config.getoption("markexpr"):
        return
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    config.hook.pytest_deselected(items=on_gpu)
    items[:] = [item for item in items if not item.get_closest_marker("gpu")]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a test that needs a GPU fail where there is none: it must not seem to have passed."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.fail("torch sees no GPU here", pytrace=False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test checks nothing: what is missing is to be installed, so the run fails."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("a skipped test is a failure: install what it asks for")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
