"""The tests that are marked gpu, as a section of the report."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from pix2pix.gpu.sections import Row, Trial

PROCESSES = 4  # each test needs little of a GPU, and waits for its processes to start


def tests(trial: Trial) -> Iterator[Row]:
    """Yield how many tests passed and failed, then a row for each that failed.

    Raises RuntimeError where one failed, or there was none.
    """
    missing = [name for name in trial.tests if not Path(name).exists()]
    if missing:
        raise RuntimeError(f"there is no {missing[0]} here: run this in a checkout")
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        report = Path(name, "report.xml")
        flags = ["-m", "gpu", "-v", "--numprocesses", str(PROCESSES), f"--junitxml={report}"]
        ended = subprocess.run([sys.executable, "-m", "pytest", *flags, *trial.tests])
        if not report.exists():
            raise RuntimeError(f"pytest ended with status {ended.returncode}; is it installed?")
        cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [case for case in cases if any(child.tag != "properties" for child in case)]
    seconds = sum(float(case.get("time", 0)) for case in cases)
    yield {"passed": len(cases) - len(bad), "failed": len(bad), "seconds of all": seconds}
    for case in bad:
        yield {"test": f"{case.get('classname')}.{case.get('name')}", "why": _reason(case)}
    if bad or not cases or ended.returncode:
        raise RuntimeError(f"{len(bad)} of {len(cases)} tests failed")


def _reason(case: ElementTree.Element) -> str:
    """Return the message of a failure, an error or a skip, in a line."""
    messages = [child.get("message") or child.tag for child in case]
    return " ".join(messages[0].split())[:200]
