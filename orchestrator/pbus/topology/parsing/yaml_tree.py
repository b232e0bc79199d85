"""Parses YAML text, of any origin, to a tree with lines.

PyYAML splits the text into events; the tree is built here because its own composer drops repeated
keys, resolves words like ``no`` before the type of the key is known, and follows aliases and
nesting without a bound.
"""

import re
from collections.abc import Iterator
from typing import cast

import yaml
from msgspec.structs import replace

from pbus.topology.parsing.nodes import (
    Broken,
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
    height_of,
    kind_of,
)
from pbus.topology.parsing.scalars import plain_value, text_problem
from pbus.topology.problems import Place, Problems, shorten

MAX_NODES = 50_000  # with aliases written out; a thousand workers need a fifth of it
MAX_DEPTH = 40  # far below what Python's recursion allows
_TAG_HANDLE = re.compile(r"(tag handle) .*")  # may be a password that begins with !
_MERGE_KEY = "<<"
_MASK_TAG = "!secret"
_TAG_ADVICE = {  # tags of Docker Compose, for files that are merged
    "!reset": "`!reset` is not needed: a key that is left empty removes that of an earlier file",
    "!override": "`!override` is not needed: lists and scalars replace those of an earlier file, and"
    " a key that is left empty removes its own",
}
_TAGS = {
    yaml.ScalarEvent: "tag:yaml.org,2002:str",
    yaml.SequenceStartEvent: "tag:yaml.org,2002:seq",
    yaml.MappingStartEvent: "tag:yaml.org,2002:map",
}


def parse_yaml(text: str, problems: Problems, before: int = 0) -> Node | None:
    """The tree of a YAML text; None for an empty one.

    Args:
        text: The text.
        problems: Collects the problems.
        before: Added to each line, see `Problems.open`.

    Raises:
        TopologyError: The text is not YAML, or is too large; other problems are added.
    """
    try:
        return _Composer(yaml.parse(text, Loader=yaml.SafeLoader), problems, before).document()
    except yaml.YAMLError as error:
        place, problem = _explain(error, text)
        problems.add(place._replace(line=before + place.line), problem)
        raise problems.error() from None
    except (ValueError, OverflowError):  # an escape or a version that PyYAML cannot convert
        problems.add_file(
            "not valid YAML: an escape or a directive holds an impossible number",
            file=problems.source(before)[0],
        )
        raise problems.error() from None


def _explain(error: yaml.YAMLError, text: str) -> tuple[Place, str]:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return Place(line, ""), f"not valid YAML: character U+{error.character:04X} is not allowed"
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else 1
    context = getattr(error, "context", None) or ""
    problem = getattr(error, "problem", None) or "it cannot be read"
    problem = _TAG_HANDLE.sub(r"\1", problem)
    message = f"not valid YAML: {problem}, {context}" if context else f"not valid YAML: {problem}"
    lines = text.splitlines()
    culprit = lines[line - 1] if line <= len(lines) else ""
    if "flow" in context and "${" in culprit:
        message += " (inside [ ] and { } put quotes around ${...})"
    elif "'\\t'" in problem:
        message += " (indent with spaces, not with tabs)"
    return Place(line, ""), message


class _Composer:
    """Builds nodes from events, by recursive descent."""

    def __init__(self, events: Iterator[yaml.Event], problems: Problems, before: int) -> None:
        self._events = events
        self._problems = problems
        self._before = before
        self._anchors: dict[str, Node | None] = {}  # None while the anchor's node is being read
        self._count = 0

    def _line(self, event: yaml.Event) -> int:
        return self._before + (event.start_mark.line + 1 if event.start_mark else 1)

    def document(self) -> Node | None:
        """The one document of the stream."""
        next(self._events)  # the start of the stream
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        node = self._node(next(self._events), Place(self._before + 1, ""), 0)
        next(self._events)  # the end of the document
        extra = next(self._events)
        if not isinstance(extra, yaml.StreamEndEvent):
            self._problems.add(
                Place(self._line(extra), ""), "expected one YAML document, found a second"
            )
        return node

    def _node(self, event: yaml.Event, place: Place, depth: int) -> Node:
        self._bound(place, depth, 1)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place, depth)
        anchor = event.anchor if isinstance(event, yaml.NodeEvent) else None
        if anchor is not None:
            self._anchors[anchor] = None
        node = self._tagged(event, self._content(event, place, depth), place)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _content(self, event: yaml.Event, place: Place, depth: int) -> Node:
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(self._line(event), place, depth)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(self._line(event), place, depth)
        return self._scalar(cast(yaml.ScalarEvent, event), place)

    def _bound(self, place: Place, depth: int, size: int) -> None:
        self._count += size
        if self._count > MAX_NODES:
            self._problems.add(place, f"more than {MAX_NODES:,} values, with aliases written out")
            raise self._problems.error()
        if depth > MAX_DEPTH:
            self._problems.add(place, f"nested more than {MAX_DEPTH} levels deep")
            raise self._problems.error()

    def _alias(self, event: yaml.AliasEvent, place: Place, depth: int) -> Node:
        line, name = self._line(event), event.anchor or ""
        node = self._anchors.get(name)
        if node is None:
            why = "is inside the value it stands for" if name in self._anchors else "has no anchor"
            problem = f"an alias (`*...`) {why}; quote the value if the * belongs to it"
            self._problems.add(place._replace(line=line), problem)
            return Broken(line)
        if isinstance(node, Sequence | Mapping):
            self._bound(place, depth + node.height, node.size)
        return node

    def _tagged(self, event: yaml.Event, node: Node, place: Place) -> Node:
        tag = getattr(event, "tag", None)
        if tag is None or tag in {"!", _TAGS[type(event)]}:
            return node
        if tag == _MASK_TAG and isinstance(node, Scalar):
            return replace(node, is_secret=True)
        problem = _TAG_ADVICE.get(tag) or (
            "a tag (`!...`) is not supported; quote the value if the ! belongs to it"
        )
        self._problems.add(place._replace(line=self._line(event)), problem)
        return Broken(node.line)

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> Node:
        text: str = event.value
        if problem := text_problem(text):
            self._problems.add(place._replace(line=self._line(event)), problem)
            return Broken(self._line(event))
        is_plain = event.implicit[0] or (event.tag == _MASK_TAG and event.style is None)
        return Scalar(line=self._line(event), text=text, plain=is_plain, written=text)

    def _sequence(self, line: int, place: Place, depth: int) -> Sequence:
        before = self._count
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, place.item(len(items), self._line(event)), depth + 1))
        return Sequence(
            line, tuple(items), 1 + self._count - before, 1 + max([0, *map(height_of, items)])
        )

    def _mapping(self, line: int, place: Place, depth: int) -> Mapping:
        before = self._count
        entries: dict[str, Entry] = {}
        merged: list[Mapping] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, place, depth + 1)
            inner = place.key("?" if key is None else key, self._line(event))
            node = self._node(next(self._events), inner, depth + 1)
            if key == _MERGE_KEY:
                merged.extend(self._merge_sources(node, inner))
            elif key in entries:
                first = entries[key].line - self._before
                self._problems.add(inner, f"the key is given twice, first on line {first}")
            elif key is not None:
                entries[key] = Entry(inner.line, node)
        height = 1 + max([0, *(height_of(entry.node) for entry in entries.values())])
        for source in merged:
            entries = source.entries | entries
            height = max(height, source.height)
        return Mapping(line, entries, 1 + self._count - before, height)

    def _key(self, event: yaml.Event, place: Place, depth: int) -> str | None:
        node = self._node(event, place, depth)
        if isinstance(node, Broken):
            return None
        if isinstance(node, Scalar) and (not node.plain or isinstance(plain_value(node.text), str)):
            return node.text
        shown = f"{shorten(node.text)} (quote it)" if isinstance(node, Scalar) else kind_of(node)
        self._problems.add(
            Place(self._line(event), place.path), f"expected a text as key, got {shown}"
        )
        return None

    def _merge_sources(self, node: Node, place: Place) -> list[Mapping]:
        """The mappings of a merge key; the first of several wins."""
        nodes = node.items if isinstance(node, Sequence) else (node,)
        sources = [node for node in nodes if isinstance(node, Mapping)]
        if len(sources) < sum(not isinstance(node, Broken) for node in nodes):
            self._problems.add(place, "expected a mapping to merge, or a list of them")
        return sources
