"""Values for a JSON schema: the same every time, valid for what pydantic writes; and wrong ones, for tests of refusals.

Not served: `pattern`, `not`, `if`. Give `examples` or a `default` to such a field.
"""

from __future__ import annotations

import math
from typing import Any

from engine.testing.providers.protocol import Json

DEEPEST = 6
"""A schema that holds itself is filled so far, then with the least that it allows."""
FORMATS = {
    "date": "2026-03-14",
    "date-time": "2026-03-14T09:26:53Z",
    "duration": "P3D",
    "email": "ann@example.org",
    "ipv4": "192.0.2.1",
    "time": "09:26:53Z",
    "uri": "https://example.org/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}
WRONG: dict[str, Any] = {
    "array": "not a list",
    "boolean": "perhaps",
    "integer": "not a number",
    "null": 42,
    "number": "not a number",
    "object": "not an object",
    "string": {"not": "a string"},
}


def plausible(schema: Json) -> Any:  # noqa: ANN401 - JSON
    """A value that the schema allows."""
    return _Filler(schema.get("$defs") or schema.get("definitions") or {}).value(schema, "value", 0)


def wrong(schema: Json) -> Json:
    """An object with the schema's names and, under each, a value of another type."""
    filler = _Filler(schema.get("$defs") or {})
    fields = filler.resolved(schema).get("properties", {})
    return {name: WRONG.get(filler.type_of(filler.resolved(each)), {"not": "that"}) for name, each in fields.items()}


class _Filler:
    def __init__(self, definitions: Json) -> None:
        self.definitions = definitions

    def resolved(self, schema: Json) -> Json:
        """The schema with its reference, its parts and the first of its alternatives put in."""
        while True:
            if reference := schema.get("$ref"):
                schema = {**self.definitions[reference.rsplit("/", 1)[-1]], **_without(schema, "$ref")}
            elif parts := schema.get("allOf"):
                schema = {**_merged([self.resolved(part) for part in parts]), **_without(schema, "allOf")}
            elif choices := schema.get("anyOf") or schema.get("oneOf"):
                chosen = next((each for each in choices if each.get("type") != "null"), choices[0])
                schema = {**_without(schema, "anyOf", "oneOf", "title"), **chosen}
            else:
                return schema

    def type_of(self, schema: Json) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((each for each in kind if each != "null"), "null")
        if kind is None:
            kind = "object" if "properties" in schema else "string"
        return str(kind)

    def value(self, schema: Json, name: str, depth: int) -> Any:  # noqa: ANN401 - JSON
        if depth > DEEPEST and _may_be_null(schema):
            return None
        schema = self.resolved(schema)
        if given := _given(schema):
            return given[0]
        match self.type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer" | "number" as kind:
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _string(schema, name)

    def _object(self, schema: Json, depth: int) -> Json:
        required = schema.get("required", ())
        return {
            name: self.value(each, name, depth + 1)
            for name, each in schema.get("properties", {}).items()
            if depth < DEEPEST or name in required
        }

    def _array(self, schema: Json, name: str, depth: int) -> list[Any]:
        first = [self.value(each, name, depth + 1) for each in schema.get("prefixItems", ())]
        least = schema.get("minItems", 0 if depth >= DEEPEST else 1)
        items = schema.get("items")
        if not isinstance(items, dict):
            return first
        wanted = min(max(least, len(first)), schema.get("maxItems", math.inf))
        return first + [self.value(items, name, depth + 1) for _ in range(len(first), int(wanted))]


def _given(schema: Json) -> list[Any]:
    """The values that the schema itself names, best first."""
    named = [schema[key] for key in ("const", "default") if key in schema]
    return [*named, *schema.get("enum", ()), *schema.get("examples", ())]


def _without(schema: Json, *keys: str) -> Json:
    return {key: value for key, value in schema.items() if key not in keys}


def _may_be_null(schema: Json) -> bool:
    return any(each.get("type") == "null" for each in schema.get("anyOf", ()))


def _merged(parts: list[Json]) -> Json:
    whole: Json = {}
    for part in parts:
        whole |= part | {
            "properties": whole.get("properties", {}) | part.get("properties", {}),
            "required": [*whole.get("required", ()), *part.get("required", ())],
        }
    return whole


def _number(schema: Json, *, whole: bool) -> float:
    """One step, or the allowed value that is nearest to it."""
    step = schema.get("multipleOf", 1 if whole else 0.5)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    low, high = max(schema.get("minimum", -math.inf), above), min(schema.get("maximum", math.inf), below)
    value = step
    if value < low or value == above:
        value = math.ceil(low / step) * step + (step if low == above and low % step == 0 else 0)
    if value > high or value == below:
        value = math.floor(high / step) * step - (step if high == below and high % step == 0 else 0)
    if value < low or value == above:
        value = low + (high - low) / 2
    return int(value) if whole else float(value)


def _string(schema: Json, name: str) -> str:
    text = FORMATS.get(schema.get("format", "")) or f"a plausible {name.replace('_', ' ')}"
    text = text.ljust(schema.get("minLength", 0), ".")
    return text[: schema["maxLength"]] if "maxLength" in schema else text
