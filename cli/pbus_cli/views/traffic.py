"""Messages as they pass: one line each, with the body cut to what fits."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from rich.cells import cell_len
from rich.text import Text

from pbus.client.traffic.message_tail import TailMessage, data_fields
from pbus.client.traffic.type_names import category_of, short_type
from pbus.messages import Category
from pbus_cli.terminal.clean import clean_line
from pbus_cli.views import colors
from pbus_cli.views.cells import cut, cut_name, fill, rendered
from pbus_cli.views.figures import clock_time, short_bytes
from pbus_cli.views.messages.level_bar import AUDIO, bytes_text, without_bytes

_HEADER_START: Final = re.compile(
    rb'^\{(?:"(?:type|source|target|id|time|key|job_id)":(?:"(?:[^"\\]|\\.)*"|[^,"]*),?)*'
)
_NAME_WIDTH: Final = (6, 22)
_TYPE_WIDTH: Final = (8, 24)
_LIMITS: Final = ((100, (12, 12)), (160, (16, 16)))  # narrower than: names, types
_SIZE_WIDTH: Final = 7
_LONGEST_VALUE: Final = 64 * 1024  # of a value is looked for bytes in base64
_SHOWN_BYTES: Final = 4096  # of a body; more than any terminal line takes
UNREACHED: Final = "(reached no process)"
_MADE: Final = "made"  # another framework's own id of the message
_DATA: Final = AUDIO | {"image"}  # of frames: shown by size
_OF_ANY_FRAME: Final = frozenset({  # of each frame of Pipecat, and seldom looked for: shown last
    "id", "name", "pts", "broadcast_sibling_id", "metadata", "transport_source",
    "transport_destination", "interruptible",
})  # fmt: skip
_ERROR_TYPES: Final = frozenset({"BusWorkerErrorMessage", "BusJobCancelMessage"})
_ERROR_MARKS: Final = (b'"status":"error"', b'"status":"failed"')

_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True)
class Passed:
    """One message that passed.

    Attributes:
        time: When it was made, Unix seconds.
        target: None for everyone.
        body: The message as it travelled; of a long one the beginning only.
        size: Bytes on the wire.
        is_urgent: It travelled in the system lane.
        is_reached: At least one process received it.
        key: Chose the replica that it went to; None where it has none.
        is_local: It stayed in its process.
        has_body: Whether the body is known.
        seen: The message itself, its body cut as here; None where it is not kept.
    """

    time: float
    type: str
    source: str
    target: str | None
    body: bytes
    size: int
    is_urgent: bool = False
    is_reached: bool = True
    key: str | None = None
    is_local: bool = False
    has_body: bool = True
    seen: TailMessage | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Widths:
    """The widths of the columns of names and types; they only grow, so that lines align."""

    source: int = _NAME_WIDTH[0]
    target: int = _NAME_WIDTH[0]
    type: int = _TYPE_WIDTH[0]

    def grown(self, passed: Passed) -> "Widths":
        """Wide enough for this message too, within reason."""
        source = min(_NAME_WIDTH[1], max(self.source, cell_len(passed.source)))
        target = min(_NAME_WIDTH[1], max(self.target, cell_len(passed.target or "*")))
        kind = min(_TYPE_WIDTH[1], max(self.type, cell_len(short_type(passed.type))))
        if (source, target, kind) == (self.source, self.target, self.type):
            return self
        return Widths(source, target, kind)

    def fitted(self, width: int | None) -> "Widths":
        """Narrow enough that a body has room beside them on a screen of this width."""
        names, types = _limits(width)
        return Widths(min(self.source, names), min(self.target, names), min(self.type, types))


def _limits(width: int | None) -> tuple[int, int]:
    """The widest columns of names and of types: a third of the screen is for the body."""
    for screen, limits in _LIMITS:
        if width is not None and width < screen:
            return limits
    return _NAME_WIDTH[1], _TYPE_WIDTH[1]


def body_text(body: bytes, hidden: frozenset[str] = frozenset()) -> str:
    """The body of a message without its header, on one line; also of a body that was cut.

    Args:
        body: As it travelled.
        hidden: Fields that are left out.
    """
    fields = data_fields(body)
    if fields is None:
        return _shown(_HEADER_START.sub(b"", body, count=1))
    for name in (_MADE, *hidden):
        fields.pop(name, None)
    if "job_id" in fields:  # of least use to a reader: last
        fields["job_id"] = fields.pop("job_id")
    parts = []
    room = _SHOWN_BYTES
    for key, raw in fields.items():
        value = _frame_text(raw) if key == "frame" else _value_text(key, raw, room)
        parts.append(value if key == "frame" else f"{key}={value}")
        room -= len(value)
        if room <= 0:
            break
    return " ".join(parts)


def _frame_text(raw: msgspec.Raw) -> str:
    """A frame by its type and fields."""
    try:
        fields = _fields_decoder.decode(raw)
        kind = msgspec.json.decode(fields.pop("type"), type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        return f"frame={_shown(bytes(raw))}"
    texts = (
        f"{key}={bytes_text(bytes(value), is_audio=key in AUDIO) if key in _DATA else _shown(bytes(value))}"
        for key, value in sorted(fields.items(), key=lambda one: one[0] in _OF_ANY_FRAME)
    )
    return " ".join((_printable(kind), *texts))


def _value_text(key: str, raw: msgspec.Raw, room: int) -> str:
    """A field's value; bytes of any message by their size, and by their level if they are audio."""
    value = bytes(raw)
    if key in AUDIO and without_bytes(value) != value:
        return bytes_text(value, is_audio=True)
    return _shown(value, room)


def _shown(raw: bytes, room: int = _SHOWN_BYTES) -> str:
    """JSON as it is shown: bytes in it by their size; of more than any line takes the beginning."""
    return _clean(without_bytes(raw[:_LONGEST_VALUE])[:room])


def _clean(raw: bytes) -> str:
    """Text without what a terminal would act on; a cut character at the end is left out."""
    return _printable(raw.decode("utf-8", "ignore"))


def _printable(text: str) -> str:
    return text if text.isprintable() else clean_line(text)


def traffic_cells(passed: Passed, widths: Widths) -> list[tuple[str, str]]:
    """The pieces of one line with their styles, the body not cut."""
    category = category_of(passed.type, is_urgent=passed.is_urgent)
    style = _style(passed, category)
    return [
        (clock_time(passed.time), colors.QUIET),
        ("  ", ""),
        (_name(passed.source, widths.source), colors.of_name(passed.source)),
        arrow_cell(is_reached=passed.is_reached),
        (
            _name(passed.target or "*", widths.target),
            colors.of_name(passed.target) if passed.target else colors.HEADING,
        ),
        ("  ", ""),
        (fill(cut(_printable(short_type(passed.type)), widths.type), widths.type), style),
        (" !" if passed.is_urgent else "  ", colors.URGENT),
        (short_bytes(passed.size).rjust(_SIZE_WIDTH), ""),
        ("  ", ""),
        ("" if passed.is_reached else f"{UNREACHED} ", colors.ERROR),
        ("" if passed.key is None else f"[{_printable(passed.key)}] ", colors.HEADING),
        ("(local) " if passed.is_local else "", colors.QUIET),
        (body_text(passed.body) if passed.has_body else "", ""),
    ]


def arrow_cell(*, is_reached: bool) -> tuple[str, str]:
    """The arrow between source and target, with its style."""
    return (" → ", "") if is_reached else (" ↛ ", colors.ERROR)


def _style(passed: Passed, category: Category) -> str:
    if passed.type in _ERROR_TYPES or any(mark in passed.body for mark in _ERROR_MARKS):
        return colors.ERROR
    if category == "job":
        return colors.JOB
    return colors.SYSTEM if category == "system" else ""


def _name(name: str, width: int) -> str:
    return fill(cut_name(_printable(name), width), width)


def traffic_line(passed: Passed, widths: Widths, width: int | None = None) -> Text:
    """One message on one line."""
    line = Text(no_wrap=True, end="")
    for text, style in traffic_cells(passed, widths):
        line.append(text, style=style)
    if width is not None:
        line.truncate(width, overflow="ellipsis")
    return line


def traffic_text(
    passed: Passed, widths: Widths, *, width: int | None = None, has_colors: bool = False
) -> str:
    """One message on one line as a stream takes it; much cheaper than drawing."""
    return cells_text(traffic_cells(passed, widths), width=width, has_colors=has_colors)


def cells_text(
    cells: Iterable[tuple[str, str]], *, width: int | None = None, has_colors: bool = False
) -> str:
    """Pieces with their styles as one line, cut to a width."""
    parts = []
    room = width
    for text, style in cells:
        piece = text if room is None else cut(text, room)
        if room is not None:
            room -= cell_len(piece)
        parts.append(rendered(piece, style) if has_colors and style else piece)
    line = "".join(parts)
    return line if has_colors else line.rstrip()


def traffic_lines(messages: Sequence[Passed], width: int, height: int) -> list[Text]:
    """The newest messages that fit, oldest first."""
    if height <= 0:
        return []
    shown = messages[-height:]
    widths = Widths()
    for passed in shown:
        widths = widths.grown(passed)
    fitted = widths.fitted(width)
    return [traffic_line(passed, fitted, width) for passed in shown]
