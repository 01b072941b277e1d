"""Promises where memory runs out. The error is torch's own class, raised by the test."""

import pytest
import torch

from pix2pix.errors import UserError
from pix2pix.training.memory import CPU_ALLOCATOR, enough_memory
from tests.small_training import tiny_config

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CONFIG = tiny_config("shards", "run")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried …"), MemoryError()]
)
def test_memory_that_runs_out_is_a_users_error_with_what_to_change(error):
    with pytest.raises(UserError) as raised, enough_memory(CONFIG, 6, "no", GPU):
        raise error
    message = str(raised.value)
    assert message.startswith("the memory of the GPU is full: a process takes 6 photographs of 64")
    for flag in ("--grad_accumulation_steps 2", "--global_batch below 6", "--precision bf16"):
        assert flag in message


def test_a_batch_of_one_can_not_be_divided(monkeypatch):
    with pytest.raises(UserError) as raised, enough_memory(CONFIG, 1, "bf16", GPU):
        raise torch.OutOfMemoryError
    assert "accumulation" not in str(raised.value)
    assert "--image_size" in str(raised.value)


def test_an_odd_batch_is_divided_by_a_number_that_divides_it():
    words = "--grad_accumulation_steps 3"
    with pytest.raises(UserError, match=words), enough_memory(CONFIG, 9, "bf16", GPU):
        raise torch.OutOfMemoryError


def test_a_cpu_says_it_in_its_own_words():
    words, said = (
        "the memory of the machine is full",
        f"[enforce fail] . {CPU_ALLOCATOR}: you tried",
    )
    with pytest.raises(UserError, match=words), enough_memory(CONFIG, 6, "no", CPU):
        raise RuntimeError(said)


def test_any_other_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shape"), enough_memory(CONFIG, 6, "no", CPU):
        raise RuntimeError("shape mismatch")
