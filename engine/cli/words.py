"""An answer in the words of a command line: `yes`, `raise --eur 5`, `ReviewDecided approve=true`, or JSON."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.inbox import Choice, InboxItem

YES_AND_NO = {"yes": True, "no": False}
RAISING = ("Raise", "BudgetRaised")


def read_answer(item: InboxItem, words: list[str], extra: Mapping[str, Any]) -> tuple[str, Any]:
    """The answer's name and its JSON, of a person's words; `extra` are fields that have options of their own.

    Raises:
        EventRefused: no such answer, or no such field.
    """
    from engine.core.errors import EventRefused
    from engine.inbox import choice_of

    rest = list(words)
    kind = ""
    fields: Any = {}
    if rest and _is_name(rest[0]):
        kind, fields = _named(item, rest[0])
        rest = rest[1:]
    choice = choice_of(item, kind)
    if not isinstance(fields, dict):
        return choice.name, fields
    value = _value(choice, rest, fields)
    if extra:
        value = _with_extra(choice, value, extra)
    if choice.name in RAISING and kind_given(words) != "no" and not _raises(value):
        raise EventRefused("say how much more: --eur, --tokens or both; `no` gives nothing", "eur")
    return choice.name, value


def _raises(value: Any) -> bool:  # noqa: ANN401 (JSON of any form)
    """Whether anything is given; what is no number is for the check behind this."""
    return isinstance(value, dict) and any(str(value.get(name, 0)).strip("0.") for name in ("eur", "tokens"))


def kind_given(words: list[str]) -> str:
    """The first word, where it names an answer."""
    return words[0].lower() if words and _is_name(words[0]) else ""


def meant(items: Sequence[InboxItem], words: list[str]) -> list[InboxItem]:
    """Of several things that a run asks those that such an answer fits."""
    word = kind_given(words)
    found = [item for item in items if word and _named(item, word)[0] in {choice.name for choice in item.choices}]
    return found or list(items)


def _is_name(word: str) -> bool:
    return "=" not in word and not word.lstrip().startswith(("{", "[", '"'))


def _named(item: InboxItem, word: str) -> tuple[str, Any]:
    """The answer that a first word names, and the fields that it says already."""
    names = {choice.name.lower(): choice.name for choice in item.choices}
    if word.lower() in names:
        return names[word.lower()], {}
    if word.lower() in YES_AND_NO and "leave" in names:
        return names["leave"], {"granted": YES_AND_NO[word.lower()]}
    for name in (each.lower() for each in RAISING):
        if name in names and (word.lower() == "raise" or (word.lower(), name) == ("no", "raise")):
            return names[name], {}
    if len(item.choices) == 1 and not item.choices[0].fields:
        return item.choices[0].name, _scalar(word, item.choices[0].schema)
    return word, {}


def _value(choice: Choice, words: list[str], fields: dict[str, Any]) -> Any:  # noqa: ANN401 (JSON of any form)
    from engine.core.errors import EventRefused

    if len(words) == 1 and not _is_pair(words[0]):
        try:
            given = json.loads(words[0])
        except ValueError as error:
            raise EventRefused(f"{words[0]!r} is neither JSON ({error}) nor FIELD=VALUE", choice.name) from None
        return {**fields, **given} if isinstance(given, dict) else given
    for word in words:
        if not _is_pair(word):
            raise EventRefused(f"{word!r} must be FIELD=VALUE", choice.name)
        name, _, text = word.partition("=")
        _put(fields, name, text, choice.schema, choice)
    return fields


def _is_pair(word: str) -> bool:
    name, sign, _ = word.partition("=")
    return bool(sign) and all(part.isidentifier() for part in name.split("."))


def _put(fields: dict[str, Any], path: str, text: str, schema: Mapping[str, Any], choice: Choice) -> None:
    """`claim.amount=5` sets a field of a field."""
    head, _, rest = path.partition(".")
    inner = _resolved(schema, choice).get("properties", {}).get(head, {})
    if not rest:
        fields[head] = _scalar(text, _resolved(inner, choice))
        return
    below = fields.setdefault(head, {})
    if isinstance(below, dict):
        _put(below, rest, text, inner, choice)


def _resolved(schema: Mapping[str, Any], choice: Choice) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = choice.schema.get("$defs", {}).get(name, schema) if name else schema
    return found


def _scalar(text: str, schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 (JSON of any form)
    """A text stays one where the schema wants one; else it is JSON, `yes` and `no`, or a text after all."""
    kinds = {schema.get("type"), *(each.get("type") for each in schema.get("anyOf", ()))}
    if kinds <= {"string", "null"} and "string" in kinds:
        return text
    if "boolean" in kinds and text.lower() in YES_AND_NO:
        return YES_AND_NO[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _with_extra(choice: Choice, value: Any, extra: Mapping[str, Any]) -> Any:  # noqa: ANN401 (JSON of any form)
    from engine.core.errors import EventRefused

    for name in extra:
        if name not in choice.fields or not isinstance(value, dict):
            has = ", ".join(choice.fields) or "no fields"
            raise EventRefused(f"leave --{name} out: {choice.name} has {has}", name)
    return {**value, **extra}


def example_words(item: InboxItem, choice: Choice) -> str:
    """A command to copy that gives this answer."""
    from engine.core.account import ACCOUNTS

    if item.workflow == ACCOUNTS:
        return f"longwatch budgets raise {quoted(item.key)} --eur 5"
    command = f"longwatch answer {quoted(item.address)}"
    which = f"--visit {item.visit}" if item.of_state else f"--call {quoted(item.call)}"
    if choice.name == "Leave":
        return f'{command} yes {which} --note "..."'
    if choice.name == "Raise":
        return f"{command} raise {which} --eur 5"
    named = f" {quoted(choice.name)}" if len(item.choices) > 1 else ""
    return f"{command}{named} {which}{''.join(f' {word}' for word in _example(choice))}"


def _example(choice: Choice) -> list[str]:
    from engine.example import of_schema

    made = of_schema(dict(choice.schema))
    if not isinstance(made, dict):
        return [quoted(made if isinstance(made, str) else json.dumps(made, ensure_ascii=False))]
    key = choice.key_path.partition(".")[0]
    wanted = choice.schema.get("required", ()) if choice.event or choice.schema.get("required") else ()
    words = [(name, made[name]) for name in wanted if name in made and name != key]
    return [
        quoted(f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
        for name, value in words
    ]


def quoted(text: str) -> str:
    return shlex.quote(text)


def short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."
