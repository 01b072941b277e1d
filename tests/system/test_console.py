"""Promises about what is printed: it may be lost, but never ends the process."""

import os
import subprocess
import sys

import pytest

CODE = (
    "import sys\n"
    "from pix2pix.system.console import never_fail\n"
    "never_fail()\n"
    "for _ in range(5000):\n"
    "    print('training on 8 × GPU → λ', flush=True)\n"
    "    print('a warning …', file=sys.stderr)\n"
    "print(sys.stdout.isatty(), sys.stderr.isatty())\n"
    "open(sys.argv[1], 'w').write('done')\n"
)


def run(tmp_path, redirection="", **environment):
    command = f'"{sys.executable}" -c "$CODE" "{tmp_path / "mark"}" {redirection}'
    ended = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "CODE": CODE, **environment},
        capture_output=True,
    )
    assert (tmp_path / "mark").read_text() == "done", ended.stderr
    return ended


@pytest.mark.parametrize(
    "redirection",
    [">&-", "2>&-", ">&- 2>&-", ">/dev/full", ">/dev/full 2>&1", "2>&1 | head -1; sleep 1"],
)
def test_an_output_that_takes_nothing_is_no_error(tmp_path, redirection):
    run(tmp_path, redirection)


def test_a_closed_output_is_not_written_into_the_next_file_that_is_opened(tmp_path):
    files = "files = [open(sys.argv[1] + name, 'w') for name in '123']\n"
    raw = "import os\nos.write(1, b'x')\nos.write(2, b'x')\n"  # as a handler of signals does
    code = CODE.replace("\nnever_fail()\n", f"\nnever_fail()\n{files}{raw}")
    command = f'"{sys.executable}" -c "$CODE" "{tmp_path / "mark"}" >&- 2>&-'
    subprocess.run(["bash", "-c", command], env={**os.environ, "CODE": code}, check=True)
    assert [(tmp_path / f"mark{name}").read_text() for name in "123"] == ["", "", ""]


def test_letters_that_the_encoding_lacks_become_question_marks(tmp_path):
    ended = run(tmp_path, PYTHONIOENCODING="ascii")
    assert ended.stdout.splitlines()[0] == b"training on 8 ? GPU ? ?"
    assert ended.stderr.splitlines()[0] == b"a warning ?"
