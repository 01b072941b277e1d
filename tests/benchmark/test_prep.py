import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.pairs import PairSettings, make_pair
from pix2pix.benchmark.codecs import encode_pair, psnr_of_path
from pix2pix.benchmark.photographs import write_photographs
from pix2pix.photos.photo import open_photo
from tests.photographs import colorful, encoded

ROOT = Path(__file__).parents[2]
SETTINGS = PairSettings(short_side=48, min_short_side=40, min_chroma=4.0)


def test_the_codecs_that_bound_a_pair_make_the_pair() -> None:
    for file in (encoded(colorful(80, 64)), encoded(colorful(640, 480))):
        pair = make_pair(file, SETTINGS)
        assert encode_pair(file, 48) == (pair.gray_jpeg, pair.color_jpeg)


def test_quality_is_measured_against_whole_decoding() -> None:
    near, far = encoded(colorful(80, 64)), encoded(colorful(640, 480))
    assert psnr_of_path([near], 48) > 45
    assert 25 < psnr_of_path([far], 48) < psnr_of_path([near], 48)


def test_synthetic_photographs_are_as_large_as_cocos(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photos", 3)
    files = sorted((tmp_path / "photos").iterdir())
    assert {max(open_photo(file).size) for file in files} == {640}
    assert all(100_000 < file.stat().st_size < 200_000 for file in files)
    write_photographs(tmp_path / "again", 3)
    assert [f.read_bytes() for f in files] == [
        f.read_bytes() for f in sorted((tmp_path / "again").iterdir())
    ]


MEMORY = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from data_prep.photos import FolderSource
from data_prep.shard_file import make_shard
from pix2pix.system.machine import peak_memory
from tests.shard_runs import plans_for

def megabytes(task):
    make_shard(task, lambda: None)
    heavy = [name for name in sys.modules if name in ("torch", "fire", "pix2pix.cli.command_line")]
    return peak_memory() / 1e6, heavy

if __name__ == "__main__":
    (plan,) = plans_for(Path(sys.argv[1]), Path(sys.argv[2]), short_side=286, samples_per_shard=30)
    plan.root.mkdir()
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for task in sorted(plan.tasks, key=lambda task: len(task.members)):
            print(len(task.members), *pool.submit(megabytes, task).result())
"""


def test_a_worker_stays_small_however_many_photographs_it_has(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photos", 36)
    script = tmp_path / "run.py"
    script.write_text(MEMORY)
    run = subprocess.run(
        [sys.executable, script, tmp_path / "photos", tmp_path / "out"],
        env={"PYTHONPATH": ":".join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    (few, first, nothing), (many, last, nothing_more) = map(str.split, run.stdout.splitlines())
    assert (few, many, nothing, nothing_more) == ("6", "30", "[]", "[]")
    assert float(last) < 150
    assert float(last) - float(first) < 15


@pytest.mark.system
def test_the_command_reports_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "prep.json"
    flags = ["--num_workers", "2", "--rounds", "1", "--seconds_per_turn", "0.3"]
    command = [sys.executable, ROOT / "scripts" / "benchmark.py", "prep", *flags, "--json", file]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert max(len(line) for line in lines if str(file) not in line) <= 80
    figures = json.loads(file.read_text())
    rates = ["pairs_per_second", "codec_bound_pairs_per_second", "efficiency"]
    names = [*rates, *(f"one_process_{name}" for name in rates)]
    assert all(figures[name] > 0 for name in [*names, "worker_megabytes", "psnr_decibels"])
    assert figures["num_workers"] == 2
    assert 20 < figures["worker_megabytes"] < 250


@pytest.mark.system
def test_a_mistake_is_one_message() -> None:
    short = ["--rounds", "1", "--seconds_per_turn", "0.1", "--num_workers", "1"]
    flags = ["--photos", "/nowhere"]
    command = [sys.executable, ROOT / "scripts" / "benchmark.py", "prep", *short, *flags]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert "--photos /nowhere: there is no such folder" in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr
