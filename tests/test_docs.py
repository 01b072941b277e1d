"""What README and docs say is so: files, flags and targets exist, figures agree.

tests/test_docs_commands.py runs the commands.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from pix2pix.benchmark.charts import TITLES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}

ON_A_CLUSTER = "-m slurm."  # tests/slurm/test_cluster_pages.py runs these

FLAG = re.compile(r"--(\w+)")
LAUNCHER_FLAGS = {
    "cpu",
    "multi_gpu",
    "num_processes",
    "num_machines",
    "mixed_precision",
    "dynamo_backend",
    "main_process_port",
}
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
    submissions = [
        f"-m slurm.submit {name}" for name in ("train", "sweep", "evaluate", "shards", "doctor")
    ]
    benchmarks = [f"scripts/benchmark.py {name}" for name in (*TITLES, "summary")]
    submissions.append("-m slurm.status")
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
    known = LAUNCHER_FLAGS.union(*map(flags_of, programs()))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text() + demo_mk(), re.MULTILINE)
    for code in code_in_prose(PAGES[page]):
        if code.startswith("--"):
            assert set(FLAG.findall(code)) <= known, code
        elif code.startswith("make "):
            named = {word for word in code.split()[1:] if "=" not in word}  # KILLS=100
            assert named <= set(targets), code


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    code = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)", code.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = ROOT if (ROOT / page).exists() else ROOT / "docs"
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = folder / (path or page)
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_the_table_of_files_is_complete():
    listed = re.findall(
        r"^\| `([\w/]+\.(?:py|yaml|mk))` \|", PAGES["architecture.md"], re.MULTILINE
    )
    files = [
        path
        for folder in ("pix2pix", "data_prep", "scripts", "slurm")
        for path in ROOT.glob(f"{folder}/**/*.py")
        if path.name != "__init__.py"
    ]
    files += [*ROOT.glob("recipes/*.yaml"), *ROOT.glob("*.mk")]
    assert sorted(listed) == sorted(str(path.relative_to(ROOT)) for path in files)


def demo_mk() -> str:
    return (ROOT / "demo.mk").read_text()


def with_flags(command: str, flags: Mapping[str, object]) -> str:
    """`command` with these flags, put in or in place of others."""
    for name, value in flags.items():
        command, count = re.subn(rf"--{name}[ =]\S+", f"--{name} {value}", command)
        command += "" if count else f" --{name} {value}"
    return command


def test_figures_of_the_readme_stand_in_the_page_that_it_names():
    rows = re.findall(r"^\| (.*) \| \[docs/([\w.]+)\]", README, re.MULTILINE)
    assert len(rows) >= 4
    for row, page in rows:
        figures = re.findall(r"\d[\d.,]*", row)
        assert figures
        told = re.findall(r"\d[\d.,]*", PAGES[page])
        missing = [n for n in figures if n.rstrip(".,") not in {word.rstrip(".,") for word in told}]
        assert missing == [], row
