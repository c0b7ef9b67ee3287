"""The engine's own log: one line an event, for people or as JSON, each with the run that it is about.

What is written stays what it is everywhere, `logging.getLogger(__name__)`; what a program logs through structlog comes
out in the same form. The lines are made by structlog's processors. structlog takes a quarter of a second to import, so
it is imported with the first line, which most processes never write.

What a line is about is bound around an attempt (`bind`), and given with the line itself where many runs are worked on
in turn (`extra=of(...)`).
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from engine.core.trace import parse_traceparent
from engine.llm.scrubbing import scrubbed

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from pathlib import Path

    from structlog.stdlib import ProcessorFormatter

Format = Literal["human", "json"]
Level = Literal["debug", "info", "warning", "error"]

BYTES: Final = 10 << 20
FILES: Final = 3
CHATTY: Final = ("httpx", "httpx2", "py4j")
"""They log a line for each request."""


class About(NamedTuple):
    """What a line is about; what is empty is left out of it."""

    workflow: str = ""
    key: str = ""
    run: str = ""
    state: str = ""
    step: str = ""
    call: str = ""
    attempt: int = 0
    traceparent: str = ""


_NOTHING: Final = About()
_about: ContextVar[About] = ContextVar("about", default=_NOTHING)


def bind(
    workflow: str = "",
    key: str = "",
    run: str = "",
    state: str = "",
    step: str = "",
    call: str = "",
    attempt: int = 0,
    traceparent: str = "",
) -> None:
    """Say what the lines of this task are about from now on; the tasks and threads that it starts inherit it."""
    _about.set(About(workflow, key, run, state, step, call, attempt, traceparent))


@contextmanager
def about(about: About) -> Iterator[None]:
    """Say what the lines inside are about."""
    token = _about.set(about)
    try:
        yield
    finally:
        _about.reset(token)


def of(workflow: str, key: str, run: str = "", **more: Any) -> dict[str, About]:  # noqa: ANN401 - as About takes them
    """The `extra=` of a line about a run."""
    return {"about": About(workflow, key, run, **more)}


class Scrubbing(logging.Filter):
    """Puts secrets out of sight: clients log the addresses that they ask, and errors may repeat what was sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record, for this handler and those behind it."""
        if isinstance(record.msg, dict):  # structlog's: scrubbed where its lines are made
            return True
        record.msg, record.args = scrubbed(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = scrubbed(logging.Formatter().formatException(record.exc_info))
        return True


class Lines(logging.Formatter):
    """Makes lines of one form, scrubbed."""

    def __init__(self, form: Format) -> None:
        super().__init__()
        self._form = form
        self._made: ProcessorFormatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        if self._made is None:
            self._made = _formatter(self._form)
        return self._made.format(record)


def open_file(path: Path, form: Format = "human", level: Level = "info") -> None:
    """Have this process log into a file, bounded and scrubbed; nothing goes to the terminal."""
    if not any(isinstance(handler, RotatingFileHandler) for handler in logging.getLogger().handlers):
        path.parent.mkdir(parents=True, exist_ok=True)
        _open(RotatingFileHandler(path, maxBytes=BYTES, backupCount=FILES, encoding="utf-8"), form, level)
    _scrub_others()


def open_stream(form: Format = "human", level: Level = "info") -> None:
    """Have this process log to standard error, which whoever started it leads into a file."""
    if not any(isinstance(handler.formatter, Lines) for handler in logging.getLogger().handlers):
        _open(logging.StreamHandler(sys.stderr), form, level)
    _scrub_others()


def line(logger: str, level: Level, event: str, form: Format, /, **facts: object) -> str:
    """One line as the log has it, for a process that writes its lines itself."""
    number = logging.getLevelNamesMapping()[level.upper()]
    record = logging.LogRecord(logger, number, "", 0, event, None, None)
    record.__dict__ |= {"facts": facts}
    return Lines(form).format(record)


def _open(handler: logging.Handler, form: Format, level: Level) -> None:
    handler.setFormatter(Lines(form))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _scrub_others() -> None:
    for handler in logging.getLogger().handlers:  # Flink has one of its own, into its log
        is_ours = isinstance(handler.formatter, Lines)
        if not is_ours and not any(isinstance(f, Scrubbing) for f in handler.filters):
            handler.addFilter(Scrubbing())


# -- processors: see structlog's page "Processors" ---------------------------------------------------------------------

_DONE: Final = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {
    "about", "asctime", "color_message", "facts", "message", "taskName", "_logger", "_name",
}  # fmt: skip
"""Of a record, what is no fact of its own."""


def _formatter(form: Format) -> ProcessorFormatter:
    import structlog  # noqa: PLC0415 - see above

    if not structlog.is_configured():  # what steps log through structlog comes out here too
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.stdlib.PositionalArgumentsFormatter(),
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        )
    render = _human if form == "human" else structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.stdlib.ProcessorFormatter(processors=[_told, structlog.processors.format_exc_info, _clean, render])


def _told(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What a line says, in order: when, how grave, what, about which run, who says so, and further facts."""
    record: logging.LogRecord = event.pop("_record")
    event.pop("_from_structlog")
    given = record.__dict__
    told: dict[str, Any] = {
        "at": _utc(record.created),
        "level": record.levelname.lower(),
        "event": event.pop("event"),
        **_of_run(given.get("about") or _about.get()),
        "logger": record.name,
    }
    more = given.get("facts") or {name: value for name, value in given.items() if name not in _DONE}
    facts = {name: value for name, value in {**more, **event}.items() if name not in told}
    if record.exc_text and "exc_info" in facts:
        facts["exception"] = record.exc_text
        del facts["exc_info"]
    return {**told, **facts}


def _of_run(about: About) -> dict[str, Any]:
    found = {name: value for name, value in zip(About._fields[:-1], about[:-1], strict=True) if value}
    if about.traceparent and (parsed := parse_traceparent(about.traceparent)):
        found |= {"trace_id": parsed[0], "span_id": parsed[1]}
    return found


def _clean(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Scrub what is free text, and write what JSON does not know as text."""
    known = {"at", "level", "logger", *About._fields}
    for name, value in event.items():
        if name not in known:
            event[name] = _scrubbed(value)
    return event


def _scrubbed(value: Any) -> Any:  # noqa: ANN401 - whatever somebody logs
    match value:
        case None | bool() | int() | float():
            return value
        case dict():
            return {str(name): _scrubbed(each) for name, each in value.items()}
        case list() | tuple():
            return [_scrubbed(each) for each in value]
        case str():
            return scrubbed(value)
        case _:
            return scrubbed(repr(value))


def _human(_logger: object, _name: str, event: MutableMapping[str, Any]) -> str:
    """`2026-11-22T20:15:03.123Z WARNING what happened workflow=claims key=4711`, and an exception in lines below."""
    at, level, words, logger = (event.pop(name) for name in ("at", "level", "event", "logger"))
    trace = event.pop("exception", "")
    facts = "".join(f" {name}={_value(value)}" for name, value in event.items())
    text = f"{at} {level.upper()} {logger} {_one_line(words)}{facts}"
    return f"{text}\n{trace}" if trace else text


def _value(value: object) -> str:
    text = _one_line(str(value))
    return f'"{text}"' if " " in text or not text else text


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
