"""The places of lifelines, for text and pictures alike."""

from collections.abc import Callable
from typing import Final

from pbus.client.sequences.sequence_diagram import EVERYONE, Arrow, Mark, SequenceDiagram
from pbus_cli.terminal.clean import clean_line

_LONGEST: Final = 36  # cells of a label


def shown_name(name: str) -> str:
    """A participant as it is shown."""
    return "everyone" if name == EVERYONE else clean_line(name)


def arrow_label(arrow: Arrow) -> str:
    """The text at an arrow."""
    text = clean_line(arrow.label)
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    text = text if arrow.count == 1 else f"{text} x{arrow.count:,}"
    return text if arrow.is_reached else f"{text} (undelivered)"


def mark_label(mark: Mark) -> str:
    """The text at a change of state."""
    return clean_line(f"{mark.state}: {mark.detail}" if mark.detail else mark.state)


def places(
    diagram: SequenceDiagram, width_of: Callable[[str], int], *, gap: int, arrow_room: int
) -> dict[str, int]:
    """The middle of each lifeline, from 0 for the edge of the first name.

    Args:
        diagram: What is drawn.
        width_of: The width of a text.
        gap: The least between two names.
        arrow_room: Beside a label, between two lifelines.
    """
    names = diagram.participants
    numbers = {name: number for number, name in enumerate(names)}
    found: list[int] = []
    needs: list[dict[int, int]] = [{} for _ in names]  # by lifeline: the room after an earlier one
    for step in diagram.steps:
        if isinstance(step, Arrow):
            first, last = sorted((numbers[step.source], numbers[step.target]))
            last = last if first != last else first + 1
            if last < len(names):
                room = width_of(arrow_label(step)) + arrow_room
                needs[last][first] = max(room, needs[last].get(first, 0))
    for number, name in enumerate(names):
        half = (width_of(shown_name(name)) + 1) // 2
        at = half
        if number:
            before = (width_of(shown_name(names[number - 1])) + 1) // 2
            at = max(
                found[-1] + before + gap + half,
                *(found[first] + room for first, room in needs[number].items()),
                0,
            )
        found.append(at)
    return dict(zip(names, found, strict=True))
