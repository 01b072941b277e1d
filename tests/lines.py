"""Count lines of code, without blanks, comments and docstrings: make lines."""

import ast
import contextlib
import io
import subprocess
import sys
import tempfile
import tokenize
from pathlib import Path

import grimp

from data_prep.make_shards import MakeShardsOptions, make_shards
from tests.photographs import write_folder

ROOT = Path(__file__).parents[1]
PRODUCT = ("pix2pix", "data_prep", "slurm", "scripts")
CORE = (  # what a newcomer reads first
    "pix2pix/config.py",
    "pix2pix/model/networks.py",
    "pix2pix/model/losses.py",
    "pix2pix/data/order.py",
    "pix2pix/data/batches.py",
    "pix2pix/training/step.py",
    "pix2pix/training/trainer.py",
    "pix2pix/run/checkpoint.py",
    "pix2pix/run/distributed.py",
)
ONE_STEP = """
import sys
from pathlib import Path
from pix2pix.config import TrainConfig
from pix2pix.run.distributed import Distributed
from pix2pix.training.trainer import Trainer

shards, run = sys.argv[1:]
small = dict(image_size=64, global_batch=4, generator_width=4, discriminator_width=4)
config = TrainConfig(shards=(shards,), run_dir=Path(run), total_steps=1, num_workers=0, **small)
Trainer(config, Distributed()).fit()
print(*sys.modules)
"""
_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


def code_lines(path: Path) -> int:
    """Return how many lines of a Python file hold code."""
    text = path.read_text()
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and ast.get_docstring(node, clean=False) is not None:
                lines -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


def loaded_by_trainer() -> list[Path]:
    """Return our files that the trainer has loaded after a plain training, `__init__.py` aside.

    One step on a folder of prepared shards, with pictures, an evaluation and a checkpoint. Batches
    are decoded in the process itself, so what a loader worker loads counts, too.
    """
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "shards"
        for split in ("train", "val"):
            photos = write_folder(Path(folder) / split, 6, width=90, height=72)
            options = {"photos": photos, "out": shards, "split": split, "short_side": 72}
            with contextlib.redirect_stdout(io.StringIO()):
                make_shards(MakeShardsOptions(**options, num_workers=1))
        done = subprocess.run(
            [sys.executable, "-c", ONE_STEP, shards, Path(folder) / "run"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    modules = done.stdout.splitlines()[-1].split()
    return _files_of([name for name in modules if name.split(".")[0] in PRODUCT])


def reached_by_trainer() -> list[Path]:
    """Return our files that a training can load: every import counts, within functions, too."""
    graph = grimp.build_graph("pix2pix", cache_dir=None)
    trainer = "pix2pix.training.trainer"
    return _files_of([trainer, *graph.find_upstream_modules(trainer)])


def _files_of(modules: list[str]) -> list[Path]:
    files = [ROOT / f"{module.replace('.', '/')}.py" for module in sorted(modules)]
    return [file for file in files if file.exists()]


def main() -> None:
    """Print a line for the product, the core, what the trainer loads and could load, the tests."""
    core = [ROOT / name for name in CORE]
    groups = {
        "product": [path for room in PRODUCT for path in (ROOT / room).rglob("*.py")],
        "core": core,
        "loaded by the trainer": loaded_by_trainer(),
        "within reach of the trainer": reached_by_trainer(),
        "tests": [*(ROOT / "tests").rglob("*.py")],
    }
    for name, files in groups.items():
        print(f"{name:27} {sum(map(code_lines, files)):7,} lines in {len(files)} files")
    for path in core:
        print(f"  {code_lines(path):5} {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
