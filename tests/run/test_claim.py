"""One training at a time writes: real processes claim, are killed, race, and wait."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pix2pix.errors import UserError
from pix2pix.run import claim as writer_claim
from pix2pix.run.claim import Owner, WriterClaim

ROOT = Path(__file__).parents[2]

# Claims when told to, says how that ended, and gives free when told to.
STARTER = """
import sys
from pathlib import Path
from pix2pix.errors import UserError
from pix2pix.run.claim import WriterClaim

print("ready", flush=True)
sys.stdin.readline()
claim = WriterClaim(Path(sys.argv[1]))
try:
    claim.acquire(wait_seconds=5)
    print("has it", flush=True)
except UserError as error:
    print(error, flush=True)
sys.stdin.readline()
claim.release()
"""


@pytest.fixture
def starter(tmp_path):
    """Starts processes that claim tmp_path / "run"; they are killed in the end."""
    processes = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, str(tmp_path / "run")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def tell(process: subprocess.Popen[str]) -> None:
    process.stdin.write("go\n")
    process.stdin.flush()


def said(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().rstrip("\n")


def claimed(starter) -> subprocess.Popen[str]:
    process = starter()
    tell(process)
    while (line := said(process)) != "has it":
        assert line.startswith("taking over ")
    return process


def claim_files(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob(".writer*"))


def leave_claim(root: Path, suffix: str = ".json", age: float = 0.0, **changes) -> Path:
    """The claim of a owner that is this process but for `changes`, silent for `age` seconds."""
    owner = dataclasses.replace(Owner.me(), **changes)
    file = root / ".writer" / f"left{suffix}"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(dataclasses.asdict(owner)))
    os.utime(file, times=(time.time() - age,) * 2)
    return file


ELSEWHERE = {"kernel": "another boot", "host": "node7"}


def acquire(root: Path, wait_seconds: float = 5) -> WriterClaim:
    claim = WriterClaim(root)
    claim.acquire(wait_seconds)
    return claim


def test_a_second_writer_is_refused_at_once_and_told_who_holds_it_since_when(tmp_path, starter):
    first, started = claimed(starter), time.time()
    with pytest.raises(UserError, match="is being trained by") as refused:
        acquire(tmp_path / "run", wait_seconds=60)
    assert time.time() - started < 10
    owner = Owner.me()
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(started - 1))
    for words in (f"{owner.user} on {owner.host}", f"process {first.pid}", f"since {since[:10]}"):
        assert words in str(refused.value)
    assert claim_files(tmp_path / "run") == [".writer"]


def test_a_released_claim_leaves_nothing_and_the_next_gets_it(tmp_path, starter):
    first = claimed(starter)
    tell(first)
    first.wait(30)
    assert claim_files(tmp_path / "run") == []
    with acquire(tmp_path / "run") as claim:
        assert claim_files(tmp_path / "run") == [".writer"]
        assert claim.lost is None
    assert claim_files(tmp_path / "run") == []


def test_the_claim_of_a_killed_process_is_taken_over_at_once(tmp_path, starter, capsys):
    owner = claimed(starter)
    owner.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table
    acquire(tmp_path / "run").release()
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert said.startswith(f"taking over {tmp_path / 'run'} from ")


def test_a_pid_that_is_used_again_is_not_the_holder(tmp_path):
    leave_claim(tmp_path, process_start=Owner.me().process_start - 1)
    acquire(tmp_path).release()


def test_a_requeued_slurm_job_takes_over_from_itself_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    leave_claim(tmp_path, **ELSEWHERE, slurm_job="17", slurm_restart=0)
    started = time.monotonic()
    acquire(tmp_path).release()
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("other", [{"slurm_job": "18"}, {"slurm_job": "17", "slurm_restart": 1}])
def test_another_slurm_job_and_another_step_of_this_one_are_no_requeue(
    tmp_path, monkeypatch, other
):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    leave_claim(tmp_path, **ELSEWHERE, **other)
    with pytest.raises(UserError, match=f"SLURM job {other['slurm_job']}"):
        acquire(tmp_path, wait_seconds=0.5)


def test_a_holder_elsewhere_that_is_silent_too_long_is_dead(tmp_path):
    leave_claim(tmp_path, **ELSEWHERE, age=writer_claim.SILENT_SECONDS + 1)
    acquire(tmp_path, wait_seconds=0.5).release()


def test_a_start_outlasts_a_holder_elsewhere_that_just_died(tmp_path, capsys):
    assert writer_claim.WAIT_SECONDS > writer_claim.SILENT_SECONDS
    leave_claim(tmp_path, **ELSEWHERE, age=writer_claim.SILENT_SECONDS - 1)
    acquire(tmp_path, wait_seconds=10).release()
    waiting, taking, *rest = capsys.readouterr().out.splitlines()
    assert waiting.startswith("waiting up to 10 s for ")
    assert "on node7" in waiting
    assert taking.startswith("taking over")
    assert rest == []


def test_a_holder_elsewhere_that_beats_is_alive(tmp_path):
    file = leave_claim(tmp_path, **ELSEWHERE, age=20)
    threading.Timer(0.5, os.utime, [file]).start()
    started = time.monotonic()
    with pytest.raises(UserError, match="node7"):
        acquire(tmp_path, wait_seconds=30)
    assert time.monotonic() - started < 10


def test_a_start_waits_for_a_holder_that_is_just_ending(tmp_path, capsys):
    owner = acquire(tmp_path)
    owner.ending()
    threading.Timer(1, owner.release).start()
    acquire(tmp_path, wait_seconds=30).release()
    (line,) = capsys.readouterr().out.splitlines()
    assert "which is just ending" in line


def test_a_start_does_not_wait_for_ever_for_one_that_is_ending(tmp_path):
    leave_claim(tmp_path, suffix=".ending")
    with pytest.raises(UserError, match="is being trained by"):
        acquire(tmp_path, wait_seconds=0.5)


@pytest.mark.parametrize("stale", [False, True])
def test_of_three_that_start_at_once_one_gets_it(tmp_path, stale):
    for number in range(20):
        root = tmp_path / str(number)
        if stale:
            leave_claim(root, process_start=0)
        assert sorted(race(root)) == ["has it", "refused", "refused"], number


def test_a_starter_that_was_slow_leaves_the_claim_of_one_that_was_faster(
    tmp_path, starter, monkeypatch
):
    leave_claim(tmp_path / "run", process_start=0)
    faster = []
    life_of = writer_claim._OtherClaim.life

    def life_and_the_other_is_faster(other):
        life = life_of(other)
        if life is writer_claim.Life.DEAD and not faster:
            faster.append(claimed(starter))
        return life

    monkeypatch.setattr(writer_claim._OtherClaim, "life", life_and_the_other_is_faster)
    with pytest.raises(UserError, match="is being trained by") as refused:
        acquire(tmp_path / "run")
    assert f"process {faster[0].pid})" in str(refused.value)


def race(root: Path) -> list[str]:
    """What became of three forked processes that claim at the same moment."""
    start, done = time.monotonic() + 0.02, os.pipe()
    answers = []
    for _ in range(3):
        answer = os.pipe()
        if os.fork() == 0:
            with contextlib.suppress(BaseException):
                while time.monotonic() < start:
                    pass
                try:
                    acquire(root)
                    os.write(answer[1], b"has it")
                except UserError as error:
                    refused = "is being trained by" in str(error)
                    os.write(answer[1], b"refused" if refused else str(error).encode())
                os.close(done[1])
                os.read(done[0], 1)  # who has it lives until everybody has answered
            os._exit(0)
        os.close(answer[1])
        answers.append(answer[0])
    results = [os.read(answer, 100).decode() for answer in answers]
    for end in (*done, *answers):
        os.close(end)
    for _ in answers:
        os.wait()
    return results


def test_who_was_taken_for_dead_learns_it_and_leaves_the_successors_claim(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_claim, "BEAT_SECONDS", 0.05)
    first = acquire(tmp_path)
    next((tmp_path / ".writer").iterdir()).unlink()  # as a starter elsewhere would
    second = acquire(tmp_path)
    deadline = time.monotonic() + 10
    while first.lost is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "another training has taken over" in first.lost
    first.release()
    assert len(list((tmp_path / ".writer").iterdir())) == 1
    assert second.lost is None
    second.release()


def test_a_holder_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_claim, "BEAT_SECONDS", 0.05)
    with acquire(tmp_path):
        (file,) = (tmp_path / ".writer").iterdir()
        os.utime(file, times=(0, 0))
        deadline = time.monotonic() + 10
        while file.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert file.stat().st_mtime > 0


def test_what_a_killed_starter_left_is_swept(tmp_path):
    (tmp_path / ".writer.old").mkdir()
    (tmp_path / ".writer.old" / "old.json").write_text("{}")
    os.utime(tmp_path / ".writer.old" / "old.json", times=(0, 0))
    with acquire(tmp_path):
        assert claim_files(tmp_path) == [".writer"]


def test_a_damaged_claim_is_somebodys_until_it_is_silent_too_long(tmp_path):
    file = leave_claim(tmp_path)
    file.write_text("{")
    with pytest.raises(UserError, match="somebody on an unknown host"):
        acquire(tmp_path, wait_seconds=0.3)
    os.utime(file, times=(0, 0))
    acquire(tmp_path).release()


def test_a_folder_that_can_not_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write to run_dir"):
        acquire(tmp_path / "file" / "run")
