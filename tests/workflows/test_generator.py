from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from workflows.insurance_claim import application, generator
from workflows.insurance_claim.data import ClaimFiled, DocumentsReceived, Dossier, Message, PolicyId
from workflows.insurance_claim.generator import (
    behaviour,
    by_calendar,
    crowd,
    in_answer,
    known_customers,
    make_world,
    registers,
    reply,
)
from workflows.insurance_claim.question import question
from workflows.insurance_claim.states import HumanReview
from workflows.insurance_claim.world import NotInRegisterError, World

ORIGIN = datetime(2026, 1, 5, tzinfo=UTC)


def test_the_same_seed_makes_the_same_people() -> None:
    assert list(crowd(30, seed=1)) == list(crowd(30, seed=1))
    assert list(crowd(30, seed=1)) != list(crowd(30, seed=2))


def test_a_claim_does_not_depend_on_those_before_it() -> None:
    assert behaviour(150) == list(crowd())[150]


def test_claims_are_filed_in_the_order_of_their_numbers() -> None:
    filed = [people.filed_after for people in crowd()]

    assert filed == sorted(filed)
    assert filed[-1] <= generator.FILED_WITHIN


def test_every_kind_of_behaviour_occurs() -> None:
    people = list(crowd())

    assert sum(each.reviewed_after is None for each in people) > 5
    assert sum(each.sends_after is None for each in people) > 3
    assert sum(each.sends_unasked_after is not None for each in people) > 5
    assert sum(each.withdraws_after is not None for each in people) > 5
    assert sum(each.repeats for each in people) > 5
    assert {each.approves for each in people} == {True, False}


def test_all_expiries_fit_into_the_demos_thirty_days() -> None:
    forgotten = [each.filed_after for each in crowd() if each.reviewed_after is None]
    silent = [each.filed_after for each in crowd() if each.sends_after is None]

    assert max(forgotten) + generator.SLOWEST_CUSTOMER + generator.LONGEST_REVIEW < generator.SPAN
    assert max(silent) < timedelta(days=1)


def test_a_review_leaves_days_for_an_engine_that_is_down() -> None:
    slowest = max(each.reviewed_after for each in crowd() if each.reviewed_after is not None)

    assert generator.LONGEST_REVIEW - slowest >= timedelta(days=9)


def test_documents_may_come_before_their_claim() -> None:
    people = next(each for each in crowd() if each.sends_unasked_after == timedelta())
    first, *_ = dues = by_calendar(people, ORIGIN)

    assert isinstance(first.event, DocumentsReceived)
    assert any(isinstance(due.event, ClaimFiled) and due.at == first.at for due in dues)


def test_a_repeat_has_the_id_of_its_first() -> None:
    people = next(each for each in crowd() if each.repeats and each.reviewed_after is not None)
    ids = Counter(due.id for due in by_calendar(people, ORIGIN) + in_answer(people, "HumanReview", ORIGIN))

    assert set(ids.values()) == {2}


def test_reviewers_answer_the_inbox_or_send_events_twice() -> None:
    people = next(each for each in crowd() if each.reviewed_after is not None and not each.repeats)
    carried = next(each for each in crowd() if each.reviewed_after is not None and each.repeats)
    assert people.reviewed_after is not None
    review = reply(people, "claims-reviewers", ORIGIN)

    assert review is not None
    assert (review.at, review.who, review.kind) == (ORIGIN + people.reviewed_after, people.reviewer, "review")
    assert in_answer(people, HumanReview.__name__, ORIGIN) == []
    assert reply(carried, "claims-reviewers", ORIGIN) is None
    assert len(in_answer(carried, HumanReview.__name__, ORIGIN)) == 2
    assert in_answer(people, "Assessing", ORIGIN) == []


def test_a_forgotten_review_is_answered_by_nobody() -> None:
    people = next(each for each in crowd() if each.reviewed_after is None)

    assert reply(people, "claims-reviewers", ORIGIN) is None
    assert in_answer(people, HumanReview.__name__, ORIGIN) == []


def test_leave_is_given_and_refused_and_budgets_are_raised() -> None:
    replies = [reply(each, group, ORIGIN) for each in crowd() for group in ("claims-surveys", "budgets")]

    assert {each.kind for each in replies if each} == {"yes", "no", "raise"}
    assert all(each is not None and each.at - ORIGIN <= generator.SLOWEST_ANSWER for each in replies)


def test_all_customers_are_known() -> None:
    assert len({due.key for due in known_customers(ORIGIN)}) == generator.CUSTOMERS
    assert {each.claim.customer_id for each in crowd()} <= {due.key for due in known_customers(ORIGIN)}


def test_the_application_takes_every_event() -> None:
    people = list(crowd(20))
    dues = [due for each in people for due in by_calendar(each, ORIGIN) + in_answer(each, "HumanReview", ORIGIN)]

    for due in dues:
        wire = due.cloud_event()
        assert set(wire) == {"specversion", "id", "source", "type", "subject", "time", "data"}
        assert application.events[str(wire["type"])].model_validate_json(json.dumps(wire["data"])) == due.event


def test_like_claims_are_few_questions() -> None:
    policies, customers = registers()
    known = [each for each in crowd() if each.claim.policy_id in policies]
    asked = {
        question(
            Dossier(
                claim=each.claim,
                documents=each.documents,
                policy=policies[each.claim.policy_id],
                history=customers[each.claim.customer_id],
            )
        )
        for each in known
    }

    assert 180 < len(known) < 200
    assert 12 <= len(asked) <= 30


def test_the_world_knows_its_policies_and_keeps_letters(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world.sqlite")
    claim = behaviour(0).claim
    letter = Message(to="u-1", text="send a photo")
    world.deliver(letter, "call-1")
    world.deliver(letter, "call-1")

    assert world.policy(claim.policy_id) == registers()[0][claim.policy_id]
    assert world.messages() == [("call-1", letter, 2)]


def test_what_is_not_in_the_register_is_named(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world.sqlite")

    with pytest.raises(NotInRegisterError, match="policy 'p-none' is not in the register"):
        world.policy(PolicyId("p-none"))


def test_a_world_that_was_never_made_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="generator --out"):
        World(tmp_path / "nothing.sqlite").policy(PolicyId("p-1"))
    assert not (tmp_path / "nothing.sqlite").exists()
