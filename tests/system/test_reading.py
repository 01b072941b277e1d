"""Promises about a file system that stumbles. Faults are injected at os.pread and os.open."""

import errno
import os

import pytest

from pix2pix.errors import StorageError
from pix2pix.system import reading
from pix2pix.system.reading import PatientFile

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_said", False)
    monkeypatch.setattr(reading, "_gave_up", False)
    monkeypatch.setattr(reading, "FIRST_PAUSE_SECONDS", 0.001)
    path = tmp_path / "shard.tar"
    path.write_bytes(CONTENT)
    return path


def failing(monkeypatch, *errors: int | None, function="pread"):
    """Let the next calls fail with these numbers; None: it works. Returns what was called."""
    real, script, calls = getattr(os, function), list(errors), []

    def call(*arguments):
        calls.append(arguments)
        number = script.pop(0) if script else None
        if number is not None:
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    monkeypatch.setattr(os, function, call)
    return calls


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_an_error_of_the_file_system_is_tried_again_on_a_file_opened_anew(
    file, monkeypatch, capfd, number
):
    patient = PatientFile(file)
    opened = failing(monkeypatch, function="open")
    calls = failing(monkeypatch, number, number)
    assert patient.pread(1000, 100) == CONTENT[100:1100]
    assert len(calls) == 3
    assert len(opened) == 2
    said = capfd.readouterr().err
    assert said.count("trying again for up to 60 s") == 1
    assert os.strerror(number) in said


def test_a_file_that_can_not_be_opened_anew_at_once_is_tried_again(file, monkeypatch):
    patient = PatientFile(file)
    failing(monkeypatch, errno.ESTALE)
    failing(monkeypatch, errno.ESTALE, errno.EIO, function="open")
    assert patient.pread(10, 0) == CONTENT[:10]


def test_short_reads_are_continued(file, monkeypatch):
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: real(fd, min(size, 7), at))
    assert PatientFile(file).pread(1000, 13) == CONTENT[13:1013]


def test_a_file_that_ends_gives_what_there_is(file):
    assert PatientFile(file).pread(1000, len(CONTENT) - 10) == CONTENT[-10:]


def test_trouble_that_lasts_is_blamed_on_the_disk_and_waited_for_once(file, monkeypatch):
    patient = PatientFile(file)
    monkeypatch.setattr(reading, "PATIENCE_SECONDS", 0.05)
    failing(monkeypatch, *[errno.EIO] * 1000)
    with pytest.raises(StorageError, match=f"the file system of {file} does not answer"):
        patient.pread(10, 0)
    calls = failing(monkeypatch, *[errno.EIO] * 1000)
    with pytest.raises(StorageError):
        patient.pread(10, 0)
    assert len(calls) == 1  # a second sample does not wait again


def test_an_error_that_is_no_stumble_is_raised_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        PatientFile(tmp_path / "absent")
