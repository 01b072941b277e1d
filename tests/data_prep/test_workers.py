import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import psutil
import pytest

from data_prep.ownership import own
from data_prep.writer import write_splits
from pix2pix.errors import UserError
from tests.photographs import colorful, encoded
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
from tests.photographs import colorful, encoded
from tests.shard_runs import plans_for, write

def slow_pair(*arguments):
    import os, time
    time.sleep(0.02)
    return make_pair(*arguments)

data_prep.shard_file.make_pair = slow_pair
if __name__ == "__main__":
    write(plans_for(Path(sys.argv[1]), Path(sys.argv[2])), num_workers=int(sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("num_workers", "victims"),
    [(1, ["parent", "group", "parent"]), (2, ["parent", "worker", "group"])],
)
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    clean_run: Path, photos: Path, tmp_path: Path, num_workers: int, victims: list[str]
) -> None:
    out = tmp_path / "out"
    script = tmp_path / "run.py"
    script.write_text(RUN)
    command = [sys.executable, str(script), str(photos), str(out), str(num_workers)]
    kept: set[str] = set()
    for victim in victims:  # each in the middle of writing, some shards on
        run = start(command)
        wait_for(lambda kept=kept: sidecars(out) - kept and list(out.glob(".train-*.tmp")))
        kill(run, victim)
        assert run.wait() != 0, "the run was over before it was killed"
        assert not (out / "manifest.json").exists()
        assert sidecars(out) > kept
        kept = sidecars(out)
    assert write(plans_for(photos, out), num_workers) < NUM_PHOTOS
    assert contents(out) == contents(clean_run)


@pytest.mark.system
@pytest.mark.timeout(600)
def test_the_command_killed_twenty_times_ends_with_the_bytes_of_a_clean_run(tmp_path: Path) -> None:
    # Large, so that there is time to kill, and just not large enough to be decoded reduced.
    picture = encoded(colorful(1140, 1140))
    (tmp_path / "photos").mkdir()
    for number in range(1000):  # a decoder stops at the end of the picture
        (tmp_path / f"photos/{number:04d}.jpg").write_bytes(picture + b"%d" % number)
    command = [sys.executable, "-m", "data_prep.make_shards", "--photos", tmp_path / "photos"]
    command += ["--split", "train", "--samples_per_shard", 2, "--num_workers", 2]
    command = [str(word) for word in command]
    assert kill_at_random([*command, "--out", str(tmp_path / "out")], tmp_path / "out", 20) >= 18
    for name in ("clean", "out"):
        subprocess.run([*command, "--out", tmp_path / name], env=ENVIRONMENT, check=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


def kill_at_random(command: list[str], out: Path, times: int) -> int:
    """Start `command` and kill it, or a worker, at a random moment; how often it was alive then."""
    random = Random(0)
    hits = 0
    for number in range(times):
        run = start(command)
        before = sidecars(out)
        if number % 2:  # as likely while it starts as while it writes
            wait_for(lambda before=before, run=run: sidecars(out) > before or run.poll() == 0)
        time.sleep(random.uniform(0, 0.25 if number % 2 else 0.7))
        if run.poll() is None:
            kill(run, random.choice(["parent", "worker", "group"]))
        hits += run.wait() != 0
    return hits


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True
    )


def kill(run: subprocess.Popen[bytes], victim: str) -> None:
    """SIGKILL to the parent, to one of its workers, or to its process group at once."""
    if victim == "group":
        os.killpg(run.pid, signal.SIGKILL)
    else:
        workers = workers_of(run) if victim == "worker" else []
        (workers[0] if workers else run).kill()


def workers_of(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = psutil.process_iter(["ppid", "cmdline"])
    children = [process for process in found if process.info["ppid"] == run.pid]
    return [child for child in children if "spawn_main" in " ".join(child.info["cmdline"] or ())]


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
    workers = workers_of(run)
    assert len(workers) == 2
    run.kill()
    run.wait()
    assert psutil.wait_procs(workers, timeout=30)[1] == []


def test_a_run_killed_before_its_manifest_is_published_by_the_next(
    clean_run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    script = tmp_path / "run.py"
    killed = "import os, data_prep.assembly\ndata_prep.assembly.write_manifest = lambda *_: "
    script.write_text(killed + "os.kill(os.getpid(), 9)\n" + RUN.replace("0.02", "0"))
    run = subprocess.run([sys.executable, str(script), photos, out, "1"], env=ENVIRONMENT)
    assert run.returncode == -signal.SIGKILL
    assert (out / "rejected.jsonl").exists()
    assert not (out / "manifest.json").exists()
    assert write(plans_for(photos, out)) == 0
    assert contents(out) == contents(clean_run)


def test_errors_of_workers_arrive_and_end_the_run(photos: Path, tmp_path: Path) -> None:
    plans = plans_for(photos, tmp_path)
    (tmp_path / "train-000000.tar").mkdir(parents=True)  # a rename onto it must fail
    with pytest.raises(UserError, match=r"cannot write to .*train-000000.tar"):
        write_splits(plans, 2)
    assert not (tmp_path / "manifest.json").exists()


def test_two_runs_do_not_write_to_one_folder(photos: Path, tmp_path: Path) -> None:
    with own(tmp_path), pytest.raises(UserError, match="another make_shards is writing"):
        write(plans_for(photos, tmp_path))
    write(plans_for(photos, tmp_path))


@pytest.mark.parametrize("lock", ["", "data_prep.workers._done.get_lock().acquire(); "])
def test_a_killed_worker_is_one_clear_error(
    photos: Path, tmp_path: Path, clean_run: Path, lock: str
) -> None:
    script = tmp_path / "run.py"
    suicide = f"import data_prep.workers; {lock}os.kill(os.getpid(), 9)"
    script.write_text(RUN.replace("time.sleep(0.02)", suicide))
    command = [sys.executable, str(script), str(photos), str(tmp_path / "out"), "2"]
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert "UserError: a worker process was killed" in run.stderr
    assert write(plans_for(photos, tmp_path / "out")) == NUM_PHOTOS
    assert contents(tmp_path / "out") == contents(clean_run)
