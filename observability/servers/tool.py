"""The servers that can be built: versions, Go packages, and which programs of one's own serve too."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

Version = tuple[int, ...]

_VERSION: Final = re.compile(r"\bv?(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Tool:
    """One Go tool module of the folder `tools`, and what comes of it."""

    name: str
    version: str
    programs: tuple[str, ...]
    """Names of the programs that are built; the first one is the server."""
    packages: tuple[str, ...]
    """Go packages of the programs, in the same order."""
    go: Version
    """The oldest Go that builds it."""
    minimum: Version
    """The oldest version on PATH that serves."""
    minutes: int
    """About how long the first build takes on two cores."""
    aliases: tuple[str, ...] = ()
    """Other names of the server's program."""
    version_words: tuple[str, ...] = ("--version",)
    tags: str = ""
    link: str = "-s -w"
    """Flags of Go's linker."""
    module: Path | None = None
    """The folder of its go.mod; None: the one of its name among ours."""

    @property
    def folder(self) -> Path:
        """Where its go.mod and go.sum are: in the wheel, else in the clone.

        The wheel holds `tools` inside this package (see `force-include` in pyproject.toml).
        """
        if self.module is not None:
            return self.module
        inside = Path(__file__).parent / "tools" / self.name
        return inside if inside.is_dir() else Path(__file__).parents[2] / "tools" / self.name

    @property
    def setting(self) -> str:
        """The environment variable that names a program to take."""
        return f"LONGWATCH_{self.name.upper()}"

    @property
    def key(self) -> str:
        """Name of its folder in the cache: another sum or flag is another build."""
        digest = sha256((self.folder / "go.mod").read_bytes() + (self.folder / "go.sum").read_bytes())
        digest.update(f"{self.tags}\n{self.link}\n{self.packages}".encode())
        return f"{self.name}-{self.version}-{digest.hexdigest()[:12]}"


JAEGER: Final = Tool(
    name="jaeger",
    version="2.13.0",
    programs=("jaeger",),
    packages=("github.com/jaegertracing/jaeger/cmd/jaeger",),
    go=(1, 25),
    minimum=(2, 13),
    minutes=7,
    aliases=("jaeger-all-in-one",),
    version_words=("version",),
    link="-s -w -X github.com/jaegertracing/jaeger/internal/version.latestVersion=v2.13.0",
)
"""The release is v1.76.0 and v2.13.0 at once. Older ones were not tried with the configuration that is written here."""

PROMETHEUS: Final = Tool(
    name="prometheus",
    version="3.9.1",
    programs=("prometheus", "promtool"),
    packages=(
        "github.com/prometheus/prometheus/cmd/prometheus",
        "github.com/prometheus/prometheus/cmd/promtool",
    ),
    go=(1, 26),
    minimum=(2, 42),
    minutes=5,
    tags="remove_all_sd",
    link="-s -w -X github.com/prometheus/common/version.Version=3.9.1",
)
"""The module is v0.309.1; Debian's 2.42 was tried with all boards and alerts too.

Without its finders of services in clouds (`remove_all_sd`) it is half the work.
"""

TOOLS: Final = {tool.name: tool for tool in (JAEGER, PROMETHEUS)}


@dataclass(frozen=True)
class Installed:
    """Programs of a tool that can be started."""

    tool: Tool
    paths: dict[str, Path] = field(default_factory=dict)
    origin: str = "built"
    """`built`, or where a program of one's own was found: `PATH`, or the environment variable's name."""

    @property
    def server(self) -> Path:
        return self.paths[self.tool.programs[0]]

    @property
    def has_page(self) -> bool:
        """Whether it has its page: Go's modules hold the programs whole, but not the pages that npm makes."""
        return self.origin != "built"


def version_in(text: str) -> Version:
    """The first version in what a program says of itself; empty if there is none."""
    found = _VERSION.search(text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def show_version(version: Version) -> str:
    return ".".join(str(part) for part in version)
