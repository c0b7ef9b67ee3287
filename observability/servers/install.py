"""`python -m observability.servers.install`: see to it that Jaeger and Prometheus are on this machine.

A program of one's own is taken first: the one that `LONGWATCH_JAEGER` or `LONGWATCH_PROMETHEUS` names, then one on
PATH. Else it is built from its tool module, once, into the cache: in a folder aside, which is then renamed, so that a
build that ends early leaves nothing behind that looks like a server.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Final

from observability.servers import bound
from observability.servers.cache import cache_folder, only_one
from observability.servers.errors import ServerMissing
from observability.servers.golang import Go, find_go
from observability.servers.progress import Progress
from observability.servers.tool import TOOLS, Installed, Tool, show_version, version_in

_LOOK_SECONDS: Final = 0.2
_LAST_LINES: Final = 20


def ensure(tool: Tool, progress: Progress | None = None) -> Installed:
    """Programs of a server: found, or built now, which may take minutes.

    Raises:
        ServerMissing: with what Go said last.
    """
    progress = progress or Progress()
    if installed := find(tool):
        return installed
    with only_one(tool.name, progress):
        if installed := _built(tool):
            return installed
        go = find_go(tool.go, progress)
        _build(tool, go, progress)
    if installed := _built(tool):
        return installed
    raise ServerMissing(f"Go built {tool.name}, and {cache_folder() / tool.key} holds no program that runs")


def find(tool: Tool) -> Installed | None:
    """What serves without building anything; None: nothing does.

    Raises:
        ServerMissing: the environment variable names a program that does not serve.
    """
    return _named(tool) or _on_path(tool) or _built(tool)


def _named(tool: Tool) -> Installed | None:
    given = os.environ.get(tool.setting, "")
    if not given:
        return None
    path = Path(given).expanduser().absolute()
    if path.is_dir():
        path /= tool.programs[0]
    said = _say_version(path, tool)
    if said is None:
        raise ServerMissing(f"{tool.setting}={given}: that is no program that tells its version; name another")
    version = version_in(said)
    if version and version < tool.minimum:
        raise ServerMissing(
            f"{tool.setting}={given}: it is {show_version(version)}, and {show_version(tool.minimum)} or newer is"
            " wanted; name another, or leave the variable out"
        )
    paths = {tool.programs[0]: path}
    for other in tool.programs[1:]:
        found = path.with_name(other) if path.with_name(other).exists() else Path(shutil.which(other) or "")
        if not found.is_file():
            raise ServerMissing(f"{tool.setting}={given}: {other} is neither beside it nor on PATH; install it too")
        paths[other] = found
    return Installed(tool, paths, tool.setting)


def _on_path(tool: Tool) -> Installed | None:
    others = {name: Path(shutil.which(name) or "") for name in tool.programs[1:]}
    if not all(path.is_file() for path in others.values()):
        return None
    for name in (tool.programs[0], *tool.aliases):
        path = shutil.which(name)
        version = version_in(_say_version(Path(path), tool) or "") if path else ()
        if path and version >= tool.minimum:
            return Installed(tool, {tool.programs[0]: Path(path), **others}, "PATH")
    return None


def _built(tool: Tool) -> Installed | None:
    folder = cache_folder() / tool.key
    paths = {name: folder / name for name in tool.programs}
    return Installed(tool, paths) if all(os.access(path, os.X_OK) for path in paths.values()) else None


def _say_version(path: Path, tool: Tool) -> str | None:
    """What a program says of itself; None: it cannot be asked."""
    try:
        said = subprocess.run([str(path), *tool.version_words], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if said.returncode else said.stdout + said.stderr


def _build(tool: Tool, go: Go, progress: Progress) -> None:
    target = cache_folder() / tool.key
    for left in target.parent.glob(f".{tool.name}-*.new"):  # of a build that was killed; we hold its lock
        shutil.rmtree(left, ignore_errors=True)
    aside = target.with_name(f".{tool.key}.new")
    aside.mkdir()
    progress.begin(
        f"building {tool.name} {tool.version} with Go {show_version(go.version)} into {target}"
        f" (once; about {tool.minutes} minutes on two cores)"
    )
    began = time.monotonic()
    try:
        for program, package in zip(tool.programs, tool.packages, strict=True):
            _compile(tool, go, package, aside / program, progress)
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        progress.done()
    progress.say(f"{tool.name} {tool.version} is built, after {time.monotonic() - began:.0f} s")


def _compile(tool: Tool, go: Go, package: str, program: Path, progress: Progress) -> None:
    command = [go.path, "build", "-v", "-mod=readonly", "-buildvcs=false", f"-ldflags={tool.link}"]
    command += [f"-tags={tool.tags}"] if tool.tags else []
    process = subprocess.Popen(
        bound.command([*command, "-o", str(program), package]),
        cwd=tool.folder,
        env=go.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C ends Go and every compiler that it started together: see below
    )
    listener = _Listener(process)
    try:
        while listener.lives:
            progress.show(f"{program.name}: {listener.fetched} modules fetched, {listener.compiled} packages compiled")
            listener.join(_LOOK_SECONDS)
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        end = "\n".join(listener.last)
        raise ServerMissing(
            f"{tool.name} {tool.version} cannot be built (go build ended with code {process.returncode}); set"
            f" {tool.setting} to a program of {show_version(tool.minimum)} or newer, or see to what Go says:\n{end}"
        )


class _Listener:
    """Reads what Go says while it builds."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.fetched = self.compiled = 0
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        self._process = process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def lives(self) -> bool:
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _read(self) -> None:
        with self._process.stdout or nullcontext(()) as lines:
            for line in lines:
                self._hear(line.strip())

    def _hear(self, words: str) -> None:
        if words.startswith("go: downloading "):
            self.fetched += 1
        elif words and " " not in words and ":" not in words:  # -v names each package as it is compiled
            self.compiled += 1
        else:
            self.last.append(words)


def main(given: Sequence[str] | None = None) -> int:
    """Set the servers up; 0 when they are there."""
    parser = argparse.ArgumentParser(prog="python -m observability.servers.install", description=__doc__)
    parser.add_argument("servers", nargs="*", choices=[*TOOLS, []], help="which; default: both")
    parser.add_argument("--quiet", "-q", action="store_true", help="no word when they are there already")
    options = parser.parse_args(given)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up as Ctrl-C does
    progress = Progress()
    try:
        for name in options.servers or TOOLS:
            installed = ensure(TOOLS[name], progress)
            if not options.quiet:
                progress.say(f"{name}: {installed.server} ({installed.origin})")
    except ServerMissing as error:
        progress.say(f"servers: {error}")
        return 1
    except KeyboardInterrupt:
        progress.say("interrupted; nothing half-built was left")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
