"""Messages and frames of Pipecat as they were: their state is set, not made again."""

import dataclasses
from typing import Any

from pbus.compat.pipecat import theirs
from pbus.compat.pipecat.values import build

_MISSING = dataclasses.MISSING
_templates: dict[type, tuple[dict[str, Any], frozenset[str]] | None] = {}


def remake(cls: type, fields: dict[str, Any]) -> Any:
    """Return an instance of a class of messages or frames, with the fields of the one that was sent.

    Where a class is Pipecat's own, and all that its initializer would make has arrived, the initializer is
    left out: it takes as long as all the rest, and what it makes is overwritten.
    """
    try:
        known = _templates[cls]
    except KeyError:
        first = build(cls, fields)
        _templates[cls] = _template_of(cls, first)
        return first
    if known is None or not known[1] <= fields.keys():
        return build(cls, fields)
    made: Any = object.__new__(cls)
    made.__dict__ = known[0] | fields
    return made


def _template_of(cls: Any, made: Any) -> tuple[dict[str, Any], frozenset[str]] | None:
    """Return the state of a class without its fields, and the fields it needs; None where it is made."""
    defaults, needed = {}, set()
    for field in dataclasses.fields(cls):
        default = field.default
        if default is _MISSING and getattr(made, field.name, None) is None:
            default = None  # which does not travel
        if default is _MISSING or (default is not None and not field.init):
            needed.add(field.name)
        else:
            defaults[field.name] = default
    if _is_plain(cls) and vars(made).keys() <= defaults.keys() | needed:
        return defaults, frozenset(needed)
    return None


def _is_plain(cls: Any) -> bool:
    """Whether a class is Pipecat's own, and its state is what is in its dictionary."""
    has_plain_state = cls.__new__ is object.__new__ and cls.__setattr__ is object.__setattr__
    return theirs.is_own_class(cls) and has_plain_state and cls.__dictoffset__ != 0
