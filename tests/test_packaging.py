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
    for name in (*PACKAGES, "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    run(sys.executable, "-m", "build", cwd=checkout)
    return checkout / "dist"


def source_files() -> set[str]:
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    files |= {ROOT / package / "py.typed" for package in PACKAGES}
    return {str(path.relative_to(ROOT)) for path in files}


def test_the_wheel_holds_every_module_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"pix2pix-{pix2pix.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == source_files()
    assert any(name.endswith("LICENSE") for name in names)


def test_the_sdist_holds_every_module_readme_and_licence(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert source_files() | {"README.md", "LICENSE", "setup.py", "pyproject.toml"} <= names


def test_the_installed_wheel_works_away_from_the_checkout(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", "new", cwd=tmp_path)
    python = tmp_path / "new" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    run(*pip, wheel, cwd=tmp_path)
    site = run(python, "-c", "import site; print(*site.getsitepackages())", cwd=tmp_path).strip()
    # Dependencies come from here. Through a .pth file: an editable install of ours stays behind.
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    code = "import pix2pix, pix2pix.trainer, pix2pix.colorizer; print(pix2pix.__file__)"
    assert run(python, "-c", code, cwd=tmp_path).strip() == f"{site}/pix2pix/__init__.py"
    text = run(python, "-m", "data_prep.make_shards", "--help", cwd=tmp_path)
    assert text.startswith("usage: python -m data_prep.make_shards --photos DIR")
