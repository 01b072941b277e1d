"""What people install: wheel and sdist hold every module, and work away from the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import pix2pix

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[1]
PACKAGES = ("pix2pix", "data_prep", "slurm")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command: str | Path, cwd: Path) -> str:
    ended = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in (*PACKAGES, "scripts", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    run(sys.executable, "-m", "build", cwd=checkout)
    return checkout / "dist"


def source_files() -> set[str]:
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    files |= {path for package in PACKAGES for path in (ROOT / package).rglob("*.md")}
    files |= {ROOT / package / "py.typed" for package in PACKAGES} | {*ROOT.glob("scripts/*.py")}
    return {str(path.relative_to(ROOT)) for path in files}


def test_the_wheel_holds_every_module_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"pix2pix-{pix2pix.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    installed = {name.replace("pix2pix/scripts/", "scripts/") for name in names}
    assert {name for name in installed if ".dist-info/" not in name} == source_files()
    assert any(name.endswith("LICENSE") for name in names)


def test_the_sdist_holds_every_module_readme_and_license(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert source_files() | {"README.md", "LICENSE", "setup.py", "pyproject.toml"} <= names


def install(folder: Path, *what: str | Path) -> Path:
    """The folder of programs of a new environment with `what` installed in it."""
    run(sys.executable, "-m", "venv", "--without-pip", "new", cwd=folder)
    programs = folder / "new" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--no-deps"]
    run(*pip, *what, cwd=folder)
    # Dependencies come from here. Through a .pth file: an editable install of ours stays behind.
    Path(site_of(programs), "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return programs


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel."""
    (wheel,) = built.glob("*.whl")
    return install(tmp_path_factory.mktemp("installed"), "--no-index", wheel)


def site_of(programs: Path) -> str:
    code = "import site; print(site.getsitepackages()[0])"  # Debian's Python has more
    return run(programs / "python", "-c", code, cwd=programs).strip()


def test_the_installed_wheel_works_away_from_the_checkout(installed, tmp_path):
    code = "import pix2pix, pix2pix.training.trainer; pix2pix.Colorizer; print(pix2pix.__file__)"
    told = run(installed / "python", "-c", code, cwd=tmp_path)
    assert told.strip() == f"{site_of(installed)}/pix2pix/__init__.py"
    text = run(installed / "python", "-m", "data_prep.make_shards", "--help", cwd=tmp_path)
    assert text.startswith("usage: python -m data_prep.make_shards --photos DIR")


def test_every_script_has_a_console_command_that_helps(installed, tmp_path):
    commands = {path.name.removeprefix("pix2pix-") for path in installed.glob("pix2pix-*")}
    scripts = {path.stem.replace("_", "-") for path in (ROOT / "scripts").glob("[a-z]*.py")}
    of_data_prep = {"make-shards", "merge-shards", "verify-shards", "preview-shards"}
    of_data_prep |= {"index-shards", "copy-shards"}
    of_slurm = {"submit", "status"}
    assert commands == scripts | of_data_prep | of_slurm | {"download-coco"}
    for name in commands:
        text = run(installed / f"pix2pix-{name}", "--help", cwd=tmp_path)
        assert text.startswith(f"usage: pix2pix-{name} ")


def test_a_checkout_that_is_installed_in_place_has_the_commands_too(built, tmp_path):
    programs = install(tmp_path, "--editable", built.parent)  # as the Makefile does
    text = run(programs / "pix2pix-train", "--help", cwd=tmp_path)
    assert text.startswith("usage: pix2pix-train --shards DIR")


def test_a_launcher_finds_the_scripts_of_the_wheel(installed, tmp_path):
    text = run(installed / "python", "-m", "pix2pix.scripts.train", "--help", cwd=tmp_path)
    assert text.startswith("usage: python -m pix2pix.scripts.train --shards DIR")


def test_the_workflow_runs_what_must_pass_on_the_least_python():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in [step.get("run") for step in steps]
    (python,) = [
        step["with"]["python-version"] for step in steps if "python" in str(step.get("uses"))
    ]
    assert f'python_requires=">={python}"' in (ROOT / "setup.py").read_text()


def test_the_changelog_has_this_version():
    assert f"## {pix2pix.__version__}" in (ROOT / "CHANGELOG.md").read_text()
