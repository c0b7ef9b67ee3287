"""Spans of calls that ask other runs, and of parts that come when their attempt is over."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Raw
from pydantic import BaseModel

from engine import Event, Final, Question, State, StepFailed, Workflow, ask, on, runs, runs_each, step
from engine.core.entry import EventEntry, KeptEntry
from engine.core.reaction import AskRun
from engine.core.trace import parse_traceparent
from tests.core.folding import DAY, MINUTE, SECOND, Run
from tests.core.test_episodes import begun
from tests.observability.traces import gather, only, orphans

MANY = 30


class Word(BaseModel, frozen=True):
    text: str = ""


class WordAsked(Question[Word], key="whom"):
    whom: str


class Begun(Event, key="id"):
    id: str
    many: bool = False


class Stopped(Event): ...


ask_word = ask(WordAsked)


@step(total=timedelta(hours=1))
async def count(number: int) -> int:
    return number


class Asking(State):
    """While it asks, a step keeps the episode open."""

    @runs(ask_word)
    def word(self) -> WordAsked:
        return WordAsked(whom="ann")

    @word.done
    def told(self, word: Word) -> Over:
        del word
        return Over()

    @word.failed
    def silent(self, failure: StepFailed) -> Over:
        del failure
        return Over()

    @runs(count)
    def counting(self) -> int:
        return 1

    @counting.done
    def counted(self, number: int) -> Over:
        del number
        return Over()

    @counting.failed
    def lost(self, failure: StepFailed) -> Over:
        del failure
        return Over()

    @on
    def stopped(self, event: Stopped) -> Over:
        del event
        return Over()


class AskingMany(State):
    @runs_each(ask_word)
    def words(self) -> tuple[WordAsked, ...]:
        return tuple(WordAsked(whom=str(number)) for number in range(MANY))

    @words.done
    def told(self, words: tuple[Word, ...]) -> Over:
        del words
        return Over()

    @words.failed
    def silent(self, failure: StepFailed) -> Over:
        del failure
        return Over()


class Over(Final): ...


def begin(event: Begun) -> Asking | AskingMany:
    return AskingMany() if event.many else Asking()


asker = Workflow("asker", start=begin, states=[Asking, AskingMany, Over])


def sent(run: Run, kind: str, data: bytes = b"{}") -> None:
    run.fold(EventEntry("asker", "k", f"e{run.count}", "test", kind, Raw(data)))


def test_a_call_that_asks_and_is_given_up_in_the_same_episode_is_one_span() -> None:
    run = Run(asker)
    sent(run, "Begun", b'{"id":"k"}')
    run.now += SECOND
    sent(run, "Stopped")

    assert only(gather(run.records), "ask WordAsked").named["workflow.attempt"] == 1


def test_all_calls_that_ask_have_a_span_for_what_is_asked_to_hang_on() -> None:
    run = Run(asker)
    sent(run, "Begun", b'{"id":"k","many":true}')
    traces = gather(run.records)

    asked = [parse_traceparent(each.traceparent) for each in run.made(AskRun)]
    assert len(asked) == MANY
    assert set(asked) <= set(traces)


def test_a_part_that_is_kept_after_its_attempt_has_failed_hangs_on_its_episode() -> None:
    run = begun()
    call = run.call()
    run.fail(call, wait=2 * DAY)
    run.now += 5 * MINUTE
    run.fold(KeptEntry("episodic", "k", call.run, call.id, 1, 0, "part", Raw(b"1")))
    traces = gather(run.records)
    part = only(traces, "work: part")

    assert not run.record.ignored
    assert [span for span in orphans(traces) if span.trace == part.trace] == []
