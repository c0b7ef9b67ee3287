"""What may not be told: fields marked `Secret`, found in a type once, and hidden in the JSON of its values.

A type is read into shapes: what may stand at a place of the JSON, several where it is a union. JSON that fits none of
them, where one of them hides something, is hidden as a whole: what is not understood is not told.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import pydantic
import typing_extensions
from pydantic import AliasChoices, AliasPath, BaseModel, PlainSerializer, RootModel, WrapSerializer

WORD: Final = "[secret]"
"""What stands there instead."""
LEAST: Final = 4
"""Characters of a secret text that is looked for inside other texts."""


class Secret:
    """`Annotated[str, Secret]` on a field, or anywhere in a type: nothing that is exported tells what stands there.

    pydantic's `SecretStr`, `SecretBytes` and `Secret` count as well.
    """


@dataclass(eq=False)
class Shape:
    """One of the things that may stand at a place."""

    kind: Literal["hidden", "any", "plain", "object", "array", "same"]
    """`same`: as `items` say, which were not known yet when this was made."""
    fields: dict[str, Shapes] = field(default_factory=dict)
    """Of an object, by key."""
    values: Shapes = ()
    """Of an object, under any other key."""
    items: Shapes = ()
    """Of an array, in any place."""
    places: dict[int, Shapes] = field(default_factory=dict)
    """Of an array, in this place."""

    def inside(self) -> Iterator[Shape]:
        """What may stand one step further in."""
        for shapes in (*self.fields.values(), self.values, self.items, *self.places.values()):
            yield from shapes


Shapes = tuple[Shape, ...]
HIDDEN: Final = (Shape("hidden"),)
ANY: Final = (Shape("any"),)
PLAIN: Final = (Shape("plain"),)
_WRAPPERS: Final = frozenset(
    (
        typing.Required,
        typing.NotRequired,
        typing.ClassVar,
        typing.Final,
        typing_extensions.ReadOnly,
        typing_extensions.Required,
        typing_extensions.NotRequired,
    )
)
_REWRITTEN: Final = (PlainSerializer, WrapSerializer, pydantic.Json)
_HIDING: Final = (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)


def is_secret(metadata: Iterable[Any]) -> bool:
    """Whether what stands beside a type in `Annotated` marks it."""
    return any(m is Secret or isinstance(m, Secret) for m in metadata)


def shapes_of(annotation: Any) -> Shapes:
    """What values of this type look like in JSON."""
    return _Reader().shapes(annotation)


def hides(shapes: Shapes) -> bool:
    """Whether anything in them is secret."""
    return any(shape.kind == "hidden" for shape in _everything(shapes))


def names_of(shapes: Shapes) -> set[str]:
    """The keys under which something secret stands."""
    found = _everything(shapes)
    return {key for shape in found for key, value in shape.fields.items() if any(v.kind == "hidden" for v in value)}


def hide(value: Any, shapes: Shapes) -> Any:
    """Decoded JSON, without what is secret in it."""
    known = tuple(_opened(shapes))
    if value is None or not known:
        return value
    if any(shape.kind == "hidden" for shape in known):
        return WORD
    fitting = [shape for shape in known if shape.kind in ("any", _kind(value))]
    if not fitting:
        return WORD if hides(known) else value
    if isinstance(value, dict):
        return {key: hide(each, tuple(_under(key, fitting))) for key, each in value.items()}
    if isinstance(value, list):
        return [hide(each, tuple(_at(place, fitting))) for place, each in enumerate(value)]
    return value


def texts_of(value: Any, shapes: Shapes) -> Iterator[str]:
    """The secret texts in decoded JSON that are long enough to be looked for elsewhere."""
    known = tuple(_opened(shapes))
    if not known or value is None:
        return
    if any(shape.kind == "hidden" for shape in known):
        yield from (text for text in _leaves(value) if len(text) >= LEAST)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from texts_of(each, tuple(_under(key, known)))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from texts_of(each, tuple(_at(place, known)))


def hide_everywhere(value: Any, names: Collection[str], texts: Collection[str]) -> Any:
    """Decoded JSON of a type that is not known, without what stands under these keys, and without these texts."""
    if isinstance(value, dict):
        return {
            without(key, texts): WORD if key in names and each is not None else hide_everywhere(each, names, texts)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [hide_everywhere(each, names, texts) for each in value]
    return _in_text(value, names, texts) if isinstance(value, str) else value


def _in_text(text: str, names: Collection[str], texts: Collection[str]) -> str:
    """A text may be JSON itself, as arguments are that a model writes; where it is broken JSON, no such key is told."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(text)
        except ValueError:
            if any(name in text for name in names):
                return WORD
        else:
            told = hide_everywhere(value, names, texts)
            return text if told == value else json.dumps(told, ensure_ascii=False)
    return without(text, texts)


def without(text: str, secrets: Collection[str]) -> str:
    """A text without these texts."""
    forms = {form for secret in secrets for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, WORD)
    return text


def _forms(secret: str) -> tuple[str, ...]:
    """A text as it is, and inside JSON."""
    return secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, str):
        yield value


def _kind(value: Any) -> str:
    return "object" if isinstance(value, dict) else "array" if isinstance(value, list) else "plain"


def _under(key: str, shapes: Iterable[Shape]) -> Iterator[Shape]:
    for shape in shapes:
        yield from shape.fields.get(key, shape.values)


def _at(place: int, shapes: Iterable[Shape]) -> Iterator[Shape]:
    for shape in shapes:
        yield from shape.places.get(place, shape.items)


def _opened(shapes: Shapes) -> Iterator[Shape]:
    """Those that are the same as others, as these."""
    seen: set[int] = set()
    todo = list(reversed(shapes))
    while todo:
        shape = todo.pop()
        if shape.kind != "same":
            yield shape
        elif id(shape) not in seen:
            seen.add(id(shape))
            todo += reversed(shape.items)


def _everything(shapes: Shapes) -> list[Shape]:
    found: dict[int, Shape] = {}
    todo = list(shapes)
    while todo:
        shape = todo.pop()
        if id(shape) not in found:
            found[id(shape)] = shape
            todo += shape.inside()
    return list(found.values())


class _Reader:
    """Reads types; each class once, so that one may hold itself."""

    def __init__(self) -> None:
        self._known: dict[Any, Shape] = {}

    def shapes(self, annotation: Any) -> Shapes:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is Annotated:
            return self._annotated(arguments[0], arguments[1:])
        if origin in _WRAPPERS:
            return self.shapes(arguments[0])
        if origin in (typing.Union, types.UnionType):
            return tuple(shape for argument in arguments for shape in self.shapes(argument))
        alias = origin or annotation
        if (meant := getattr(alias, "__supertype__", None) or getattr(alias, "__value__", None)) is not None:
            return self._once(alias, lambda: self.shapes(meant))
        if origin is Literal or annotation is None:
            return PLAIN
        return self._generic(origin, arguments) if origin is not None else self._class(annotation)

    def _annotated(self, annotation: Any, metadata: Iterable[Any]) -> Shapes:
        metadata = tuple(metadata)
        if is_secret(metadata):
            return HIDDEN
        found = self.shapes(annotation)
        if any(isinstance(m, _REWRITTEN) or m is pydantic.Json for m in metadata):
            return HIDDEN if hides(found) else ANY
        return found

    def _once(self, thing: Any, make: Any) -> Shapes:
        """For what may stand in itself."""
        if thing not in self._known:
            shape = self._known[thing] = Shape("same")
            shape.items = make()
        return (self._known[thing],)

    def _generic(self, origin: Any, arguments: tuple[Any, ...]) -> Shapes:
        if not isinstance(origin, type) or issubclass(origin, _HIDING):
            return HIDDEN if isinstance(origin, type) or self._any_hides(arguments) else ANY
        if origin is tuple:
            return self._tuple(arguments)
        if issubclass(origin, Mapping):
            keys, values = (self.shapes(a) for a in arguments) if len(arguments) == 2 else (ANY, ANY)  # noqa: PLR2004
            return HIDDEN if hides(keys) else (Shape("object", values=values),)
        if issubclass(origin, Iterable) and not issubclass(origin, BaseModel):
            return (Shape("array", items=tuple(s for a in arguments for s in self.shapes(a))),)
        return HIDDEN if self._any_hides(arguments) else self._class(origin)

    def _any_hides(self, arguments: tuple[Any, ...]) -> bool:
        return any(hides(self.shapes(a)) for a in arguments if not isinstance(a, list))

    def _tuple(self, arguments: tuple[Any, ...]) -> Shapes:
        if len(arguments) == 2 and arguments[1] is Ellipsis:  # noqa: PLR2004 - tuple[X, ...]
            return (Shape("array", items=self.shapes(arguments[0])),)
        return (Shape("array", places={place: self.shapes(a) for place, a in enumerate(arguments)}),)

    def _class(self, kind: Any) -> Shapes:
        if not isinstance(kind, type) or kind in (object, dict, list, tuple, set, frozenset):
            return ANY
        if issubclass(kind, _HIDING):
            return HIDDEN
        if issubclass(kind, RootModel):
            root = kind.model_fields["root"]
            return self._once(kind, lambda: self._annotated(root.annotation, root.metadata))
        if issubclass(kind, BaseModel):
            return self._once(kind, lambda: self._model(kind))
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return self._once(kind, lambda: self._named_tuple(kind))
        if dataclasses.is_dataclass(kind) or typing_extensions.is_typeddict(kind):
            return self._once(kind, lambda: (Shape("object", self._hinted(kind)),))
        if hasattr(kind, "__get_pydantic_core_schema__"):
            return ANY
        return PLAIN

    def _hinted(self, kind: type) -> dict[str, Shapes]:
        return {name: self.shapes(hint) for name, hint in typing.get_type_hints(kind, include_extras=True).items()}

    def _named_tuple(self, kind: Any) -> Shapes:
        fields = self._hinted(kind)
        places = {place: fields.get(name, ANY) for place, name in enumerate(kind._fields)}
        return Shape("array", places=places), Shape("object", fields)

    def _model(self, model: type[BaseModel]) -> Shapes:
        fields: dict[str, Shapes] = {}
        decorators = model.__pydantic_decorators__
        rewritten = {name for each in decorators.field_serializers.values() for name in each.info.fields}
        for name, info in model.model_fields.items():
            found = self._annotated(info.annotation, info.metadata)
            if (name in rewritten or "*" in rewritten) and hides(found):
                found = HIDDEN
            keys = {name, *_keys(info.alias), *_keys(info.validation_alias), *_keys(info.serialization_alias)}
            fields |= {key: (*fields.get(key, ()), *found) for key in keys}
        for name, computed in model.model_computed_fields.items():
            found = self.shapes(computed.return_type)
            fields |= {key: (*fields.get(key, ()), *found) for key in {name, *_keys(computed.alias)}}
        shape = Shape("object", fields)
        return HIDDEN if decorators.model_serializers and hides((shape,)) else (shape,)


def _keys(alias: str | AliasPath | AliasChoices | None) -> Iterator[str]:
    """The keys of an object that hold a field, or hold what it is taken from."""
    if isinstance(alias, str):
        yield alias
    elif isinstance(alias, AliasPath):
        yield from (part for part in alias.path[:1] if isinstance(part, str))
    elif isinstance(alias, AliasChoices):
        for choice in alias.choices:
            yield from _keys(choice)
