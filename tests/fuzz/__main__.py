"""Damage files of every format and open them: a picture or a named reason, within limits.

    python -m tests.fuzz --mutations 2000 --seconds 600

Fails where something is raised that is no PhotoError, where a process dies that is not meant to,
and where a file takes more than 10 s or 1 GB. A failure names format and number: the same numbers
make the same files.
"""

import json
import subprocess
import sys
from dataclasses import dataclass, field

from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from tests.fuzz.seeds import SEEDS

MAX_SECONDS, MAX_BYTES = 10.0, 10**9


@dataclass(frozen=True)
class FuzzOptions:
    """Flags of `python -m tests.fuzz`."""

    mutations: int = option(2000, help="damaged files of each format", unit="files")
    seconds: float = option(600.0, help="longest that all of it may take", unit="seconds")
    formats: tuple[str, ...] = option(tuple(SEEDS), help="formats to damage")
    first: int = option(0, help="number of the first damaged file")


@dataclass
class Result:
    """What became of the damaged files of a format."""

    kind: str
    outcomes: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    peak_bytes: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        return (
            f"{self.kind:9} {sum(self.outcomes.values()):5} files: {told}; slowest "
            f"{self.slowest:.1f} s, most memory {self.peak_bytes / 1e9:.2f} GB"
        )


def fuzz_format(kind: str, first: int, count: int, seconds: float) -> Result:
    """Damage and open `count` files of a format, fewer if the time is over."""
    command = [sys.executable, "-m", "tests.fuzz.worker", kind, str(first), str(count)]
    ended = subprocess.run([*command, str(seconds)], capture_output=True, text=True, check=False)
    result, at = Result(kind), first
    for line in ended.stdout.splitlines():
        told = json.loads(line)
        at = told.get("at", at)
        if "traceback" in told:
            result.failures.append(f"{kind} {told['traceback']}: {told['text']}")
        if "outcomes" in told:
            result.outcomes = told["outcomes"]
            result.slowest, result.peak_bytes = told["slowest"], told["peak_bytes"]
    if ended.returncode:
        result.failures.append(f"{kind} {at}: status {ended.returncode} {ended.stderr[-2000:]}")
    if result.slowest > MAX_SECONDS:
        result.failures.append(f"{kind}: a file took {result.slowest:.1f} s")
    if result.peak_bytes > MAX_BYTES:
        result.failures.append(f"{kind}: a process took {result.peak_bytes / 1e9:.2f} GB")
    return result


def fuzz(options: FuzzOptions) -> int:
    """Damage files of every format and open them: a picture or a named reason, within limits."""
    failures = []
    for kind in options.formats:
        share = options.seconds / len(options.formats)
        result = fuzz_format(kind, options.first, options.mutations, share)
        print(result, flush=True)
        failures += result.failures
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    main(fuzz, FuzzOptions)
