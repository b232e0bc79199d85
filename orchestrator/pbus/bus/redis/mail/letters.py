"""Between letters and what the scripts read and write: MessagePack heads and joined bodies."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pbus.bus.mail import DeadLetter, Letter, Outgoing, Settle
from pbus.messages import Lane

encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(tuple[list[str], list[int]]).decode

Slot = tuple[str, str]  # a mailbox, and an entry of it: its queue's letter and its id
_LANES = {"d": Lane.DATA, "s": Lane.SYSTEM, "D": Lane.DATA, "S": Lane.SYSTEM}


def write_batch(batch: Sequence[Outgoing]) -> list[bytes]:
    """The arguments of PUT."""
    specs = []
    blobs = []
    for one in batch:
        stream = f"{one.sender}|{one.stream}|"
        specs.append((one.address, one.lane, stream, one.first, len(one.bodies)))
        blobs.append(encode((one.ids, list(map(len, one.bodies)))))
        blobs.append(b"".join(one.bodies))
    return [encode(specs), *blobs]


def read_entry(mailbox: str, slot: str, fields: Sequence[bytes], flags: bytes) -> list[Letter]:
    """The letters of an entry, without those that are settled."""
    ids, sizes = _decode_head(fields[1])
    bodies = fields[3]
    attempt, crashes, suspect = 1, 0, False
    if len(fields) > 5:  # noqa: PLR2004 - the third field, which marks what was here before
        marks = fields[5].split()
        attempt, crashes, suspect = int(marks[0]), int(marks[1]), marks[2] == b"1"
    lane, total = _LANES[slot[0]], len(ids)
    letters = []
    start = 0
    for at, (id_, size) in enumerate(zip(ids, sizes, strict=True)):
        end = start + size
        if not flags or flags[at] == 48:  # noqa: PLR2004 - "0": not settled
            letters.append(
                Letter(
                    mailbox, lane, f"{slot}/{at}/{total}", id_, bodies[start:end],
                    attempt, crashes, suspect,
                )
            )  # fmt: skip
        start = end
    return letters


def slot_of(letter: Letter) -> Slot:
    """The entry that a letter came with."""
    return letter.mailbox, letter.key[: letter.key.index("/")]


class _Group:
    """What is settled of one entry."""

    def __init__(self, letter: Letter) -> None:
        slot, _, total = letter.key.split("/")
        self.head = (letter.mailbox, slot[0], slot[1:], int(total))
        self.marks = (int(letter.is_suspect), int(letter.attempt > 1))
        self.settles: dict[int, Settle] = {}

    def arguments(self) -> tuple[Any, ...]:
        """As the script reads it."""
        which, ids, others = [], [], []
        for at, settle in self.settles.items():
            if settle.how == "handled":
                which.append(at)
                ids.append(settle.letter.id)
            else:
                others.append((at, settle.how, int(settle.delay_s * 1000), settle.reason))
        return (*self.head, *self.marks, which, ids, others)


def group(settles: Iterable[Settle]) -> tuple[list[Slot], bytes]:
    """The entries that letters came with, and the argument of SETTLE."""
    groups: dict[Slot, _Group] = {}
    for settle in settles:
        letter = settle.letter
        slot, at, _ = letter.key.split("/")
        known = groups.get((letter.mailbox, slot))
        if known is None:
            known = groups[letter.mailbox, slot] = _Group(letter)
        known.settles[int(at)] = settle
    return list(groups), encode([one.arguments() for one in groups.values()])


def read_dead(mailbox: str, entry: bytes, fields: Sequence[bytes]) -> DeadLetter:
    """A dead letter of the stream of them."""
    (id_,), _ = _decode_head(fields[1])
    attempt, crashes, *_ = fields[5].split()
    return DeadLetter(
        key=f"{mailbox}/{entry.decode()}",
        mailbox=mailbox,
        id=id_,
        body=fields[3],
        reason=fields[9].decode(),
        attempt=int(attempt),
        crashes=int(crashes),
        buried_at=int(entry.partition(b"-")[0]) / 1000,
    )
