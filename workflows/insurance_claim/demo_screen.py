"""What the demo shows: a line for what happens, one that moves with the days, and the summary."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from workflows.insurance_claim.demo_count import Summary
from workflows.insurance_claim.demo_engine import APPLICATION

PLAIN_EVERY_S = 10.0
"""Between lines of figures where they cannot be drawn over one another."""
CLEAR = "\r\x1b[K"
"""Back to the line's beginning, and clear to its end (ECMA-48 EL)."""
ENDS = ("Approved", "Rejected", "Expired", "Withdrawn")


class Screen:
    """Progress goes to standard error when standard output is for a program."""

    def __init__(self, *, quiet: bool) -> None:
        self.is_for_people = not quiet
        self._out = sys.stderr if quiet else sys.stdout
        self._moves = self._out.isatty()
        self._began = self._shown = time.monotonic()

    def say(self, words: str) -> None:
        """Something that happens once."""
        self._write(f"{self._clock()}  {words}\n")

    def show(self, day: timedelta, states: Counter[str], waiting: int) -> None:
        """Where the claims are, and how much stands in the inbox."""
        if not self._moves and time.monotonic() - self._shown < PLAIN_EVERY_S:
            return
        self._shown = time.monotonic()
        text = f"{self._clock()}  {figures(day, states, waiting)}"
        self._write(text if self._moves else text + "\n")

    def fail(self, words: str) -> None:
        sys.stderr.write((CLEAR if self._moves else "") + f"the demo failed: {words}\n")

    def summarize(self, summary: Summary, data: Path) -> None:
        """The figures, and what to try next."""
        self._write("\n" + "\n".join(lines(summary, data)) + "\n")

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began:4.0f} s"

    def _write(self, text: str) -> None:
        self._out.write((CLEAR if self._moves else "") + text)
        self._out.flush()


def figures(day: timedelta, states: Counter[str], waiting: int) -> str:
    machine = states["Gathering"] + states["Assessing"]
    decided = sum(states[end] for end in ENDS)
    return (
        f"day {day / timedelta(days=1):4.1f} · {states.total():3} filed · {machine:3} being assessed · "
        f"{waiting:3} in the inbox · {states['AwaitingDocuments']:3} await documents · "
        f"{decided:3} decided"
    )


def lines(summary: Summary, data: Path) -> list[str]:
    outcomes = ", ".join(f"{count} {state}" for state, count in summary.by_outcome.items())
    kept = "the same bytes" if summary.replay_identical else "OTHER BYTES: see `longwatch replay`"
    rows = [
        ("claims", f"{summary.claims}: {outcomes}"),
        ("model", f"{summary.model_calls} calls, {summary.answers_shared} answers shared by like claims"),
        (
            "spent",
            f"{summary.tokens:,} tokens, {summary.cost_eur:.4f} EUR; {summary.budgets_asked} budgets asked for more",
        ),
        ("people", f"{summary.answers} answers taken"),
        ("bank", f"{summary.payments} payments, {summary.paid_eur:,} EUR"),
        ("calendar", f"{summary.timers_fired} timers fired, {summary.reminders} reminders sent"),
        ("log", f"{summary.entries} entries folded, {summary.ignored} events ignored (late or twice)"),
        ("kill -9", f"{summary.kills}: {summary.restart_seconds:.0f} s until it ran again"),
        (
            "agents",
            f"{summary.agents_resumed} resumed in mid-thought, {summary.turns_repeated} stored turns asked again",
        ),
        ("cost", f"{summary.calls_repeated} calls made again, {summary.lost} events lost, {summary.doubled} doubled"),
        ("replay", f"the whole log folded again: {kept}"),
        ("time", f"{summary.seconds:.0f} s"),
    ]
    if summary.dead_letters:
        rows.append(("dead letters", f"{summary.dead_letters}: `longwatch dead-letters list --data {data}`"))
    longwatch = command()
    tries = (
        f"{longwatch} list --data {data} --state Expired",
        f"{longwatch} history c-0001 --data {data}",
        f"{longwatch} diagram --app {APPLICATION} --data {data} --run c-0001",
    )
    return [*(f"{name:13}{words}" for name, words in rows), "", "try next:", *(f"  {each}" for each in tries)]


def command() -> str:
    """How `longwatch` is called from here: a clone's environment need not be activated."""
    own = Path(sys.executable).with_name("longwatch")
    if shutil.which("longwatch") or not own.exists():
        return "longwatch"
    return str(own.relative_to(Path.cwd())) if own.is_relative_to(Path.cwd()) else str(own)
