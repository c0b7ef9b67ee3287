"""What a definition must catch when it is made: each mistake planted once, and the sentence that it gets."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import pytest

from engine import Application, DefinitionError, Event, Final, State, Workflow
from engine.core.checks import lock_problems, schema_lock
from engine.core.definition import span
from engine.core.model import Work, runs_each
from tests.core import broken, namesake, twin, upgraded, zoo
from tests.core.broken import Over, Ping, Start, into


def problems(first: type[State], *more: Any, **options: Any) -> tuple[str, ...]:
    states = [first, *(more or (Over,))]
    with pytest.raises(DefinitionError) as raised:
        Workflow("broken", start=into(first), states=states, **options)
    return raised.value.problems


def warnings(first: type[State], *more: type[State]) -> list[str]:
    return Workflow("fine", start=into(first), states=[first, *more, Over]).warnings


# The twenty -----------------------------------------------------------------------------------------------------------


def test_1_a_state_that_is_not_listed() -> None:
    assert problems(broken.Astray) == ("Astray.pinged leads to Elsewhere, which is not in states=",)


def test_2_a_state_that_cannot_be_reached() -> None:
    assert problems(broken.Elsewhere, Over, broken.Unaware) == (
        "Unaware cannot be reached from the start; lead to it, or take it out of states=",
    )


def test_3_a_dead_end_that_is_not_final() -> None:
    assert problems(broken.Trap, broken.Trap) == (
        "2 states are called Trap; a state's name is stored, so give each its own",
        "Trap has no way out and is not Final; add a handler that leads on, or make it Final",
    )


def test_4_a_final_state_that_leads_on() -> None:
    assert problems(broken.Undead) == ("Undead is Final but leads on (Ping); drop the handler, or make it a State",)


def test_4_a_final_state_with_a_timer() -> None:
    assert problems(broken.Ticking, broken.Ticking)[1:] == (
        "Ticking is Final but has work or timers; a final state only says how the run ended",
    )


def test_5_an_event_that_is_handled_twice() -> None:
    assert problems(broken.Twice) == ("Twice handles Ping twice; one event, one handler: merge them",)


def test_6_work_without_done() -> None:
    assert problems(broken.HalfDone) == ("HalfDone runs work without @job.done; say what its results lead to",)


def test_7_work_without_failed() -> None:
    assert problems(broken.HalfFailed) == (
        "HalfFailed runs work without @job.failed; say what happens when it fails for good",
    )


def test_8_a_handler_without_a_return_annotation() -> None:
    assert problems(broken.Unannotated) == (
        "Unannotated.pinged has no return annotation; the annotation draws the arrow",
    )


def test_8_a_handler_that_answers_with_nothing() -> None:
    assert problems(broken.Wordless) == (
        "Wordless.pinged answers with no state, call or published event; its return annotation must name one",
    )


def test_9_a_handler_that_returns_the_bare_state() -> None:
    assert problems(broken.Vague) == ("Vague.pinged returns State; name the states it can lead to",)


def test_10_a_handler_that_is_async() -> None:
    assert problems(broken.Waits) == ("Waits.pinged is async; a handler is pure, move the I/O into a step",)


def test_10_a_start_that_is_async() -> None:
    async def start(event: Start) -> Over:
        return Over()

    with pytest.raises(DefinitionError, match="start is async; a handler is pure"):
        Workflow("broken", start=start, states=[Over])  # type: ignore[arg-type]


def test_11_a_timer_that_is_not_positive() -> None:
    assert problems(broken.Instant) == ("Instant.end fires after 0 s; give a positive delay",)
    assert problems(broken.Backwards) == ("Backwards.nag fires every -1 h; give a positive delay",)


def test_12_a_wait_without_end() -> None:
    assert problems(broken.Forever) == ("Forever may wait for Ping without end; add @after(...) that leads on",)


def test_13_two_states_of_one_name() -> None:
    assert problems(twin.Astray, broken.Astray, broken.Elsewhere, Over)[0] == (
        "2 states are called Astray; a state's name is stored, so give each its own"
    )


def test_13_two_events_of_one_name() -> None:
    assert problems(twin.Listening, broken.Unaware, Over) == (
        "2 events are called Ping; the name is what stands on the wire, so give each its own",
    )


def test_13_two_steps_of_one_name() -> None:
    assert "2 steps are called work; the name is what stands on the wire, so give each its own" in problems(
        namesake.Working, namesake.OtherWorking, Over
    )


def test_14_a_state_made_inside_a_function() -> None:
    class Local(Final):
        pass

    assert problems(Local, Local)[1:] == (
        "Local is made inside a function; states are found by name, so define it at module level",
    )


def test_14_an_event_made_inside_a_function() -> None:
    class Here(Event):
        pass

    def start(event: Start) -> Over:
        return Over()

    start.__annotations__["event"] = Here
    with pytest.raises(DefinitionError, match="Here is made inside a function; events are found by name"):
        Workflow("broken", start=start, states=[Over])


def test_15_a_field_that_can_change() -> None:
    assert problems(broken.Holds) == (
        "Holds.names is a list, which can change behind the fold; use tuple",
        "Holds.table is a dict, which can change behind the fold; use a frozen model or a tuple of pairs",
        "Holds.tags is a frozenset, which has no order and so no one form on disk; use tuple",
        "Holds.many is a Sequence, which can change behind the fold; use tuple",
        "Holds.few is a Mapping, which can change behind the fold; use a frozen model or a tuple of pairs",
        "Holds.loose is a Loose, which is not frozen; write `class Loose(BaseModel, frozen=True)`",
        "Holds.loose.names is a list, which can change behind the fold; use tuple",
    )


def test_15_a_field_that_json_cannot_carry() -> None:
    (problem,) = problems(broken.Uncarried)

    assert problem.startswith("Uncarried cannot be carried by JSON (Cannot generate a JsonSchema")
    assert problem.endswith("use plain data and frozen models")


def test_16_a_timer_that_can_never_fire() -> None:
    assert problems(broken.Late) == (
        "Late.nag (every 20 d) can never fire: end leads on after 14 d",
        "Late.end_again (after 14 d) can never fire: end leads on after 14 d",
    )
    assert warnings(broken.InTime) == []


def test_17_a_loop_of_work_without_a_bound() -> None:
    assert "Acting -> Thinking is a loop of work without a wait or a bound; let one of them lead out of it" in problems(
        broken.Thinking, broken.Acting, Over
    )


def test_18_an_event_that_no_state_handles() -> None:
    assert problems(broken.Quiet) == ("Quiet names Pong in later= or ignores=, but no state handles it",)
    assert problems(broken.Elsewhere, Over, on_key={Ping: "nothing"}) == ("on_key= names Ping, which no state handles",)


def test_19_a_step_that_may_be_tried_longer_than_its_state_lives_is_a_warning() -> None:
    assert warnings(broken.Hasty) == [
        "Hasty lives 90 min, but slow may be tried for 545 min; fewer attempts, a shorter timeout, or a later timer"
    ]


def test_20_a_stored_form_that_changed_without_a_new_version() -> None:
    locked = schema_lock(upgraded.before)
    assert locked == "desk version 1\nLetter.text: str\n"
    assert lock_problems(upgraded.before, locked) == []
    assert (
        lock_problems(upgraded.before, locked.replace("str", "int"))
        == ["Letter.text: stored states of 'desk' changed without a new version; raise version= and add migrate="] * 2
    )
    assert lock_problems(upgraded.after_it, locked) == []


# Beside them ----------------------------------------------------------------------------------------------------------


def test_an_event_that_a_state_does_not_mention_is_a_warning() -> None:
    assert warnings(broken.Listening, broken.Unaware) == [
        "Unaware does not say what becomes of Ping; handle it, or name it in later= or ignores="
    ]


def test_an_event_both_handled_and_kept() -> None:
    assert problems(broken.Both) == ("Both handles Ping and names it in later=; it cannot be both",)


def test_a_handler_without_an_event() -> None:
    assert problems(broken.Deaf) == ("Deaf.pinged handles no event; annotate its parameter with an Event class",)


def test_an_entry_that_leads_on() -> None:
    assert problems(broken.Jumps) == ("Jumps.hop leads on at entry; @enter may only call steps and publish",)


def test_a_time_without_due() -> None:
    assert problems(broken.Timeless) == ("Timeless.then is a time without @then.due; say what happens then",)


def test_work_without_a_step() -> None:
    assert "NoStep.job runs no step; name one to five in @runs(...)" in problems(broken.NoStep)


def test_work_in_a_superstate() -> None:
    assert "Busy.job runs steps in a superstate; write it in each state that runs them" in problems(broken.Busier)


def test_a_handler_that_is_overridden_by_a_plain_method() -> None:
    (problem,) = problems(broken.Overrides)

    assert problem == (
        "Overrides.pinged takes the place of Open.pinged but is no handler; mark it as that is, or give it another name"
    )


def test_an_annotation_that_names_nothing() -> None:
    assert problems(broken.Misspelt) == (
        "Misspelt: name 'Ovre' is not defined; define states and data at module level, above the Workflow",
    )


def test_later_that_is_no_tuple() -> None:
    (problem,) = problems(broken.Untupled)

    assert problem.startswith("Untupled cannot be read:")
    assert problem.endswith("look at its annotations, and at later= and ignores=")


def test_states_that_are_none() -> None:
    assert problems(broken.Elsewhere, Over, Ping, 7)[0].startswith("states= holds <class 'tests.core.broken.Ping'>")
    assert problems(broken.Elsewhere, Over, 7) == ("states= holds 7, which is no State class",)


def test_a_start_that_takes_or_gives_nothing() -> None:
    def start() -> None: ...

    with pytest.raises(DefinitionError) as raised:
        Workflow("broken", start=start, states=[Over])  # type: ignore[arg-type]

    assert raised.value.problems == (
        "start takes no event; annotate its first parameter with the Event that begins a run",
        "start returns no state; annotate it with the state that a run begins in",
    )


def test_a_start_that_leads_elsewhere() -> None:
    with pytest.raises(DefinitionError) as raised:
        Workflow("broken", start=into(State), states=[Over])
    assert raised.value.problems[0] == "start returns State; name the states that a run can begin in"
    with pytest.raises(DefinitionError, match="start leads to Elsewhere, which is not in states="):
        Workflow("broken", start=into(broken.Elsewhere), states=[Over])


def test_a_start_whose_annotation_names_nothing() -> None:
    def start(event: Nothing) -> Over:  # type: ignore[name-defined]  # noqa: F821
        return Over()

    with pytest.raises(DefinitionError, match="start: name 'Nothing' is not defined"):
        Workflow("broken", start=start, states=[Over])


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(DefinitionError) as raised:
        Workflow("broken", start=into(broken.Astray), states=[broken.Astray, broken.Trap, broken.Instant, Over])

    assert str(raised.value) == (
        "workflow 'broken' has 5 problems:\n"
        "  - Astray.pinged leads to Elsewhere, which is not in states=\n"
        "  - Trap has no way out and is not Final; add a handler that leads on, or make it Final\n"
        "  - Instant.end fires after 0 s; give a positive delay\n"
        "  - Trap cannot be reached from the start; lead to it, or take it out of states=\n"
        "  - Instant cannot be reached from the start; lead to it, or take it out of states="
    )
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


# Keys -----------------------------------------------------------------------------------------------------------------


def test_a_key_that_names_no_field_is_refused_when_the_event_is_made() -> None:
    with pytest.raises(TypeError, match="Wrong: key='nmae' names no field: Wrong has name"):

        class Wrong(Event, key="nmae"):
            name: str


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="key='number' is no text; the key of a run is a str"):

        class Wrong(Event, key="number"):
            number: int


def test_a_key_of_the_workflow_is_checked_too() -> None:
    def start(placed: zoo.Placed) -> Over:
        return Over()

    with pytest.raises(DefinitionError, match="Placed: key='orde' names no field: Placed has order, amount"):
        Workflow("broken", start=start, states=[Over], on_key={zoo.Placed: "orde"})


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one must run at a time"):
        runs_each(zoo.check_item, limit=0)


# What falls out -------------------------------------------------------------------------------------------------------


def test_the_table_draws_every_arrow() -> None:
    assert upgraded.after_it.table() == (
        "Message  check_item done    -> Message\n"
        "Message  check_item failed  -> Shut\n"
        "Message  Read               -> Message\n"
        "Message  after 20 d         -> Shut\n"
        "Message  after 9 d          -> Message or Shut\n"
        "Message  every 16 h         -> (stays)"
    )


def test_the_mermaid_diagram_begins_and_ends() -> None:
    drawn = zoo.order.mermaid().splitlines()

    assert drawn[:2] == ["stateDiagram-v2", "    [*] --> Waiting"]
    assert "    Waiting --> Packing : Paid" in drawn
    assert "    Packing : entry" in drawn
    assert drawn[-2:] == ["    Done --> [*]", "    Dropped --> [*]"]


def test_spans_are_told_in_their_largest_unit() -> None:
    spans = [
        timedelta(days=14),
        timedelta(hours=36),
        timedelta(minutes=90),
        timedelta(seconds=1.5),
        timedelta(hours=-1),
    ]

    assert [span(s) for s in spans] == ["14 d", "36 h", "90 min", "1.5 s", "-1 h"]


def test_a_workflow_knows_the_steps_that_its_handlers_call() -> None:
    assert set(zoo.order.steps) >= {"tell", "fetch"}
    assert set(twin.by_module.steps) >= {"tell"}


def test_a_workflow_tells_its_name() -> None:
    assert repr(upgraded.after_it) == "Workflow('desk', version=2)"


def test_the_code_of_another_version_is_other_code() -> None:
    assert len(zoo.order.code) == 12
    assert len({w.code for w in (zoo.order, zoo.work, upgraded.before, upgraded.after_it)}) == 4


# The application ------------------------------------------------------------------------------------------------------


def test_an_application_finds_workflows_of_one_name() -> None:
    with pytest.raises(DefinitionError, match="two workflows are called 'desk'; give each its own name"):
        Application(workflows=[upgraded.before, upgraded.after_it])


def test_an_application_finds_events_of_one_name() -> None:
    one = Workflow("one", start=into(broken.Listening), states=[broken.Listening, broken.Unaware, Over])
    with pytest.raises(DefinitionError, match="two events are called Ping"):
        Application(workflows=[one, twin.other])


def test_an_application_knows_its_events_steps_and_code() -> None:
    app = Application(workflows=[zoo.order, zoo.work])

    assert {"Placed", "Asked"} <= set(app.events)
    assert set(app.steps) >= {"fetch", "patient", "tell", "check_item"}
    assert app.takers("Asked") == [zoo.work]
    assert len(app.code) == 12


def test_work_says_whether_it_is_one_step_over_many_inputs() -> None:
    assert Work((zoo.check_item,), len, 3).each
    assert not Work((zoo.check_item,), len).each
