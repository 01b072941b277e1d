"""The command slurm.submit in this process, and the script that it shows."""

import shlex
from pathlib import Path

import pytest

from pix2pix.cli.command_line import main
from slurm.submit import COMMANDS
from tests.slurm.jobs import flags_of
from tests.small_training import tiny_config


def submit(capsys, *arguments: str) -> tuple[int, str, str]:
    """(exit status, stdout, stderr with its line breaks taken out)."""
    with pytest.raises(SystemExit) as ended:
        main(COMMANDS, argv=[str(argument) for argument in arguments])
    told = capsys.readouterr()
    return ended.value.code, told.out, " ".join(told.err.split())


def train(shards: Path, run_dir: Path, **changes) -> list[str]:
    return ["train", *flags_of(tiny_config(shards, run_dir), **changes)]


def script_of(shown: str) -> str:
    return shown[: shown.index("\n{")]


def sbatch_lines(script: str) -> list[str]:
    words = [line.partition(" ")[2] for line in script.splitlines() if line.startswith("#SBATCH ")]
    return ["=".join(shlex.split(word)) for word in words]
