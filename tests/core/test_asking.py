"""What runs ask each other, and what they ask people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from pydantic import BaseModel

from engine import (
    Answer,
    Call,
    Context,
    Event,
    Final,
    Leave,
    Question,
    Retry,
    State,
    StepContext,
    StepFailed,
    Workflow,
    after,
    answers,
    ask,
    enter,
    on,
    runs,
    step,
)
from engine.core.entry import AnswerEntry, AskedEntry, Asker, EventEntry, FailureEntry, OrderEntry, QuestionEntry
from engine.core.entry import ResultEntry as Result
from engine.core.ids import CallId, RunId
from engine.core.model import Event as AnyEvent
from engine.core.reaction import AskRun, CancelCall, Forget, Keep, Reaction, Reply, StartCall
from engine.core.record import Asks, PendingCall
from tests.core.folding import DAY, HOUR, Run, event_entry

# -- who is asked ------------------------------------------------------------------------------------------------------


class History(BaseModel, frozen=True):
    claims: int = 0
    asked_by: str = ""


class HistoryAsked(Question[History], key="customer"):
    customer: str


class PartnerAsked(Question[History], key="customer"):
    customer: str


class NobodyAsked(Question[History], key="customer"):
    customer: str


class Claimed(Event):
    poison: bool = False
    first: bool = False


class Told(Event):
    pass


class Forgotten(Event):
    pass


class Known(State):
    claims: int = 0
    wrong: bool = False
    asker: str = ""

    @answers
    def history(self, question: HistoryAsked, ctx: Context) -> History:
        if self.wrong:
            message = f"what is {question.customer}?"
            raise ValueError(message)
        return History(claims=self.claims, asked_by=ctx.asker.key if ctx.asker else "")

    @on
    def forgotten(self, event: Forgotten) -> Gone:
        return Gone()


class Remembering(Known, endless=True):
    @on
    def claimed(self, event: Claimed) -> Remembering:
        return Remembering(claims=self.claims + 1, wrong=event.poison)

    @on
    def partner(self, question: PartnerAsked, ctx: Context) -> Pondering:
        assert ctx.asker is not None
        return Pondering(claims=self.claims, asker=msgspec.json.encode(ctx.asker).decode())


class Pondering(Known, endless=True):
    """The answer is given later."""

    @on
    def partner(self, question: PartnerAsked) -> Pondering:
        return self

    @on
    def told(self, event: Told) -> tuple[Remembering, Answer[History]]:
        asker = msgspec.json.decode(self.asker, type=Asker)
        return Remembering(claims=self.claims), Answer(asker, History(claims=99))


class Gone(Final):
    pass


def remember(event: Claimed) -> Remembering:
    if event.first:
        message = "a bad beginning"
        raise ValueError(message)
    return Remembering(claims=1)


class Met(Known, endless=True):
    pass


def meet(question: HistoryAsked) -> Met:
    return Met()


memory = Workflow("memory", start=remember, states=[Remembering, Pondering, Gone])


# -- who asks ----------------------------------------------------------------------------------------------------------

ask_history = ask(HistoryAsked)
ask_newcomer = ask(PartnerAsked, otherwise=History(claims=-1))


@step(retry=Retry(attempts=2, first_wait=timedelta(seconds=10)))
async def pay(claim: str, context: StepContext) -> int:
    return 0


class Filed(Event):
    customer: str
    newcomer: bool = False
    aside: bool = False


class Decided(Event):
    yes: bool


class Stopped(Event):
    pass


class Looking(State):
    customer: str

    @runs(ask_history)
    def look(self) -> HistoryAsked:
        return HistoryAsked(customer=self.customer)

    @look.done
    def found(self, history: History) -> Reviewing:
        return Reviewing(customer=self.customer, history=history)

    @look.failed
    def lost(self, failure: StepFailed) -> Over:
        return Over(why=failure.type, words=failure.error)

    @on
    def stopped(self, event: Stopped) -> Over:
        return Over(why="stopped")


class Newcomer(State):
    customer: str

    @runs(ask_newcomer)
    def look(self) -> PartnerAsked:
        return PartnerAsked(customer=self.customer)

    @look.done
    def found(self, history: History) -> Over:
        return Over(why=f"{history.claims} claims")

    @look.failed
    def lost(self, failure: StepFailed) -> Over:
        return Over(why=failure.type)


class Aside(State, endless=True):
    """Asks, and does not wait for the answer."""

    customer: str

    @enter
    def tell(self) -> Call[History]:
        return ask_history.call(HistoryAsked(customer=self.customer))

    @on
    def stopped(self, event: Stopped) -> Over:
        return Over(why="stopped")


class Reviewing(State, asks="reviewers"):
    """Is this to be paid?"""

    customer: str
    history: History

    @on
    def decided(self, event: Decided, ctx: Context) -> Paying | Over:
        return Paying(customer=self.customer) if event.yes else Over(why=f"refused by {ctx.who}")

    @after(days=7)
    def forgotten(self) -> Over:
        return Over(why="nobody answered")


class Paying(State):
    customer: str

    @runs(pay)
    def payment(self) -> str:
        return self.customer

    @payment.done
    def paid(self, amount: int) -> Over:
        return Over(why=f"paid {amount}")

    @payment.failed
    def failed(self, failure: StepFailed) -> Over:
        return Over(why=failure.type)

    @on
    def stopped(self, event: Stopped) -> Reviewing:
        return Reviewing(customer=self.customer, history=History())


class Over(Final):
    why: str
    words: str = ""


def begin(event: Filed) -> Looking | Newcomer | Aside:
    if event.aside:
        return Aside(customer=event.customer)
    return Newcomer(customer=event.customer) if event.newcomer else Looking(customer=event.customer)


claim = Workflow("claim", start=begin, states=[Looking, Newcomer, Aside, Reviewing, Paying, Over])


@pytest.fixture
def ann() -> Run:
    run = Run(memory, key="ann", partition=5)
    run.send(Claimed())
    return run


@pytest.fixture
def asking() -> Run:
    run = Run(claim)
    run.send(Filed(customer="ann"))
    return run


def question_of(run: Run) -> QuestionEntry:
    """What an engine appends for the question that a run has asked."""
    (command,) = run.made(AskRun)
    data = Raw(command.question.model_dump_json().encode())
    return QuestionEntry("memory", "ann", type(command.question).__name__, data, command.asker, id=command.id)


def reply(asker: Run, reply: Reply) -> Reaction:
    """What an engine appends for an answer."""
    to = reply.asker
    if reply.error:
        return asker.fold(FailureEntry(to.workflow, to.key, to.run, to.call, 1, reply.error, reply.message, final=True))
    return asker.fold(Result(to.workflow, to.key, to.run, to.call, 1, reply.output))


def answered(asker: Run, run: Run) -> Reaction:
    run.fold(question_of(asker))
    (found,) = run.made(Reply)
    return reply(asker, found)


def shown(run: Run) -> PendingCall:
    (call,) = run.record.calls
    return call


# -- questions ---------------------------------------------------------------------------------------------------------


def test_a_run_asks_another_and_waits_for_nothing_else(asking: Run) -> None:
    (asked,) = asking.made(AskRun)

    assert asked.question == HistoryAsked(customer="ann")
    assert asked.asker == Asker("claim", "k", asking.record.run, shown(asking).id)
    assert shown(asking).status == "asked"
    assert asking.record.status == "waiting"
    assert asking.made(StartCall) == []


def test_the_answer_is_the_result_of_the_asking_call(asking: Run, ann: Run) -> None:
    answered(asking, ann)

    assert asking.record.to == "Reviewing"
    assert asking.data["history"] == {"claims": 1, "asked_by": "k"}
    assert (asking.record.cause, asking.record.name) == ("result", "ask HistoryAsked")


def test_answering_changes_nothing_and_is_recorded(asking: Run, ann: Run) -> None:
    before = ann.snapshot.data
    ann.fold(question_of(asking))

    assert bytes(ann.snapshot.data) == bytes(before)
    assert ann.snapshot.visit == 1
    assert (ann.record.cause, ann.record.name, ann.record.source) == ("question", "HistoryAsked", "claim/k")
    assert ann.record.asker is not None
    assert ann.record.ignored == ""


def test_the_answer_is_that_of_the_place_of_the_log_where_the_question_stands(asking: Run, ann: Run) -> None:
    question = question_of(asking)
    for _ in range(3):
        ann.send(Claimed())
    ann.fold(question)
    ann.send(Claimed())
    reply(asking, ann.commands[-1] if isinstance(ann.commands[-1], Reply) else ann.made(Reply)[0])

    assert asking.data["history"]["claims"] == 4


def test_a_question_may_be_answered_later(ann: Run) -> None:
    asker = Run(claim)
    asker.send(Filed(customer="ann", newcomer=True))
    ann.fold(question_of(asker))
    assert ann.made(Reply) == []
    assert ann.record.to == "Pondering"
    ann.send(Told())
    (found,) = ann.made(Reply)
    reply(asker, found)

    assert ann.record.to == "Remembering"
    assert asker.record.to == "Over"
    assert asker.record.fields == {}
    assert b"99 claims" in bytes(asker.record.data)


def test_a_question_that_moves_a_run_is_taken_once() -> None:
    asker, ann = Run(claim), Run(memory, key="ann")
    ann.send(Claimed())
    asker.send(Filed(customer="ann", newcomer=True))
    question = question_of(asker)
    ann.fold(question)
    ann.send(Told())
    ann.fold(question)

    assert ann.record.ignored == "a repeat: this PartnerAsked was taken before"
    assert ann.record.to == "Remembering"


def test_a_run_that_is_not_there_is_an_answer_too(asking: Run) -> None:
    nobody = Run(memory, key="ann")
    answered(asking, nobody)

    assert nobody.stored is None
    assert nobody.records == []
    assert asking.record.to == "Over"
    assert b'"NoRun"' in bytes(asking.record.data)
    assert b"there is no run memory/ann" in bytes(asking.record.data)


def test_early_events_wait_on_while_a_question_finds_no_run(asking: Run) -> None:
    early = Run(memory, key="ann")
    early.send(Told())
    wakes = early.last.wakes
    early.fold(question_of(asking))

    assert [r.error for r in early.made(Reply)] == ["NoRun"]
    assert early.last.wakes == wakes
    assert len(early.early.events) == 1


def test_where_there_may_be_no_run_another_answer_stands_in() -> None:
    asker = Run(claim)
    asker.send(Filed(customer="ann", newcomer=True))
    answered(asker, Run(memory, key="ann"))

    assert b"-1 claims" in bytes(asker.record.data)


def test_a_run_that_is_over_does_not_answer(asking: Run, ann: Run) -> None:
    ann.send(Forgotten())
    ann.fold(question_of(asking))
    (found,) = ann.made(Reply)
    reply(asking, found)

    assert (found.error, found.message) == ("RunFinished", "the run is finished (Gone)")
    assert ann.record.ignored == "the run is finished (Gone)"
    assert b'"RunFinished"' in bytes(asking.record.data)


def test_the_other_answer_stands_in_for_a_run_that_is_over(ann: Run) -> None:
    asker = Run(claim)
    asker.send(Filed(customer="ann", newcomer=True))
    ann.send(Forgotten())
    ann.fold(question_of(asker))
    reply(asker, ann.made(Reply)[0])

    assert asker.record.error.startswith("RunFinished")
    assert b"RunFinished" not in bytes(asker.record.data)


def test_a_state_that_does_not_answer_says_so(asking: Run, ann: Run) -> None:
    question = msgspec.structs.replace(question_of(asking), type="NobodyAsked")
    ann.fold(question)
    (found,) = ann.made(Reply)

    assert (found.error, found.message) == ("NotAnswered", "Remembering does not answer NobodyAsked")
    assert ann.record.ignored == found.message


def test_a_question_that_does_not_fit_is_not_answered(asking: Run, ann: Run) -> None:
    ann.fold(msgspec.structs.replace(question_of(asking), data=Raw(b'{"client":"ann"}')))
    (found,) = ann.made(Reply)

    assert found.error == "NotAnswered"
    assert "HistoryAsked does not fit its schema" in found.message


def test_a_question_that_can_begin_no_run_leaves_nobody_waiting(asking: Run) -> None:
    meeting = Run(Workflow("meeting", start=meet, states=[Met, Gone]), key="ann")
    meeting.fold(msgspec.structs.replace(question_of(asking), workflow="meeting", data=Raw(b'{"customer":5}')))

    assert len(meeting.dead) == 1
    (found,) = meeting.made(Reply)
    assert found.error == "NotAnswered"
    reply(asking, found)
    assert b'"NotAnswered"' in bytes(asking.record.data)


def test_an_answer_that_cannot_be_made_halts_the_one_who_is_asked(asking: Run, ann: Run) -> None:
    ann.send(Claimed(poison=True))
    ann.fold(question_of(asking))

    assert ann.record.halted is not None
    assert ann.record.halted.error == "ValueError: what is ann?"
    assert ann.made(Reply) == []
    assert len(ann.held) == 1


def test_a_question_to_a_halted_run_is_held_and_answered_when_it_goes_on(asking: Run, ann: Run) -> None:
    ann.send(Claimed(poison=True))
    ann.fold(msgspec.structs.replace(question_of(asking), asker=Asker("claim", "another", RunId("r"), CallId("1.0"))))
    ann.fold(question_of(asking))
    assert ann.record.ignored == "held: the run is halted"
    ann.send(Claimed())
    ann.order("skip")
    assert len(ann.held) == 2
    ann.order("skip")
    found = [c for c in ann.commands if isinstance(c, Reply)]

    assert [(r.error, r.message) for r in found] == [("NotAnswered", "left out by an order")] * 2
    assert ann.held == []
    assert ann.data["claims"] == 3


def test_a_run_that_never_began_leaves_nobody_waiting(asking: Run) -> None:
    ann = Run(memory, key="ann")
    ann.send(Claimed(poison=True, first=True))
    assert ann.record.halted is not None
    ann.fold(question_of(asking))
    ann.order("skip")
    reply(asking, ann.made(Reply)[0])

    assert ann.dead == []
    assert b'"NoRun"' in bytes(asking.record.data)


def test_a_halted_run_that_is_cancelled_leaves_nobody_waiting(asking: Run, ann: Run) -> None:
    ann.send(Claimed(poison=True))
    ann.fold(question_of(asking))
    ann.fold(question_of(asking))
    ann.order("cancel")
    found = ann.made(Reply)
    reply(asking, found[0])

    assert [r.error for r in found] == ["RunFinished", "RunFinished"]
    assert asking.record.to == "Over"


def test_a_question_that_nobody_waits_for_any_longer_is_answered_in_vain(asking: Run, ann: Run) -> None:
    question = question_of(asking)
    asking.send(Stopped())
    assert asking.made(CancelCall) == []
    ann.fold(question)
    reply(asking, ann.made(Reply)[0])

    assert asking.record.ignored == "the run is finished (Over)"


def test_a_second_answer_is_late(asking: Run, ann: Run) -> None:
    question = question_of(asking)
    answered(asking, ann)
    ann.fold(question)
    reply(asking, ann.made(Reply)[0])

    assert asking.record.to == "Reviewing"
    assert asking.record.ignored == "late: nobody waits for this call any longer"


def test_an_answer_that_does_not_fit_halts_the_asker(asking: Run, ann: Run) -> None:
    (asked,) = asking.made(AskRun)
    reply(asking, Reply(asked.asker, Raw(b'{"claims":"many"}')))

    assert asking.record.halted is not None
    assert "ValidationError" in asking.record.halted.error


def test_a_question_that_failed_is_asked_again_by_an_order(ann: Run) -> None:
    asker = Run(claim)
    asker.send(Filed(customer="ann", aside=True))
    answered(asker, Run(memory, key="ann"))
    assert shown(asker).status == "failed"
    asker.order("retry")
    assert asker.made(StartCall) == []
    assert (shown(asker).status, shown(asker).error) == ("asked", "")
    answered(asker, Run(memory, key="ann"))
    assert shown(asker).status == "failed"
    asker.order("retry")
    answered(asker, ann)

    assert asker.record.calls == ()


def test_two_who_ask_each_get_their_own_answer(asking: Run, ann: Run) -> None:
    other = Run(claim, key="other")
    other.send(Filed(customer="ann"))
    answered(other, ann)
    ann.send(Claimed())
    answered(asking, ann)

    assert (other.data["history"]["asked_by"], asking.data["history"]["asked_by"]) == ("other", "k")
    assert (other.data["history"]["claims"], asking.data["history"]["claims"]) == (1, 2)


# -- people ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def review(asking: Run, ann: Run) -> Run:
    answered(asking, ann)
    return asking


def say(run: Run, event: AnyEvent, who: str, visit: int = 0) -> Reaction:
    entry = event_entry(run.workflow, event, id=f"e{run.count + 1}", key=run.key)
    return run.fold(msgspec.structs.replace(entry, who=who, visit=visit))


def order(run: Run, order: Any, who: str) -> Reaction:
    return run.fold(OrderEntry(run.workflow.name, run.key, order, who))


def test_a_state_stands_in_an_inbox(review: Run) -> None:
    (asks,) = review.record.asks

    assert asks == Asks("reviewers", since=review.now, until=review.now + 7 * DAY)


def test_who_answers_is_known_to_the_handler_and_to_the_record(review: Run) -> None:
    say(review, Decided(yes=False), "bob", review.snapshot.visit)

    assert b"refused by bob" in bytes(review.record.data)
    assert review.record.who == "bob"
    assert review.record.asks == ()


def test_of_two_answers_one_wins_and_the_other_is_told(review: Run) -> None:
    visit = review.snapshot.visit
    say(review, Decided(yes=True), "ann", visit)
    say(review, Decided(yes=False), "bob", visit)

    assert review.record.to == "Paying"
    assert review.record.ignored == "answered already: the run has moved on to Paying"


def test_an_answer_counts_only_in_the_visit_that_was_seen(review: Run) -> None:
    """The run came back to the same state meanwhile: that is another question."""
    visit = review.snapshot.visit
    say(review, Decided(yes=True), "ann", visit)
    review.send(Stopped())
    assert review.record.to == "Reviewing"
    say(review, Decided(yes=False), "bob", visit)

    assert review.record.ignored == "answered already: the run has moved on to Reviewing"


def test_an_answer_after_the_end_says_where_the_run_is(review: Run) -> None:
    visit = review.snapshot.visit
    say(review, Decided(yes=False), "ann", visit)
    say(review, Decided(yes=True), "bob", visit)

    assert review.record.ignored == "the run is finished (Over)"


def test_what_somebody_has_taken_nobody_else_answers(review: Run) -> None:
    order(review, "take", "ann")
    assert review.record.taken == "ann"
    say(review, Decided(yes=True), "bob", review.snapshot.visit)

    assert review.record.ignored == "taken by ann: to be released first"
    assert review.record.to == "Reviewing"
    say(review, Decided(yes=True), "ann", review.snapshot.visit)
    assert review.record.to == "Paying"
    assert review.record.taken == ""


def test_nobody_takes_what_another_has(review: Run) -> None:
    order(review, "take", "ann")
    order(review, "take", "bob")

    assert review.record.ignored == "taken by ann already"
    order(review, "take", "ann")
    assert review.record.ignored == ""
    order(review, "release", "bob")
    assert review.record.taken == ""
    order(review, "take", "bob")
    assert review.record.taken == "bob"


def test_nothing_is_taken_or_given_back_where_nothing_waits(asking: Run) -> None:
    order(asking, "take", "ann")
    assert asking.record.ignored == "nothing here waits for people"
    order(asking, "release", "ann")
    assert asking.record.ignored == "nobody has taken it"


def test_what_is_taken_is_anybodys_when_the_state_is_left(review: Run) -> None:
    order(review, "take", "ann")
    review.tick()

    assert review.record.to == "Over"
    assert review.record.taken == ""


def test_an_event_of_no_person_is_taken_all_the_same(review: Run) -> None:
    order(review, "take", "ann")
    review.send(Decided(yes=True))

    assert review.record.to == "Paying"


def test_a_halted_run_asks_nobody(review: Run) -> None:
    review.raw("Decided", b"{}")
    review.fold(EventEntry("claim", "k", "x", "test", "Decided", Raw(b'{"yes":true}')))
    (call,) = [c for c in review.commands if isinstance(c, StartCall)]
    review.fold(FailureEntry("claim", "k", call.run, call.id, 1, "Bad", "key", halts=True))

    assert review.record.halted is not None
    assert review.record.asks == ()


# -- a step that asks --------------------------------------------------------------------------------------------------

SCHEMA = Raw(msgspec.json.encode(Leave.model_json_schema()))


@pytest.fixture
def paying(review: Run) -> Run:
    say(review, Decided(yes=True), "ann")
    return review


def asks(run: Run, call: StartCall, name: str = "ask") -> Reaction:
    question = f"may I pay {name}?"
    return run.fold(
        AskedEntry("claim", "k", call.run, call.id, call.attempt, name, "cashiers", question, SCHEMA),
    )


def leave(run: Run, call: StartCall, who: str, name: str = "ask", *, granted: bool = True) -> Reaction:
    answer = Raw(Leave(granted=granted).model_dump_json().encode())
    return run.fold(AnswerEntry("claim", "k", call.id, name, who, answer))


def test_a_step_that_asks_waits_in_the_inbox(paying: Run) -> None:
    call = paying.call()
    asks(paying, call)

    assert paying.record.asks == (Asks("cashiers", call.id, "ask", "may I pay ask?", since=paying.now, schema=SCHEMA),)
    assert shown(paying).status == "asking"
    assert paying.record.status == "waiting"
    assert (paying.record.cause, paying.record.inner, paying.record.why) == ("asked", "ask", "may I pay ask?")


@pytest.mark.parametrize("granted", [True, False])
def test_the_answer_is_kept_and_the_call_goes_on(paying: Run, granted: bool) -> None:
    call = paying.call()
    asks(paying, call)
    paying.now += 3 * DAY
    leave(paying, call, "bob", granted=granted)
    (kept,) = paying.made(Keep)
    (again,) = paying.made(StartCall)

    told = {"who": "bob", "answer": {"granted": granted, "note": ""}}
    assert msgspec.json.decode(kept.output) == told
    assert kept.name == "ask"
    assert (again.id, again.attempt, again.kept) == (call.id, 2, 1)
    assert (paying.record.cause, paying.record.who, paying.record.asks) == ("answer", "bob", ())
    assert paying.record.name == "pay"


def test_of_two_answers_to_a_step_one_wins(paying: Run) -> None:
    call = paying.call()
    asks(paying, call)
    leave(paying, call, "ann")
    leave(paying, call, "bob", granted=False)

    assert paying.record.ignored == "answered already, or no longer asked: nothing here waits for this answer"
    assert paying.made(Keep) == []
    assert shown(paying).status == "running"


def test_an_answer_to_another_question_of_the_step_does_not_count(paying: Run) -> None:
    call = paying.call()
    asks(paying, call, "second")
    leave(paying, call, "ann", "first")

    assert paying.record.ignored.startswith("answered already")
    assert shown(paying).status == "asking"


def test_a_step_may_ask_twice(paying: Run) -> None:
    asks(paying, paying.call(), "first")
    leave(paying, paying.call(), "ann", "first")
    asks(paying, paying.call(), "second")
    leave(paying, paying.call(), "bob", "second")

    assert paying.call().kept == 2
    assert paying.call().attempt == 3
    paying.result(paying.call(), 7)
    assert paying.made(Forget)
    assert paying.record.to == "Over"


def test_what_a_step_asks_can_be_taken(paying: Run) -> None:
    call = paying.call()
    asks(paying, call)
    order(paying, "take", "ann")
    leave(paying, call, "bob")
    assert paying.record.ignored == "taken by ann: to be released first"
    order(paying, "release", "ann")
    leave(paying, call, "bob")

    assert shown(paying).status == "running"
    assert paying.record.taken == ""


def test_asking_is_no_failure_and_makes_the_count_begin_anew(paying: Run) -> None:
    paying.fail(paying.call())
    paying.tick()
    asks(paying, paying.call())
    leave(paying, paying.call(), "ann")
    paying.fail(paying.call())

    assert shown(paying).status == "waiting"


def test_a_question_of_an_attempt_that_was_given_up_is_late(paying: Run) -> None:
    first = paying.call()
    paying.fail(first)
    asks(paying, first)
    assert paying.record.ignored == "late: attempt 1 was given up before"
    paying.tick()
    asks(paying, first)

    assert paying.record.ignored == "late: attempt 1 was given up before"
    assert shown(paying).status == "running"


def test_a_question_of_a_call_that_is_over_is_late(paying: Run) -> None:
    call = paying.call()
    paying.send(Stopped())
    asks(paying, call)

    assert paying.record.ignored == "late: nobody waits for this call any longer"


def test_leaving_the_state_takes_the_question_back(paying: Run) -> None:
    call = paying.call()
    asks(paying, call)
    paying.send(Stopped())
    assert paying.made(CancelCall) == []
    leave(paying, call, "ann")

    assert paying.record.ignored.startswith("answered already, or no longer asked")
    assert [a.group for a in paying.record.asks] == ["reviewers"]


def test_an_answer_to_a_run_that_is_not_there_is_a_dead_letter() -> None:
    run = Run(claim)
    run.fold(AnswerEntry("claim", "k", CallId("1.0"), "ask", "ann", Raw(b"{}")))

    assert [d.reason for d in run.dead] == ["there is no run claim/k to answer"]


def test_an_answer_to_a_halted_run_is_held_and_counts_when_it_goes_on(asking: Run, ann: Run) -> None:
    call = to_halt(asking, ann)
    leave(asking, call, "ann")
    assert asking.record.ignored == "held: the run is halted"
    asking.order("resume")

    assert asking.record.ignored.startswith("answered already")
    assert asking.call().attempt == 2


def to_halt(asking: Run, ann: Run) -> StartCall:
    answered(asking, ann)
    say(asking, Decided(yes=True), "ann")
    call = asking.call()
    asking.fold(FailureEntry("claim", "k", call.run, call.id, 1, "Bad", "key", halts=True))
    return call


def test_an_answer_that_the_step_cannot_read_is_its_own_failure(paying: Run) -> None:
    """The fold does not open it: the client checks it against the schema, and the step reads it."""
    call = paying.call()
    asks(paying, call)
    paying.fold(AnswerEntry("claim", "k", call.id, "ask", "ann", Raw(b'"perhaps"')))

    assert shown(paying).status == "running"
    paying.fail(paying.call(), "ValidationError", final=True)
    assert paying.record.to == "Over"


def test_time_passes_while_people_think(review: Run) -> None:
    review.now += HOUR
    review.tick(review.last.wakes)

    assert b"nobody answered" in bytes(review.record.data)


async def _hand_out(text: str, context: StepContext) -> int:
    return len(text)


hand_out = step(name="hand_out")(_hand_out)


class Parting(Event):
    pass


class Here(State, endless=True):
    @on
    def parting(self, event: Parting) -> tuple[Call[int], There]:
        return hand_out.call("x"), There()


class There(Final):
    pass


def arrive(event: Claimed) -> Here:
    return Here()


def test_a_call_that_asks_when_its_run_is_over_is_found_and_answered() -> None:
    run = Run(Workflow("claim", start=arrive, states=[Here, There]))
    run.send(Claimed())
    run.send(Parting())
    asks(run, run.call())
    assert run.record.status == "finished"
    assert [a.call for a in run.record.asks] == [run.call().id]

    leave(run, run.call(), "ann")
    assert run.record.asks == ()
    run.result(run.call(), 1)
    assert run.grave.state == "There"
