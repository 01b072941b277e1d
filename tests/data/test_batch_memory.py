"""Promises of the memory for batches: nothing is written over while anyone can see it."""

import os

import numpy as np
import pytest
import torch

from pix2pix.data.batch_memory import BatchMemory


def filled(memory, value):
    """An array opened in a slot that a worker has filled with `value`."""
    slot = memory.reserve()
    child = os.fork()
    if not child:
        memory.pixels(slot)[:] = value
        os._exit(0)
    os.waitpid(child, 0)
    return memory.open(slot)


@pytest.mark.parametrize(
    "keep",
    [
        lambda pixels: pixels,
        lambda pixels: pixels[3:],
        lambda pixels: pixels.reshape(2, 4)[1][::2],
        torch.from_numpy,
        lambda pixels: torch.from_numpy(pixels[2:]).view(2, 3)[1],
        lambda pixels: torch.from_numpy(pixels).detach()[4:].numpy(),
        lambda pixels: memoryview(pixels)[1:],
    ],
)
def test_a_slot_is_not_used_again_while_anything_made_of_it_is_alive(keep):
    memory = BatchMemory(num_slots=1, slot_bytes=8)
    kept = keep(filled(memory, 7))
    assert memory.reserve() is None
    assert all(value == 7 for value in kept)
    del kept
    assert memory.reserve() == 0


def test_slots_do_not_overlap():
    memory = BatchMemory(num_slots=3, slot_bytes=5)
    opened = [filled(memory, value) for value in (1, 2, 3)]
    assert memory.reserve() is None
    assert [np.unique(pixels).tolist() for pixels in opened] == [[1], [2], [3]]


def test_what_was_opened_outlives_the_memory_itself():
    memory = BatchMemory(num_slots=1, slot_bytes=1 << 16)
    pixels = filled(memory, 9)
    del memory
    assert (pixels == 9).all()


def test_a_slot_is_reserved_only_when_its_number_is_asked_for():
    memory = BatchMemory(num_slots=2, slot_bytes=8)
    places = memory.reserved(range(5, 9))
    (_, first), (number, second) = next(places), next(places)
    assert number == 6
    assert {first, second} == {0, 1}
    assert next(places) == (7, None)
    del_soon = memory.open(first)
    del del_soon
    assert next(places) == (8, first)
