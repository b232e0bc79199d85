"""A sequence diagram in the language of Mermaid."""

from pbus.client.sequences.sequence_diagram import Arrow, SequenceDiagram
from pbus_cli.views.sequences.sequence_layout import arrow_label, mark_label, shown_name


def mermaid_lines(diagram: SequenceDiagram) -> list[str]:
    """The diagram; participants are numbered, so that any name is a label only."""
    ids = {name: f"p{number}" for number, name in enumerate(diagram.participants)}
    lines = ["sequenceDiagram"]
    lines += [
        f"  participant {ids[name]} as {_escaped(shown_name(name))}"
        for name in diagram.participants
    ]
    for step in diagram.steps:
        if isinstance(step, Arrow):
            way = f"{ids[step.source]}{_sign(step)}{ids[step.target]}"
            lines.append(f"  {way}: {_escaped(arrow_label(step))}")
        else:
            lines.append(f"  Note over {ids[step.worker]}: {_escaped(mark_label(step))}")
    return lines


def _sign(arrow: Arrow) -> str:
    line = "--" if arrow.is_reply else "-"
    return f"{line}>>" if arrow.is_reached else f"{line}x"


def _escaped(text: str) -> str:
    """A text in which Mermaid finds nothing of its own: such characters are entities by number."""
    return (
        "".join(
            character
            if character.isalnum() or character in " ._-,()[]'!?/…"
            else f"#{ord(character)};"
            for character in text
        )
        or "#32;"
    )
