"""The places of the panes: all of them on a large screen, the most useful ones on a small one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Pane: TypeAlias = Literal["workers", "traffic", "logs", "edges", "jobs", "dead"]
PANES: Final[tuple[Pane, ...]] = ("workers", "traffic", "logs", "edges", "jobs", "dead")

_WIDE: Final = (140, 30)  # cells and lines from which all panes have room
_BASIC: Final = frozenset[Pane]({"workers", "traffic", "logs"})
_TABLE_SHARE: Final = 0.45
_TRAFFIC_SHARE: Final = 0.45
_LEAST: Final = 4  # lines of a pane: a title, a heading and two items
_SMALL_SHARE: Final = 0.2  # of the height, for jobs and dead letters beside all others


@dataclass(frozen=True)
class Focus:
    """The beginning of a display.

    Attributes:
        pane: It has the focus.
        is_zoomed: Only this pane is shown.
        wanted: The words of its filter.
        names: Only edges from or to these workers or groups; all where there is none.
    """

    pane: Pane = "traffic"
    is_zoomed: bool = False
    wanted: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """The place of a pane, in cells."""

    x: int
    y: int
    width: int
    height: int


def is_wide(width: int, height: int) -> bool:
    """Whether all panes have room beside each other."""
    return width >= _WIDE[0] and height >= _WIDE[1]


def arrange(
    width: int, height: int, focused: Pane, *, rows: int, messages: int, is_zoomed: bool = False
) -> dict[Pane, Place]:
    """The places of the panes that are shown; together they fill the room.

    Args:
        width: Cells there are.
        height: Lines there are.
        focused: The pane that has to be among them.
        rows: Lines of workers.
        messages: Lines of messages that there are: where there are few, the logs get the room.
        is_zoomed: Show only this pane.
    """
    if is_zoomed:
        return _stacked(0, 0, width, [(focused, height)])
    if is_wide(width, height):
        left = width // 2
        return {
            **_stacked(0, 0, left, _tables(height, rows)),
            **_stacked(left + 1, 0, width - left - 1, _followed(height, messages)),
        }
    return _stacked(0, 0, width, _few(height, focused, rows, messages))


def _tables(height: int, rows: int) -> list[tuple[Pane, int]]:
    workers = _worker_room(height, rows)
    small = max(_LEAST, int(height * _SMALL_SHARE))
    edges = height - workers - 2 * small
    return [("workers", workers), ("edges", edges), ("jobs", small), ("dead", small)]


def _followed(height: int, messages: int) -> list[tuple[Pane, int]]:
    traffic = min(height // 2, max(messages + 1, _LEAST))
    return [("traffic", traffic), ("logs", height - traffic)]


def _few(height: int, focused: Pane, rows: int, messages: int) -> list[tuple[Pane, int]]:
    workers = _worker_room(height, rows)
    rest = height - workers
    if focused not in _BASIC:
        return [("workers", workers), (focused, rest)]
    traffic = min(int(height * _TRAFFIC_SHARE), max(messages + 1, _LEAST), max(0, rest - 1))
    return [("workers", workers), ("traffic", traffic), ("logs", rest - traffic)]


def _worker_room(height: int, rows: int) -> int:
    """A title, a heading and the workers, but no more than a share."""
    return min(height, rows + 2, max(_LEAST, int(height * _TABLE_SHARE)))


def _stacked(x: int, y: int, width: int, heights: Sequence[tuple[Pane, int]]) -> dict[Pane, Place]:
    places = {}
    for pane, height in heights:
        if height > 0 and width > 0:
            places[pane] = Place(x, y, width, height)
            y += height
    return places
