"""Promises of slurm.status: what is known of a run, with and without SLURM, within 80 columns."""

import json
import time

import pytest

from pix2pix.errors import LostProcessError, UserError
from pix2pix.run.run_directory import RunDirectory
from slurm import scheduler
from slurm.records import Records
from slurm.scheduler import JobRow
from slurm.status import Run, StatusOptions, details, look, progress_of, status, table
from tests.small_training import tiny_config


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    """A run of 1,000 steps at 2 steps per second, now at step 100, in its second start."""
    run = RunDirectory(tmp_path / "runs" / "a run with a long name")
    config = tiny_config(tmp_path / "shards", run.root, total_steps=1000)
    run.claim(config, "digest")
    records = Records(run.jobs)
    cluster = {"cluster": "slurm"}
    records.add("submitted", job="12", cluster=cluster, config=config.to_json())
    records.add("started", job="12", restarts=0, step=0, nodes=2, ranks=4)
    records.add("ended", job="12", restarts=0, step=50, outcome="stopped")
    records.add("requeued", job="12", restarts=0, step=50)
    records.add("started", job="12", restarts=1, step=50, nodes=2, ranks=4)
    now = time.time()
    lines = [
        {"step": step, "time": now - (100 - step) / 2, "loss/generator_l1": 1.0}
        for step in range(10, 101, 10)
    ]
    lines.append({"step": 100, "time": now, "evaluation/psnr": 20.0})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run.metrics_file.write_text(text + '{"step": 101, "ti')  # being written
    log = run.jobs / "12_0_log.out"
    log.write_text("training on 4\n 1%| | 10/1000\r 10%| | 100/1000\nsubmitit INFO bye\n")
    return run


def running(run: RunDirectory) -> Run:
    return look([run.root])[0]._replace(row=JobRow("RUNNING", "1-02:03:04", "2"))


def test_a_running_job_has_its_steps_rate_and_time_left(run):
    shown = table([running(run)])
    assert max(map(len, shown.splitlines())) <= 80
    head, line, last = shown.splitlines()
    assert head.split() == ["run", "job", "state", "re", "N", "elapsed", "step", "ETA"]
    assert "12 RUNNING      1   2 1-02:03:04      100/1000   7m " in line
    assert last.strip() == "10%| | 100/1000"


def test_details_tell_the_history_and_the_last_error(run):
    Records(run.jobs).tell_error("12_1", "rank 1 of 4 on n2", OSError("the disk is on fire"))
    Records(run.jobs).tell_error("12_1", "rank 3 of 4 on n2", ValueError("later"))
    shown = details(running(run))
    assert "step     100 of 1000, 2 steps/s" in shown
    assert "rank 1 of 4 on n2: OSError: the disk is on fire" in shown
    assert "later" not in shown
    starts = [line for line in shown.splitlines() if "started at" in line]
    assert [line.split("  ")[-1] for line in starts] == [
        "started at step 0, 2 × 2 ranks",
        "started at step 50, 2 × 2 ranks",
    ]


def test_without_slurm_the_run_itself_is_asked(run, capsys):
    assert status(StatusOptions(runs=run.root.parent)) == 0
    assert " STARTED " in capsys.readouterr().out
    Records(run.jobs).add("ended", job="12", restarts=1, step=100, outcome="stopped")
    assert look([run.root])[0].state == "STOPPED"
    Records(run.jobs).tell_error("12_1", "rank 0", OSError("no"))
    assert look([run.root])[0].state == "FAILED"


def test_a_run_that_was_never_submitted_is_shown_too(tmp_path, capsys):
    run = RunDirectory(tmp_path / "local")
    run.claim(tiny_config(tmp_path / "shards", run.root), "digest")
    assert progress_of(run, None).total_steps == 4
    (run.checkpoints / "step_000000004").mkdir(parents=True)
    assert status(StatusOptions(run_dir=run.root)) == 0
    assert "state    FINISHED" in capsys.readouterr().out


def test_what_is_no_run_is_a_mistake(tmp_path):
    for options in (
        StatusOptions(run_dir=tmp_path / "nowhere"),
        StatusOptions(run_dir=tmp_path),
        StatusOptions(runs=tmp_path),
    ):
        with pytest.raises(UserError):
            status(options)


def test_what_slurm_tells_is_read(monkeypatch):
    told = {
        "sacct": "12|CANCELLED by 1000|1-02:03:04|2\n13_[1-3]|PENDING|00:00:00|1\n",
        "squeue": "14|RUNNING|3:04|2\n12|COMPLETING|26:03:04|2\n",
    }
    monkeypatch.setattr(scheduler, "ask", lambda *command: told[command[0]])
    rows = scheduler.jobs(["12", "14"])
    assert rows["14"] == JobRow("RUNNING", "00:03:04", "2")
    assert rows["12"].state == "COMPLETING"  # the queue is nearer to the truth
    assert rows["13_[1-3]"].state == "PENDING"


def test_partitions_are_read_with_their_limits_and_gpus(monkeypatch):
    told = (
        "gpu*|1-00:00:00|2-00:00:00|(null)\ngpu*|1-00:00:00|2-00:00:00|gpu:a100:4(S:0,2),nvme:1\n"
    )
    told += "long|n/a|infinite|(null)\nshort|n/a|30:00|(null)\n"
    monkeypatch.setattr(scheduler, "ask", lambda *command: told)
    assert scheduler.partitions() == [
        scheduler.Partition("gpu", True, "1-00:00:00", "gpu:a100:4"),
        scheduler.Partition("long", False, None, ""),
        scheduler.Partition("short", False, "30:00", ""),
    ]


def test_an_error_of_ones_own_is_told_from_the_loss_of_a_peer(tmp_path):
    lost = LostProcessError("another process has ended")
    records = Records(tmp_path)
    records.tell_error("1_0", "rank 0", lost)
    assert records.first_error("1_0") is None
    records.tell_error("1_0", "rank 1", ValueError("mine"))
    assert records.first_error("1_0") == "rank 1: ValueError: mine"
    assert records.last_error("1") == "rank 1: ValueError: mine"
