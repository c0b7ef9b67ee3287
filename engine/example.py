"""Examples of events: values made from a model's fields, kept only if the model takes them."""

from __future__ import annotations

import json
import re
import re._parser as parser  # type: ignore[import-not-found]
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from engine import Event

_DEPTH: Final = 8
_FORMATS: Final = {
    "date-time": "2026-01-05T09:00:00Z",
    "date": "2026-01-05",
    "time": "09:00:00",
    "duration": "P1D",
    "uuid": "6f1c1a52-7a0c-4d35-9a56-0f0f7f6f8a11",
    "uuid4": "6f1c1a52-7a0c-4d35-9a56-0f0f7f6f8a11",
    "email": "ann@example.com",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "ipv4network": "192.0.2.0/24",
    "path": "file.txt",
    "file-path": "file.txt",
    "binary": "bytes",
    "base64url": "Ynl0ZXM",
    "decimal": "1",
}


class NoExampleError(ValueError):
    """No example could be made that the model accepts; the message says which rule stood in the way and what to do."""


def cloud_event(event: type[Event], key_path: str = "") -> dict[str, Any]:
    """Make a whole CloudEvent around an example of `event`; an event without a key in its data gets a `subject`.

    Raises:
        NoExampleError: if no example validates.

    """
    data = example(event)
    envelope = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "longwatch-example",
        "type": event.__name__,
        "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    if not key_path:
        envelope["subject"] = "example-1"
    return {**envelope, "data": data}


def example(model: type[Any]) -> Any:  # noqa: ANN401 (JSON of any form)
    """Make an example of a model as JSON: from the `examples` of its fields, else by their types and constraints.

    Raises:
        NoExampleError: if what was made does not validate; a validator of one's own can ask for anything.

    """
    schema = model.model_json_schema()
    value = _value(schema, schema.get("$defs", {}), "", 0)
    try:
        TypeAdapter(model).validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NoExampleError(
            f"{model.__name__}.{where}: no example could be made ({first['msg']}); "
            "give the field one of its own: Field(examples=[...])"
        ) from None
    return value


def of_schema(schema: dict[str, Any]) -> Any:  # noqa: ANN401 (JSON of any form)
    """Make an example by a JSON schema; nobody has checked it."""
    return _value(schema, schema.get("$defs", {}), "", 0)


def _value(schema: dict[str, Any], known: dict[str, Any], name: str, depth: int) -> Any:  # noqa: ANN401, C901, PLR0912 (one case a JSON type)
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    for given in ("examples", "enum"):
        if schema.get(given):
            return schema[given][0]
    if "$ref" in schema:
        target = known[schema["$ref"].rpartition("/")[2]]
        return _value(target, known, name, depth + 1)
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return _value(_simplest(schema[choice], depth), known, name, depth)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    match kind:
        case "object":
            return _object(schema, known, depth)
        case "array":
            return _array(schema, known, name, depth)
        case "string":
            return _text(schema, name)
        case "integer":
            return int(_number(schema, 1))
        case "number":
            return _number(schema, 1.0)
        case "boolean":
            return True
        case _:
            return None


def _simplest(choices: list[dict[str, Any]], depth: int) -> dict[str, Any]:
    """The first choice, or `null` once the example has grown deep."""
    empty = [choice for choice in choices if choice.get("type") == "null"]
    return empty[0] if empty and depth > _DEPTH else choices[0]


def _object(schema: dict[str, Any], known: dict[str, Any], depth: int) -> dict[str, Any]:
    fields = schema.get("properties", {})
    needed = set(schema.get("required", ()))
    made = {
        name: _value(field, known, name, depth + 1) for name, field in fields.items() if name in needed or not depth
    }
    extra = schema.get("additionalProperties")
    if not fields and isinstance(extra, dict) and schema.get("minProperties", 0):
        made["key"] = _value(extra, known, "key", depth + 1)
    return made


def _array(schema: dict[str, Any], known: dict[str, Any], name: str, depth: int) -> list[Any]:
    if "prefixItems" in schema:
        return [_value(item, known, name, depth + 1) for item in schema["prefixItems"]]
    least = schema.get("minItems", 0)
    count = least if depth > _DEPTH else max(1, least)
    item = schema.get("items", {})
    singular = name.removesuffix("s")
    values = [_value(item, known, singular, depth + 1) for _ in range(min(count, schema.get("maxItems", count)))]
    if schema.get("uniqueItems") and len(values) > 1:
        return [f"{value}-{number}" if isinstance(value, str) else number for number, value in enumerate(values, 1)]
    return values


def _text(schema: dict[str, Any], name: str) -> str:
    if "format" in schema:
        return _FORMATS.get(schema["format"], "text")
    if "pattern" in schema:
        return _matching(schema["pattern"])
    text = (
        f"{name.replace('_', '-')}-1" if name.endswith(("id", "number", "key")) else (name.replace("_", " ") or "text")
    )
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    text = text.ljust(least, "x")
    return text if most is None else text[:most]


def _number(schema: dict[str, Any], usual: float) -> float:
    step = schema.get("multipleOf", 0)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    value = usual
    if low is not None and (value < low or (value == low and "exclusiveMinimum" in schema)):
        value = low + ("exclusiveMinimum" in schema)
    if high is not None and (value > high or (value == high and "exclusiveMaximum" in schema)):
        value = high - ("exclusiveMaximum" in schema)
        if low is not None and (value < low or (value == low and "exclusiveMinimum" in schema)):
            value = (low + high) / 2
    if step:
        value = -(-value // step) * step
    return value


def _matching(pattern: str) -> str:
    """Make a text that a simple regular expression matches: characters, classes, groups, choices and repeats."""
    try:
        return "".join(_spell(part) for part in parser.parse(pattern))
    except (re.error, OverflowError, NotImplementedError):
        return "text"


def _spell(part: tuple[Any, Any]) -> str:
    kind, what = part
    match str(kind):
        case "LITERAL":
            return chr(what)
        case "ANY" | "NOT_LITERAL":
            return "x" if what != ord("x") else "y"
        case "IN":
            return _member(what)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, inner = what
            return "".join(_spell(each) for each in inner) * (least or min(1, int(most)))
        case "SUBPATTERN" | "ATOMIC_GROUP":
            return "".join(_spell(each) for each in (what[-1] if isinstance(what, tuple) else what))
        case "BRANCH":
            return "".join(_spell(each) for each in what[1][0])
        case "AT":
            return ""
        case _:
            raise NotImplementedError(str(kind))


def _member(choices: list[tuple[Any, Any]]) -> str:
    """A character of a class such as `[a-z_]`."""
    if str(choices[0][0]) == "NEGATE":
        return next(letter for letter in "xA1 -" if not re.fullmatch(_class_of(choices[1:]), letter))
    kind, what = choices[0]
    match str(kind):
        case "RANGE":
            return chr(what[0])
        case "CATEGORY":
            return {"CATEGORY_DIGIT": "1", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "a"}.get(str(what), "-")
        case _:
            return chr(what)


def _class_of(choices: list[tuple[Any, Any]]) -> str:
    letters = {"CATEGORY_DIGIT": r"\d", "CATEGORY_SPACE": r"\s", "CATEGORY_WORD": r"\w"}
    parts = []
    for kind, what in choices:
        if str(kind) == "RANGE":
            parts.append(f"{re.escape(chr(what[0]))}-{re.escape(chr(what[1]))}")
        else:
            parts.append(letters.get(str(what), "") if str(kind) == "CATEGORY" else re.escape(chr(what)))
    return f"[{''.join(parts)}]"
