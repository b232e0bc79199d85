"""Finds worker classes and the parameters of their `__init__` in syntax trees."""

import ast
from dataclasses import dataclass
from typing import Final

from pbus.topology.code.bindings import bindings_of, has_star_import, is_dynamic
from pbus.topology.code.modules import Source, SourceError, Sources

_MAX_STEPS: Final = 20  # imports and bases that are followed


@dataclass(frozen=True)
class FoundClass:
    """A class, and the module that defines it."""

    node: ast.ClassDef
    source: Source


@dataclass(frozen=True)
class Parameters:
    """The parameters of an `__init__`, without `self` and the one that takes the worker's name.

    Attributes:
        takes_name: Whether there is one for the name.
        name: The parameter that takes the name, which `args` cannot give again.
        required: Those without a default.
        known: All that can be given by name.
        takes_any: Whether there is a `**kwargs`.
    """

    takes_name: bool
    name: str | None
    required: tuple[str, ...]
    known: tuple[str, ...]
    takes_any: bool


class MissingClassError(Exception):
    """A module has no such class.

    Attributes:
        known: The names of the classes that it has.
    """

    def __init__(self, text: str, known: list[str]) -> None:
        super().__init__(text)
        self.known = known


def find_class(sources: Sources, module: str, name: str) -> FoundClass | None:
    """The class that ``module:name`` names; None where the trees do not tell.

    Raises:
        SourceError: The module cannot be imported.
        MissingClassError: The module has no such class.
    """
    source = sources.find(module)
    if source.tree is None:
        if source.folders is not None and source.file is None:
            raise MissingClassError(f"`{module}` is a folder without `__init__.py`", [])
        return None
    return _in_module(sources, source, name, steps=_MAX_STEPS)


def parameters_of(sources: Sources, found: FoundClass) -> Parameters | None:
    """The parameters of a class' `__init__`, its own or inherited; None where trees do not tell."""
    for _ in range(_MAX_STEPS):
        if found.node.decorator_list or found.node.keywords:
            return None  # either may replace the class or its __init__
        bound = bindings_of(found.node)
        if "__new__" in bound:
            return None
        if "__init__" in bound:
            return _parameters(bound["__init__"])
        base = _first_base(sources, found)
        if base is None:
            return None
        found = base
    return None


def lineage(sources: Sources, found: FoundClass) -> list[FoundClass]:
    """A class and its bases, as far as trees tell; those of pbus itself are left out."""
    waiting, seen = [found], list[FoundClass]()
    while waiting and len(seen) < _MAX_STEPS:
        one = waiting.pop(0)
        if one in seen or one.source.name.partition(".")[0] == "pbus":
            continue
        seen.append(one)
        names = [base.id for base in one.node.bases if isinstance(base, ast.Name)]
        waiting += [base for name in names if (base := _named(sources, one, name)) is not None]
    return seen


def _named(sources: Sources, found: FoundClass, name: str) -> FoundClass | None:
    try:
        return _in_module(sources, found.source, name, _MAX_STEPS)
    except MissingClassError:
        return None


def has_no_base(found: FoundClass) -> bool:
    """Whether a class inherits from nothing, and so is no worker."""
    node = found.node
    return not (node.bases or node.keywords or node.decorator_list)


def _in_module(sources: Sources, source: Source, name: str, steps: int) -> FoundClass | None:
    tree = source.tree
    if tree is None:
        return None
    bound = bindings_of(tree)
    nodes = bound.get(name, [])
    if len(nodes) == 1 and not has_star_import(tree):
        return _of_node(sources, source, nodes[0], name, steps)
    if not nodes and not is_dynamic(tree) and not _is_submodule(sources, source, name):
        where = source.file.name if source.file else source.name
        known = [key for key, value in bound.items() if _may_be_class(value)]
        raise MissingClassError(f"{where} has no class `{name}`", known)
    return None


def _of_node(
    sources: Sources, source: Source, node: ast.AST, name: str, steps: int
) -> FoundClass | None:
    if isinstance(node, ast.ClassDef):
        return FoundClass(node, source)
    if isinstance(node, ast.FunctionDef) and not node.decorator_list:
        raise MissingClassError(f"`{name}` is a function, no class", [])
    if not isinstance(node, ast.ImportFrom) or not steps:
        return None
    original = next(one.name for one in node.names if (one.asname or one.name) == name)
    try:
        module = sources.find(_absolute(source, node))
        return _in_module(sources, module, original, steps - 1)
    except (SourceError, MissingClassError):  # it may stand in a `try` or under a condition
        return None


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    """The name of the module that a `from … import` names."""
    if not node.level:
        return node.module or ""
    parts = source.name.split(".")
    up = node.level - 1 if source.folders is not None else node.level
    base = parts[: len(parts) - up]
    return ".".join([*base, *filter(None, [node.module])])


def _is_submodule(sources: Sources, source: Source, name: str) -> bool:
    try:
        return source.folders is not None and bool(sources.find(f"{source.name}.{name}"))
    except SourceError:
        return False


def _may_be_class(nodes: list[ast.AST]) -> bool:
    return isinstance(nodes[-1], ast.ClassDef | ast.ImportFrom)


def _first_base(sources: Sources, found: FoundClass) -> FoundClass | None:
    """The base whose `__init__` a class inherits: its only one, or the first where that has one."""
    if not found.node.bases:
        return None
    first = found.node.bases[0]
    if isinstance(first, ast.Subscript):
        first = first.value
    if not isinstance(first, ast.Name):
        return None
    try:
        base = _in_module(sources, found.source, first.id, _MAX_STEPS)
    except MissingClassError:
        return None
    if base is None or base.node is found.node:
        return None
    is_only = len(found.node.bases) == 1
    return base if is_only or "__init__" in bindings_of(base.node) else None


def _parameters(nodes: list[ast.AST]) -> Parameters | None:
    match nodes:
        case [ast.FunctionDef(decorator_list=[], args=given)]:
            return _split(given)
    return None


def _split(given: ast.arguments) -> Parameters:
    name, rest = _name_and_rest([*given.posonlyargs, *given.args])
    by_name = [one for one in (*rest, *given.kwonlyargs) if one not in given.posonlyargs]
    return Parameters(
        takes_name=name is not None or given.vararg is not None,
        name=None if name is None or name in given.posonlyargs else name.arg,
        required=tuple(one.arg for one in _required(given) if one in rest or one in by_name),
        known=tuple(one.arg for one in by_name),
        takes_any=given.kwarg is not None,
    )


def _name_and_rest(positional: list[ast.arg]) -> tuple[ast.arg | None, list[ast.arg]]:
    return (positional[1], positional[2:]) if len(positional) > 1 else (None, [])  # after self


def _required(given: ast.arguments) -> list[ast.arg]:
    positional = [*given.posonlyargs, *given.args]
    named = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return [
        *positional[: len(positional) - len(given.defaults)],
        *(one for one, default in named if default is None),
    ]
