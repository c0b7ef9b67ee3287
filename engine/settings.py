"""Every setting of Longwatch: its default, its unit and what it does, and where a value may come from.

Four sources, later ones win:

1. the default here; for what is sent to a collector, the `OTEL_*` variables of OpenTelemetry come before it;
2. the project file: the nearest `longwatch.toml`, or `pyproject.toml` with a table `[tool.longwatch]`, upwards from
   the current folder;
3. the environment: `LONGWATCH_` and the setting's name in capitals;
4. the command's flags.

Lengths of time are written as `500ms`, `2s`, `10m`, `1h`, `7d` (a bare number is seconds); sizes as `512mb`, `2gb`.
Paths in a project file count from that file, paths in the environment and in flags from the current folder.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

PREFIX: Final = "LONGWATCH_"
_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZES: Final = {"b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


class SettingsError(ValueError):
    """Settings that cannot be used; every problem names the source, the setting, the rule and what is allowed."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("settings cannot be used:\n" + "\n".join(f"- {problem}" for problem in problems))

    def __reduce__(self) -> tuple[type[SettingsError], tuple[tuple[str, ...]]]:
        """Survive pickling, which calls the class with its facts."""
        return SettingsError, (self.problems,)


def read_duration(value: object) -> object:
    """Read a length of time such as `2s` or `7 d`; a bare number is seconds."""
    if isinstance(value, bool):
        message = "write a length of time such as 500ms, 2s, 10m, 1h or 7d"
        raise ValueError(message)  # noqa: TRY004 (pydantic turns a ValueError into a problem, a TypeError into a crash)
    if isinstance(value, int | float):
        return timedelta(seconds=value)
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)?\s*", value)
    if match is None:
        message = "write a length of time such as 500ms, 2s, 10m, 1h or 7d"
        raise ValueError(message)
    return timedelta(milliseconds=float(match[1]) * _UNITS[match[2] or "s"])


def show_duration(value: timedelta) -> str:
    """Write a length of time as `read_duration` reads it, in the largest unit that divides it."""
    total = round(value.total_seconds() * 1000)
    for unit in ("d", "h", "m", "s"):
        if total and total % _UNITS[unit] == 0:
            return f"{total // _UNITS[unit]}{unit}"
    return f"{total}ms"


def read_size(value: object) -> object:
    """Read a size such as `512mb` in bytes; a bare number is bytes."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+)\s*(b|kb|mb|gb)?\s*", value.lower())
    if match is None:
        message = "write a size such as 64mb or 2gb"
        raise ValueError(message)
    return int(match[1]) * _SIZES[match[2] or "b"]


def show_size(value: int) -> str:
    """Write a size as `read_size` reads it."""
    if not value:
        return "0"
    for unit in ("gb", "mb", "kb"):
        if value % _SIZES[unit] == 0:
            return f"{value // _SIZES[unit]}{unit}"
    return f"{value}b"


Duration = Annotated[timedelta, BeforeValidator(read_duration), PlainSerializer(show_duration)]
Size = Annotated[int, BeforeValidator(read_size), PlainSerializer(show_size)]

_APP: Final = r"^$|^[\w.]+:[\w.]+$"
_URL: Final = r"^$|^(redis|rediss|unix)://.+"
_COLLECTOR: Final = r"^$|^https?://[^\s/]+\S*$"
_PLACE: Final = r"^$|^\d{1,5}$|^\S+:\d{1,5}$"
_FORMS: Final = {
    _APP: "such as my_shop:app",
    _URL: "such as redis://localhost:6379/0",
    _COLLECTOR: "such as http://localhost:4318",
    _PLACE: "such as 9464 or 0.0.0.0:9464",
}
_MS: Final = timedelta(milliseconds=1)
_SECOND: Final = timedelta(seconds=1)


class ModelSettings(BaseModel):
    """A language model of the application, said anew for this machine; see `engine.llm.model`."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    model: str = ""
    url: str = ""
    fallback: tuple[str, ...] | None = None
    key: str = ""
    """The environment variable that holds the key."""


class Settings(BaseModel):
    """All settings. `longwatch settings` prints each with its value and where that came from."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    app: Annotated[str, Field(pattern=_APP)] = Field(
        "",
        description="The application, as `module:name`. Empty: the only `Application` found in the project's packages.",
    )
    app_path: Path = Field(
        Path(),
        description=(
            "The folder that the application's module is imported from. Empty: that of the project file (or its"
            " `src`), else the current one."
        ),
    )
    data: Path = Field(
        Path(".longwatch"),
        description=(
            "The folder of everything that an embedded engine keeps. Default: `.longwatch` beside the project "
            "file, else in the current folder."
        ),
    )
    log: Annotated[str, Field(pattern=_URL)] = Field(
        "",
        description="A Redis of one's own (6.2 or newer) as URL. Empty: an embedded one in the data folder.",
    )

    intakes: tuple[Annotated[str, Field(pattern=r"^[\w.]+:\w+$")], ...] = Field(
        (),
        description=(
            "Functions of the project, as `module:function`, that make Flink sources of events (CloudEvents in JSON): "
            "each gets the Flink environment and answers with a stream of texts."
        ),
    )

    who: str = Field(
        "",
        description="Whose word answers and orders of this machine's commands are. Empty: the user's name.",
    )

    partitions: Annotated[int, Field(ge=1, le=32768)] = Field(
        16,
        description="Partitions of the log, a power of two; fixed when the log is made.",
    )
    lapse: Annotated[float, Field(ge=1, le=1_000_000)] = Field(
        1.0,
        description="Log seconds in a second of the wall; fixed when the log is made. 1: real time.",
    )
    fsync: Literal["always", "everysec"] = Field(
        "always",
        description=(
            "When the embedded Redis writes through to disk: before it acknowledges, or every second (faster; a"
            " power cut may cost the last second)."
        ),
    )

    parallelism: Annotated[int, Field(ge=1, le=1024)] = Field(
        1,
        description="Subtasks of the engine; divides `partitions`.",
    )
    cluster: Literal["mini", "standalone"] = Field(
        "mini",
        description="All of Flink in one Java process, or one process for each subtask (uses more cores).",
    )
    backend: Literal["rocksdb", "heap"] = Field(
        "rocksdb",
        description="Where Flink keeps the runs' state: on disk, larger than memory, or on Java's heap (faster).",
    )
    managed_memory: Annotated[Size, Field(ge=32 << 20)] = Field(
        512 << 20,
        description="Memory of RocksDB's caches and buffers, for each Flink process.",
    )
    heap: Size = Field(
        0,
        description=(
            "Java's largest heap, for each Flink process. 0: Java's own choice, a quarter of the machine's memory."
        ),
    )
    checkpoint_interval: Annotated[Duration, Field(ge=100 * _MS)] = Field(
        2 * _SECOND,
        description="From one checkpoint to the next; what is folded after the last one is folded again after a crash.",
    )
    checkpoints_retained: Annotated[int, Field(ge=1, le=100)] = Field(
        3,
        description="Completed checkpoints that are kept; the log is trimmed to the oldest of them.",
    )
    slice: Annotated[Duration, Field(ge=_MS, le=10 * _SECOND)] = Field(
        20 * _MS,
        description="How long the engine folds before its outputs go out together.",
    )
    handler_timeout: Annotated[Duration, Field(ge=10 * _MS)] = Field(
        5 * _SECOND,
        description="A handler that runs longer halts its run.",
    )
    flink: dict[str, str] = Field(
        {},
        description="Further options of Flink, which win over the engine's own; a table in the project file.",
    )

    early_hold: Annotated[Duration, Field(ge=timedelta(0))] = Field(
        timedelta(hours=1),
        description="How long (log time) an event waits for a run that has not begun, before it is a dead letter.",
    )
    retention: Annotated[Duration, Field(ge=timedelta(0))] = Field(
        timedelta(days=7),
        description=(
            "How long (log time) the end of a finished run is remembered; after that its key may begin a new run."
        ),
    )
    archive_entries: Annotated[int, Field(ge=1)] = Field(
        10_000,
        description="A partition is archived and trimmed when it holds so many entries, or by `archive_age`.",
    )
    archive_age: Annotated[Duration, Field(ge=_SECOND)] = Field(
        timedelta(hours=1),
        description="A partition is archived and trimmed when its oldest entry is as old (wall time).",
    )
    dead_letter_retention: Annotated[Duration, Field(ge=timedelta(days=1))] = Field(
        timedelta(days=30),
        description="How long (wall time, whole days) dead letters are kept.",
    )

    models: dict[str, ModelSettings] = Field(
        {},
        description=(
            "Who the application's language models are on this machine: a table for each name, such as "
            "`[tool.longwatch.models.claims-assessor]`, with `model` (`provider:name`, or `embedded`), `url`, "
            "`fallback` (a list) and `key` (the environment variable that holds it). In the environment: "
            "`LONGWATCH_MODEL_CLAIMS_ASSESSOR`, and the same with `_URL`, `_FALLBACK` and `_KEY` (the key itself)."
        ),
    )

    eur_per_usd: Annotated[float, Field(gt=0, le=1000)] = Field(
        1.0,
        description="Euros for a dollar: published prices of models are in dollars, budgets in euros.",
    )

    otlp: Annotated[str, Field(pattern=_COLLECTOR)] = Field(
        "",
        description=(
            "Where traces are sent: an OTLP collector, or Jaeger itself. Empty: nowhere, unless "
            "`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT` says otherwise. A URL without a "
            "path gets `/v1/traces` over HTTP. `OTEL_EXPORTER_OTLP_HEADERS`, `_COMPRESSION`, `_TIMEOUT` and "
            "`_CERTIFICATE` count too; `OTEL_SDK_DISABLED=true` sends nothing."
        ),
    )
    otlp_protocol: Literal["http/protobuf", "grpc"] = Field(
        "http/protobuf",
        description="How traces are sent there; `OTEL_EXPORTER_OTLP_PROTOCOL` counts where this is not set.",
    )
    trace_rule: str = Field(
        "all",
        description=(
            "Which traces are sent: `all`, or what failed, halted, took long or cost much, and a share of the rest, "
            "such as `errors, halted, over 2d, cost over 1.50, 10%`. Records and a hash alone decide, so it can be "
            "changed later and applied to the past."
        ),
    )
    metrics: Annotated[str, Field(pattern=_PLACE)] = Field(
        "",
        description="Where Prometheus finds the metrics: a port of this machine, or `host:port`. Empty: nowhere.",
    )
    log_format: Literal["human", "json"] = Field(
        "human",
        description="What a line of the engine's own logs looks like.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="The least that is written to the engine's own logs.",
    )

    @field_validator("partitions")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            message = "must be a power of two, such as 16 or 32"
            raise ValueError(message)
        return value

    @field_validator("metrics")
    @classmethod
    def _port(cls, value: str) -> str:
        if value and not 0 < int(value.rpartition(":")[2]) < 1 << 16:
            message = "a port is a number from 1 to 65535"
            raise ValueError(message)
        return value

    @field_validator("intakes", mode="before")
    @classmethod
    def _commas(cls, value: object) -> object:
        """Take `a:b,c:d` of the environment too."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("flink", mode="before")
    @classmethod
    def _options_as_text(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {key: str(option).lower() if isinstance(option, bool) else str(option) for key, option in _flat(value)}

    @model_validator(mode="after")
    def _divides(self) -> Settings:  # noqa: N804 (an `after` validator gets the instance)
        if self.partitions % self.parallelism:
            raise ValueError(
                f"parallelism {self.parallelism} does not divide partitions {self.partitions}: "
                f"choose a power of two up to {self.partitions}"
            )
        return self


@dataclass(frozen=True)
class Loaded:
    """Settings, and for each where its value came from: `default`, the file, the environment variable or the flag."""

    settings: Settings
    origin: dict[str, str]
    file: Path | None
    root: Path
    """The project's folder: that of the file, else the current one."""


def load(
    flags: Mapping[str, object] | None = None,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """Gather the settings from all four sources.

    Raises:
        SettingsError: with every value that cannot be used.

    """
    folder = (folder or Path.cwd()).absolute()
    file, table, problems = _project_file(folder)
    root = file.parent if file else folder
    values: dict[str, object] = {}
    origin = dict.fromkeys(Settings.model_fields, "default")
    variables = os.environ if environment is None else environment
    for name, (text, variable_name) in _from_opentelemetry(variables).items():
        values[name], origin[name] = text, f"environment {variable_name}"
    for source, base, found in (
        (_file_source(file), root, table),
        ("environment", folder, _from_environment(variables)),
        ("flag", folder, dict(flags or {})),
    ):
        for name, value in found.items():
            where = {
                "environment": f"environment {PREFIX}{name.upper()}",
                "flag": f"flag --{name.replace('_', '-')}",
            }.get(source, source)
            if name not in Settings.model_fields:
                if source != "environment" or (_close(name) and not name.startswith("model_")):
                    problems.append(f"{where}: there is no setting {name!r}{_suggest(name)}")
                continue
            values[name] = _placed(name, value, base)
            origin[name] = where
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" and values.get("otlp"):
        values["otlp"], origin["otlp"] = "", "environment OTEL_SDK_DISABLED"
    values.setdefault("data", root / ".longwatch")
    values.setdefault("app_path", _import_root(root, values.get("app")))
    return Loaded(_build(values, origin, problems), origin, file, root)


def rule(name: str) -> str:
    """What a setting may be, in words."""
    field = Settings.model_fields[name]
    choices = get_args(field.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return "one of " + ", ".join(choices)
    kind = _kind(field)
    bounds = [_bound(limit, kind) for limit in field.metadata]
    return " ".join(["a " + kind, *(bound for bound in bounds if bound)])


def show(value: object, name: str) -> object:
    """A setting's value as a project file writes it."""
    chosen: dict[str, Any] = {name: value}
    return Settings.model_construct(**chosen).model_dump(mode="json", include={name}, exclude_unset=True)[name]


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def _project_file(folder: Path) -> tuple[Path | None, dict[str, object], list[str]]:
    for place in (folder, *folder.parents):
        own, shared = place / "longwatch.toml", place / "pyproject.toml"
        table, problem = _read_toml(own)
        inner, other_problem = _read_toml(shared)
        tool = inner.get("tool")
        section = tool.get("longwatch") if isinstance(tool, dict) else None
        if own.is_file() and isinstance(section, dict):
            return own, table, [f"{own} and [tool.longwatch] in {shared} both hold settings: keep them in one place"]
        if own.is_file():
            return own, table, [problem] if problem else []
        if isinstance(section, dict):
            return shared, section, []
        if other_problem:
            return None, {}, [other_problem]
    return None, {}, []


def _read_toml(path: Path) -> tuple[dict[str, Any], str]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), ""
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
        return {}, ""
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return {}, f"{path} is not TOML: {error}"


def _file_source(file: Path | None) -> str:
    if file is None:
        return "file"
    return str(file) if file.name == "longwatch.toml" else f"{file} [tool.longwatch]"


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and value
    }


def _from_opentelemetry(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What OpenTelemetry's own variables say, by setting, with the variable that says it.

    Source: OpenTelemetry, "OTLP Exporter Configuration" and "SDK Environment Variables" 1.50: the variable for traces
    wins over the general one, whose URL is a base; an empty variable is none.
    """

    def first(*names: str) -> tuple[str, str]:
        found = ((environment.get(name, "").strip(), name) for name in names)
        return next((each for each in found if each[0]), ("", ""))

    said: dict[str, tuple[str, str]] = {}
    protocol, name = first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol in get_args(Settings.model_fields["otlp_protocol"].annotation):
        said["otlp_protocol"] = protocol, name  # a collector that takes http/json takes http/protobuf as well
    url, name = first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if url and environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() != "none":
        is_base = name == "OTEL_EXPORTER_OTLP_ENDPOINT" and protocol != "grpc"
        said["otlp"] = f"{url.rstrip('/')}/v1/traces" if is_base else url, name
    return said


def _placed(name: str, value: object, base: Path) -> object:
    """Make a path absolute, counted from where it was written."""
    if name in {"data", "app_path"} and isinstance(value, str | Path):
        return base / Path(value).expanduser()
    return value


def _import_root(root: Path, app: object) -> Path:
    package = str(app or "").partition(":")[0].partition(".")[0]
    source = root / "src"
    in_source = source.is_dir() and (not package or (source / package).exists() or (source / f"{package}.py").exists())
    return source if in_source else root


def _build(values: dict[str, object], origin: dict[str, str], problems: list[str]) -> Settings:
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else ""
            words = str(problem["msg"]).removeprefix("Value error, ")
            if not name:
                problems.append(f"{_blame(origin)}: {words}")
                continue
            problems.append(
                f"{origin[name]}: {name} = {problem['input']!r} is not allowed: {words} (allowed: {rule(name)})"
            )
        raise SettingsError(tuple(problems)) from None
    if problems:
        raise SettingsError(tuple(problems))
    return settings


def _blame(origin: dict[str, str]) -> str:
    """Where the later of the two settings that do not fit together came from."""
    return next((origin[name] for name in ("parallelism", "partitions") if origin[name] != "default"), "default")


def _close(name: str) -> list[str]:
    """Find what may have been meant. An environment variable that is close to nothing may be another program's."""
    return difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.75)


def _suggest(name: str) -> str:
    close = _close(name)
    return f"; did you mean {close[0]!r}?" if close else "; `longwatch settings` lists them all"


def _kind(field: FieldInfo) -> str:
    annotation = field.annotation
    if any(isinstance(part, BeforeValidator) and part.func is read_duration for part in field.metadata):
        return "length of time such as 500ms, 2s or 7d"
    if any(isinstance(part, BeforeValidator) and part.func is read_size for part in field.metadata):
        return "size such as 64mb or 2gb"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}
    if get_origin(annotation) is tuple:
        return "list of texts"
    if get_origin(annotation) is dict and get_args(annotation)[1] is ModelSettings:
        return "table of tables"
    return names.get(annotation, "table of texts") if isinstance(annotation, type) else "table of texts"


def _bound(limit: object, kind: str) -> str:
    for name, word in (("ge", "from"), ("gt", "above"), ("le", "up to"), ("lt", "below")):
        value = getattr(limit, name, None)
        if value is None:
            continue
        if isinstance(value, timedelta):
            return f"{word} {show_duration(value)}"
        return f"{word} {show_size(value) if kind.startswith('size') else value}"
    inner = getattr(limit, "metadata", None)
    if inner:
        return " ".join(filter(None, (_bound(each, kind) for each in inner)))
    return _FORMS.get(getattr(limit, "pattern", None) or "", "")


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """A TOML table with dotted keys, as Flink writes its options."""
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return pairs
