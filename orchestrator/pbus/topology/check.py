"""Checks a tree against the types of `pbus.topology.schema`."""

import functools
import re
from collections.abc import Callable
from collections.abc import Mapping as AbstractMapping
from typing import Any, NamedTuple, cast

from msgspec import inspect

from pbus.topology.parsing.nodes import Broken, Mapping, Node, Scalar, Sequence, kind_of
from pbus.topology.parsing.scalars import number_problem, plain_bool, plain_value
from pbus.topology.problems import (
    Place,
    Problems,
    did_you_mean,
    one_of,
    shorten,
    shown_key,
    suggestion,
)
from pbus.topology.schema import EXTENSION_PREFIX, FOREIGN_KEYS, TopologyFile

_INVALID: Any = object()  # the value of a key whose problem was added


class _Shape(NamedTuple):
    """The type of a key without its wrappers, and its words for problems."""

    type: Any  # one of msgspec's type descriptions; the method that gets it knows which
    is_optional: bool
    expected: str | None
    suggest: Callable[[str], str | None] | None
    read: Callable[[str], Any] | None  # text to value; None for an invalid text
    shorthand: Callable[[Node], Node] | None  # from a short form to the long one
    aliases: dict[str, str]  # words of other tools for one of the choices


@functools.cache
def _file_type() -> inspect.Type:
    return inspect.type_info(TopologyFile)


def check_shape(tree: Node, problems: Problems) -> TopologyFile | None:
    """Check the types of a file.

    Returns:
        The valid values; None if the tree is no mapping. Problems are added for all else.
    """
    checked = _Checker(problems).value(tree, _file_type(), Place(tree.line, ""))
    return checked if isinstance(checked, TopologyFile) else None


def check_type(node: Node, kind: Any, place: Place, problems: Problems) -> Any:
    """Check one value by the type of a key; None for an empty one, and for one with problems."""
    before = problems.count
    checked = _Checker(problems).value(node, inspect.type_info(kind), place)
    return None if checked is _INVALID or problems.count > before else checked


def is_null(node: Node) -> bool:
    """Whether the value is empty, as written or after expansion."""
    return isinstance(node, Scalar) and node.plain and plain_value(node.text) is None


def _shape_of(type_: inspect.Type) -> _Shape:
    extra: dict[str, Any] = {}
    is_optional = False
    while True:
        if isinstance(type_, inspect.Metadata):
            extra |= type_.extra or {}
            type_ = type_.type
        elif isinstance(type_, inspect.UnionType) and type_.includes_none:
            is_optional = True
            rest = tuple(one for one in type_.types if not isinstance(one, inspect.NoneType))
            type_ = rest[0] if len(rest) == 1 else inspect.UnionType(rest)
        else:
            return _Shape(
                _long_form(type_),
                is_optional,
                extra.get("expected"),
                extra.get("suggest"),
                extra.get("read"),
                extra.get("shorthand"),
                extra.get("aliases") or {},
            )


def _long_form(type_: inspect.Type) -> inspect.Type:
    """The longest of the types of a key that has short forms, too: a mapping, or else a list."""
    if isinstance(type_, inspect.UnionType):
        for long in (inspect.StructType, inspect.DictType, inspect.ListType):
            for one in type_.types:
                if isinstance(one, long):
                    return one
    return type_


def _shown(node: Node) -> str:
    """A node as a problem quotes it, without the values of variables."""
    if not isinstance(node, Scalar) or is_null(node):
        return kind_of(node)
    is_word = isinstance(plain_value(node.written), str)
    if node.plain:
        return shorten(node.written) if is_word else node.written
    return shorten(node.written) if is_word else f"the text {shorten(node.written)}"


def _matches(text: str, pattern: str | None) -> bool:
    return pattern is None or re.fullmatch(pattern, text) is not None


def _advice(node: Scalar, shape: _Shape) -> str:
    """A valid text close to an invalid one, as the end of a problem."""
    suggest = None if _is_expanded(node) else shape.suggest
    right = suggest(node.text) if suggest else None
    return suggestion(right) if right else ""


def _key_advice(key: str, fields: AbstractMapping[str, Any]) -> str:
    here = FOREIGN_KEYS.get(key)
    if here is not None and re.split("[:,]", here, maxsplit=1)[0] in fields:
        return f" (here: `{here}`)"
    return did_you_mean(key, fields) or f" (known here: {', '.join(fields)})"


def _is_expanded(node: Scalar) -> bool:
    return node.text != node.written


class _Checker:
    """Walks tree and types together; one method for each kind of type."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._by_type: dict[type[inspect.Type], Callable[[Node, _Shape, Place], Any]] = {
            inspect.StructType: self._struct,
            inspect.DictType: self._dict,
            inspect.ListType: self._list,
            inspect.StrType: self._text,
            inspect.IntType: self._integer,
            inspect.FloatType: self._number,
            inspect.BoolType: self._flag,
            inspect.LiteralType: self._choice,
            inspect.UnionType: self._as_written,
            inspect.AnyType: self._anything,
        }

    def value(self, node: Node, type_: inspect.Type, place: Place) -> Any:
        """The checked value, None for an optional key left empty, or _INVALID."""
        if isinstance(node, Broken):
            return _INVALID
        shape = _shape_of(type_)
        if shape.is_optional and is_null(node) and not isinstance(shape.type, inspect.UnionType):
            return None
        if shape.shorthand is not None:
            written, node = node, shape.shorthand(node)
            if isinstance(written, Scalar) and node is not written:
                return self._word(node, shape, place)
        return self._by_type[type(shape.type)](node, shape, place)

    def _wrong(self, place: Place, expected: str, got: str, advice: str = "") -> Any:
        self._problems.add(place, f"expected {expected}, got {got}{advice}")
        return _INVALID

    def _word(self, node: Node, shape: _Shape, place: Place) -> Any:
        """A mapping or a list whose only value was written in its stead: problems stand at the key."""
        if isinstance(node, Sequence):
            value = self.value(node.items[0], shape.type.item_type, place)
            return _INVALID if value is _INVALID else [value]
        ((key, entry),) = cast("Mapping", node).entries.items()
        field = next(field for field in shape.type.fields if field.encode_name == key)
        value = self.value(entry.node, field.type, place)
        return _INVALID if value is _INVALID else shape.type.cls(**{key: value})

    def _struct(self, node: Node, shape: _Shape, place: Place) -> Any:
        fields = {field.encode_name: field for field in shape.type.fields}
        if not isinstance(node, Mapping):
            wanted = shape.expected or f"a mapping with keys of {', '.join(fields)}"
            return self._wrong(place, wanted, kind_of(node))
        values = self._values(node, fields, place)
        for name, field in fields.items():
            if field.required and name not in values:
                values[name] = {}  # only mappings are required; the file is refused anyway
                self._check_given(name, node, field, place)
        return shape.type.cls(**values)

    def _values(
        self, node: Mapping, fields: AbstractMapping[str, inspect.Field], place: Place
    ) -> dict[str, Any]:
        values = {}
        for key, entry in node.entries.items():
            at = place.key(key, entry.line)
            if key.startswith(EXTENSION_PREFIX):
                continue
            if key not in fields:
                self._problems.add(at, f"unknown key{_key_advice(key, fields)}")
            elif (value := self.value(entry.node, fields[key].type, at)) is not _INVALID:
                values[key] = value
        return values

    def _check_given(self, name: str, node: Mapping, field: inspect.Field, place: Place) -> None:
        if name not in node.entries:
            expected = _shape_of(field.type).expected
            self._problems.add(place, f"the key `{name}` is missing: expected {expected}")

    def _dict(self, node: Node, shape: _Shape, place: Place) -> Any:
        expected = shape.expected or "a mapping"
        if not isinstance(node, Mapping):
            return self._wrong(place, expected, kind_of(node))
        if shape.type.min_length and not node.entries:
            return self._wrong(place, expected, "an empty mapping")
        values = {}
        for key, entry in node.entries.items():
            at = place.key(key, entry.line)
            key_node = Scalar(line=entry.line, text=key, plain=False, written=shown_key(key))
            self.value(key_node, shape.type.key_type, at)
            value = self.value(entry.node, shape.type.value_type, at)
            if value is not _INVALID:
                values[key] = value
        return values

    def _list(self, node: Node, shape: _Shape, place: Place) -> Any:
        expected = shape.expected or "a list"
        if not isinstance(node, Sequence):
            return self._wrong(place, expected, kind_of(node))
        if shape.type.min_length and not node.items:
            return self._wrong(place, expected, "an empty list")
        values = [
            self.value(item, shape.type.item_type, place.item(index, item.line))
            for index, item in enumerate(node.items)
        ]
        return _INVALID if any(value is _INVALID for value in values) else values

    def _text(self, node: Node, shape: _Shape, place: Place) -> Any:
        expected = shape.expected or "text"
        if not isinstance(node, Scalar) or is_null(node):
            return self._wrong(place, expected, kind_of(node))
        kind = kind_of(node)
        if kind != "text" and not _is_expanded(node):
            return self._wrong(place, expected, kind, "" if shape.expected else " (quote it)")
        if len(node.text) < (shape.type.min_length or 0):
            return self._wrong(place, expected, "an empty text")
        if not _matches(node.text, shape.type.pattern):
            return self._wrong(place, expected, _shown(node), _advice(node, shape))
        return node.text

    def _integer(self, node: Node, shape: _Shape, place: Place) -> Any:
        low, high = shape.type.ge or 0, shape.type.le or 0
        if isinstance(node, Scalar) and node.plain:
            value = plain_value(node.text)
            if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
                return value
        return self._wrong(place, f"a whole number from {low} to {high}", _shown(node))

    def _number(self, node: Node, shape: _Shape, place: Place) -> Any:
        low, high = shape.type.ge or 0, shape.type.le or 0
        value = plain_value(node.text) if isinstance(node, Scalar) and node.plain else None
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        return self._wrong(place, f"a number from {low} to {high}", _shown(node))

    def _flag(self, node: Node, _shape: _Shape, place: Place) -> Any:
        value = plain_bool(node.text) if isinstance(node, Scalar) and node.plain else None
        return self._wrong(place, "true or false", _shown(node)) if value is None else value

    def _choice(self, node: Node, shape: _Shape, place: Place) -> Any:
        words = [str(value) for value in shape.type.values]
        if isinstance(node, Scalar) and shape.aliases.get(node.text, node.text) in words:
            return shape.aliases.get(node.text, node.text)
        advice = ""
        if isinstance(node, Scalar) and not _is_expanded(node):
            advice = _advice(node, shape) or did_you_mean(node.text, words)
        return self._wrong(place, one_of(words), _shown(node), advice)

    def _as_written(self, node: Node, shape: _Shape, place: Place) -> Any:
        if shape.read is not None:
            return self._read(node, shape, place)
        if not isinstance(node, Scalar):
            return self._wrong(place, "text, a number, true or false", kind_of(node))
        if node.plain and not node.written and not shape.is_optional:
            return self._wrong(place, "text", "nothing", " (write '' for an empty text)")
        return node.text

    def _read(self, node: Node, shape: _Shape, place: Place) -> Any:
        if shape.is_optional and is_null(node):
            return None
        value = shape.read(node.text) if shape.read and isinstance(node, Scalar) else None
        return self._wrong(place, str(shape.expected), _shown(node)) if value is None else value

    def _anything(self, node: Node, shape: _Shape, place: Place) -> Any:
        if isinstance(node, Mapping):
            return {
                key: self.value(entry.node, shape.type, place.key(key, entry.line))
                for key, entry in node.entries.items()
            }
        if isinstance(node, Sequence):
            return [
                self.value(item, shape.type, place.item(index, item.line))
                for index, item in enumerate(node.items)
            ]
        if not isinstance(node, Scalar):
            return _INVALID
        value = plain_value(node.text) if node.plain else node.text
        if problem := number_problem(value):
            self._problems.add(place, problem)
        return value
