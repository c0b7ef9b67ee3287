"""What answers look like in JSON: names in snake_case, times in RFC 3339, null for what is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.budgets import Balance, BudgetState
    from engine.core.entry import Used
    from engine.core.record import Halted, PendingCall
    from engine.inbox import InboxItem, Outcome
    from engine.letters import Letter
    from engine.reports import Detail, Line, Run, Sent


def run_facts(run: Run) -> dict[str, Any]:
    return {
        "workflow": run.workflow,
        "key": run.key,
        "run_id": run.run_id,
        "version": run.version,
        "state": run.state,
        "status": run.status,
        "since": run.since,
        "wakes_at": run.wakes_at,
        "started_at": run.started_at,
        "updated_at": run.updated_at,
        "ended_at": run.ended_at,
        "error": run.error or None,
        "fields": dict(run.fields),
    }


def line_facts(line: Line, *, body: bool = False) -> dict[str, Any]:
    facts = {
        "seq": line.seq,
        "at": line.at,
        "entry": line.entry,
        "from": line.from_ or None,
        "to": line.to or None,
        "ignored": line.ignored or None,
        "status": line.status,
        "id": line.id or None,
        "source": line.source or None,
        "attempt": line.attempt or None,
        "took_ms": line.took_ms or None,
        "error": line.error or None,
        "inner": line.inner or None,
        "note": line.note or None,
        "used": used_facts(line.used),
        "again": line.again,
        "asker": line.asker or None,
        "halted": halted_facts(line.halted),
        "who": line.who or None,
        "why": line.why or None,
        "published": list(line.published),
        "data": line.data,
        "position": line.position,
        "run_id": line.run_id,
        "traceparent": line.traceparent or None,
    }
    return {**facts, "body": line.body} if body else facts


def detail_facts(detail: Detail) -> dict[str, Any]:
    from engine.cli.gates import gate_facts
    from engine.reports import when

    return {
        **run_facts(detail.run),
        "halted": halted_facts(detail.halted),
        "because": line_facts(detail.because) if detail.because else None,
        "last": line_facts(detail.last) if detail.last else None,
        "waits_for": [{"trigger": m.trigger, "leads_to": list(m.targets), "due": m.due} for m in detail.moves],
        "calls": [call_facts(call) for call in detail.calls],
        "more_calls": detail.more_calls,
        "asks": [item_facts(item) for item in detail.asks],
        "taken": detail.taken or None,
        "budget": budget_facts(detail.budget) if detail.budget else None,
        "timers": [{"handler": timer.handler, "due": when(timer.due)} for timer in detail.timers],
        "gates": [gate_facts(gate) for gate in detail.gates],
        "data": detail.data,
        "as_of": detail.as_of,
    }


def call_facts(call: PendingCall) -> dict[str, Any]:
    from engine.reports import when

    return {
        "id": call.id,
        "step": call.step,
        "status": call.status,
        "attempt": call.attempt,
        "next_attempt_at": when(call.due),
        "error": call.error or None,
        "kept": call.kept,
        "progress": call.note or None,
    }


def item_facts(item: InboxItem) -> dict[str, Any]:
    return {
        "workflow": item.workflow,
        "key": item.key,
        "state": item.state,
        "visit": item.visit,
        "group": item.group,
        "call": item.call or None,
        "name": item.name or None,
        "question": item.question,
        "since": item.since,
        "until": item.until,
        "taken": item.taken or None,
        "answers": [{"name": choice.name, "schema": dict(choice.schema)} for choice in item.choices],
        "place": ".".join(str(part) for part in item.place) if any(item.place) else None,
    }


def outcome_facts(outcome: Outcome, answer: str = "") -> dict[str, Any]:
    return {
        **sent_facts(outcome.sent),
        "answer": answer or None,
        "who": outcome.who,
        "at": outcome.at,
        "state": outcome.state,
        "status": outcome.status,
        "held": outcome.held or None,
    }


def budget_facts(state: BudgetState) -> dict[str, Any]:
    return {
        "kind": state.kind,
        "name": state.name,
        "workflows": list(state.workflows),
        **{balance.period: _balance_facts(balance, known=state.kind != "workflow") for balance in state.balances},
        "waiting": list(state.waiting),
        "more_waiting": state.more_waiting,
        "unpriced_calls": state.unpriced,
    }


def _balance_facts(balance: Balance, *, known: bool) -> dict[str, Any]:
    """Money as text, so that no cent is lost on the way."""
    from engine.core.budget import euros

    bound = balance.bound
    facts: dict[str, Any] = {"eur": None if bound.cost is None else euros(bound.cost), "tokens": bound.tokens}
    if not known:
        return {"at_most": facts}
    used = {"spent": balance.spent, "reserved": balance.reserved}
    return {
        "at_most": facts,
        **{name: {"eur": euros(each.cost), "tokens": each.tokens} for name, each in used.items()},
    }


def used_facts(used: Used | None) -> dict[str, Any] | None:
    """What a model took; a price that is not known is null, never 0."""
    from engine.core.budget import euros

    if used is None:
        return None
    return {
        "model": used.model,
        "answered": used.answered or None,
        "provider": used.provider or None,
        "input": used.input,
        "output": used.output,
        "cached": used.cached,
        "thought": used.thought,
        "eur": None if used.cost is None else euros(used.cost),
        "finish": used.finish or None,
        "request": used.request or None,
    }


def halted_facts(halted: Halted | None) -> dict[str, Any] | None:
    from engine.reports import when

    if halted is None:
        return None
    return {"error": halted.error, "where": halted.where or None, "cause": halted.cause, "at": when(halted.at)}


def sent_facts(sent: Sent) -> dict[str, Any]:
    return {
        "workflow": sent.workflow,
        "key": sent.key,
        "id": sent.id,
        "partition": sent.receipt.partition,
        "position": sent.receipt.position,
    }


def letter_facts(letter: Letter, *, body: bool = False) -> dict[str, Any]:
    """With `body`, its bytes: as text where they are text, else in base64."""
    from engine.reports import when

    dead = letter.letter
    facts = {
        "id": letter.id,
        "reason": dead.reason,
        "at": when(dead.at),
        "workflow": dead.workflow or None,
        "key": dead.key or None,
        "type": dead.type or None,
        "event_id": dead.id or None,
        "bytes": len(dead.body),
        "fate": letter.fate or None,
    }
    return {**facts, **_body(dead.body)} if body else facts


def _body(raw: bytes) -> dict[str, str]:
    from base64 import b64encode

    try:
        return {"body": raw.decode()}
    except UnicodeDecodeError:
        return {"body_base64": b64encode(raw).decode()}
