"""The claim's surroundings, in one SQLite file: policies, past claims, the weather, surveyors, a letter box.

A stand-in for services of an insurer, read and written for real by the steps. The demo fills it with made-up
customers (generator.py). Every method opens the file anew, so any thread and any process may call it.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workflows.insurance_claim.data import Amounts, Message, Policy, PolicyId

PATH_SETTING = "LONGWATCH_CLAIM_WORLD"
DEFAULT_PATH = Path(".longwatch", "claim-world.sqlite")

SCHEMA = """
CREATE TABLE IF NOT EXISTS policies (policy_id TEXT PRIMARY KEY, limit_eur INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    idempotency_key TEXT PRIMARY KEY,
    recipient TEXT NOT NULL,
    text TEXT NOT NULL,
    attempts INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS surveys (idempotency_key TEXT PRIMARY KEY, of TEXT NOT NULL, found TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS payments (
    idempotency_key TEXT PRIMARY KEY,
    claim_id TEXT NOT NULL,
    amount_eur INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS past_claims (amount TEXT PRIMARY KEY, came_to TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS weather (cause TEXT PRIMARY KEY, report TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS visits (call_id TEXT NOT NULL, attempt INTEGER NOT NULL, step TEXT NOT NULL);
"""


PAST_CLAIMS: dict[Amounts, str] = {
    "small": "others like it were approved",
    "medium": "others like it were approved",
    "large": "a person looked at others like it",
    "above the limit": "a person looked at others like it",
}
"""In bands, as the question to the model is: like claims get like answers."""
WEATHER = {"hail": "hail was reported", "storm": "no storm was reported"}
CONFIRMED, SMALLER = "the damage is confirmed", "the damage is smaller than claimed"
ONE_IN = 4
"""So many surveys find less than was claimed."""


class NotInRegisterError(LookupError):
    """No such policy: asking again does not help."""


class World:
    """The file at `path`. It must have been made (`World.make`), so a wrong path is not mistaken for an empty world."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def from_environment(cls) -> World:
        return cls(Path(os.environ.get(PATH_SETTING, DEFAULT_PATH)))

    @classmethod
    def make(cls, path: Path, policies: dict[PolicyId, Policy]) -> World:
        """Make the file, or fill up one that is there; what it holds already stays."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with connection(path) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA)
            rows = [(number, policy.limit_eur) for number, policy in policies.items()]
            db.executemany("INSERT OR IGNORE INTO policies VALUES (?, ?)", rows)
            db.executemany("INSERT OR IGNORE INTO past_claims VALUES (?, ?)", PAST_CLAIMS.items())
            db.executemany("INSERT OR IGNORE INTO weather VALUES (?, ?)", WEATHER.items())
        return cls(path)

    def policy(self, policy_id: PolicyId) -> Policy:
        """Look the policy up.

        Raises:
            NotInRegisterError: Nobody has this number.
        """
        limit = self._one("SELECT limit_eur FROM policies WHERE policy_id = ?", policy_id, "policy")
        return Policy(limit_eur=int(limit))

    def similar(self, amount: Amounts) -> str:
        """What claims of such an amount came to."""
        return self._one("SELECT came_to FROM past_claims WHERE amount = ?", amount, "amount")

    def weather(self, cause: str) -> str:
        """What the register has of it."""
        return self._one("SELECT report FROM weather WHERE cause = ?", cause, "weather")

    def survey(self, of: str, idempotency_key: str) -> str:
        """Order a survey, and what it finds; the same key again orders nothing, and finds the same."""
        found = CONFIRMED if zlib.crc32(idempotency_key.encode()) % ONE_IN else SMALLER
        with self._open() as db:
            db.execute("INSERT OR IGNORE INTO surveys VALUES (?, ?, ?)", (idempotency_key, of, found))
        return found

    def surveys(self) -> int:
        """How many were ordered."""
        with self._open() as db:
            return int(db.execute("SELECT count(*) FROM surveys").fetchone()[0])

    def pay(self, claim_id: str, amount_eur: int, idempotency_key: str) -> str:
        """Have the bank pay; the same key again pays nothing more. Gives the transfer's number."""
        with self._open() as db:
            db.execute("INSERT OR IGNORE INTO payments VALUES (?, ?, ?)", (idempotency_key, claim_id, amount_eur))
        return f"T-{zlib.crc32(idempotency_key.encode()):08x}"

    def payments(self) -> list[tuple[str, int]]:
        """What was paid: claim and euros."""
        with self._open() as db:
            return list(db.execute("SELECT claim_id, amount_eur FROM payments ORDER BY rowid"))

    def deliver(self, message: Message, idempotency_key: str) -> None:
        """Put a message into the letter box; the same key again is counted and changes nothing else."""
        with self._open() as db:
            db.execute(
                "INSERT INTO messages VALUES (?, ?, ?, 1)"
                " ON CONFLICT (idempotency_key) DO UPDATE SET attempts = attempts + 1",
                (idempotency_key, message.to, message.text),
            )

    def note_visit(self, step: str, call_id: str, attempt: int) -> None:
        """Note that an attempt of a step's call has begun, as a service writes its access log."""
        with self._open() as db:
            db.execute("INSERT INTO visits VALUES (?, ?, ?)", (call_id, attempt, step))

    def repeated_visits(self) -> int:
        """How many attempts were begun again under the same number: a kill came before their result was kept."""
        with self._open() as db:
            return int(db.execute("SELECT count(*) FROM visits").fetchone()[0]) - int(
                db.execute("SELECT count(*) FROM (SELECT DISTINCT call_id, attempt FROM visits)").fetchone()[0]
            )

    def messages(self) -> list[tuple[str, Message, int]]:
        """What lies in the letter box: idempotency key, message, attempts."""
        with self._open() as db:
            rows = db.execute("SELECT idempotency_key, recipient, text, attempts FROM messages ORDER BY rowid")
            return [(key, Message(to=to, text=text), attempts) for key, to, text, attempts in rows]

    def _one(self, query: str, key: str, what: str) -> str:
        with self._open() as db:
            row = db.execute(query, (key,)).fetchone()
        if row is None:
            raise NotInRegisterError(f"{what} {key!r} is not in the register")
        return str(row[0])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if not self.path.exists():
            raise FileNotFoundError(
                f"no claim world at {self.path}: make one with `python -m workflows.insurance_claim.generator --out"
                f" {self.path}`, or set {PATH_SETTING} to the file of the one you have"
            )
        with connection(self.path) as db:
            yield db


@contextmanager
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for one piece of work: committed at the end, waiting up to 30 s for other writers."""
    db = sqlite3.connect(path, timeout=30)
    try:
        # What is committed outlives a killed process; only a power cut could take it.
        db.execute("PRAGMA synchronous = NORMAL")
        with db:
            yield db
    finally:
        db.close()
