"""Between messages and what the scripts read and write: MessagePack heads and joined bodies."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pbus.bus.coalescing import EVERYONE
from pbus.bus.queues.store import DeadLetter, QueueEntry, Settlement, StoredMessage
from pbus.messages import Lane

encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(tuple[list[str], list[int]]).decode

Slot = tuple[str, str]  # a queue, and an entry of it: the name of its stream, and its id
_FRESH_CELLS = 4  # of an entry that was not in a queue before
_OPEN = ord("0")
NOT_OURS = b"not written by pbus"
LANES = {"d": Lane.DATA, "s": Lane.SYSTEM, "D": Lane.DATA, "S": Lane.SYSTEM}


def write_single(batch: Sequence[QueueEntry]) -> tuple[Any, ...] | None:
    """The arguments of PUT_ONE; None where it is not one message for one queue."""
    one = batch[0]
    if len(batch) > 1 or len(one.ids) > 1 or one.address == EVERYONE:
        return None
    return one.address, one.lane, _stream_of(one), one.first, one.ids[0], one.bodies[0]


def _stream_of(one: QueueEntry) -> str:
    return f"{one.sender}|{one.stream}|{one.lane}{'*' if one.address == EVERYONE else ''}"


def write_batch(batch: Sequence[QueueEntry]) -> list[bytes]:
    """The arguments of PUT."""
    specs = []
    blobs: list[bytes] = []
    for one in batch:
        specs.append((one.address, one.lane, _stream_of(one), one.first, len(one.bodies)))
        if len(one.ids) == 1:
            blobs += (one.ids[0].encode(), one.bodies[0])
        else:
            blobs += (encode((one.ids, list(map(len, one.bodies)))), b"".join(one.bodies))
    return [encode(specs), *blobs]


def read_entry(
    queue: str, slot: str, fields: Sequence[bytes], flags: bytes, clock: float
) -> list[StoredMessage]:
    """The messages of an entry, without those that are settled.

    Args:
        queue: Whose.
        slot: The entry's stream and id.
        fields: Of the entry.
        flags: Which of its messages are settled; empty for none.
        clock: What to add to the server's time, seconds, for that of the loop.
    """
    attempt, crashes, suspect = 1, 0, False
    if len(fields) > _FRESH_CELLS:
        marks = fields[5].split()
        attempt, crashes, suspect = int(marks[0]), int(marks[1]), marks[2] == b"1"
        stored_at = clock + float(marks[3]) / 1000
    else:
        stored_at = clock + int(slot[1 : slot.index("-")]) / 1000
    past = (attempt, crashes, suspect, stored_at)
    lane, body = LANES[slot[0]], fields[3]
    if fields[0] == b"i":
        id_ = fields[1].decode()
        return [StoredMessage(queue, lane, f"{slot}/0/1/{len(body)}", id_, body, *past)]
    ids, sizes = _decode_head(fields[1])
    total = len(ids)
    messages = []
    start = 0
    for at in range(total):
        end = start + sizes[at]
        if not flags or flags[at] == _OPEN:
            key = f"{slot}/{at}/{total}/{len(body)}"
            messages.append(StoredMessage(queue, lane, key, ids[at], body[start:end], *past))
        start = end
    return messages


def slot_of(message: StoredMessage) -> Slot:
    """The entry that a message came with."""
    return message.queue, message.receipt_handle[: message.receipt_handle.index("/")]


class Batch:
    """Settlements by entry, as SETTLE reads them.

    Attributes:
        slots: The entries for which it answers, in order.
        simple: Entries that are settled with their one message, handled at the first attempt.
    """

    def __init__(self, settles: Iterable[Settlement]) -> None:
        self._groups: dict[Slot, _Group] = {}
        self._simple: dict[Slot, tuple[list[str], list[str], list[int]]] = {}  # by queue and stream
        self.simple: list[Slot] = []
        for settle in settles:
            self._add(settle)
        self.slots = list(self._groups)

    def arguments(self) -> tuple[bytes, bytes]:
        """The arguments of SETTLE."""
        groups = [group.cells() for group in self._groups.values()]
        return encode(groups), encode([(*key, *rest) for key, rest in self._simple.items()])

    def _add(self, settle: Settlement) -> None:
        message = settle.message
        slot, at, total, size = message.receipt_handle.split("/")
        if total == "1" and settle.how == "ack" and not _has_past(message):
            key = (message.queue, slot[0])
            entries, ids, sizes = self._simple.setdefault(key, ([], [], []))
            entries.append(slot[1:])
            ids.append(message.id)
            sizes.append(int(size))
            self.simple.append((message.queue, slot))
            return
        group = self._groups.get((message.queue, slot))
        if group is None:
            group = self._groups[message.queue, slot] = _Group(message, slot, int(total), int(size))
        group.settles[int(at)] = settle


class _Group:
    """The settlements of one entry."""

    def __init__(self, message: StoredMessage, slot: str, total: int, size: int) -> None:
        self.settles: dict[int, Settlement] = {}
        self._head = (message.queue, slot[0], slot[1:], total, int(message.attempt > 1))
        self._size = size

    def cells(self) -> tuple[Any, ...]:
        """As the script reads it."""
        which, ids, others = [], [], []
        for at, settle in self.settles.items():
            if settle.how == "ack":
                which.append(at)
                ids.append(settle.message.id)
            else:
                others.append((at, settle.how, int(settle.delay_s * 1000), settle.reason))
        return (*self._head, which, ids, others, self._size)


def _has_past(message: StoredMessage) -> bool:
    return message.is_poison_suspect or message.attempt > 1


def read_dead(queue: str, entry: bytes, fields: Sequence[bytes], now: float) -> DeadLetter:
    """A dead letter of the stream of them; now: the server's time, Unix seconds."""
    try:
        _, id_, _, body, _, marks, _, _, _, reason = fields
        attempt, crashes = (int(mark) for mark in marks.split()[:2])
    except ValueError:
        id_, body, reason, attempt, crashes = b"?", b" ".join(fields), NOT_OURS, 1, 0
    dead_since = min(int(entry.partition(b"-")[0]) / 1000, now)
    return DeadLetter(
        key=f"{queue}/{entry.decode()}",
        queue=queue,
        id=id_.decode(errors="replace"),
        body=body,
        reason=reason.decode(errors="replace"),
        attempt=attempt,
        crashes=crashes,
        dead_since=dead_since,
        age_s=now - dead_since,
    )
