"""Which stopped job starts again: one that was asked to stop or lost a disk, and made steps."""

import pytest

from slurm.records import Records, Stop
from slurm.requeue import decide, node_to_avoid

STOP = Stop(step=20, first_step=10, cause="signal")


@pytest.mark.parametrize(
    ("stop", "state", "reason", "requeue", "told"),
    [
        (STOP, "RUNNING", "None", True, "10 steps since its last start"),
        (STOP, "TIMEOUT", "TimeLimit", True, "10 steps"),
        (STOP, "COMPLETING", "TimeLimit", True, "10 steps"),
        (STOP, "COMPLETING", "None", False, "it is canceled"),
        (STOP, "CANCELLED", "None", False, "it is canceled"),
        (STOP, "PENDING", "None", False, "SLURM ends it itself"),  # requeued already
        (STOP._replace(step=10), "RUNNING", "None", False, "it would circle for ever"),
        (STOP._replace(cause="disk"), "RUNNING", "None", True, "start and a disk failed"),
        (
            STOP._replace(cause="disk", step=10),
            "RUNNING",
            "None",
            False,
            "no step since its last start and a disk failed",
        ),
        (STOP._replace(cause="disk"), "CANCELLED", "None", False, "it is canceled"),
        (
            STOP._replace(cause="time_limit_minutes"),
            "RUNNING",
            "None",
            False,
            "its --time_limit_minutes are over",
        ),
    ],
)
def test_a_stopped_training_is_requeued_only_if_it_can_arrive(stop, state, reason, requeue, told):
    verdict = decide(stop, state, reason)
    assert verdict.requeue is requeue
    assert told in verdict.reason


def test_a_node_is_avoided_where_its_disk_failed_alone():
    assert node_to_avoid(4, ["n2"]) == "n2"
    assert node_to_avoid(1, ["n2"]) is None  # nothing says that another node would do better
    assert node_to_avoid(4, ["n1", "n2"]) is None  # a file system of all
    assert node_to_avoid(4, []) is None


def test_how_a_start_ended_is_kept_for_the_script_of_the_job(tmp_path):
    records = Records(tmp_path)
    assert records.stop("12_0") is None
    stop = Stop(step=20, first_step=10, cause="disk", faulty_nodes=["n2"])
    records.tell_stop("12_0", stop)
    assert records.stop("12_0") == stop
    assert records.stop("12_1") is None
