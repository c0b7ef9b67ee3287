"""The demo's customers, claims and reviewers. Everything here is synthetic: no real person or claim stands behind it.

What one claim's people do is a pure function of seed and number (`behaviour`), so a demo can be run again, and nothing
of it need be kept while the engine is killed. What they do by the calendar is `by_calendar`, in log time; what they do
because the claim came to a state is `in_answer`.

    python -m workflows.insurance_claim.generator --out .longwatch/claim-world.sqlite > events.jsonl

makes the register that the steps read, and prints the calendar as CloudEvents, one a line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from engine import Event, Leave, Raise
from workflows.insurance_claim.data import (
    Claim,
    ClaimFiled,
    ClaimWithdrawn,
    CustomerId,
    CustomerKnown,
    Documents,
    DocumentsReceived,
    History,
    Policy,
    PolicyId,
    ReviewDecided,
)
from workflows.insurance_claim.world import DEFAULT_PATH, World

SEED = 4711
CLAIMS = 200
CUSTOMERS = 140
SOURCE = "urn:longwatch:demo"

SPAN = timedelta(days=30)
"""The demo's log time. Who makes a claim wait for its expiry is among those who file early, so that its end is seen."""
FILED_WITHIN = timedelta(days=12)
LONGEST_REVIEW = timedelta(days=14)
"""Until it expires, as in states.py."""
SLOWEST_REVIEWER = timedelta(days=4)
"""So far from the expiry that an engine that is down for days of log time expires no claim."""
SLOWEST_ANSWER = timedelta(days=2)
SLOWEST_CUSTOMER = timedelta(days=3)
QUICKEST = timedelta(hours=6)
FIRST_DAY = timedelta(hours=14)

WORDS = ("burst pipe", "stolen bicycle", "hail on the roof")
REVIEWERS = ("ann", "bo", "chris", "dana")
NOTES = ("not covered by the policy", "the invoice is of last year", "the damage is older than the policy")
NO_SURVEY = "the photos are enough"
MORE_TOKENS = 2_500
AMOUNTS_EUR = ((50, 499), (500, 5_000), (5_001, 9_000), (9_001, 30_000))
LIMITS_EUR = (3_000, 9_000, 20_000)
EARLIER_CLAIMS = (0, 1, 2)
"""A customer of the demo comes to three by what is remembered of him."""


@dataclass(frozen=True)
class Behaviour:
    """What the people of one claim do. Spans are log time; None: never."""

    claim: Claim
    documents: Documents
    """Sent with the claim."""
    filed_after: timedelta
    """From the beginning."""
    sends_after: timedelta | None
    """Documents, from when they are asked for."""
    sends_unasked_after: timedelta | None
    """More documents, from the filing; zero: a moment before it."""
    reviewed_after: timedelta | None
    """From when the claim lies with the reviewers."""
    reviewer: str
    approves: bool
    note: str
    withdraws_after: timedelta | None
    """From the filing."""
    repeats: bool
    """Whether whoever carries these events delivers each of them twice. Reviews come as events then, too."""
    grants: bool
    """Whether a survey is worth its price to them."""
    answers_after: timedelta
    """A question for leave, or for a higher budget."""

    @property
    def key(self) -> str:
        return self.claim.claim_id


@dataclass(frozen=True)
class Reply:
    """A person's answer to what stands in the inbox, at a point of log time."""

    at: datetime
    who: str
    kind: str
    """`review`, `yes`, `no` or `raise`."""
    answer: ReviewDecided | Leave | Raise
    words: tuple[str, ...]
    """The same in the words of `longwatch answer`."""


@dataclass(frozen=True)
class Due:
    """An event to send at a point of log time."""

    at: datetime
    key: str
    event: Event
    id: str
    """A repeat has the same."""

    def cloud_event(self) -> dict[str, object]:
        """As CloudEvents 1.0 have it."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": SOURCE,
            "type": type(self.event).__name__,
            "subject": self.key,
            "time": self.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "data": self.event.model_dump(mode="json"),
        }


class Dice(Random):
    """Chances in percent and spans of time."""

    def happens(self, percent: int) -> bool:
        return self.random() * 100 < percent

    def span(self, shortest: timedelta, longest: timedelta) -> timedelta:
        return shortest + (longest - shortest) * self.random()

    def maybe(self, percent: int, shortest: timedelta, longest: timedelta) -> timedelta | None:
        """A span with this chance, else never. Draws the same number of times either way."""
        span = self.span(shortest, longest)
        return span if self.happens(percent) else None


def behaviour(number: int, *, of: int = CLAIMS, seed: int = SEED) -> Behaviour:
    """The people of one claim, numbered from 0 in the order of filing."""
    dice = Dice(f"{seed}/{number}")
    filed_after = FILED_WITHIN * ((number + dice.random()) / of)
    return Behaviour(
        claim=_claim(number, dice),
        documents=("photo", "invoice") if dice.happens(45) else (),
        filed_after=filed_after,
        sends_after=None if filed_after < FIRST_DAY else dice.span(QUICKEST, SLOWEST_CUSTOMER),
        sends_unasked_after=_unasked(dice),
        reviewed_after=_review(dice, filed_after),
        reviewer=dice.choice(REVIEWERS),
        approves=dice.happens(70),
        note=dice.choice(NOTES),
        withdraws_after=dice.maybe(6, QUICKEST, timedelta(days=5)),
        repeats=dice.happens(10),
        grants=dice.happens(65),
        answers_after=dice.span(QUICKEST, SLOWEST_ANSWER),
    )


def _claim(number: int, dice: Dice) -> Claim:
    customer = dice.randrange(CUSTOMERS)
    lowest, highest = dice.choices(AMOUNTS_EUR, weights=(41, 41, 14, 4))[0]
    slip = "x" if dice.happens(2) else ""  # of the pen: such a policy is in no register
    return Claim(
        claim_id=f"c-{number + 1:04}",
        customer_id=CustomerId(f"u-{customer:03}"),
        policy_id=PolicyId(f"p-{customer:03}{slip}"),
        amount_eur=dice.randint(lowest, highest),
        what_happened=dice.choices(WORDS, weights=(6, 3, 1))[0],
    )


def _unasked(dice: Dice) -> timedelta | None:
    late = dice.maybe(8, QUICKEST, timedelta(days=8))
    return timedelta() if dice.happens(4) else late


def _review(dice: Dice, filed_after: timedelta) -> timedelta | None:
    seen = filed_after + SLOWEST_CUSTOMER + LONGEST_REVIEW < SPAN - timedelta(days=2)
    span = dice.maybe(88, QUICKEST, SLOWEST_REVIEWER)
    return span if span is not None or seen else SLOWEST_REVIEWER


def by_calendar(people: Behaviour, origin: datetime) -> list[Due]:
    """What they do whatever becomes of the claim, in the order of time; `origin` is when the log began."""
    filed = origin + people.filed_after
    plan: list[tuple[datetime, Event, str]] = []
    if people.sends_unasked_after is not None:
        plan.append((filed + people.sends_unasked_after, DocumentsReceived(documents=("letter",)), "unasked"))
    plan.append((filed, ClaimFiled(claim=people.claim, documents=people.documents), "filed"))
    if people.withdraws_after is not None:
        plan.append((filed + people.withdraws_after, ClaimWithdrawn(note="settled otherwise"), "withdrawn"))
    plan.sort(key=lambda each: each[0])  # what is due at once stays in this order: documents, then their claim
    return _delivered(people, [_due(people, at, event, name) for at, event, name in plan])


def in_answer(people: Behaviour, state: str, since: datetime) -> list[Due]:
    """What they do because the claim has been in `state` since then; nothing, when it does not wait for them."""
    name = f"{state}/{since.timestamp():.3f}"
    if state == "HumanReview" and people.reviewed_after is not None and people.repeats:
        decision = _decision(people).model_copy(update={"reviewer": people.reviewer})
        return _delivered(people, [_due(people, since + people.reviewed_after, decision, name)])
    if state == "AwaitingDocuments" and people.sends_after is not None:
        documents = DocumentsReceived(documents=("photo", "invoice"))
        return _delivered(people, [_due(people, since + people.sends_after, documents, name)])
    return []


def reply(people: Behaviour, group: str, since: datetime) -> Reply | None:
    """How what has stood in a group's inbox since then is answered; None: it is not, or another way."""
    if group == "claims-reviewers":
        if people.reviewed_after is None or people.repeats:
            return None
        decision = _decision(people)
        words = ("ReviewDecided", f"approve={str(decision.approve).lower()}", "--note", decision.note)
        return Reply(since + people.reviewed_after, people.reviewer, "review", decision, words)
    at = since + people.answers_after
    if group == "budgets":
        return Reply(at, "fritz", "raise", Raise(tokens=MORE_TOKENS), ("raise", "--tokens", str(MORE_TOKENS)))
    if people.grants:
        return Reply(at, "eve", "yes", Leave(granted=True), ("yes",))
    return Reply(at, "eve", "no", Leave(granted=False, note=NO_SURVEY), ("no", "--note", NO_SURVEY))


def _decision(people: Behaviour) -> ReviewDecided:
    return ReviewDecided(approve=people.approves, note="" if people.approves else people.note)


def _due(people: Behaviour, at: datetime, event: Event, name: str) -> Due:
    return Due(at, people.key, event, f"{people.key}/{name}")


def _delivered(people: Behaviour, dues: list[Due]) -> list[Due]:
    return [due for due in dues for _ in range(2 if people.repeats else 1)]


def crowd(count: int = CLAIMS, seed: int = SEED) -> Iterator[Behaviour]:
    """The people of all claims."""
    return (behaviour(number, of=count, seed=seed) for number in range(count))


def registers(seed: int = SEED) -> tuple[dict[PolicyId, Policy], dict[CustomerId, History]]:
    """What the insurer knows of its customers."""
    policies: dict[PolicyId, Policy] = {}
    customers: dict[CustomerId, History] = {}
    for number in range(CUSTOMERS):
        dice = Dice(f"{seed}/customer/{number}")
        limit = dice.choices(LIMITS_EUR, weights=(1, 12, 7))[0]
        earlier = dice.choices(EARLIER_CLAIMS, weights=(64, 22, 14))[0]
        policies[PolicyId(f"p-{number:03}")] = Policy(limit_eur=limit)
        customers[CustomerId(f"u-{number:03}")] = History(claims_last_5_years=earlier)
    return policies, customers


def make_world(path: Path, seed: int = SEED) -> World:
    """The policies as a file that the steps read."""
    policies, _ = registers(seed)
    return World.make(path, policies)


def known_customers(at: datetime, seed: int = SEED) -> list[Due]:
    """What is to be remembered of the customers before the first claim."""
    _, customers = registers(seed)
    return [
        Due(at, number, CustomerKnown(customer_id=number, claims_last_5_years=history.claims_last_5_years), number)
        for number, history in customers.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make a synthetic world, and print what is filed in it as CloudEvents."
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_PATH, help="the world's file; default %(default)s")
    parser.add_argument("--seed", type=int, default=SEED, help="default %(default)s")
    parser.add_argument("--claims", type=int, default=CLAIMS, help="default %(default)s")
    options = parser.parse_args()
    make_world(options.out, options.seed)
    origin = datetime.now(UTC)
    dues = [due for people in crowd(options.claims, options.seed) for due in by_calendar(people, origin)]
    known = known_customers(origin, options.seed)
    for due in (*known, *sorted(dues, key=lambda due: due.at)):
        sys.stdout.write(json.dumps(due.cloud_event()) + "\n")


if __name__ == "__main__":
    main()
