"""What is marked `Secret` is not told, wherever in a type it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypeVar

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    Field,
    Json,
    PlainSerializer,
    RootModel,
    SecretBytes,
    SecretStr,
    computed_field,
    field_serializer,
    model_serializer,
)
from pydantic import Secret as PydanticSecret
from typing_extensions import TypeAliasType, TypedDict

from engine import Secret
from engine.core.secret import WORD, hide, hide_everywhere, hides, names_of, shapes_of, texts_of

Iban = Annotated[str, Secret]
T = TypeVar("T")
Number = NewType("Number", str)
Hidden = NewType("Hidden", Iban)
Ibans = TypeAliasType("Ibans", list[Iban])


class Account(BaseModel):
    iban: Iban
    bank: str = ""


class Holder(BaseModel):
    name: str
    accounts: tuple[Account, ...] = ()
    first: Account | None = None
    by_name: dict[str, Account] = {}
    either: Account | int | str = 0


class Tree(BaseModel):
    label: Annotated[str, Secret()]
    below: list[Tree] = []


class Pairs(NamedTuple):
    open: int
    closed: Iban


@dataclass
class Card:
    number: Iban
    year: int


class Options(TypedDict):
    pin: NotRequired[Iban]
    size: int


class Page(BaseModel, Generic[T]):
    items: list[T]
    total: int = 0


class Named(BaseModel):
    a: Iban = Field(alias="theA")
    b: Iban = Field(  # type: ignore[pydantic-alias]  # names are found all the same
        validation_alias=AliasChoices("b1", AliasPath("b2", 0)), serialization_alias="b3"
    )


class Roots(RootModel[list[Account]]): ...


class Whole(BaseModel):
    account: Annotated[Account, Secret]


class Old(BaseModel):
    text: SecretStr
    raw: SecretBytes | None = None
    number: PydanticSecret[int] = PydanticSecret(1)


class Rewritten(BaseModel):
    account: Account
    other: int = 0

    @field_serializer("account")
    def words(self, account: Account) -> str:
        return f"account {account.iban}"


class Flattened(BaseModel):
    account: Account

    @model_serializer
    def flat(self) -> dict[str, Any]:
        return {"x": self.account.iban}


class Computed(BaseModel):
    x: int = 0

    @computed_field
    def pin(self) -> Iban:
        return "1234"


ACCOUNT = {"iban": "DE02", "bank": "B"}
SAFE = {"iban": WORD, "bank": "B"}


@pytest.mark.parametrize(
    ("annotation", "value", "told"),
    [
        (Account, ACCOUNT, SAFE),
        (Account, None, None),
        (Account | None, ACCOUNT, SAFE),
        (Account, {"iban": None}, {"iban": None}),
        (Iban, "DE02", WORD),
        (Iban | None, "DE02", WORD),
        (Iban | int, 5, WORD),
        (list[Iban], ["a", "b"], [WORD, WORD]),
        (Sequence[Account], [ACCOUNT], [SAFE]),
        (frozenset[Iban], ["a"], [WORD]),
        (dict[str, Iban], {"a": "b"}, {"a": WORD}),
        (Mapping[str, list[Account]], {"a": [ACCOUNT]}, {"a": [SAFE]}),
        (dict[Iban, int], {"a": 1}, WORD),
        (tuple[int, Iban], [1, "a"], [1, WORD]),
        (tuple[Iban, ...], ["a", "b"], [WORD, WORD]),
        (Annotated[Account, "a note"], ACCOUNT, SAFE),
        (Annotated[Account, Secret], ACCOUNT, WORD),
        (Number, "x", "x"),
        (Hidden, "x", WORD),
        (Ibans, ["x"], [WORD]),
        (Literal["x"], "x", "x"),
        (Any, ACCOUNT, ACCOUNT),
        (Holder, {"name": "Ann", "accounts": [ACCOUNT] * 2}, {"name": "Ann", "accounts": [SAFE] * 2}),
        (Holder, {"first": ACCOUNT, "by_name": {"x": ACCOUNT}}, {"first": SAFE, "by_name": {"x": SAFE}}),
        (Holder, {"either": ACCOUNT}, {"either": SAFE}),
        (Holder, {"either": "plain"}, {"either": "plain"}),
        (
            Tree,
            {"label": "a", "below": [{"label": "b", "below": []}]},
            {"label": WORD, "below": [{"label": WORD, "below": []}]},
        ),
        (Pairs, [1, "a"], [1, WORD]),
        (Pairs, {"open": 1, "closed": "a"}, {"open": 1, "closed": WORD}),
        (Card, {"number": "a", "year": 1}, {"number": WORD, "year": 1}),
        (Options, {"pin": "a", "size": 1}, {"pin": WORD, "size": 1}),
        (Page[Account], {"items": [ACCOUNT], "total": 1}, {"items": [SAFE], "total": 1}),
        (Named, {"theA": "1", "b2": ["x"], "b1": "2", "b3": "3"}, {"theA": WORD, "b2": WORD, "b1": WORD, "b3": WORD}),
        (Roots, [ACCOUNT], [SAFE]),
        (Whole, {"account": ACCOUNT}, {"account": WORD}),
        (Old, {"text": "a", "raw": "b", "number": 2}, {"text": WORD, "raw": WORD, "number": WORD}),
        (Rewritten, {"account": "account DE02", "other": 2}, {"account": WORD, "other": 2}),
        (Flattened, {"x": "DE02"}, WORD),
        (Computed, {"x": 1, "pin": "1234"}, {"x": 1, "pin": WORD}),
        (Json[Account], '{"iban":"DE02"}', WORD),
        (Annotated[Account, PlainSerializer(lambda a: a.iban)], "DE02", WORD),
        (Account, "DE02 as a text", WORD),
        (Account, ["DE02"], WORD),
        (list[Account], {"x": "DE02"}, WORD),
        (int, {"not": "an int"}, {"not": "an int"}),
    ],
)
def test_what_is_secret_is_hidden(annotation: Any, value: Any, told: Any) -> None:
    assert hide(value, shapes_of(annotation)) == told


def test_a_type_without_a_secret_hides_nothing() -> None:
    assert not hides(shapes_of(dict[str, list[tuple[int, str | None]]]))
    assert not hides(shapes_of(Page[int]))
    assert hides(shapes_of(Page[Account]))
    assert hides(shapes_of(Tree))


def test_types_that_hold_themselves_are_read_once() -> None:
    class Loop(RootModel["dict[str, Loop] | int"]): ...

    Loop.model_rebuild(_types_namespace={"Loop": Loop})

    assert not hides(shapes_of(Loop))
    assert hide({"a": {"b": 1}}, shapes_of(Loop)) == {"a": {"b": 1}}


def test_the_names_and_texts_of_secrets_are_found() -> None:
    shapes = shapes_of(Holder)
    value = {"name": "Ann", "accounts": [{"iban": "DE0212345"}, {"iban": "abc"}], "either": {"iban": "FR76"}}

    assert names_of(shapes) == {"iban"}
    assert set(texts_of(value, shapes)) == {"DE0212345", "FR76"}
    assert set(texts_of({"account": ACCOUNT}, shapes_of(Whole))) == {"DE02"}


def test_secrets_are_taken_out_of_what_has_no_type() -> None:
    value = {"iban": 5, "text": "pay DE0212345 soon", "DE0212345": [None, {"iban": None}], "n": 1}
    told = hide_everywhere(value, {"iban"}, {"DE0212345", "DE02"})

    assert told == {"iban": WORD, "text": f"pay {WORD} soon", WORD: [None, {"iban": None}], "n": 1}
    assert "DE02" not in json.dumps(told)


def test_json_inside_a_text_is_looked_into() -> None:
    said = {"args": json.dumps({"iban": "DE02", "name": 'Müller "x"', "n": 1})}
    told = hide_everywhere(said, {"iban"}, {'Müller "x"'})

    assert json.loads(told["args"]) == {"iban": WORD, "name": WORD, "n": 1}
    assert hide_everywhere('{"iban": "DE0', {"iban"}, ()) == WORD
    assert hide_everywhere('{ "n": 1}', {"iban"}, ()) == '{ "n": 1}'
    assert hide_everywhere("he said " + said["args"], (), {'Müller "x"'}).count(WORD) == 1
