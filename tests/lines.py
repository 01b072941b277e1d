"""Count lines of code, without blanks, comments and docstrings: make lines."""

import ast
import io
import tokenize
from pathlib import Path

import grimp

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


def imported_by_trainer() -> list[Path]:
    """Return our files that the trainer imports, itself included, but for those of no code."""
    graph = grimp.build_graph("pix2pix", cache_dir=None)
    trainer = "pix2pix.training.trainer"
    modules = {trainer, *graph.find_upstream_modules(trainer)}
    files = [ROOT / f"{module.replace('.', '/')}.py" for module in sorted(modules)]
    return [file for file in files if file.exists()]


def main() -> None:
    """Print a line for the product, the core, what the trainer imports, and the tests."""
    product = [path for room in PRODUCT for path in (ROOT / room).rglob("*.py")]
    core = [ROOT / name for name in CORE]
    tests = [*(ROOT / "tests").rglob("*.py")]
    groups = {"product": product, "core": core, "trainer": imported_by_trainer(), "tests": tests}
    for name, files in groups.items():
        print(f"{name:8} {sum(map(code_lines, files)):7,} lines in {len(files)} files")
    for path in core:
        print(f"  {code_lines(path):5} {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
