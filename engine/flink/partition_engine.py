"""The engine of a partition: reads its entries, folds each under its run's own Flink key, and hands calls to the steps.

How it works. A partition of the log is a key group of Flink, so the reader of a partition has a key in that key group
(`reader_key`), under which its position is kept; a run's stored bytes and its one Flink timer live under the run's key.
Every reader has a timer. The one of the lowest partition of this subtask polls for all of them and re-arms itself; the
others fire once a second, which is how a subtask learns, after a start, a restore or a rescaling, which partitions are
its own.

A poll lasts one slice. It reads, folds, and sends what came out in front of the next read; at its end everything is
acknowledged by the log, before the mailbox is given back and so before any checkpoint. So a checkpoint never holds a
position whose outputs could be lost, and what is folded again after a crash puts out the same ids, which the log drops.

What is kept of a run is `armed` (wall ms of its Flink timer), a flag, and the bytes of `engine.core.snapshot`. One
timer a run: when it fires, a `TickEntry` is appended (see ARCHITECTURE.md, rule 4), and the fold of the tick arms the
next. The cell `pending` marks the runs that must be looked at after a restore: calls in flight, or a tick not folded.
Those calls begin when their partition has caught up with the log (see `engine.flink.recovery`). What calls keep lies
beside the run (`engine.flink.kept`).

The log itself refuses what an older engine writes. One that has nothing to write asks once a second all the same, in
the slice before the mailbox is given back: an engine that slept through its replacement makes no checkpoint any more.
"""

from __future__ import annotations

import gc
import logging
import os
import struct
import time
from collections.abc import Callable, Iterable
from functools import partial
from types import FrameType
from typing import Any, TypeVar

import msgspec
from msgspec import Raw
from pyflink.datastream import KeyedProcessFunction

from engine import intake
from engine.core.application import Application
from engine.core.definition import Workflow
from engine.core.entry import (
    Asker,
    Entry,
    EventEntry,
    FailureEntry,
    OrderEntry,
    QuestionEntry,
    ResultEntry,
    TickEntry,
    read_entry,
    write_entry,
)
from engine.core.errors import EventRefused, HandlerFailed, HandlerTimeout
from engine.core.ids import CallId, RunId
from engine.core.model import key_of
from engine.core.partition import flink_key, is_reader_key, partition_of, reader_key, split_flink_key
from engine.core.reaction import AskRun, CancelCall, Forget, Keep, Reply
from engine.core.record import DeadLetter, write_record
from engine.core.snapshot import is_grave
from engine.core.transition import (
    Held,
    Place,
    PublishEvent,
    Reaction,
    Rules,
    StartCall,
    Verdict,
    running_calls,
    transition,
    wakes_at,
)
from engine.flink.attempt import AttemptId, Request
from engine.flink.calls import Calls
from engine.flink.guard import Guard, hanging_in
from engine.flink.held import HeldEntries
from engine.flink.internals import Cell
from engine.flink.kept import KeptResults
from engine.flink.plan import Plan
from engine.flink.recovery import Recovery
from engine.log.errors import LogUnavailable
from engine.log.protocol import START, Header, Position
from engine.log.redis_cursor import RedisCursor
from engine.logs import About, of

logger = logging.getLogger(__name__)

READ_COUNT = 500
LEARN_MS = 1000
TICKS_AT_ONCE = 1000
SWEEP_MS = 1000
FENCE_SECONDS = 1.0
MAX_EVENT = 1 << 20
FOLDED_IN_A_BOUND = 1000
"""So many held entries more may be folded in the time of one handler's bound."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
_HEAD = struct.Struct(">QB")
_HEAD_SIZE = _HEAD.size
_verdict = msgspec.json.Decoder(Verdict).decode
T = TypeVar("T")
_held = msgspec.msgpack.Decoder(tuple[str, int, bytes]).decode


class PartitionEngine(KeyedProcessFunction):
    """One subtask: some partitions of the log, and the runs in them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def open(self, runtime_context: Any) -> None:  # noqa: ANN401 - PyFlink has no types
        """Open state and log; see `KeyedProcessFunction.open`."""
        from engine.flink.internals import KeyedStore, subtask_of  # noqa: PLC0415 - inside Flink's JVM only
        from engine.flink.opening import load_application, open_log, open_logging  # noqa: PLC0415 - the same

        plan = self.plan
        open_logging(plan)
        self.application: Application = load_application(plan)
        self.cursor, self.log = open_log(plan)
        self.header: Header = self.cursor.header
        self.rules = Rules(plan.early_hold_ms, plan.retention_ms)
        cells = ("run", "pending", "position", *HeldEntries.cells)
        queues = (*HeldEntries.queues, *KeptResults.queues)
        self.store = KeyedStore(runtime_context, cells=cells, queues=queues)
        self.kept = KeptResults(self.store)
        self.held = HeldEntries(self.store, plan.folder("held"))
        self.guard = Guard(plan.handler_timeout_ms / 1000, self._give_up)
        self.folding: tuple[Place, Entry] | None = None
        self.fenced_at = 0.0
        self.readers = {reader_key(p, self.header.partitions): p for p in range(self.header.partitions)}
        self.positions: dict[int, tuple[Position, int]] = {}
        self.verdicts: dict[int, dict[Position, bytes]] = {}
        self.armed: set[str] = set()
        self.lead = -1
        self.assigned = False
        self.calls: Calls | None = None
        self.worker = f"subtask-{subtask_of(runtime_context)}"
        self.recovery = Recovery()
        self.early: set[AttemptId] = set()
        """Attempts that were begun before their partition had caught up."""
        self.restored = plan.epoch > 1
        """Whether an engine was at work on this log before."""
        self.cancels: list[tuple[RunId, CallId]] = []
        self.appends: list[tuple[int, bytes]] = []
        self.waked: set[int] = set()
        self.timers: Any = None
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)

    def process_element(self, value: str, ctx: Any) -> Iterable[bytes]:  # noqa: ANN401 - PyFlink has no types
        """A seed: the key of a reader, on the first start of a log."""
        if value not in self.armed:
            self.armed.add(value)
            service = ctx.timer_service()
            service.register_processing_time_timer(service.current_processing_time())
        return ()

    def on_timer(self, timestamp: int, ctx: Any) -> Iterable[bytes]:  # noqa: ANN401, ARG002 - PyFlink's own form
        """A reader's turn, or a run whose timer is due."""
        if self.timers is None:
            from engine.flink.internals import Timers  # noqa: PLC0415 - inside Flink's JVM only

            self.timers = Timers(ctx)
        key = ctx.get_current_key()
        try:
            if is_reader_key(key):
                self._reader(key)
            else:
                self._due(key)
        except Exception:
            logger.exception("the partition engine ends")
            raise
        return ()

    def close(self) -> None:
        """End the steps' thread. Flink does not call this on every way out: the thread also ends by itself."""
        if getattr(self, "calls", None) is not None and self.calls is not None:
            self.calls.stop()

    # -- readers -------------------------------------------------------------------------------------------------

    def _reader(self, key: str) -> None:
        partition = self.readers[key]
        if partition not in self.positions:
            self._learn(partition)
        if partition != self.lead:
            self.timers.set(self.timers.now() + LEARN_MS)
            return
        self._poll()
        self.store.select(key)
        self.timers.set(self.timers.now() + 1)

    def _learn(self, partition: int) -> None:
        """A partition of this subtask shows itself; its position is under the key that is selected."""
        raw = self.store.cell("position").read()
        position, at = msgspec.json.decode(raw, type=tuple[str, int]) if raw else (START, 0)
        self.restored = self.restored or raw is not None
        self.positions[partition] = Position(position), at
        self.lead = min(self.positions)
        self.assigned = False

    def _assign(self) -> None:
        """Read the partitions that are known by now, and look for the runs that a crash or a stop left in mid-air."""
        self._patiently(lambda: self.cursor.assign({p: q for p, (q, _) in self.positions.items()}))
        for partition, (position, _) in self.positions.items():
            if partition not in self.verdicts:
                self.verdicts[partition] = self._patiently(partial(self.cursor.verdicts, partition, position))
        if self.calls is None:
            self.calls = Calls(
                self.application, self.plan.log_url, self.header, worker=self.worker, epoch=self.plan.epoch
            )
            self.calls.start()
            self._recover()
        for partition, (position, _) in self.positions.items():
            tail = self._patiently(partial(self.cursor.tail, partition))
            self._begin_again(self.recovery.begin(partition, position, tail), self.calls)
        self.assigned = True

    def _recover(self) -> None:
        """Find the calls that were in flight, and arm the timers of ticks that may be lost."""
        read, write = self.store.cell("run").read, self.store.cell("run").write
        for key in list(self.store.keys("pending")):
            self.store.select(key)
            raw = read()
            if raw is None:
                continue
            self.recovery.found(partition_of(*split_flink_key(key), self.header.partitions), key)
            soon = self.timers.now() + 1
            write(_HEAD.pack(soon, 1) + raw[_HEAD_SIZE:])
            self.timers.set(soon)

    def _begin_again(self, keys: list[str], calls: Calls, crowded: int | None = None) -> None:
        """Begin the calls that these runs have in flight; of a crowd only those that have nothing to lose by it."""
        for key in keys:
            self.store.select(key)
            raw = self.store.cell("run").read()
            workflow, own = split_flink_key(key)
            requests = []
            for call in self._running(workflow, own, raw):
                step = self.application.steps.get(call.step)
                if crowded is not None and (call.kept or (step is not None and (step.model or step.takes_context))):
                    self.recovery.keep(crowded, key)
                    continue
                request = Request(workflow, own, call, self.kept.of(call.id) if call.kept else {}, again=self.restored)
                if request.attempt not in self.early:
                    requests.append(request)
            if crowded is not None:
                self.early.update(request.attempt for request in requests)
            calls.submit(requests)
        if not self.recovery:
            self.early.clear()

    def _running(self, workflow: str, key: str, raw: bytes | None) -> list[StartCall]:
        try:
            return [] if raw is None else running_calls(raw[_HEAD_SIZE:])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            logger.warning(
                "%s/%s: what is stored cannot be read, the run will halt: %s",
                workflow,
                key,
                error,
                extra=of(workflow, key),
            )
            return []

    def _catch_up(self, read: set[int], calls: Calls) -> None:
        """Begin what waited for a partition that has come to where the log ended at the start."""
        reached = {partition: self.positions[partition][0] for partition in read}
        self._begin_again(self.recovery.caught_up(reached, self.positions), calls)
        for partition in read:
            if crowd := self.recovery.crowd(partition):
                self._begin_again(crowd, calls, partition)

    def _poll(self) -> None:
        """One slice."""
        if not self.assigned:
            self._assign()
        calls = self.calls
        assert calls is not None  # noqa: S101 - made by _assign
        calls.check()
        end = time.monotonic() + self.plan.slice_ms / 1000
        moved: set[int] = set()
        while (left := end - time.monotonic()) > 0:
            calls.sign_of_life = time.monotonic()
            batches = self._patiently(partial(self.cursor.read, READ_COUNT, max(1, int(left * 1000))))
            for partition, entries in batches:
                moved.add(partition)
                self._batch(partition, entries, calls)
            if self.recovery:
                self._catch_up({partition for partition, _ in batches}, calls)
            if self.appends:
                self._append()
        if moved:
            self.cursor.passed({p: self.positions[p][0] for p in moved})
            self.held.sync()
        if time.monotonic() - self.fenced_at > FENCE_SECONDS:
            self.cursor.passed({})  # is written, and so refused to an engine that was replaced
            self.fenced_at = time.monotonic()
        self._patiently(self.cursor.flush)
        if self.appends:
            self._append()
        cell = self.store.cell("position")
        for partition in moved:
            self.store.select(reader_key(partition, self.header.partitions))
            cell.write(msgspec.json.encode(self.positions[partition]))

    def _append(self) -> None:
        """Ticks, and published events for other runs: acknowledged before this returns."""
        appends, self.appends = self.appends, []
        self._patiently(lambda: self.log.append_many(appends))
        if self.calls is not None:
            self.calls.sign_of_life = time.monotonic()

    def _patiently(self, action: Callable[[], T]) -> T:
        """Do it; while the log is away, wait for it. Nothing is given back meanwhile, so no checkpoint can be taken."""
        pause, told = FIRST_PAUSE, False
        while True:
            try:
                return action()
            except LogUnavailable as error:
                if not told:
                    logger.warning("%s; waiting for it", error)
                    told = True
            time.sleep(pause)  # the log is away: there is nothing else to do
            pause = min(2 * pause, LONGEST_PAUSE)
            if self.calls is not None:
                self.calls.sign_of_life = time.monotonic()
            try:
                self.cursor.reconnect()
            except LogUnavailable:
                continue

    # -- runs ----------------------------------------------------------------------------------------------------

    def _due(self, key: str) -> None:
        """The timer of a run: bring time to it by a tick on the log, if it is time indeed.

        A timer that is no longer wanted is not taken back when a state is left (a call into Java each): here it is seen
        to be too early, and set to what is wanted now. An expired tombstone goes without a tick once its partition has
        come so far: whatever comes later is later than its expiry too.
        """
        raw = self.store.cell("run").read()
        if raw is None:
            return
        workflow, own = split_flink_key(key)
        partition = partition_of(workflow, own, self.header.partitions)
        stored, now = raw[_HEAD_SIZE:], int(time.time() * 1000)
        wakes = self._wakes(stored)
        if not wakes or self.header.wall_time(wakes) > now:
            self._rearm(raw, self.header.wall_time(wakes) if wakes else 0)
        elif is_grave(stored):
            self._sweep(raw, partition, wakes, workflow, own)
        else:
            self.store.cell("run").write(_HEAD.pack(0, 1) + stored)
            self.store.cell("pending").write(b"t")
            self._tick(partition, workflow, own, now)

    def _wakes(self, stored: bytes) -> int:
        try:
            return wakes_at(stored)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return 0  # the next entry of this run will say that it cannot be read

    def _rearm(self, raw: bytes, wall: int) -> None:
        _, flag = _HEAD.unpack_from(raw)
        self.store.cell("run").write(_HEAD.pack(wall, flag) + raw[_HEAD_SIZE:])
        if wall:
            self.timers.set(wall)

    def _sweep(self, raw: bytes, partition: int, expires: int, workflow: str, key: str) -> None:
        _, at = self.positions.get(partition, (START, 0))
        if at >= expires:
            self.store.cell("run").clear()
            return
        if partition not in self.waked:  # one tick brings time to a whole partition
            self.waked.add(partition)
            self._tick(partition, workflow, key, int(time.time() * 1000))
        self._rearm(raw, self.timers.now() + SWEEP_MS)

    def _tick(self, partition: int, workflow: str, key: str, now: int) -> None:
        tick = TickEntry(workflow, key, self.header.log_time(now))
        self.appends.append((partition, write_entry(tick)))
        if len(self.appends) >= TICKS_AT_ONCE:
            self._append()

    def _batch(self, partition: int, entries: list[tuple[Position, int, bytes]], calls: Calls) -> None:
        """Fold entries of one partition, in order."""
        header, workflows, store = self.header, self.application.workflows, self.store
        select, read, run = store.select, store.cell("run").read, store.cell("run")
        now, lapse, parts = self.timers.now(), header.lapse, header.partitions
        verdicts = self.verdicts[partition]
        _, at = self.positions[partition]
        requests: list[Request] = []
        last_stamp, position = -1, START
        for position, stamp, payload in entries:
            if stamp != last_stamp:
                last_stamp, at = stamp, max(at, header.log_time(stamp))
            place = Place(partition, position, at, lapse)
            try:
                entry = read_entry(payload)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self._dead(place, payload, self._unreadable(payload, error))
                continue
            if len(payload) > MAX_EVENT and isinstance(entry, EventEntry) and len(bytes(entry.data)) > MAX_EVENT:
                self._dead(place, payload, f"an event of {len(bytes(entry.data))} bytes; at most {MAX_EVENT}", entry)
                continue
            workflow = workflows.get(entry.workflow)
            if workflow is None:
                self._dead(place, payload, f"this application has no workflow {entry.workflow!r}", entry)
                continue
            if partition_of(entry.workflow, entry.key, parts) != partition:
                self._dead(place, payload, f"stands in partition {partition}, where its run is not", entry)
                continue
            select(flink_key(entry.workflow, entry.key))
            raw = read()
            stored = None if raw is None else raw[_HEAD_SIZE:]
            reaction = self._fold(workflow, stored, entry, place, verdicts)
            self._emit(place, reaction, entry, requests)
            self._keep(run, raw, reaction, self._earliest(entry, place, now))
            if reaction.hold:
                self.held.append(partition, position, msgspec.msgpack.encode((position, at, payload)))
        self.positions[partition] = position, at
        self.waked.discard(partition)
        if requests:
            calls.submit(requests)
        if self.cancels:
            cancels, self.cancels = self.cancels, []
            calls.cancel(cancels)

    def _fold(
        self, workflow: Workflow[Any], stored: bytes | None, entry: Entry, place: Place, verdicts: dict[Position, bytes]
    ) -> Reaction:
        held = self._held() if isinstance(entry, OrderEntry) else []
        verdict = _verdict(verdicts[place.position]) if place.position in verdicts else None
        self.folding = place, entry
        try:
            return self._guarded(workflow, stored, entry, place, verdict, held)
        except HandlerFailed as failed:
            made = msgspec.json.encode(Verdict(failed.index, failed.error, failed.where, failed.cause))
            logger.warning("%s/%s halts: %s", entry.workflow, entry.key, failed, extra=_about(entry, failed))
        stood = self._patiently(lambda: self.cursor.verdict(place.partition, place.position, made))
        verdicts[place.position] = stood
        return self._guarded(workflow, stored, entry, place, _verdict(stood), held)

    def _guarded(
        self,
        workflow: Workflow[Any],
        stored: bytes | None,
        entry: Entry,
        place: Place,
        verdict: Verdict | None,
        held: list[Held],
    ) -> Reaction:
        """Fold within the bound. It may end just outside a handler, where it hits nobody: then fold again."""
        guard = self.guard
        guard.folds = 1 + len(held) / FOLDED_IN_A_BOUND
        try:
            with guard:
                return transition(workflow, stored, entry, place, verdict=verdict, held=held, rules=self.rules)
        except HandlerTimeout:
            with guard:
                return transition(workflow, stored, entry, place, verdict=verdict, held=held, rules=self.rules)

    def _give_up(self, frame: FrameType | None) -> None:
        """A handler cannot be stopped: store the verdict from here, and end the process, which begins again with it.

        Called in the watcher's thread while the other one hangs.
        """
        assert self.folding is not None  # noqa: S101 - it is being folded
        place, entry = self.folding
        failed = hanging_in(frame)
        made = msgspec.json.encode(Verdict(failed.index, failed.error, failed.where, failed.cause))
        words = "%s/%s halts, and the engine starts again to be rid of it: %s"
        logger.error(words, entry.workflow, entry.key, failed, extra=_about(entry, failed))
        try:
            cursor = RedisCursor(self.plan.log_url, self.plan.epoch, log_id=self.header.log_id)
            cursor.verdict(place.partition, place.position, made)
        except Exception:
            logger.exception("the verdict could not be stored")
        logging.shutdown()
        os._exit(1)

    def _held(self) -> list[Held]:
        found = []
        for raw in self.held:
            position, at, payload = _held(raw)
            found.append(Held(Position(position), at, read_entry(payload)))
        return found

    def _earliest(self, entry: Entry, place: Place, now: int) -> int:
        """From when on a timer of the run can be due, wall ms, where the log's clock is behind this machine's."""
        if not isinstance(entry, TickEntry) or entry.due <= place.at:
            return now
        return now + self.header.wall_time(entry.due) - self.header.wall_time(place.at)

    def _keep(self, run: Cell, raw: bytes | None, reaction: Reaction, now: int) -> None:
        """Write what is left of the run, mark it if it has calls in flight, and see to its timer."""
        armed, flag = _HEAD.unpack_from(raw) if raw is not None else (0, 0)
        if reaction.stored is None:
            if raw is not None:
                run.clear()
        else:
            if reaction.wakes:
                wall = max(self.header.wall_time(reaction.wakes), now + 1)
                if not armed or wall < armed:
                    self.timers.set(wall)
                    armed = wall
            run.write(_HEAD.pack(armed, reaction.running) + reaction.stored)
        if reaction.running != flag:
            pending = self.store.cell("pending")
            if reaction.running:
                pending.write(b"c")
            else:
                pending.clear()
        if reaction.release:
            self.held.release(reaction.release)

    def _emit(self, place: Place, reaction: Reaction, entry: Entry, requests: list[Request]) -> None:
        put, partition, position = self.cursor.put, place.partition, place.position
        for record in reaction.records:
            put("journal", partition, position, record.index, write_record(record))
        dead = published = 0
        for command in reaction.commands:
            letter: DeadLetter | None = None
            if isinstance(command, StartCall):
                self._start(place, entry, command, requests)
            elif isinstance(command, PublishEvent):
                put("outbox", partition, position, published, write_record(command.envelope))
                published += 1
                letter = self._hand_on(place, command)
            elif isinstance(command, DeadLetter):
                letter = command
            else:
                self._carry_out(command)
            if letter is not None:
                put("dead", partition, position, dead, write_record(letter))
                dead += 1

    def _carry_out(self, command: Keep | Forget | AskRun | Reply | CancelCall) -> None:
        match command:
            case Keep():
                self.kept.append(command.call, command.name, command.output)
            case Forget():
                self.kept.forget(command.call)
            case AskRun():
                self._ask(command)
            case Reply():
                self._reply(command)
            case CancelCall():
                self.cancels.append((command.run, command.id))

    def _start(self, place: Place, entry: Entry, call: StartCall, requests: list[Request]) -> None:
        """Begin a call, or have it wait while an engine that is gone may have begun it."""
        if self.recovery and self.recovery.waits(place.partition):
            self.recovery.hold(place.partition, flink_key(entry.workflow, entry.key))
        elif call.kept or call.again:
            requests.append(Request(entry.workflow, entry.key, call, self.kept.of(call.id), again=call.again))
        else:
            requests.append(Request(entry.workflow, entry.key, call))

    def _ask(self, command: AskRun) -> None:
        """Put a question to the run that answers it."""
        question, asker = command.question, command.asker
        name = type(question).__name__
        workflow = self.application.answerer(name)
        if workflow is None:
            self._reply(Reply(asker, error="NotAnswered", message=f"no workflow of this application answers {name}"))
            return
        key = key_of(question, workflow.on_key.get(name, type(question).__key__))
        if not key:
            self._reply(Reply(asker, error="NotAnswered", message=f"{name} names no run: its key is empty"))
            return
        data = Raw(question.__pydantic_serializer__.to_json(question))
        place = command.traceparent, command.id, command.tracestate, command.baggage
        entry = QuestionEntry(workflow.name, key, name, data, asker, *place)
        self.appends.append((partition_of(workflow.name, key, self.header.partitions), write_entry(entry)))

    def _reply(self, command: Reply) -> None:
        """Hand an answer to the run that asked, if it waits for one."""
        asker: Asker = command.asker
        if not asker.call:
            return
        where, call = (asker.workflow, asker.key, asker.run), asker.call
        entry: ResultEntry | FailureEntry = ResultEntry(*where, call, 1, command.output)
        if command.error:
            entry = FailureEntry(*where, call, 1, command.error, command.message, final=True)
        self.appends.append((partition_of(asker.workflow, asker.key, self.header.partitions), write_entry(entry)))

    def _hand_on(self, place: Place, command: PublishEvent) -> DeadLetter | None:
        """A published event that workflows of this application take is an entry for each of them too."""
        envelope = command.envelope
        if not self.application.takers(envelope.type):
            return None
        try:
            taken = self.application.entries(command.event, envelope)
        except EventRefused as error:
            body = write_record(envelope)
            reason = f"a published event that nobody here can take: {error}"
            return DeadLetter(
                reason=reason, at=place.at, entry=place.position, body=body, type=envelope.type, id=envelope.id
            )
        for one in taken:
            partition = partition_of(one.workflow, one.key, self.header.partitions)
            self.appends.append((partition, write_entry(one)))
        return None

    def _unreadable(self, payload: bytes, error: Exception) -> str:
        """Why bytes on the log are no entry; a CloudEvent as such is told what is wrong with it."""
        if payload.lstrip()[:1] == b"{" and b"specversion" in payload:
            try:
                intake.read(payload, self.application)
            except EventRefused as refused:
                return f"no entry: {refused}"
            return "no entry: a CloudEvent that never went through `longwatch send`, a client or an intake"
        return f"no entry: {error}"

    def _dead(self, place: Place, payload: bytes, reason: str, entry: Entry | None = None) -> None:
        letter = DeadLetter(
            reason=reason,
            at=place.at,
            entry=place.position,
            body=payload,
            workflow=entry.workflow if entry else "",
            key=entry.key if entry else "",
        )
        self.cursor.put("dead", place.partition, place.position, 0, write_record(letter))


def _about(entry: Entry, failed: HandlerFailed) -> dict[str, About]:
    """What a line about a halt is about; the words of a failure end with the state."""
    state = failed.cause.rpartition(" in ")[2]
    return of(entry.workflow, entry.key, state=state, traceparent=getattr(entry, "traceparent", ""))
