"""Promises where a file system offers less. A shim of os.fsync and os.rename stands for it."""

import errno
import os
import stat

import pytest

from pix2pix.errors import UserError
from pix2pix.system import durable


@pytest.fixture
def no_flush_of_folders(monkeypatch):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(durable, "_said", [])


def test_a_file_system_that_flushes_no_folders_is_told_of_once(
    tmp_path, no_flush_of_folders, capfd
):
    for name in ("a.json", "b.json"):
        durable.publish_json(tmp_path / name, {"is": "there"})
        assert (tmp_path / name).exists()
    said = capfd.readouterr().err
    assert said.count(f"the file system of {tmp_path} does not flush folders") == 1


def test_a_file_that_can_not_be_flushed_is_an_error(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Invalid argument"):
        durable.publish(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_renames_of_folders_is_refused(tmp_path, monkeypatch):
    def rename(old, new):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    durable.check_renames(tmp_path)
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(UserError, match=r"can't rename folders .*choose a --run_dir elsewhere"):
        durable.check_renames(tmp_path)
    assert list(tmp_path.iterdir()) == []
