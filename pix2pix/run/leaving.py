"""How a rank leaves its process groups: with the others, and with no thread left."""

import contextlib
import gc
from datetime import timedelta

import torch.distributed as dist

PATIENCE = timedelta(seconds=10)  # with ranks that do not leave: they have told why, or will


def leave_together(groups: list[dist.ProcessGroup]) -> None:
    """Destroy the process group of all ranks and `groups`, and wait for their threads to end.

    A thread of gloo takes the interpreter's lock to release the tensors of its last message. If the
    interpreter is ending by then, it aborts the process, whose work is done ("terminate called
    without an active exception"; torch 2.14 on a busy machine). A group joins its threads when the
    last reference to it goes: that of DDP is collected here, unless the network is in use. Ours
    goes last: its destructor, unlike that of DDP, releases the lock.
    """
    _wait_for_others()
    whole = dist.group.WORLD
    dist.destroy_process_group()
    gc.collect()
    groups.clear()
    del whole


def _wait_for_others() -> None:
    """Wait until every rank is leaving.

    A rank that still waits for its last message fails where the sender's connection has closed,
    even if the message has arrived (gloo).
    """
    with contextlib.suppress(RuntimeError, ValueError):  # who serves the store has left: all have
        store = dist.distributed_c10d._get_default_store()
        if store.add("pix2pix/leaving", 1) == dist.get_world_size():
            store.set("pix2pix/all_leave", "")
        store.wait(["pix2pix/all_leave"], PATIENCE)
