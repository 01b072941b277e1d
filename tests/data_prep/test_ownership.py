import errno
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from data_prep.ownership import Part, num_parts, own
from pix2pix.errors import UserError
from tests.shard_runs import ENVIRONMENT


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.ownership._PATIENCE_SECONDS", 0.1)


@pytest.mark.parametrize("count", [1, 3, 7, 30])
def test_parts_share_everything_evenly(count: int) -> None:
    things = list(range(23))
    shares = [Part(number, count).share_of(things) for number in range(1, count + 1)]
    assert sorted(thing for share in shares for thing in share) == things
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b", "1 /3"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--part .*: give I/N with I from 1 to N, as 2/8"):
        Part.parse(text)
    assert Part.parse("2/8") == Part(2, 8)


def test_parts_of_one_division_run_at_the_same_time(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for number in (2, 1, 3):
            stack.enter_context(own(tmp_path, Part(number, 3)))


@pytest.mark.parametrize(
    ("running", "coming", "message"),
    [
        (None, None, "another make_shards is writing to"),
        (None, Part(1, 3), "another make_shards is writing to"),
        (Part(1, 3), None, "another make_shards is writing to"),
        (Part(1, 3), Part(1, 3), "part 1/3 is being made in"),
        (Part(1, 3), Part(1, 2), "is being made in 3 parts"),
    ],
)
def test_runs_that_would_write_the_same_shards_are_kept_apart(
    tmp_path: Path, running: Part | None, coming: Part | None, message: str
) -> None:
    with own(tmp_path, running), pytest.raises(UserError, match=message), own(tmp_path, coming):
        pass
    with own(tmp_path, coming):
        pass


def test_a_run_in_other_parts_forgets_the_earlier_ones(tmp_path: Path) -> None:
    with own(tmp_path, Part(2, 8)):
        assert num_parts(tmp_path) == 8
    with own(tmp_path):  # as a merge does
        assert num_parts(tmp_path) == 8
    with own(tmp_path, Part(1, 3)):
        assert num_parts(tmp_path) == 3
    assert num_parts(tmp_path / "elsewhere") is None


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom data_prep.ownership import own\n"
        "with own(Path(sys.argv[1])):\n    print('mine', flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(UserError, match="another make_shards"), own(tmp_path):
            pass
        other.kill()
        other.wait()
        with own(tmp_path):
            pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with own(tmp_path, Part(1, 2)), own(tmp_path, Part(1, 2)):
        pass
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "no locks on this file system (Function not implemented)" in told[0]
