"""Promises of mapped files: no descriptor stays open, and what looks into one is safe."""

import gc
import os

import numpy as np
import pytest

from pix2pix.system.mapped import map_file


def test_many_files_are_mapped_with_no_descriptor_each(tmp_path):
    for number in range(50):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 10_000)
    before = len(os.listdir("/proc/self/fd"))
    mapped = [map_file(tmp_path / str(number)) for number in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    for number, data in enumerate(mapped):
        assert bytes(data) == bytes([number]) * 10_000


def test_an_array_keeps_the_mapping_that_it_looks_into(tmp_path):
    (tmp_path / "x").write_bytes(bytes(range(256)) * 64)

    def in_maps():
        return str(tmp_path / "x") in open("/proc/self/maps").read()

    part = np.ndarray((256,), np.uint8, map_file(tmp_path / "x"), 256)
    gc.collect()
    assert part.tolist() == list(range(256))
    assert in_maps()
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 1
    del part
    assert not in_maps()


def test_what_cannot_be_mapped_raises(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        map_file(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        map_file(tmp_path / "absent")
