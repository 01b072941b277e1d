"""What README and docs say is so: files, flags and targets exist, and every command works."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from pix2pix.benchmark.charts import TITLES
from tests.photographs import write_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}

# Each command of a `sh` block of the README is run, in order, in a copy of the checkout; with these
# flags, put in or in place of others, so that a network learns nothing in little time.
SMALLER = {
    "data_prep.make_shards": {"short_side": 72, "min_short_side": 72},
    "scripts/train.py": {
        "image_size": 64,
        "generator_width": 4,
        "discriminator_width": 4,
        "global_batch": 4,
        "total_steps": 2,
        "num_workers": 1,
    },
    "accelerate launch --multi_gpu": {"num_processes": 2},
}
SMALLER_DEMO = {"image_size": 64, "generator_width": 4, "discriminator_width": 4, "total_steps": 2}
# A suite does not run itself: .ci/run does.
NOT_HERE = ("make test",)
ON_A_CLUSTER = "-m slurm."  # tests/test_cluster_pages.py runs these
WITHOUT_END = "scripts/page.py"  # tests/test_page_in_browser.py runs it, and ends it

FLAG = re.compile(r"--(\w+)")
PROGRAM = re.compile(
    r"(?:python|launch[^\n]*?) "
    r"(-m data_prep\.\w+|-m slurm\.submit \w+|-m slurm\.\w+|scripts/benchmark\.py \w+|"
    r"scripts/\w+\.py)"
)


def sh_commands(page: str) -> list[str]:
    """The commands in the fenced `sh` blocks of a page, one string each."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def code_in_prose(page: str) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


@cache
def flags_of(program: str) -> frozenset[str]:
    """Every flag that the `--help` of a program names."""
    command = [sys.executable, *program.split(), "--help"]
    environment = os.environ | {"PYTHONPATH": "."}
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return frozenset(FLAG.findall(told.stdout))


def programs() -> list[str]:
    scripts = [f"scripts/{path.name}" for path in (ROOT / "scripts").glob("[a-z]*.py")]
    commands = [path for path in (ROOT / "data_prep").glob("*.py") if "main(" in path.read_text()]
    submissions = [f"-m slurm.submit {name}" for name in ("train", "evaluate", "shards")]
    benchmarks = [f"scripts/benchmark.py {name}" for name in (*TITLES, "summary")]
    return scripts + submissions + benchmarks + [f"-m data_prep.{path.stem}" for path in commands]


@pytest.mark.parametrize("page", PAGES)
def test_flags_of_every_command_exist(page):
    for command in sh_commands(PAGES[page]):
        program = PROGRAM.search(command)
        if program:
            named = set(FLAG.findall(command[program.end() :]))
            assert named <= flags_of(program[1]), command


@pytest.mark.parametrize("page", PAGES)
def test_flags_and_targets_in_prose_exist(page):
    known = frozenset().union(*map(flags_of, programs()))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text() + demo_mk(), re.MULTILINE)
    for code in code_in_prose(PAGES[page]):
        if code.startswith("--"):
            assert set(FLAG.findall(code)) <= known, code
        elif code.startswith("make "):
            named = {word for word in code.split()[1:] if "=" not in word}  # KILLS=100
            assert named <= set(targets), code


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = ROOT if (ROOT / page).exists() else ROOT / "docs"
    links = re.findall(r"\]\(([^)#]+)\)", PAGES[page])
    assert [link for link in links if "://" not in link and not (folder / link).exists()] == []


def test_the_table_of_files_is_complete():
    listed = re.findall(r"^\| `([\w/]+\.(?:py|yaml|mk))` \|", README, re.MULTILINE)
    files = [
        path
        for folder in ("pix2pix", "pix2pix/benchmark", "data_prep", "scripts", "slurm")
        for path in ROOT.glob(f"{folder}/*.py")
    ]
    files += [*ROOT.glob("recipes/*.yaml"), *ROOT.glob("*.mk")]
    assert sorted(listed) == sorted(str(path.relative_to(ROOT)) for path in files)


def demo_mk() -> str:
    return (ROOT / "demo.mk").read_text()


def smaller(command: str) -> str:
    command = re.sub(r"^make ", "make -o .venv/.installed-demo ", command)  # it is installed
    for program, flags in SMALLER.items():
        if program in command:
            command = with_flags(command, flags)
    return command


def with_flags(command: str, flags: Mapping[str, object]) -> str:
    """`command` with these flags, put in or in place of others."""
    for name, value in flags.items():
        command, count = re.subn(rf"--{name}[ =]\S+", f"--{name} {value}", command)
        command += "" if count else f" --{name} {value}"
    return command


@pytest.mark.system
@pytest.mark.timeout(900)
def test_every_command_of_readme_and_data_page_works(tmp_path):
    checkout = tmp_path / "checkout"
    left_out = shutil.ignore_patterns(".*", "runs", "out", "build", "dist", "__pycache__")
    shutil.copytree(ROOT, checkout, ignore=left_out)
    (checkout / ".venv").symlink_to(sys.prefix)
    recipe = checkout / "recipes" / "demo.yaml"
    text = recipe.read_text()
    for name, value in SMALLER_DEMO.items():
        text, count = re.subn(rf"^{name}:.*$", f"{name}: {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    recipe.write_text(text)
    write_folder(checkout / "photos", 40, width=90, height=72)
    write_folder(checkout / "old photographs", 2)

    commands = [
        smaller(command)
        for command in sh_commands(README) + sh_commands(PAGES["data.md"])
        if command not in NOT_HERE and ON_A_CLUSTER not in command and WITHOUT_END not in command
    ]
    script = "\n".join(["set -euxo pipefail", *commands])
    variables = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=checkout,
        env=os.environ | variables | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    made = ["out/demo/contact_sheet.png", "report.json", "colored", "runs/two/checkpoints"]
    made += ["sheet.png"]
    assert [name for name in made if not (checkout / name).exists()] == []
    for command in NOT_HERE:
        assert command in sh_commands(README)
        assert f"{command}\n" in (ROOT / ".ci" / "run").read_text()
