"""Checks of worker classes at their definition: clashing names, hooks of the wrong form."""

import inspect
import types
from collections.abc import Container, Iterable, Iterator
from typing import Any

from pbus.errors import HandlerDefinitionError
from pbus.handlers import is_marked

_PLAIN_HOOKS = frozenset({"accepts_bus_message"})  # called without await
_ASYNC_HOOKS = frozenset({"start", "stop"})  # and whatever begins with on_
_EXTENDABLE = frozenset({"EVENTS", "HANDLERS", "RECEIVES", "takes_opaque"})


def check_worker_class(cls: type, base: type, attributes: Iterable[str]) -> None:
    """Reject a worker class that takes names of its base.

    Args:
        cls: A subclass of base.
        base: BaseWorker.
        attributes: Names of the attributes that base gives its instances.

    Raises:
        HandlerDefinitionError: A name clashes, or a hook has the wrong form.
    """
    own = frozenset(attributes)
    for owner in _owners(cls, base):
        for name, value in vars(owner).items():
            if name in _EXTENDABLE or (name.startswith("__") and name.endswith("__")):
                continue
            if name in own or hasattr(base, name):
                problem = _problem(name, value, base, is_attribute=name in own)
                if problem is not None:
                    raise HandlerDefinitionError(f"{owner.__qualname__}.{name}", problem)


def check_attributes(worker: Any, expected: dict[str, Any], own: Container[str]) -> None:
    """Reject a worker whose own code has replaced an attribute of its base.

    Args:
        worker: The worker.
        expected: Attributes as they were.
        own: Names of the attributes that the base gives its instances.

    Raises:
        HandlerDefinitionError: Names the attribute; all attributes are restored.
    """
    values = vars(worker)
    replaced = [
        name for name, value in expected.items() if name in own and values.get(name) is not value
    ]
    if replaced:
        values.update({name: expected[name] for name in replaced})
        where = f"{type(worker).__qualname__}: self.{replaced[0]}"
        raise HandlerDefinitionError(where, "BaseWorker keeps its own state there; rename it")


def _owners(cls: type, base: type) -> Iterator[type]:
    """The class and its mixins; its bases that are workers are checked already."""
    for owner in cls.__mro__[: cls.__mro__.index(base)]:
        if owner is cls or not issubclass(owner, base):
            yield owner


def _problem(name: str, value: Any, base: type, *, is_attribute: bool) -> str | None:
    if is_marked(value):
        return f"BaseWorker has {name!r} for itself; rename the method, its mark keeps the name"
    if name.startswith("_"):
        return f"BaseWorker has {name!r} for itself; choose another name"
    if is_attribute:
        is_data = not (callable(value) or hasattr(value, "__get__"))
        return None if is_data else f"BaseWorker's attribute {name!r} hides it; choose another name"
    if name in _PLAIN_HOOKS or name in _ASYNC_HOOKS or name.startswith("on_"):
        return _hook_problem(name, value, base)
    if _extends(name, value, base):
        return None
    return f"BaseWorker has {name!r} for itself; choose another name, or call super().{name}"


def _extends(name: str, value: Any, base: type) -> bool:
    """Whether a member extends that of its base: a property, or a method that calls it."""
    if isinstance(value, property):
        return isinstance(getattr(base, name), property)
    return _calls_itself(name, value)


def _hook_problem(name: str, value: Any, base: type) -> str | None:
    """The reason why pbus cannot call a hook; objects other than plain functions are not checked."""
    function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    if not isinstance(function, types.FunctionType):
        return None if callable(value) or hasattr(value, "__get__") else "it is no method"
    if function.__name__ == name:  # else a decorator made it, and only a call can tell
        is_async = inspect.iscoroutinefunction(inspect.unwrap(function))
        if is_async and name in _PLAIN_HOOKS:
            return "it is called without await; write it as a plain 'def'"
        if not is_async and name not in _PLAIN_HOOKS:
            return "it is awaited; write it as 'async def', without yield"
    return _signature_problem(name, value, function, base)


def _signature_problem(name: str, value: Any, function: Any, base: type) -> str | None:
    expected = list(inspect.signature(getattr(base, name)).parameters)
    given = [None] * (len(expected) - isinstance(value, staticmethod))
    try:
        inspect.signature(function).bind(*given)
    except TypeError as error:
        return f"it is called with {', '.join(expected)}, and that fails: {error}"
    except ValueError:  # nothing is known of its arguments
        return None
    return None


def _calls_itself(name: str, value: Any) -> bool:
    """Whether a function refers to its own name, as in super().name(); unknown code counts as such."""
    if not callable(value):
        return False
    codes = [getattr(inspect.unwrap(value), "__code__", None)]
    while codes:
        code = codes.pop()
        if code is None or name in code.co_names:
            return True
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return False
