"""Messages as Postgres keeps them: pairs of an id and a body in jsonb, which refuses some text."""

import base64
import binascii
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from pbus.bus.queues.store import DeadLetter, QueueEntry, StoredMessage, no_room
from pbus.messages import Lane
from pbus.structs import DECODE_ERRORS

Row = Mapping[str, Any]  # an entry as pbus.queue_fetch returns it


class _NoText(msgspec.Struct):
    b: str  # base64


# The body as text, or in an object what is no text.
_encode = msgspec.json.Encoder().encode
_decode_pairs = msgspec.json.Decoder(list[tuple[str, str | _NoText]]).decode
_decode_pair = msgspec.json.Decoder(tuple[str, str | _NoText]).decode


# What Postgres would refuse when it comes back: a bigint, an integer.
_Big = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_Few = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 2)]


class _Place(msgspec.Struct):
    i: _Big = 0


class _Headers(msgspec.Struct):
    i: _Big = 0
    n: int = 0
    a: _Few = 1
    c: _Few = 0
    s: bool = False
    e: float = 0.0


_decode_handed = msgspec.json.Decoder(
    tuple[_Big, _Big, str, Literal["d", "s"], msgspec.Raw, msgspec.Raw]
).decode
_decode_headers = msgspec.json.Decoder(_Headers).decode
_decode_full = msgspec.json.Decoder(tuple[str, str, int, int]).decode
_decode_fallen = msgspec.json.Decoder(list[tuple[str, int]]).decode
_decode_place = msgspec.json.Decoder(_Place).decode


def in_order(taken: Sequence[Row], handed: Sequence[Row]) -> list[Row]:
    """Rows as their queues have them: of the same time, they come by two ways."""
    rows = [row for row in taken if row["hold"] is not None]
    return sorted([*handed, *rows], key=_place_of)


def _place_of(row: Row) -> int:
    try:
        return _decode_place(row["headers"]).i
    except DECODE_ERRORS:  # messages_of says so
        return 0


def messages_of(row: Row) -> list[StoredMessage]:
    """The messages of an entry that are still to be handled.

    Raises:
        ValueError: It is no entry: the row is of another's making.
    """
    try:
        headers = _decode_headers(row["headers"])
        pairs = _decode_pairs(row["message"])
    except DECODE_ERRORS as error:
        raise ValueError(str(error)) from error
    if not len(pairs) == headers.n > 0:
        problem = f"its headers count {headers.n} messages, and it has {len(pairs)}"
        raise ValueError(problem)
    lane = Lane(row["lane"])
    gone = set(row["gone"])
    stored_at = time.monotonic() - headers.e
    return [
        StoredMessage(
            queue=row["mailbox"],
            lane=lane,
            receipt_handle=f"{row['hold']}.{position}.{row['its_queue']}",
            id=id_,
            body=_bytes(body),
            attempt=headers.a,
            crashes=headers.c,
            is_poison_suspect=headers.s,
            stored_at=stored_at,
        )
        for position, (id_, body) in enumerate(pairs)
        if position not in gone
    ]


def decode_pushed(payload: str) -> Row:
    """Read a pushed message, as a row of what is fetched.

    Raises:
        ValueError: It is none of ours.
    """
    try:
        hold, its_queue, queue, lane, headers, message = _decode_handed(payload)
        _decode_headers(headers)
    except DECODE_ERRORS as error:
        raise ValueError(str(error)) from error
    return {
        "hold": hold,
        "its_queue": its_queue,
        "mailbox": queue,
        "lane": lane,
        "headers": headers,
        "message": message,
        "gone": (),
    }


def dead_letter(row: Row) -> DeadLetter:
    """A row of the dead."""
    try:
        id_, text = _decode_pair(row["message"])
        body, reason = _bytes(text), row["reason"]
    except DECODE_ERRORS:
        id_, body, reason = "?", row["message"].encode(), "not written by pbus"
    return DeadLetter(
        key=str(row["key"]),
        queue=row["name"],
        id=id_,
        body=body,
        reason=reason,
        attempt=row["attempt"],
        crashes=row["crashes"],
        dead_since=row["dead_since"].timestamp(),
        age_s=row["age_s"],
    )


def key_of(message: StoredMessage) -> tuple[int, int, int]:
    """A message's hold, its position in the entry, and its queue."""
    hold, position, box = message.receipt_handle.split(".")
    return int(hold), int(position), int(box)


def message_of(out: QueueEntry) -> str:
    """An entry as JSON."""
    return _encode([
        (sanitize_text(id_), _text(body)) for id_, body in zip(out.ids, out.bodies, strict=True)
    ]).decode()


def _text(body: bytes) -> str | dict[str, str]:
    """The body for jsonb, which takes any text but NUL; JSON has that escaped, others may not."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = "\0"
    return text if "\0" not in text else {"b": base64.b64encode(body).decode()}


def _bytes(body: str | _NoText) -> bytes:
    return body.encode() if isinstance(body, str) else binascii.a2b_base64(body.b, strict_mode=True)


def why_full(bound: str | None) -> str:
    """Say in a sentence which bound pbus.queue_full_reason names."""
    return no_room(*_decode_full(bound)) if bound else ""


def fallen_of(said: str | None) -> list[tuple[str, int]]:
    """Of which queues dead letters fell, and how many, as pbus.queue_settle returns it."""
    return _decode_fallen(said) if said else []


def sanitize_text(text: str) -> str:
    """Return text that Postgres takes; ids and reasons have a NUL only by bad intent."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def numbers_of(keys: Sequence[str]) -> list[int]:
    """Keys of dead letters, without what cannot be one."""
    return [int(key) for key in keys if key.isdecimal() and len(key) < 19]  # noqa: PLR2004 - a bigint
