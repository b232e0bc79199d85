"""The keys of a topology file that name other files and workers; see pbus.topology.schema."""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from pbus.topology.key_types import Name, Text
from pbus.topology.parsing.nodes import Entry, Mapping, Node, Scalar, Sequence


class ExtendsSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The worker whose keys a worker has, too."""

    worker: Annotated[
        Name | None, Meta(description="Its name; left out, that of the worker that extends it.")
    ] = None
    file: Annotated[
        Text | None,
        Meta(description="The file that it stands in, relative to this one; this file."),
    ] = None


def _named(node: Node) -> Node:
    """`extends: base` means `extends: {worker: base}`."""
    if isinstance(node, Scalar):
        return Mapping(node.line, {"worker": Entry(node.line, node)})
    return node


def _list(node: Node) -> Node:
    return Sequence(node.line, (node,)) if isinstance(node, Scalar) else node


_EXTENDS_EXTRA: Final[dict[str, Any]] = {
    "shorthand": _named,
    "expected": "the name of a worker, or a mapping with keys of worker, file",
}
Extends = Annotated[
    Name | ExtendsSection | None,
    Meta(
        description="Another worker, whose keys this one has, too: by name, or with its file. Its own"
        " keys win: a map is merged with a map, all else replaces, and a key that is left empty"
        " removes the one it stands for.",
        examples=["base", {"file": "common.yaml", "worker": "base"}],
        extra=_EXTENDS_EXTRA,
    ),
]
Include = Annotated[
    Text | list[Text] | None,
    Meta(
        description="Files whose keys are added as if they stood here, relative to this file, each"
        " once; paths in them are relative to them. Workers must differ by name, and what both say"
        " must agree; `name` is left out.",
        examples=["audio/topology.yaml", ["audio/topology.yaml", "tools.yaml"]],
        extra={"shorthand": _list, "expected": "a list of files"},
    ),
]
