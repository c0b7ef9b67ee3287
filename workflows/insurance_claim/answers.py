"""Like claims share one answer: what the model was asked once is not asked again.

An answer is kept in SQLite under the question's hash, so it outlives the engine. While one caller asks, the others
with the same question wait for its answer: it holds an `flock` on a file named by the hash, which the kernel frees
when its process is killed, so nobody waits for the dead. When asking fails, the next one tries.

Every use is counted: a request to the model by call and attempt, a shared answer by call.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workflows.insurance_claim.data import Assessment
from workflows.insurance_claim.world import connection

POLL_S = 0.1
"""How often a waiting caller looks. A call to a model on this machine takes about a second."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (question TEXT PRIMARY KEY, text TEXT NOT NULL, answer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS asked (
    call_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    question TEXT NOT NULL,
    requests INTEGER NOT NULL,
    seconds REAL
);
CREATE TABLE IF NOT EXISTS shared (call_id TEXT PRIMARY KEY, question TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Asked:
    """What the model said, and how it was got."""

    answer: Assessment
    requests: int
    """More than one when the model had to mend an answer that its schema did not allow."""
    seconds: float


@dataclass(frozen=True)
class Counts:
    """What was asked, and what sharing saved."""

    model_calls: int
    """Requests made to the model, those that a kill cut off included."""
    answers_shared: int
    """Calls of the step that were answered from the store."""


@dataclass(frozen=True)
class Use:
    """One attempt of a step's call."""

    call_id: str
    attempt: int


class SharedAnswers:
    """The store at `path`; its lock files lie in a folder beside it."""

    def __init__(self, path: Path, at_once: int = 2) -> None:
        """Ask at most `at_once` questions at a time: a small server works on one, and a kill then cuts off few."""
        self.path = path
        self._places = asyncio.Semaphore(at_once)
        self.locks = path.with_suffix(".locks")
        self.locks.mkdir(parents=True, exist_ok=True)
        with connection(path) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA)

    async def answer(self, question: str, use: Use, ask: Callable[[], Awaitable[Asked]]) -> Assessment:
        """The stored answer to `question`, the one that another caller is getting, or the one that `ask` gets now."""
        key = hashlib.sha256(question.encode()).hexdigest()[:32]
        while True:
            with self._turn(key) as mine:
                if (stored := await asyncio.to_thread(self._stored, key, use)) is not None:
                    return stored
                if mine:
                    return await self._ask(key, question, use, ask)
            await asyncio.sleep(POLL_S)

    def counts(self) -> Counts:
        with connection(self.path) as db:
            calls, shared = db.execute(
                "SELECT (SELECT coalesce(sum(requests), 0) FROM asked), (SELECT count(*) FROM shared)"
            ).fetchone()
        return Counts(model_calls=calls, answers_shared=shared)

    def seconds(self) -> list[float]:
        """How long each finished question to the model took, wall time."""
        with connection(self.path) as db:
            return [seconds for (seconds,) in db.execute("SELECT seconds FROM asked WHERE seconds IS NOT NULL")]

    async def _ask(self, key: str, question: str, use: Use, ask: Callable[[], Awaitable[Asked]]) -> Assessment:
        """Ask for all who wait. The request is noted before it is made, so a kill does not hide it."""
        async with self._places:
            row = await asyncio.to_thread(self._note, key, use)
            asked = await ask()
            await asyncio.to_thread(self._keep, key, question, asked, row)
            return asked.answer

    @contextmanager
    def _turn(self, key: str) -> Iterator[bool]:
        """Whether it is this caller's turn to ask; others may come in meanwhile, and are told no."""
        with (self.locks / key).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _stored(self, key: str, use: Use) -> Assessment | None:
        with connection(self.path) as db:
            row = db.execute("SELECT answer FROM answers WHERE question = ?", (key,)).fetchone()
            if row is None:
                return None
            db.execute(
                "INSERT OR IGNORE INTO shared SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM asked WHERE call_id = ?)",
                (use.call_id, key, use.call_id),
            )
        return Assessment.model_validate_json(row[0])

    def _note(self, key: str, use: Use) -> int | None:
        with connection(self.path) as db:
            return db.execute("INSERT INTO asked VALUES (?, ?, ?, 1, NULL)", (use.call_id, use.attempt, key)).lastrowid

    def _keep(self, key: str, question: str, asked: Asked, row: int | None) -> None:
        with connection(self.path) as db:
            db.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, question, asked.answer.model_dump_json())
            )
            db.execute(
                "UPDATE asked SET requests = ?, seconds = ? WHERE rowid = ?", (asked.requests, asked.seconds, row)
            )
