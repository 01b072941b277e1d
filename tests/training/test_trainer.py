"""Promises of a training: resumes bit-equal, stops together, says what is wrong once."""

import json
import shutil
from itertools import chain
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pix2pix.data.preflight import check_free_disk
from pix2pix.errors import UserError
from pix2pix.run.distributed import Distributed
from pix2pix.training.trainer import Trainer
from tests.ranks import run_ranks
from tests.small_training import fit, tiny_config


def error_of(config):
    """The UserError of this rank: what a command line would print."""
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    try:
        Trainer(config, distributed).fit()
    except UserError as error:
        return str(error)
    return "no error"


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (2, 2), (3, 0)])
def test_4_steps_are_bit_equal_to_2_and_a_resume_and_2(
    tiny_shards, tmp_path, world_size, num_workers
):
    changes = {"decay_start": 1.0, "num_workers": num_workers}
    whole = tiny_config(tiny_shards, tmp_path / "whole", **changes)
    half = tiny_config(tiny_shards, tmp_path / "halves", total_steps=2, **changes)
    rest = tiny_config(tiny_shards, tmp_path / "halves", **changes)
    expected = run_ranks(fit, world_size, whole)[0]
    assert run_ranks(fit, world_size, half)[0]["step"] == 2
    resumed = run_ranks(fit, world_size, rest)[0]
    assert resumed["first_step"] == 2
    assert resumed["digests"] == expected["digests"]
    assert len(expected["digests"]) > 100


def fit_where_no_process_can_start(config):
    def refuse(process):
        raise AssertionError(f"{process} is started")

    BaseProcess.start = refuse
    return fit(config)


def test_without_workers_neither_training_nor_evaluation_starts_a_process(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run", evaluate_every=2, num_workers=0)
    assert run_ranks(fit_where_no_process_can_start, 1, config)[0]["outcome"] == "finished"


def test_a_signal_to_any_rank_saves_on_all_and_the_same_command_goes_on(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "stopped", total_steps=6)
    first = run_ranks(fit_with_signal_on_rank_1, 2, config)
    assert [rank["outcome"] for rank in first] == ["stopped", "stopped"]
    assert first[0]["step"] == first[1]["step"] < 6
    second = run_ranks(fit, 2, config)
    assert second[0]["first_step"] == first[0]["step"]
    assert second[0]["outcome"] == "finished"
    straight = run_ranks(fit, 2, tiny_config(tiny_shards, tmp_path / "straight", total_steps=6))
    assert second[0]["digests"] == straight[0]["digests"]


def fit_with_signal_on_rank_1(config):
    import os

    return fit(config, stop_after=2 if os.environ["RANK"] == "1" else None)


def test_another_number_of_ranks_sees_the_same_global_batches(tiny_shards, tmp_path):
    batches = []
    for world_size in (1, 2, 3):
        config = tiny_config(tiny_shards, tmp_path / f"ranks{world_size}", total_steps=5)
        ranks = run_ranks(fit, world_size, config)
        steps = zip(*(rank["keys"] for rank in ranks), strict=True)
        batches.append([list(chain.from_iterable(step)) for step in steps])
    assert batches[0] == batches[1] == batches[2]
    epoch = list(chain.from_iterable(batches[0][:4]))
    assert len(epoch) == len(set(epoch)) == 24


def test_a_finished_run_is_a_no_op(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run")
    run_ranks(fit, 1, config)
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    before = [path.stat().st_mtime_ns for path in checkpoints]
    again = run_ranks(fit, 1, config)[0]
    assert again["outcome"] == "already finished"
    assert again["keys"] == []
    assert [path.stat().st_mtime_ns for path in checkpoints] == before


def test_init_from_starts_at_step_0_with_the_other_runs_weights(tiny_shards, tmp_path):
    source = run_ranks(fit, 1, tiny_config(tiny_shards, tmp_path / "source"))[0]["digests"]
    config = tiny_config(
        tiny_shards, tmp_path / "next", init_from=tmp_path / "source", learning_rate=1e-30
    )
    started = run_ranks(fit, 1, config)[0]
    assert started["first_step"] == 0
    weights = [name for name in source if name.endswith(".weight") and "optimizer" not in name]
    assert len(weights) > 10
    for name in weights:  # nothing moved: the learning rate is too small to
        if "average" not in name:
            assert started["digests"][name] == source[name], name


def test_run_directory_of_another_training_is_refused_with_both_values(tiny_shards, tmp_path):
    run_ranks(fit, 1, tiny_config(tiny_shards, tmp_path / "run"))
    other = tiny_config(tiny_shards, tmp_path / "run", seed=7, l1_weight=10.0)
    messages = run_ranks(error_of, 2, other)
    assert messages[0] == messages[1]
    for words in ("seed: 0 there, 7 here", "l1_weight: 100.0 there, 10.0 here"):
        assert words in messages[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"global_batch": 7}, "does not divide by 2 ranks; use 6 or 8"),
        ({"global_batch": 30}, "24 samples, fewer than one global batch of 30"),
        ({"image_size": 128}, "--short_side 143"),
        ({"norm": "sync_batch"}, "sync_batch works on GPUs only"),
        ({"shards": Path("nowhere")}, "nowhere"),
        ({"init_from": Path("no_run")}, "there is no folder no_run"),
    ],
)
def test_a_users_mistake_is_one_message_the_same_on_every_rank(
    tiny_shards, tmp_path, changes, words
):
    config = tiny_config(changes.pop("shards", tiny_shards), tmp_path / "run", **changes)
    messages = run_ranks(error_of, 2, config)
    assert messages[0] == messages[1]
    assert words in messages[0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_sample_stops_every_rank_and_is_named(tiny_shards, tmp_path, num_workers):
    shards = copy_with_broken_pictures(tiny_shards, tmp_path / "shards")
    config = tiny_config(shards, tmp_path / "run", num_workers=num_workers, checkpoint_every=1)
    messages = run_ranks(error_of, 2, config)
    assert messages[0] == messages[1]
    assert "broken sample train-00000" in messages[0]


def copy_with_broken_pictures(source: Path, target: Path) -> Path:
    """The same shards, same sizes, with the scan data of every other shard's pictures zeroed."""
    target.mkdir()
    for path in source.iterdir():
        data = path.read_bytes()
        if path.name.startswith("train") and path.name[11] in "13":
            data = data.replace(b"\xff\xd8\xff\xe0", b"\0\0\0\0")
        (target / path.name).write_bytes(data)
    return target


def test_a_checkpoint_never_holds_what_a_broken_sample_touched(tiny_shards, tmp_path):
    shards = copy_with_broken_pictures(tiny_shards, tmp_path / "shards")
    config = tiny_config(shards, tmp_path / "run", checkpoint_every=1)
    run_ranks(error_of, 2, config)
    saved = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*"))
    good = tiny_config(tiny_shards, tmp_path / "good", checkpoint_every=1, keep_checkpoints=9)
    batches = run_ranks(fit, 2, good)
    broken_shards = ("train-000001", "train-000003")
    first_bad = next(
        step
        for step, keys in enumerate(zip(*(rank["keys"] for rank in batches), strict=True))
        if any(key.startswith(broken_shards) for part in keys for key in part)
    )
    assert saved == [f"step_{step:09d}" for step in range(1, first_bad + 1)][-3:]


def test_every_step_is_logged_once_also_over_a_resume_from_an_older_step(tiny_shards, tmp_path):
    run = tmp_path / "run"
    run_ranks(fit, 1, tiny_config(tiny_shards, run, total_steps=3, checkpoint_every=2))
    shutil.rmtree(run / "checkpoints" / "step_000000003")  # as if killed before it was saved
    (run / "metrics.jsonl").open("a").write('{"step": 4, "ha')  # and in the midst of a line
    resumed = run_ranks(fit, 1, tiny_config(tiny_shards, run, total_steps=5))[0]
    assert resumed["first_step"] == 2
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records if "loss/generator_l1" in record]
    assert steps == [1, 2, 3, 4, 5]
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("loss/generator_l1")] == steps
    wanted = {
        "loss/discriminator",
        "discriminator/real",
        "discriminator/fake",
        "colorfulness/fake",
        "colorfulness/real",
        "gradient_norm/generator",
        "optimizer/learning_rate",
        "speed/samples_per_second",
        "speed/share_waited_for_data",
        "memory/peak_gib",
    }
    assert wanted <= records[0].keys()


def test_pictures_and_evaluation_come_at_their_cadence_and_at_the_end(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run", sample_every=3, evaluate_every=2)
    run_ranks(fit, 2, config)
    pictures = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert pictures == ["step_000000003.png", "step_000000004.png"]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    evaluated = [r["step"] for r in map(json.loads, lines) if "evaluation/psnr" in r]
    assert evaluated == [2, 4]


def test_the_first_and_the_last_evaluation_measure_the_gray_photographs_too(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run", total_steps=3, evaluate_every=1)
    run_ranks(fit, 1, config)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    found = {r["step"]: r for r in map(json.loads, lines) if "baseline_gray/psnr" in r}
    assert list(found) == [1, 3]
    for metric in ("psnr", "ssim", "chroma_error", "colorfulness"):
        assert found[1][f"baseline_gray/{metric}"] == found[3][f"baseline_gray/{metric}"]
    assert found[1]["baseline_gray/colorfulness"] == pytest.approx(0, abs=1e-4)
    assert found[1]["baseline_gray/psnr"] > 10


def test_time_limit_saves_and_stops(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run", total_steps=500, time_limit_minutes=1e-4)
    stopped = run_ranks(fit, 2, config)
    assert stopped[0]["outcome"] == "stopped"
    assert (tmp_path / "run" / "checkpoints" / f"step_{stopped[0]['step']:09d}").is_dir()


def test_a_folder_of_other_things_is_no_run_directory(tiny_shards, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "aunt.jpg").write_bytes(b"dear")
    message = run_ranks(error_of, 1, tiny_config(tiny_shards, tmp_path / "photos"))[0]
    assert "choose another --run_dir" in message


def test_a_disk_too_full_for_two_checkpoints_is_an_error_before_training(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_free_disk(tmp_path, free // 3)
    with pytest.raises(UserError, match="GiB free, but two checkpoints need"):
        check_free_disk(tmp_path, free)
