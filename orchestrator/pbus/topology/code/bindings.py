"""The names that a module's or a class' body binds, as far as its syntax tree tells."""

import ast
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

Scope: TypeAlias = ast.Module | ast.ClassDef
Bindings: TypeAlias = dict[str, list[ast.AST]]

_INNER: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_NAMES_AT_RUN_TIME: Final = {"globals", "exec", "eval", "setattr", "vars", "locals", "__dict__"}


def bindings_of(scope: Scope) -> Bindings:
    """Every name that is bound in a body, with the nodes that bind it."""
    found: Bindings = {}
    for node in _within(scope.body):
        for name in _bound(node):
            found.setdefault(name, []).append(node)
    if isinstance(scope, ast.Module):
        for node in ast.walk(scope):
            if isinstance(node, ast.Global):
                for name in node.names:
                    found.setdefault(name, []).append(node)
    return found


def is_dynamic(module: ast.Module) -> bool:
    """Whether a module may have names that its tree does not show: `import *`, globals() and such."""
    return any(_is_dynamic(node) for node in ast.walk(module)) or any(
        _is_run_time_call(node) for node in _within(module.body)
    )


def has_star_import(module: ast.Module) -> bool:
    """Whether names of a module may be replaced by those of another."""
    return any(
        isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(module)
    )


def _is_dynamic(node: ast.AST) -> bool:
    match node:
        case ast.ImportFrom(names=[ast.alias(name="*")]):
            return True
        case ast.FunctionDef(name="__getattr__", args=ast.arguments(args=[_])):
            return True
        case ast.Attribute(attr="modules" | "__dict__"):
            return True
        case ast.Name(id="globals" | "exec"):
            return True
    return False


def _is_run_time_call(node: ast.AST) -> bool:
    """Whether a node at the top of a module may bind names; what gets `__name__` may do so."""
    if isinstance(node, ast.Name):
        return node.id in _NAMES_AT_RUN_TIME
    return (
        isinstance(node, ast.Call)
        and any(isinstance(one, ast.Name) and one.id == "__name__" for one in node.args)
        and "logger" not in ast.unparse(node.func).lower()
    )


def _within(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes of a scope, not those of scopes within it."""
    waiting = list(body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if isinstance(node, _INNER):
            waiting[:0] = getattr(node, "decorator_list", [])
        else:
            waiting[:0] = ast.iter_child_nodes(node)


def _bound(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Name(id=name, ctx=ast.Store()):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [one.asname or one.name.partition(".")[0] for one in names]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            return [name]
        case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            return [name]
    return [node.name.id] if type(node).__name__ == "TypeAlias" else []  # type: ignore[attr-defined]
