"""The plan of changes as lines of text."""

from collections.abc import Callable, Mapping
from typing import Final

from pbus.process.supervisor.changes.plan import Action, Change, Plan

Paint = Callable[[str, str], str]  # a text, and the SGR code of a terminal

_SIGNS: Final[Mapping[Action, str]] = {
    "add": "+", "remove": "-", "scale": "±", "restart": "~", "update": "=", "start": ">",
}  # fmt: skip
_COLORS: Final[Mapping[Action, str]] = {
    "add": "32", "remove": "31", "scale": "36", "restart": "33", "update": "2", "start": "32",
}  # fmt: skip
_MAX_SHOWN: Final = 6
_UNSAID: Final = "without a restart"


def plan_lines(plan: Plan, paint: Paint) -> list[str]:
    """A line a change: a sign, the worker, what happens to it, and why.

    Args:
        plan: The plan.
        paint: Colours a text.
    """
    width = max((len(_shown_names(one)) for one in plan.changes), default=0)
    lines = [_line(one, width, paint) for one in plan.changes]
    return [
        *lines,
        *(f"{paint('!', '1;31')} {key}  cannot change while it runs" for key in plan.fixed),
    ]


def _line(change: Change, width: int, paint: Paint) -> str:
    sign = paint(_SIGNS[change.action], _COLORS[change.action])
    why = ", ".join(filter(None, (_few(change.why), _remark(change))))
    return f"{sign} {_shown_names(change):{width}}  {change.action:7}  {why}".rstrip()


def _remark(change: Change) -> str:
    if change.action == "scale":
        return _few(change.instances)
    return _UNSAID if change.action == "update" else ""


def _shown_names(change: Change) -> str:
    return change.worker if change.action == "scale" else _few(change.instances)


def _few(words: tuple[str, ...]) -> str:
    more = f" and {len(words) - _MAX_SHOWN} more" if len(words) > _MAX_SHOWN else ""
    return ", ".join(words[:_MAX_SHOWN]) + more
