"""A sweep: every combination of a grid is a training of its own, and typos are found before."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from pix2pix.cli.command_line import parse_all
from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from slurm.status import StatusOptions, status
from slurm.submit import COMMANDS
from slurm.sweep import points_of, read_sweep, write_sweep
from slurm.sweep_table import plot_sweep, sweep_table

SHARED = TrainConfig(shards=("shards",), run_dir=Path("runs/sweep"), total_steps=20)


def test_every_combination_is_a_point_with_a_folder_of_its_own():
    points = points_of(["seed=0,1", "l1_weight=50,100"], SHARED)
    assert [point.name for point in points] == [
        "seed=0,l1_weight=50",
        "seed=0,l1_weight=100",
        "seed=1,l1_weight=50",
        "seed=1,l1_weight=100",
    ]
    assert [(p.config.seed, p.config.l1_weight) for p in points] == [
        (0, 50.0),
        (0, 100.0),
        (1, 50.0),
        (1, 100.0),
    ]
    assert points[0].config.run_dir == Path("runs/sweep/seed=0,l1_weight=50")
    assert {point.config.total_steps for point in points} == {20}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (["sed=0,1"], "--grid sed is no flag that a point can have of its own; did you mean"),
        (["run_dir=a,b"], "--grid run_dir is no flag that a point can have of its own"),
        (["seed=0,x"], "--grid seed expects a whole number such as 1000, not 'x'"),
        (["seed"], "--grid takes FLAG=VALUE,VALUE"),
        (["seed="], "--grid takes FLAG=VALUE,VALUE"),
        (["seed=0,"], "--grid seed needs a value"),
        (["seed=1,01"], "the points seed=1 and seed=01 are the same training"),
        (["init_from=a/b,a_b"], "two points would share the folder init_from=a_b"),
        (["seed=0", "seed=1"], "--grid names seed twice; give all of its values together"),
        (["l1_weight=-1"], "the point l1_weight=-1: l1_weight must be 0 or more"),
        (["image_size=100"], "the point image_size=100: image_size 100 is not a power of two"),
    ],
)
def test_a_point_that_cannot_be_is_told_before_anything_is_queued(grid, message):
    with pytest.raises(UserError) as caught:
        points_of(grid, SHARED)
    assert str(caught.value).startswith(message)


def test_a_batch_that_does_not_divide_names_its_point(tiny_shards, tmp_path):
    run, options = COMMANDS["sweep"]
    flags = ["--cluster=local", "--tasks_per_node=2", "--grid", "global_batch=4,3"]
    where = [f"--shards={tiny_shards}", f"--run_dir={tmp_path / 'sweep'}", "--image_size=64"]
    with pytest.raises(UserError, match=r"point global_batch=3: .*does not divide by 2 ranks"):
        run(*parse_all(options, [*where, *flags]))
    assert not (tmp_path / "sweep").exists()


def logged(folder, name, step, **values):
    run = folder / name
    run.mkdir(parents=True)
    record = {"step": step, "time": 1.0, **values}
    (run / "metrics.jsonl").write_text(json.dumps(record) + '\n{"step": 3, "half')


def test_the_table_orders_points_by_a_figure_within_80_columns(tmp_path, capsys):
    points = points_of(["seed=0,1,2"], SHARED)
    write_sweep(tmp_path, ["seed=0,1,2"], points)
    truth = {"evaluation/colorfulness_truth": 43.6}
    logged(tmp_path, "seed=0", 20, **{"evaluation/psnr": 20.1, "evaluation/colorfulness": 30.0})
    logged(
        tmp_path, "seed=2", 10, **{"evaluation/psnr": 22.5, "evaluation/colorfulness": 20.0} | truth
    )
    assert status(StatusOptions(run_dir=tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["point", "seed=2", "seed=0", "seed=1"]
    assert lines[-1] == "the true photographs have a colorfulness of 43.6"
    assert max(map(len, lines)) <= 80
    by_color = sweep_table(tmp_path, "color").splitlines()
    assert [line.split()[0] for line in by_color[1:3]] == ["seed=0", "seed=2"]
    with pytest.raises(UserError, match="give psnr, ssim, color, chroma or l1"):
        sweep_table(tmp_path, "psn")
    plot_sweep(tmp_path, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def gray(psnr: float) -> dict[str, float]:
    return {f"baseline_gray/{name}": value for name, value in (("psnr", psnr), ("colorfulness", 0))}


def test_the_gray_baseline_is_a_row_and_a_dot(tmp_path, monkeypatch):
    names = ["seed=0", "seed=1", "seed=2"]
    write_sweep(tmp_path, ["seed=0,1,2"], points_of(["seed=0,1,2"], SHARED))
    for name, psnr in zip(names, (20.0, 22.0, 24.0), strict=True):
        figures = {"evaluation/psnr": psnr, "evaluation/colorfulness": 30.0}
        logged(tmp_path, name, 20, **figures, **gray(21.0))
    lines = sweep_table(tmp_path, "psnr").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["seed=2", "seed=1", "gray", "seed=0"]
    assert lines[3].split() == ["gray", "-", "21.00", "-", "0.000", "-", "-"]

    dots = []
    monkeypatch.setattr(Axes, "plot", lambda self, x, y, mark: dots.append((x, y, mark)))
    plot_sweep(tmp_path, tmp_path / "sweep.png")
    assert (0, 21.0, "ks") in dots
    assert len(dots) == 4


def test_points_of_other_sizes_have_baselines_of_their_own(tmp_path):
    write_sweep(tmp_path, ["seed=0,1,2"], points_of(["seed=0,1,2"], SHARED))
    for name, psnr in (("seed=0", 21.0), ("seed=1", 21.0000001), ("seed=2", 23.0)):
        logged(tmp_path, name, 20, **gray(psnr))
    lines = sweep_table(tmp_path, "psnr").splitlines()
    assert [line.split()[2] for line in lines if line.startswith("gray")] == ["23.00", "21.00"]


def test_points_of_an_earlier_submission_stay(tmp_path):
    write_sweep(tmp_path, ["seed=0"], points_of(["seed=0"], SHARED))
    write_sweep(tmp_path, ["seed=1"], points_of(["seed=1"], SHARED))
    assert list(read_sweep(tmp_path)) == ["seed=0", "seed=1"]


@pytest.mark.system
def test_a_sweep_on_this_machine_trains_each_point_once(tiny_shards, tmp_path):
    where = [f"--shards={tiny_shards}", f"--run_dir={tmp_path / 'sweep'}", "--cluster=local"]
    small = ["--image_size=64", "--generator_width=4", "--discriminator_width=4", "--num_workers=0"]
    grid = ["--total_steps=2", "--global_batch=4", "--grid", "seed=0,1"]
    command = [sys.executable, "-m", "slurm.submit", "sweep", *where, *small, *grid]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    for seed in (0, 1):
        assert json.loads((tmp_path / "sweep" / f"seed={seed}" / "config.json").read_text())
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout == "2 points, 2 of them finished\n"
