"""What cannot be meant: looked for when a workflow is defined, all of it reported at once.

Each check is a generator of sentences that name the thing, the rule and what to do. Problems refuse the definition;
warnings are shown by `longwatch check`.
"""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from engine.core.definition import Handler, StateSpec, attributes, members, searchable, span, superstates
from engine.core.model import BudgetSpent, Event, Final, Mark, Moment, Question, State, Work, key_problem
from engine.core.secret import is_secret
from engine.core.steps import Spends, Step

if TYPE_CHECKING:
    from engine.core.definition import Workflow

MUTABLE: Mapping[Any, str] = {
    list: "tuple",
    set: "tuple",
    collections.abc.Sequence: "tuple",
    collections.abc.Set: "tuple",
    collections.abc.MutableSequence: "tuple",
    collections.abc.MutableSet: "tuple",
    dict: "a frozen model or a tuple of pairs",
    collections.abc.Mapping: "a frozen model or a tuple of pairs",
    collections.abc.MutableMapping: "a frozen model or a tuple of pairs",
}
"""Types whose values can change, or may be of a type that can, and what to write instead."""


@dataclass(frozen=True)
class Findings:
    """Sentences, in the order of the states."""

    problems: list[str]
    warnings: list[str]


def classes(states: Sequence[Any]) -> list[type[State]]:
    """What in `states` is a State class."""
    return [s for s in states if isinstance(s, type) and issubclass(s, State)]


def names(states: Sequence[Any]) -> list[str]:
    """Checks of the list itself, before any class is read."""
    problems = [
        f"states= holds {s!r}, which is no State class"
        for s in states
        if not (isinstance(s, type) and issubclass(s, State))
    ]
    classes = [s for s in states if isinstance(s, type)]
    for name, count in Counter(s.__name__ for s in classes).items():
        if count > 1:
            problems.append(f"{count} states are called {name}; a state's name is stored, so give each its own")
    return problems


def check(workflow: Workflow[Any]) -> Findings:
    specs = workflow.specs
    problems: list[str] = []
    warnings: list[str] = []
    for spec in specs.values():
        problems += _state(spec, workflow.listed)
    problems += _start(workflow)
    if len(specs) == len(workflow.listed):  # of one that could not be read nobody knows where it leads
        problems += _reachable(workflow)
    problems += _loops(specs)
    problems += _one_name(workflow)
    problems += _unhandled(workflow)
    problems += _keys(workflow)
    problems += _questions(workflow)
    problems += _budgets(workflow)
    for spec in specs.values():
        warnings += _silent(spec, workflow)
        warnings += _long_retries(spec)
    return Findings(problems, warnings)


def _state(spec: StateSpec, listed: Mapping[str, type[State]]) -> Iterator[str]:
    yield from _class(spec)
    yield from _overrides(spec)
    for handler in spec.handlers():
        yield from _handler(spec, handler, listed)
    for owner, count in Counter(h.event for h in spec.on if h.event).items():
        if count > 1:
            yield f"{spec.name} handles {owner.__name__} twice; one event, one handler: merge them"
    if spec.final:
        leading = [h.trigger for h in spec.handlers() if h.order]
        if leading:
            yield f"{spec.name} is Final but leads on ({', '.join(leading)}); drop the handler, or make it a State"
        if spec.works or spec.timers or spec.moments:
            yield f"{spec.name} is Final but has work or timers; a final state only says how the run ended"
        return
    yield from _work(spec)
    yield from _timers(spec)
    yield from _ways_out(spec)


def _class(spec: StateSpec) -> Iterator[str]:
    if "<locals>" in spec.type.__qualname__:
        yield f"{spec.name} is made inside a function; states are found by name, so define it at module level"
    for name, field in spec.type.model_fields.items():
        yield from _field(f"{spec.name}.{name}", field.annotation, ())
    for _, where, secret in searchable(spec.type):
        if secret:
            yield (
                f"{spec.name}.{where} is Searchable and Secret; what is searchable stands in lists and on spans, "
                "for all to read, so leave one of the two out"
            )
    try:
        TypeAdapter(spec.type).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError) as error:
        yield f"{spec.name} cannot be carried by JSON ({str(error).splitlines()[0]}); use plain data and frozen models"


def _field(where: str, annotation: Any, above: tuple[Any, ...]) -> Iterator[str]:
    origin = typing.get_origin(annotation) or annotation
    if origin in MUTABLE:
        yield f"{where} is a {origin.__name__}, which can change behind the fold; use {MUTABLE[origin]}"
    elif origin is frozenset:
        yield f"{where} is a frozenset, which has no order and so no one form on disk; use tuple"
    elif isinstance(origin, type) and issubclass(origin, BaseModel) and origin not in above:
        if not origin.model_config.get("frozen"):
            model = origin.__name__
            yield f"{where} is a {model}, which is not frozen; write `class {model}(BaseModel, frozen=True)`"
        for name, field in origin.model_fields.items():
            yield from _field(f"{where}.{name}", field.annotation, (*above, origin))
    for argument in typing.get_args(annotation):
        if argument is not Ellipsis and not isinstance(argument, str | int | bool | list):
            yield from _field(where, argument, above)


def _overrides(spec: StateSpec) -> Iterator[str]:
    """A handler of a superstate that is silently gone, since the state has a plain method of that name."""
    for name, (cls, value) in attributes(spec.type).items():
        for base in superstates(cls) if inspect.isfunction(value) and not hasattr(value, "__mark__") else ():
            above = vars(base).get(name)
            if hasattr(above, "__mark__") or isinstance(above, Work | Moment):
                rule = "but is no handler; mark it as that is, or give it another name"
                yield f"{cls.__name__}.{name} takes the place of {base.__name__}.{name} {rule}"


def _handler(spec: StateSpec, handler: Handler, listed: Mapping[str, type[State]]) -> Iterator[str]:
    where = f"{handler.owner or spec.name}.{handler.name}"
    if inspect.iscoroutinefunction(handler.function):
        yield f"{where} is async; a handler is pure, move the I/O into a step"
    if not handler.annotated:
        yield f"{where} has no return annotation; the annotation draws the arrow"
    elif not (handler.order or handler.calls or handler.publishes or handler.replies):
        yield f"{where} answers with no state, call or published event; its return annotation must name one"
    for target in handler.order:
        if target in (State, Final):
            yield f"{where} returns {target.__name__}; name the states it can lead to"
        elif listed.get(target.__name__) is not target:
            yield f"{where} leads to {target.__name__}, which is not in states="
    if handler.trigger == "entry" and handler.order:
        yield f"{where} leads on at entry; @enter may only call steps and publish"
    mark = getattr(handler.function, "__mark__", None)
    if isinstance(mark, Mark) and mark.kind == "on" and handler.event is None:
        yield f"{where} handles no event; annotate its parameter with an Event class"
    if isinstance(mark, Mark) and mark.delay is not None and mark.delay < timedelta(milliseconds=1):
        yield f"{where} fires {mark.kind} {span(mark.delay)}; give a positive delay"


def _work(spec: StateSpec) -> Iterator[str]:
    for name, (cls, value) in attributes(spec.type).items():
        if name in spec.works_by_name and cls is not spec.type and value is not None:
            yield f"{cls.__name__}.{name} runs steps in a superstate; write it in each state that runs them"
    for work in spec.works:
        if not work.steps:
            yield f"{spec.name}.{work.name} runs no step; name one to five in @runs(...)"
        if work.done is None:
            yield f"{spec.name} runs {work.words} without @{work.name}.done; say what its results lead to"
        if work.failed is None:
            yield f"{spec.name} runs {work.words} without @{work.name}.failed; say what happens when it fails for good"
    for moment in spec.moments:
        if moment.due is None:
            yield f"{spec.name}.{moment.name} is a time without @{moment.name}.due; say what happens then"


def _timers(spec: StateSpec) -> Iterator[str]:
    ends = [t for t in spec.timers if not t.repeats and t.order and spec.type not in t.targets]
    if not ends:
        return
    first = min(ends, key=lambda t: t.delay)
    behind = False
    for timer in spec.timers:  # of those due at one time, the first that is written fires first
        behind = behind or timer is first
        late = timer.delay > first.delay or (timer.delay == first.delay and behind)
        if timer is not first and timer.owner == first.owner and late:
            yield f"{spec.name}.{timer.name} ({timer.trigger}) can never fire: {first.name} leads on {first.trigger}"


def _leads_on(handler: Handler | None, spec: StateSpec) -> bool:
    return handler is not None and bool(handler.targets - {spec.type})


def _ways_out(spec: StateSpec) -> Iterator[str]:
    if spec.endless:
        return
    if not any(_leads_on(h, spec) for h in spec.handlers()):
        yield f"{spec.name} has no way out and is not Final; add a handler that leads on, or make it Final"
        return
    ending = any(_leads_on(t, spec) for t in spec.timers) or any(_leads_on(m.due, spec) for m in spec.moments)
    working = any(_leads_on(w.done, spec) and _leads_on(w.failed, spec) for w in spec.works if w.done and w.failed)
    unfinished = any(w.done is None or w.failed is None for w in spec.works)
    if not ending and not working and not unfinished:
        waits = ", ".join(h.trigger for h in spec.on) or "its work"
        yield f"{spec.name} may wait for {waits} without end; add @after(...) that leads on"


def _start(workflow: Workflow[Any]) -> Iterator[str]:
    if not workflow.starts_on:
        yield "start takes no event; annotate its first parameter with the Event that begins a run"
    if inspect.iscoroutinefunction(workflow.start):
        yield "start is async; a handler is pure, move the I/O into a step"
    if not workflow.starting.order:
        yield "start returns no state; annotate it with the state that a run begins in"
    for target in workflow.starting.order:
        if target in (State, Final):
            yield f"start returns {target.__name__}; name the states that a run can begin in"
        elif workflow.listed.get(target.__name__) is not target:
            yield f"start leads to {target.__name__}, which is not in states="


def _reachable(workflow: Workflow[Any]) -> Iterator[str]:
    seen: set[str] = set()
    todo = [t.__name__ for t in workflow.starting.order]
    while todo:
        if (name := todo.pop()) in workflow.specs and name not in seen:
            seen.add(name)
            todo += [t.__name__ for h in workflow.specs[name].handlers() for t in h.order]
    for name in workflow.specs:
        if name not in seen and workflow.starting.order:
            yield f"{name} cannot be reached from the start; lead to it, or take it out of states="


def _loops(specs: Mapping[str, StateSpec]) -> Iterator[str]:
    """Rings of states that lead to each other by work alone, none of which can leave the ring by its work."""
    edges = {
        name: {t.__name__ for w in spec.works if w.done for t in w.done.order if t is not spec.type}
        for name, spec in specs.items()
    }
    told: set[frozenset[str]] = set()
    for name in edges:
        ring = _closure(edges, name)
        looping = name in ring and all(name in _closure(edges, other) for other in ring)
        bounded = any(t.order and not t.repeats for n in ring for t in specs[n].timers)
        if looping and not bounded and frozenset(ring) not in told:
            told.add(frozenset(ring))
            words = " -> ".join(sorted(ring))
            yield f"{words} is a loop of work without a wait or a bound; let one of them lead out of it"


def _closure(edges: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(edges.get(start, ()))
    while todo:
        if (name := todo.pop()) not in seen:
            seen.add(name)
            todo += edges.get(name, ())
    return seen


def _one_name(workflow: Workflow[Any]) -> Iterator[str]:
    events: dict[str, set[Any]] = {}
    steps: dict[str, set[Any]] = {}
    for event in _named_events(workflow):
        events.setdefault(event.__name__, set()).add(event)
        if "<locals>" in event.__qualname__ and len(events[event.__name__]) == 1:
            yield f"{event.__name__} is made inside a function; events are found by name, so define it at module level"
    for step in workflow.all_steps():
        steps.setdefault(step.name, set()).add(step.function)
    for what, found in (("events", events), ("steps", steps)):
        for name, things in found.items():
            if len(things) > 1:
                rule = "the name is what stands on the wire, so give each its own"
                yield f"{len(things)} {what} are called {name}; {rule}"


def _named_events(workflow: Workflow[Any]) -> list[type[Event]]:
    """Every event class that the definition names, once."""
    found: dict[type[Event], None] = {}
    for spec in workflow.specs.values():
        found |= dict.fromkeys((*(h.event for h in spec.on if h.event), *spec.type.later, *spec.type.ignores))
    return list(found | dict.fromkeys(workflow.starts_on.values()))


def _unhandled(workflow: Workflow[Any]) -> Iterator[str]:
    handled = set(workflow.events)
    for spec in workflow.specs.values():
        for name in sorted((spec.later | spec.ignores) - handled):
            yield f"{spec.name} names {name} in later= or ignores=, but no state handles it"
        for name in sorted(spec.later & set(spec.events)):
            yield f"{spec.name} handles {name} and names it in later=; it cannot be both"
    for name in sorted(set(workflow.on_key) - handled):
        yield f"on_key= names {name}, which no state handles"


def _keys(workflow: Workflow[Any]) -> Iterator[str]:
    for name, event in workflow.events.items():
        if path := workflow.key_path(name):
            if problem := key_problem(event, path):
                yield problem
            elif _is_secret(event, path):
                yield f"{name}: key={path!r} is Secret; a run is known by its key, so name a field that may be told"


def _is_secret(model: Any, path: str) -> bool:
    """Whether the field at a path is marked, or a field that it stands in."""
    for name in path.split("."):
        field = model.model_fields[name]
        if is_secret(field.metadata):
            return True
        model = field.annotation
    return False


def _questions(workflow: Workflow[Any]) -> Iterator[str]:
    """An answer has the question's type, and every state that the run may be in gives it."""
    for spec in workflow.specs.values():
        for handler in spec.answers.values():
            where = f"{handler.owner or spec.name}.{handler.name}"
            kind: Any = handler.event
            if not issubclass(kind, Question):
                name = kind.__name__
                yield f"{where} answers {name}, which is no Question; write class {name}(Question[...])"
                continue
            wanted, given = kind.answer_type(), typing.get_type_hints(handler.function).get("return")
            if given is not wanted:
                yield f"{where} answers {kind.__name__} with {given}; the question wants {wanted.__name__}"
        if spec.asks and not spec.events:
            yield f"{spec.name} asks {spec.asks!r}, but handles no event; give people an answer to choose"
        if spec.asks and spec.final:
            yield f"{spec.name} is Final but asks {spec.asks!r}; nobody can answer a run that is over"
        if spec.final:
            continue
        for name in sorted(set(workflow.questions) - set(spec.answers) - set(spec.events)):
            yield f"{spec.name} does not answer {name}, which another state answers; write it once in a base class"


def _budgets(workflow: Workflow[Any]) -> Iterator[str]:
    """A bound of the budget needs that bound on every step that asks a model."""
    budget = workflow.budget
    amounts = [a for a in (budget.run, budget.total, budget.day) if a is not None] if budget else []
    for step in sorted(_called(workflow).values(), key=lambda s: s.name):
        spends = step.spends or Spends()
        for amount in amounts if step.spends or step.model else ():
            for bound, has, name in ((amount.cost, spends.cost, "eur"), (amount.tokens, spends.tokens, "tokens")):
                if bound is not None and has is None:
                    yield f"{step.name} has no bound on {name}, but the budget of {workflow.name!r} has; add limits="
                elif bound is not None and has is not None and has > bound:
                    yield f"{step.name} may use more {name} in one call than the whole budget of {workflow.name!r}"


def _called(workflow: Workflow[Any]) -> Mapping[str, Step[Any, Any]]:
    """The steps of its `@runs`; where a handler answers with calls, all that its modules name."""
    specs = workflow.specs.values()
    if any(handler.calls for spec in specs for handler in spec.handlers()):
        return workflow.steps
    return {step.name: step for spec in specs for work in spec.works for step in work.steps}


def _silent(spec: StateSpec, workflow: Workflow[Any]) -> Iterator[str]:
    if spec.final:
        return
    for name in workflow.events:
        if name == BudgetSpent.__name__:
            continue
        known = name in spec.events or name in spec.later or name in spec.ignores
        if not known and name not in workflow.starts_on:
            yield f"{spec.name} does not say what becomes of {name}; handle it, or name it in later= or ignores="


def _long_retries(spec: StateSpec) -> Iterator[str]:
    ends = [t.delay for t in spec.timers if _leads_on(t, spec) and not t.repeats]
    for work in spec.works:
        for step in work.steps:
            waits = sum(step.retry.wait(n) for n in range(1, min(step.retry.attempts, 1_000)))
            whole = step.retry.attempts * (step.timeout / timedelta(milliseconds=1)) + waits
            if step.total is not None:
                whole = min(whole, step.total / timedelta(milliseconds=1))
            if ends and whole > min(ends):
                lives, tried = span(timedelta(milliseconds=min(ends))), span(timedelta(milliseconds=whole))
                rule = "fewer attempts, a shorter timeout, or a later timer"
                yield f"{spec.name} lives {lives}, but {step.name} may be tried for {tried}; {rule}"


def schema_lock(workflow: Workflow[Any]) -> str:
    """A text that changes when what is stored of a state changes: keep it in a file, let a test compare it."""
    lines = [f"{workflow.name} version {workflow.version}"]
    for name, spec in workflow.specs.items():
        for field, info in spec.type.model_fields.items():
            kinds = " | ".join(getattr(m, "__name__", str(m)) for m in members(info.annotation))
            lines.append(f"{name}.{field}: {kinds}{'' if info.is_required() else ' (optional)'}")
    return "\n".join(lines) + "\n"


def lock_problems(workflow: Workflow[Any], locked: str) -> list[str]:
    """What changed against a lock text without a new version."""
    old, new = locked.splitlines(), schema_lock(workflow).splitlines()
    if not old or old[0] != new[0]:
        return []
    changed = sorted(set(old) ^ set(new))
    rule = f"stored states of {workflow.name!r} changed without a new version; raise version= and add migrate="
    return [f"{line.split(':')[0]}: {rule}" for line in changed]
