"""A small client of Flink's REST interface: the standard library, blocking, each call with a timeout.

Flink's page: https://nightlies.apache.org/flink/flink-docs-stable/docs/ops/rest_api/
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.05

ENDED: Final = frozenset({"FAILED", "CANCELED", "FINISHED", "SUSPENDED"})
"""The statuses that a job never leaves."""


class FlinkUnreachable(RuntimeError):
    """Flink's REST interface did not answer.

    Attributes:
        url: what was asked.
        why: what happened instead.

    """

    def __init__(self, url: str, why: str) -> None:
        self.url, self.why = url, why
        super().__init__(f"Flink does not answer at {url}: {why}. Its log is logs/flink.log in the data folder.")

    def __reduce__(self) -> tuple[type[FlinkUnreachable], tuple[str, str]]:
        """Survive pickling, which calls the class with its facts."""
        return FlinkUnreachable, (self.url, self.why)


class FlinkRefused(RuntimeError):
    """Flink answered with an error.

    Attributes:
        url: what was asked.
        code: the HTTP status.
        why: Flink's own words.

    """

    def __init__(self, url: str, code: int, why: str) -> None:
        self.url, self.code, self.why = url, code, why
        super().__init__(f"Flink refused {url} with {code}: {why}")

    def __reduce__(self) -> tuple[type[FlinkRefused], tuple[str, int, str]]:
        """Survive pickling, which calls the class with its facts."""
        return FlinkRefused, (self.url, self.code, self.why)


class SavepointFailed(RuntimeError):
    """A savepoint was not made.

    Attributes:
        why: Flink's own words, or that the time was up.

    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"The savepoint was not made: {why}")

    def __reduce__(self) -> tuple[type[SavepointFailed], tuple[str]]:
        """Survive pickling, which calls the class with its facts."""
        return SavepointFailed, (self.why,)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A completed checkpoint or savepoint that Flink keeps."""

    id: int
    trigger_timestamp: int
    """Wall milliseconds since the epoch: it covers what was published before."""
    path: str
    """A folder of the local disk."""
    is_savepoint: bool
    size: int
    """Bytes written for it."""
    duration_ms: int


class Rest:
    """One Flink cluster at `url`, such as `http://localhost:8081`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @property
    def port(self) -> int:
        """The port of the interface."""
        return urlsplit(self.url).port or 80

    def get(self, path: str, seconds: float = _SECONDS) -> Any:  # noqa: ANN401 (JSON)
        """The answer to a GET, as JSON.

        Raises:
            FlinkUnreachable: if nobody answers in time, or the cluster is not ready to.
            FlinkRefused: if the answer is an error.

        """
        return self._ask(urllib.request.Request(self.url + path), seconds)  # noqa: S310 (our own address)

    def post(self, path: str, body: dict[str, Any], seconds: float = _SECONDS, method: str = "POST") -> Any:  # noqa: ANN401
        """The answer to a POST (or PATCH) of JSON, as JSON; raises like `get`."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310
        return self._ask(request, seconds)

    def slots(self) -> int:
        """How many slots the TaskManagers offer that have registered."""
        return int(self.get("/overview")["slots-total"])

    def status(self, job: str) -> str:
        """The job's status in Flink's words, such as INITIALIZING, RUNNING or FAILED."""
        return str(self.get(f"/jobs/{job}")["state"])

    def is_working(self, job: str) -> bool:
        """Whether every task of the job runs: its functions were opened and its state restored."""
        answer = self.get(f"/jobs/{job}")
        return answer["state"] == "RUNNING" and all(vertex["status"] == "RUNNING" for vertex in answer["vertices"])

    def failure(self, job: str) -> str | None:
        """The words of what failed the job first; None if nothing did. See `words_of`."""
        history = self.get(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"]
        return words_of(history[0]["stacktrace"]) if history else None

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """The completed checkpoints and savepoints that were not thrown away since, oldest first."""
        history = self.get(f"/jobs/{job}/checkpoints")["history"]
        kept = [_checkpoint(item) for item in history if item["status"] == "COMPLETED" and not item.get("discarded")]
        return sorted(kept, key=lambda checkpoint: checkpoint.id)

    def checkpoint_counts(self, job: str) -> dict[str, int]:
        """How many checkpoints there were: `completed`, `failed`, `in_progress`, `restored`, `total`."""
        counts: dict[str, int] = self.get(f"/jobs/{job}/checkpoints")["counts"]
        return counts

    def stop_with_savepoint(self, job: str, folder: str, seconds: float) -> str:
        """Stop the job with a savepoint and give its folder.

        Raises:
            SavepointFailed: if it fails or takes longer than `seconds`; the job may run on.

        """
        until = time.monotonic() + seconds
        try:
            request = self.post(f"/jobs/{job}/stop", {"targetDirectory": f"file://{folder}", "drain": False})[
                "request-id"
            ]
            while time.monotonic() < until:
                answer = self.get(f"/jobs/{job}/savepoints/{request}", max(0.1, until - time.monotonic()))
                if answer["status"]["id"] == "COMPLETED":
                    return _savepoint(answer["operation"])
                time.sleep(_POLL_SECONDS)
        except (FlinkUnreachable, FlinkRefused) as error:
            raise SavepointFailed(str(error)) from error
        message = f"it was not ready within {seconds:g} s"
        raise SavepointFailed(message)

    def cancel(self, job: str) -> None:
        """Ask the job to end without a savepoint; its checkpoints stay."""
        self.post(f"/jobs/{job}", {}, method="PATCH")

    def _ask(self, request: urllib.request.Request, seconds: float) -> Any:  # noqa: ANN401
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
                body = answer.read()
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:  # a cluster that is still electing its leader
                raise FlinkUnreachable(request.full_url, _refusal(error.read())) from error
            raise FlinkRefused(request.full_url, error.code, _refusal(error.read())) from error
        except (OSError, urllib.error.URLError) as error:
            raise FlinkUnreachable(request.full_url, str(getattr(error, "reason", error))) from error
        return json.loads(body) if body else None


def words_of(stacktrace: str) -> str:
    """The innermost cause of a Java stack trace.

    For an error that was raised in Python `Type: message`, as Python prints it.
    """
    causes = re.split(r"^Caused by: ", stacktrace, flags=re.MULTILINE)
    words = re.split(r"^\s+(?:at |\.\.\. )", causes[-1], maxsplit=1, flags=re.MULTILINE)[0].strip()
    python = re.match(
        r"(?:pemja\.core\.PythonException|java\.lang\.RuntimeException): <class '(?P<type>[^']+)'>: (?P<words>.*)",
        words,
        re.DOTALL,
    )
    if python is None:
        return words
    return f"{python['type'].rpartition('.')[2]}: {python['words']}".strip()


def _checkpoint(item: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        id=item["id"],
        trigger_timestamp=item["trigger_timestamp"],
        path=urlsplit(item.get("external_path") or "").path,
        is_savepoint=item["is_savepoint"],
        size=item["checkpointed_size"],
        duration_ms=item["end_to_end_duration"],
    )


def _savepoint(operation: dict[str, Any]) -> str:
    if "failure-cause" in operation:
        raise SavepointFailed(words_of(operation["failure-cause"].get("stack-trace", "")))
    return urlsplit(str(operation["location"])).path


def _refusal(body: bytes) -> str:
    try:
        return words_of("\n".join(json.loads(body)["errors"]))
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:500]
