"""`make chaos` in small, three kills or with `make test-all` ten; and it finds what is broken."""

import json
import random

import pytest

from pix2pix.errors import UserError
from tests.chaos.chaos import chaos, plan_kills
from tests.chaos.options import ChaosOptions
from tests.chaos.training import DisturbedTraining, Findings


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(3, marks=pytest.mark.timeout(240)),
        pytest.param(10, marks=[pytest.mark.system, pytest.mark.timeout(900)]),
    ],
)
def test_a_training_that_is_killed_again_and_again_loses_nothing(
    tiny_shards, tmp_path, kills, capsys
):
    file = tmp_path / "report.json"
    options = ChaosOptions(kills=kills, seed=kills, shards=tiny_shards, json=file)
    status = chaos(options)
    said = capsys.readouterr().out
    assert status == 0, said
    figures = json.loads(file.read_text())
    assert figures["kills"] == kills
    assert figures["good_checkpoints"] == figures["checkpoints"] > 0
    assert figures["steps"] > 70
    assert figures["order_is_the_undisturbed_one"] == "yes"
    assert figures["final_weights_are_bit_equal"] == "yes"
    assert figures["starts_by_the_launcher"] == (kills == 10)
    assert all(len(line) <= 80 for line in said.splitlines() if "report.json" not in line)


def test_kills_are_of_every_kind_and_the_same_for_the_same_seed():
    kills = plan_kills(100, (1, 2, 3), random.Random(0))
    assert kills == plan_kills(100, (1, 2, 3), random.Random(0))
    assert {kill.moment for kill in kills} == {"start", "step", "save"}
    assert {kill.ranks for kill in kills} == {1, 2, 3}
    assert sum(kill.launched for kill in kills) == 12
    assert {(kill.launched, kill.everyone) for kill in kills} == {
        (launched, everyone) for launched in (False, True) for everyone in (False, True)
    }


class FakeStart:
    """What two ranks told: a start that is read, not run."""

    count = 2

    def __init__(self, folder, traces):
        self.folder, self.traces = folder, traces

    def trace(self, rank):
        return self.traces[rank]


def traces(first=4, steps=(5, 6), swap=False):
    def record(step, rank):
        keys = [f"key{6 * (step - 1) + 3 * rank + n}" for n in range(3)]
        return {"step": step, "keys": keys[::-1] if swap else keys, "losses": [1.0, 1.0, 1.0]}

    return [[{"from": first}, *(record(step, rank) for step in steps)] for rank in range(2)]


@pytest.mark.parametrize(
    ("told", "broken"),
    [
        ({}, None),
        ({"first": 0, "steps": (1, 2)}, "began at 0, not 4"),
        ({"steps": (5, 7)}, "step 6: not the photographs of that step"),
        ({"swap": True}, "step 5: not the photographs of that step"),
    ],
)
def test_a_start_that_lost_something_breaks_a_promise(tmp_path, told, broken):
    found = Findings()
    training = DisturbedTraining(tmp_path, tmp_path, 10, found)
    training.keys = [[f"key{6 * step + n}" for n in range(6)] for step in range(10)]
    training._read(FakeStart(tmp_path / "start", traces(**told)), newest=4)
    assert found.broken == [] if broken is None else broken in found.broken[0]


def test_a_checkpoint_that_has_its_name_and_can_not_be_loaded_breaks_a_promise(tmp_path):
    (tmp_path / "run" / "checkpoints" / "step_000000004").mkdir(parents=True)
    found = Findings()
    DisturbedTraining(tmp_path, tmp_path, 10, found)._newest_step()
    assert len(found.bad_checkpoints) == len(found.broken) == 1


def test_one_kill_is_not_enough_for_two_parts():
    with pytest.raises(UserError, match="kills must be 2 or more"):
        ChaosOptions(kills=1)
