"""Which stopped training starts again: one that was asked to stop, and made steps."""

import pytest

from slurm.requeue import decide

STOPPED = {
    "step": 20,
    "first_step": 10,
    "asked_to_stop": True,
    "state": "RUNNING",
    "reason": "None",
}


@pytest.mark.parametrize(
    ("changes", "requeue", "told"),
    [
        ({}, True, "10 steps since its last start"),
        ({"state": "TIMEOUT", "reason": "TimeLimit"}, True, "10 steps"),
        ({"state": "COMPLETING", "reason": "TimeLimit"}, True, "10 steps"),
        ({"state": "COMPLETING"}, False, "it is cancelled"),
        ({"state": "CANCELLED"}, False, "it is cancelled"),
        ({"state": "PENDING"}, False, "SLURM ends it itself"),  # requeued already
        ({"step": 10}, False, "it would circle for ever"),
        ({"asked_to_stop": False}, False, "its --time_limit_minutes are over"),
    ],
)
def test_a_stopped_training_is_requeued_only_if_it_can_arrive(changes, requeue, told):
    verdict = decide(**(STOPPED | changes))
    assert verdict.requeue is requeue
    assert told in verdict.reason
