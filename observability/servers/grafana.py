"""Grafana, where one is on the machine: it is in no registry, so none is built."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from observability.servers.ports import LOOPBACK, free_ports
from observability.servers.process import Server

WISHED: Final = 3000
SETTING: Final = "LONGWATCH_GRAFANA"
_HOMES: Final = (Path("/usr/share/grafana"), Path("/usr/local/share/grafana"))
"""Where packages put Grafana's own files."""


def find_grafana() -> Path | None:
    """The program that LONGWATCH_GRAFANA names, else `grafana` or `grafana-server` on PATH; None: there is none."""
    given = os.environ.get(SETTING, "")
    for name in (given,) if given else ("grafana", "grafana-server"):
        if found := shutil.which(name):
            return Path(found)
    return None


class Grafana(Server):
    """One Grafana for whoever is on this machine: everybody may look and edit, nobody signs in."""

    name = "grafana"

    def __init__(self, folder: Path, program: Path, provisioning: Path, *, known_port: bool = False) -> None:
        """Prepare; nothing is started yet.

        Args:
            folder: its data and log are written to a folder in there.
            program: what `find_grafana` found.
            provisioning: a folder with `datasources` and `dashboards`, as Grafana's manual describes it.
            known_port: take 3000 where it is free.

        """
        super().__init__(folder)
        self._program, self._provisioning = program, provisioning.absolute()
        self._wished = WISHED if known_port else 0
        self._port = 0

    def prepare(self) -> Sequence[str]:
        (self._port,) = free_ports((self._wished,))
        self.url = f"http://{LOOPBACK}:{self._port}"
        words = [] if self._program.name == "grafana-server" else ["server"]
        home = _home(self._program)
        return [str(self._program), *words, *(["--homepath", str(home)] if home else [])]

    def health(self) -> str:
        return f"{self.url}/api/health"

    def environment(self) -> Mapping[str, str]:
        """Its settings: each of its ini file's can be given so."""
        return {
            **os.environ,
            "GF_SERVER_HTTP_ADDR": LOOPBACK,
            "GF_SERVER_HTTP_PORT": str(self._port),
            "GF_PATHS_DATA": str(self.folder / "data"),
            "GF_PATHS_LOGS": str(self.folder),
            "GF_PATHS_PLUGINS": str(self.folder / "plugins"),
            "GF_PATHS_PROVISIONING": str(self._provisioning),
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_ANONYMOUS_ORG_ROLE": "Editor",
            "GF_AUTH_DISABLE_LOGIN_FORM": "true",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        }


def _home(program: Path) -> Path | None:
    """The folder of Grafana's own files: around the program in an archive, of its own in a package."""
    for place in (program.resolve().parent.parent, *_HOMES):
        if (place / "conf" / "defaults.ini").exists():
            return place
    return None
