"""Putting boards into a running Grafana over its HTTP API, again and again, without treading on anybody's changes.

Each save carries a message with the digest of what was saved. Grafana keeps messages with its versions of a board, so
the newest version tells whether somebody has saved the board since, whatever the server makes of the JSON itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import requests
from grafana_client import GrafanaApi  # type: ignore[import-untyped]
from grafana_client.client import GrafanaException  # type: ignore[import-untyped]

SECONDS: Final = 10.0
OLDEST: Final = (10, 0)
"""The oldest Grafana whose form of a board is known to fit."""

Kind = Literal["usage", "refused", "away"]
Outcome = Literal["created", "updated", "unchanged", "changed there"]
_MESSAGE: Final = "longwatch grafana push "
_NOT_FOUND, _FAULT = 404, 500
_ADDRESS: Final = "its address is the one that a browser opens"
_RIGHTS: Final = "its account needs the role Editor (folders:create, dashboards:create, dashboards:write)"
_TOKEN: Final = "make one for a service account, and set LONGWATCH_GRAFANA_TOKEN"  # noqa: S105 (advice, no password)
_EXPORT: Final = "see `longwatch grafana export`"
_CONFLICT: Final = "somebody has saved this moment, or another board has the title; look, and push again"


class PushFailed(Exception):
    """Grafana cannot be reached or does not take what it is given; the message says what to do.

    `kind` tells whose turn it is: the address is wrong, Grafana refuses, or it is away.
    """

    def __init__(self, words: str, kind: Kind = "away") -> None:
        self.words, self.kind = words, kind
        super().__init__(words)

    def __reduce__(self) -> tuple[type[PushFailed], tuple[str, Kind]]:
        """Survive pickling, which calls the class with its facts."""
        return PushFailed, (self.words, self.kind)


@dataclass(frozen=True)
class Pushed:
    """What became of one board."""

    uid: str
    title: str
    outcome: Outcome
    url: str
    version: int
    """There, 0: none; with a dry run that of before."""
    by: str = ""
    """Who has saved it there since the last push."""


class Target:
    """A Grafana, reached with a token."""

    def __init__(self, url: str, token: str) -> None:
        """Check the address; nothing is asked yet.

        Raises:
            PushFailed: the address is none.

        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise PushFailed(
                f"{_shown(url)} is no address of a Grafana: write http://HOST:3000 or https://HOST/PATH", "usage"
            )
        if parts.username or parts.password:
            raise PushFailed("the address holds a password: give a token in LONGWATCH_GRAFANA_TOKEN instead", "usage")
        self.url = url.rstrip("/")
        self._api = GrafanaApi.from_url(self.url + "/", credential=token, timeout=SECONDS)

    def check(self) -> str:
        """Give the version of the Grafana.

        Raises:
            PushFailed: there is none, or it is too old.

        """
        found = self._ask(self._api.health.check)
        version = str(found.get("version", "")) if isinstance(found, dict) else ""
        numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
        if not numbers:
            raise PushFailed(f"what answers at {self.url} is no Grafana: {_ADDRESS}", "usage")
        if numbers < OLDEST:
            raise PushFailed(f"Grafana {version} at {self.url} is too old: the boards need 10.0 or newer", "refused")
        return version

    def folder(self, title: str, *, dry: bool) -> str:
        """Find the folder of that title, or make it; its uid."""
        for each in self._ask(self._api.folder.get_all_folders):
            if each["title"] == title:
                return str(each["uid"])
        uid = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "longwatch"
        if not dry:
            self._ask(lambda: self._api.folder.create_folder(title, uid=uid))
        return uid

    def find(self, uid: str) -> dict[str, Any] | None:
        """Find a board with its `meta`; None: there is none."""
        try:
            found: dict[str, Any] = self._ask(lambda: self._api.dashboard.get_dashboard(uid), missing=True)
        except LookupError:
            return None
        return found

    def newest(self, uid: str) -> dict[str, Any]:
        """Give the newest entry of a board's history; empty: Grafana keeps none."""
        try:
            found = self._ask(lambda: self._api.client.GET(f"/dashboards/uid/{uid}/versions?limit=1"), missing=True)
        except LookupError:
            return {}
        versions = found.get("versions", ()) if isinstance(found, dict) else found
        return max(versions, key=lambda each: each["version"], default={})

    def save(self, payload: dict[str, Any]) -> dict[str, Any]:
        saved: dict[str, Any] = self._ask(lambda: self._api.dashboard.update_dashboard(payload))
        return saved

    def _ask(self, call: Callable[[], Any], *, missing: bool = False) -> Any:  # noqa: ANN401 (Grafana's JSON)
        try:
            return call()
        except GrafanaException as error:
            if missing and error.status_code == _NOT_FOUND:
                raise LookupError from None
            raise self._failed(error) from None
        except requests.exceptions.JSONDecodeError:
            raise PushFailed(f"what answers at {self.url} is no Grafana: {_ADDRESS}", "usage") from None
        except requests.exceptions.SSLError as error:
            raise PushFailed(f"the certificate of {self.url} is not trusted: {_reason(error)}") from None
        except requests.exceptions.Timeout:
            raise PushFailed(f"Grafana at {self.url} did not answer within {SECONDS:g} s; try again later") from None
        except requests.exceptions.RequestException as error:
            raise PushFailed(f"Grafana at {self.url} cannot be reached: {_reason(error)}; does it run there?") from None

    def _failed(self, error: GrafanaException) -> PushFailed:
        said = error.response.get("message", "") if isinstance(error.response, dict) else ""
        match error.status_code:
            case 400 if "provisioned" in said:
                return PushFailed(f"a board was provisioned from files and is changed there: {_EXPORT}", "refused")
            case 401:
                return PushFailed(f"Grafana at {self.url} does not know the token: {_TOKEN}", "refused")
            case 403:
                return PushFailed(f"Grafana at {self.url} knows the token and refuses it this: {_RIGHTS}", "refused")
            case 404:
                return PushFailed(f"nothing of Grafana's API is at {self.url}: {_ADDRESS}", "usage")
            case 412:
                return PushFailed(f"Grafana sees a conflict ({said or 'no word'}): {_CONFLICT}", "refused")
            case status:
                kind: Kind = "away" if status >= _FAULT else "refused"
                return PushFailed(f"Grafana at {self.url} answered {status}: {said or 'no word'}", kind)


def push(
    target: Target, boards: Sequence[dict[str, Any]], folder: str, *, force: bool = False, dry: bool = False
) -> Iterator[Pushed]:
    """Bring the boards there up to date, one after the other.

    A board that somebody has changed there is left alone, unless `force`; one that was moved stays where it is.

    Raises:
        PushFailed: Grafana does not take it; boards before it are saved.

    """
    target.check()
    place = target.folder(folder, dry=dry)
    for board in boards:
        yield _push(target, board, place, force=force, dry=dry)


def digest(board: dict[str, Any]) -> str:
    """Of what a board shows; the server's own fields are not in it."""
    kept = {name: value for name, value in board.items() if name not in {"id", "version"}}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _push(target: Target, board: dict[str, Any], folder: str, *, force: bool, dry: bool) -> Pushed:
    there = target.find(board["uid"])
    url = f"{target.url}/d/{board['uid']}"
    if there is None:
        saved = {} if dry else target.save(_payload(board, folder, 0, force=force))
        return Pushed(board["uid"], board["title"], "created", url, int(saved.get("version", 0)))
    version = int(there["dashboard"].get("version", 0))
    newest = target.newest(board["uid"])
    last = _last_push(newest)
    if digest(board) in {last, digest(there["dashboard"])}:
        return Pushed(board["uid"], board["title"], "unchanged", url, version)
    if not last and not force:
        by = str(newest.get("createdBy") or there["meta"].get("updatedBy") or "")
        return Pushed(board["uid"], board["title"], "changed there", url, version, by)
    place = there["meta"].get("folderUid") or folder
    saved = {} if dry else target.save(_payload(board, place, version, force=force))
    return Pushed(board["uid"], board["title"], "updated", url, int(saved.get("version", version)))


def _last_push(newest: dict[str, Any]) -> str:
    """Digest of the push that nobody has saved over since; empty: somebody has, or nobody can tell."""
    message = str(newest.get("message", ""))
    return message.removeprefix(_MESSAGE) if message.startswith(_MESSAGE) else ""


def _payload(board: dict[str, Any], folder: str, version: int, *, force: bool) -> dict[str, Any]:
    """Without `force` Grafana refuses it if somebody has saved another version meanwhile."""
    return {
        "dashboard": {**board, "id": None, "version": version},
        "folderUid": folder,
        "message": _MESSAGE + digest(board),
        "overwrite": force,
    }


def _shown(url: str) -> str:
    """An address without what may be a password."""
    return re.sub(r"//[^/@]*@", "//", url)


def _reason(error: Exception) -> str:
    """What the operating system or TLS says, in its words but without its number."""
    found = re.search(
        r"\[Errno -?\d+\] ([^'\")]+)|(certificate verify failed[^'\"(]*|Name or service not known)", str(error)
    )
    if not found:
        return type(error).__name__
    words = (found[1] or found[2]).strip()
    return words[:1].lower() + words[1:]
