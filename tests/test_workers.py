import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.progress import Progress
from data_prep.writer import write_splits
from pix2pix.errors import UserError
from tests.shard_runs import ENVIRONMENT, NUM_PHOTOS, contents, plans_for, write


def test_bytes_are_the_same_for_three_workers_and_another_place(
    clean_run: Path, photos: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "another place"
    elsewhere.symlink_to(photos)
    write(plans_for(elsewhere, tmp_path / "out"), num_workers=3)
    assert contents(tmp_path / "out") == contents(clean_run)


RUN = """
import sys
from pathlib import Path
import data_prep.shard_file
from data_prep.shard_file import make_pair
from tests.shard_runs import plans_for, write

def slow_pair(*arguments):
    import os, time
    time.sleep(0.02)
    return make_pair(*arguments)

data_prep.shard_file.make_pair = slow_pair
if __name__ == "__main__":
    write(plans_for(Path(sys.argv[1]), Path(sys.argv[2])), num_workers=int(sys.argv[3]))
"""


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    clean_run: Path, photos: Path, tmp_path: Path, num_workers: int
) -> None:
    out = tmp_path / "out"
    script = tmp_path / "run.py"
    script.write_text(RUN)
    command = [sys.executable, str(script), str(photos), str(out), str(num_workers)]
    kept: set[str] = set()
    for _ in range(4 - num_workers):  # each is killed in the middle of writing, some shards on
        run = subprocess.Popen(command, env=ENVIRONMENT)
        wait_for(lambda kept=kept: sidecars(out) - kept and list(out.glob(".train-*.tmp")))
        run.kill()
        assert run.wait() == -signal.SIGKILL, "the run was over before it was killed"
        assert not (out / "manifest.json").exists()
        assert sidecars(out) > kept
        kept = sidecars(out)
    assert write(plans_for(photos, out), num_workers) < NUM_PHOTOS
    assert contents(out) == contents(clean_run)


def sidecars(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.json")}


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


def test_workers_end_with_a_parent_that_is_killed(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = tmp_path / "run.py"
    script.write_text(RUN.replace("0.02", "0.5"))
    run = subprocess.Popen([sys.executable, str(script), photos, out, "2"], env=ENVIRONMENT)
    wait_for(lambda: len(list(out.glob(".train-*.tmp"))) == 2)
    run.kill()
    run.wait()
    with (out / ".lock.workers").open("a") as lock:  # which every worker holds while it lives
        started = time.monotonic()
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert time.monotonic() - started < 2


def test_errors_of_workers_arrive_and_end_the_run(photos: Path, tmp_path: Path) -> None:
    plans = plans_for(photos, tmp_path)
    (tmp_path / "train-000000.tar").mkdir(parents=True)  # a rename onto it must fail
    with pytest.raises(UserError, match=r"cannot write to .*train-000000.tar"):
        write_splits(plans, 2, Progress("photos"))
    assert not (tmp_path / "manifest.json").exists()


def test_two_runs_do_not_write_to_one_folder(photos: Path, tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another make_shards is writing"):
            write(plans_for(photos, tmp_path))
    write(plans_for(photos, tmp_path))


def test_a_killed_worker_is_one_clear_error(photos: Path, tmp_path: Path, clean_run: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN.replace("time.sleep(0.02)", "os.kill(os.getpid(), 9)"))
    command = [sys.executable, str(script), str(photos), str(tmp_path / "out"), "2"]
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert "UserError: a worker process was killed" in run.stderr
    assert write(plans_for(photos, tmp_path / "out")) == NUM_PHOTOS
    assert contents(tmp_path / "out") == contents(clean_run)
