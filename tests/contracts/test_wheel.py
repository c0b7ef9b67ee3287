"""The wheel carries every file of the packages, their types, the licence and the command."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("engine", "workflows", "observability", "grafana")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def test_every_file_of_the_packages_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    command = ["git", "ls-files", "-z", *PACKAGES]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    here = {name for name in listed.split("\0") if name and (ROOT / name).exists()}

    assert here - set(wheel.namelist()) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_is_typed(package: str, wheel: zipfile.ZipFile) -> None:
    assert f"{package}/py.typed" in wheel.namelist()


def test_nothing_else_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_the_command_and_the_licence_come_along(wheel: zipfile.ZipFile) -> None:
    names = {name.split("/", 1)[1]: name for name in wheel.namelist() if ".dist-info/" in name}

    assert "licenses/LICENSE" in names
    assert "longwatch = engine.cli:main" in wheel.read(names["entry_points.txt"]).decode()


def test_a_project_of_the_wheel_alone_passes_its_own_tests(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Only the unpacked wheel is on the path, in a place away from the clone."""
    wheel.extractall(tmp_path / "unpacked")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "unpacked"), "PYTHONSAFEPATH": "1"}

    def python(*arguments: str, folder: Path = tmp_path) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert str(tmp_path) in python("-c", "import engine; print(engine.__file__)")

    python("-m", "engine.cli", "new", "my-shop")
    python("-m", "engine.cli", "check", folder=tmp_path / "my-shop")
    python("-m", "pytest", folder=tmp_path / "my-shop")
