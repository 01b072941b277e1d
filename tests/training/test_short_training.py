"""The whole way once, on photographs: what it paints beats leaving them gray."""

import pytest

from data_prep.make_shards import MakeShardsOptions, make_shards
from data_prep.sample_photos import SamplePhotosOptions, write_sample_photos
from pix2pix.evaluation.run_evaluation import measure_run
from pix2pix.run.distributed import Distributed
from pix2pix.training.trainer import Trainer
from tests.ranks import run_ranks
from tests.small_training import tiny_config


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The packaged photographs: regions to train on, other regions and a photograph kept out."""
    folder = tmp_path_factory.mktemp("photographs")
    write_sample_photos(SamplePhotosOptions(out=folder / "photos"))
    for split in ("train", "val"):
        make_shards(
            MakeShardsOptions(
                photos=folder / "photos" / split,
                out=folder / "shards",
                split=split,
                short_side=72,
                num_workers=1,
            )
        )
    return folder / "shards"


def train_and_evaluate(config):
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    Trainer(config, distributed).fit()
    run = measure_run(config.run_dir, config.shards, "val", distributed, num_workers=0)
    distributed.shutdown()
    return run.report


def test_a_short_training_on_real_photographs_beats_the_gray_baseline(shards, tmp_path):
    """Of five seeds, the worst was 2.6 dB above gray and had 0.71 of its chroma error."""
    config = tiny_config(
        shards,
        tmp_path / "run",
        global_batch=8,
        total_steps=100,
        generator_width=16,
        discriminator_width=16,
        learning_rate=1e-3,
        gan_loss="least_squares",
        log_every=0,
    )
    report = run_ranks(train_and_evaluate, 1, config)[0]
    assert report["num_samples"] == 7
    assert report["psnr"] > report["gray"]["psnr"] + 1
    assert report["chroma_error"] < 0.85 * report["gray"]["chroma_error"]
    assert 0.4 < report["colorfulness"] / report["colorfulness_truth"] < 1.6
