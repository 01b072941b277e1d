"""Promises where a disk is full while a training logs: a real small file system, filled up.

Mounting one takes root; elsewhere the same tests stand on /dev/full in test_a_file_that_takes_…
"""

import contextlib
import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from pix2pix.training.courtesy import Board, Courtesy, LineFile


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int):
    """A tmpfs of that size at `folder`."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room that is left, to the last byte."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (2**16, 2**12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return filler


def test_lines_wait_for_a_full_disk_to_have_room(tmp_path, capfd):
    with small_disk(tmp_path / "disk", 1) as disk:
        courtesy = Courtesy()
        lines = LineFile(disk / "metrics.jsonl", courtesy)
        lines.write("the first")
        filler = fill(disk)
        for number in range(2000):  # more than the page that the first one left
            lines.write(json.dumps({"step": number}))
        on_disk = (disk / "metrics.jsonl").read_text()
        assert on_disk.endswith("\n")  # no half line
        assert len(on_disk.splitlines()) < 2001
        assert courtesy.failing == {"metrics.jsonl"}
        filler.unlink()
        lines.write("last")
        written = (disk / "metrics.jsonl").read_text().splitlines()
        assert written == ["the first", *(json.dumps({"step": n}) for n in range(2000)), "last"]
    said = capfd.readouterr().err
    assert said.count("warning: can't write metrics.jsonl: No space left on device") == 1


def test_curves_go_on_in_a_file_of_their_own_when_there_is_room(tmp_path, capfd):
    with small_disk(tmp_path / "disk", 1) as disk:
        courtesy = Courtesy()
        board = Board(disk / "tensorboard", 1, courtesy)
        board.write(lambda writer: writer.add_scalar("a", 1.0, 1))
        filler = fill(disk)
        for step in range(2, 400):
            board.write(lambda writer, step=step: writer.add_text("a", "text" * 100, step))
        assert courtesy.failing
        filler.unlink()
        board.write(lambda writer: writer.add_scalar("a", 3.0, 500))
        assert not courtesy.failing
        board.close()
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(disk / "tensorboard"))
        events.Reload()
        assert [event.step for event in events.Scalars("a")] == [1, 500]
    said = capfd.readouterr().err
    assert said.count("warning: can't write tensorboard") == 1
    assert "Traceback" not in said


def test_a_file_that_takes_nothing_costs_one_warning_until_it_works(tmp_path, capfd):
    courtesy = Courtesy()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    full = LineFile(tmp_path / "metrics.jsonl", courtesy)
    full.write("lost")
    full.write("lost")
    with courtesy.of("sample pictures"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert capfd.readouterr().err.count("warning") == 1
    full.path.unlink()
    full.write("kept")
    assert full.path.read_text() == "lost\nlost\nkept\n"
    with courtesy.of("sample pictures"):
        pass
    with courtesy.of("sample pictures"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert capfd.readouterr().err.count("warning") == 1  # a new trouble is told again
