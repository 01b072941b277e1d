"""Promises of what a real TensorBoard shows of two runs, one of them resumed from an older step."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from pix2pix.cli.options import flags_of
from pix2pix.config import TrainConfig
from pix2pix.training.board import CHARTS, METRICS, OFTEN_VARIED, configuration_tables
from tests.ranks import run_ranks
from tests.small_training import fit, tiny_config
from tests.training.test_launcher import wait_for

ROOT = Path(__file__).parents[2]
FIRST, RESUMED = "first/tensorboard", "resumed/tensorboard"


@pytest.fixture(scope="module")
def runs(trained_run, tiny_shards, tmp_path_factory) -> Path:
    """`first`: the session's; `resumed`: with other losses, 3 steps of which the last is lost."""
    folder = tmp_path_factory.mktemp("board") / "runs"
    shutil.copytree(trained_run, folder / "first")
    changes = {"l1_weight": 7.0, "gan_loss": "hinge", "checkpoint_every": 2, "sample_every": 1}
    run = folder / "resumed"
    run_ranks(fit, 1, tiny_config(tiny_shards, run, total_steps=3, **changes))
    shutil.rmtree(run / "checkpoints" / "step_000000003")
    run_ranks(fit, 1, tiny_config(tiny_shards, run, total_steps=4, **changes))
    return folder


@pytest.fixture(scope="module")
def ask(runs):
    """A function that asks the TensorBoard of `make board`, as its page does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    make = ["make", "--dry-run", "board", f"VENV={sys.prefix}"]
    make.append(f"--old-file={sys.prefix}/.installed-demo")
    told = subprocess.run(make, cwd=ROOT, env=environment, capture_output=True, text=True)
    command = [*shlex.split(told.stdout), "--port", "0"]
    with subprocess.Popen(command, cwd=runs.parent, stderr=subprocess.PIPE, text=True) as server:
        lines = iter(server.stderr)
        address = next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))

        def ask(path, body=None, **query):
            url = f"{address}data/{path}?{urlencode(query)}"
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            with urlopen(Request(url, data, headers), timeout=30) as answer:
                return json.load(answer)

        last = "evaluation/colorfulness_truth"
        wait_for(lambda: all(steps_of(ask, run, last)[-1:] == [4] for run in (FIRST, RESUMED)), 60)
        yield ask
        server.terminate()


def steps_of(ask, run, tag):
    """The steps of a curve as far as the server has read it, which it does while it answers."""
    if tag not in ask("plugin/scalars/tags").get(run, {}):
        return []
    return [step for _, step, _ in ask("plugin/scalars/scalars", run=run, tag=tag)]


def test_every_chart_compares_curves_that_a_training_logs(ask):
    layout = ask("plugin/custom_scalars/layout")
    charts = {
        c["title"]: c["multiline"]["tag"] for part in layout["category"] for c in part["chart"]
    }
    assert charts["D(real) and D(fake)"] == ["^discriminator/real$", "^discriminator/fake$"]
    assert len(charts) == sum(map(len, CHARTS.values()))
    logged = ask("plugin/scalars/tags")[FIRST]
    for patterns in charts.values():
        for pattern in patterns:
            assert len([tag for tag in logged if re.search(pattern, tag)]) == 1, pattern


def test_a_resumed_run_is_one_run_with_one_point_a_step(ask, runs):
    assert sorted(ask("runs")) == [FIRST, RESUMED]
    assert steps_of(ask, RESUMED, "loss/generator_l1") == [1, 2, 3, 4]
    assert all(path.is_file() for path in (runs / RESUMED).iterdir())


def test_every_picture_is_on_the_slider_once(ask):
    tag = "samples/gray, colorized, truth"
    pictures = ask("plugin/images/images", run=RESUMED, tag=tag, sample=0)
    assert [picture["step"] for picture in pictures] == [1, 2, 3, 4]


def test_runs_are_compared_by_what_was_varied_and_their_last_evaluation(ask, runs):
    listed = ask("plugin/hparams/experiment", {"experimentName": "", "includeMetrics": True})
    assert {metric["name"]["tag"] for metric in listed["metricInfos"]} == set(METRICS)
    in_front = [column["name"] for column in listed["hparamInfos"] if column.get("differs")]
    assert in_front == sorted(OFTEN_VARIED)
    everything = {"allowedStatuses": ["STATUS_UNKNOWN"], "startIndex": 0, "sliceSize": 9}
    groups = {
        group["name"]: group
        for group in ask("plugin/hparams/session_groups", everything)["sessionGroups"]
    }
    flags = {name: group["hparams"] for name, group in groups.items()}
    identity = tiny_config(runs, runs).identity()
    assert flags[FIRST].keys() == identity.keys()
    differing = {name for name in identity if flags[FIRST][name] != flags[RESUMED][name]}
    assert differing == {"l1_weight", "gan_loss"}
    assert (flags[RESUMED]["l1_weight"], flags[RESUMED]["gan_loss"]) == (7, "hinge")
    lines = (runs / "first" / "metrics.jsonl").read_text().splitlines()
    evaluated = [r for r in map(json.loads, lines) if "evaluation/psnr" in r]
    shown = {metric["name"]["tag"]: metric["value"] for metric in groups[FIRST]["metricValues"]}
    assert shown == {tag: pytest.approx(evaluated[-1][tag]) for tag in METRICS}


def test_every_start_leaves_its_configuration_and_machine(ask):
    texts = {
        name: ask("plugin/text/text", run=RESUMED, tag=f"run/{name}/text_summary")
        for name in ("configuration", "machine")
    }
    assert [text["step"] for text in texts["configuration"]] == [0, 2]
    assert "<td>l1_weight</td>\n<td><strong>7</strong></td>" in texts["configuration"][0]["text"]
    assert "<td><strong>4</strong></td>" in texts["configuration"][1]["text"]
    assert [text["step"] for text in texts["machine"]] == [0, 2]
    for row in ("processes</td>\n<td>1<", "device</td>\n<td>cpu<", "torch</td>\n<td>"):
        assert row in texts["machine"][0]["text"]


def test_the_table_of_flags_has_every_flag_and_marks_what_was_chosen():
    config = TrainConfig(shards=("s",), run_dir=Path("r"), total_steps=5, compile=True)
    lines = configuration_tables(config).splitlines()
    for name, flag in flags_of(TrainConfig).items():
        (line,) = (line for line in lines if line.startswith(f"| {name} |"))
        assert ("**" in line) == (name in ("shards", "run_dir", "total_steps", "compile")), line
        assert line.endswith(f"| {flag.help} |")
        assert line.count(" | ") == 2
    assert "| compile | **true** | torch.compile: slow start, then faster |" in lines
    assert "| learning_rate | 0.0002 | of Adam, for both networks |" in lines
