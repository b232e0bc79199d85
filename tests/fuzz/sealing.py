"""Sealing what was mutated, as a holder of the key would who is mad but does not lie."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from pbus.bus.queues.sealed_store import signed
from pbus.errors import SealError
from pbus.seal import KeySeal, Kind

# A holder of the key may say these, and would be obeyed.
_ORDERS = re.compile(
    rb"Bus(End|Cancel|Activate|Deactivate|ControlRe|WorkerError|WorkerReg|WorkerReady|WorkerState|JobCancel)"
)
_INCARNATION = re.compile(rb"[0-9a-f]{12,}")
_WHERE = re.compile(rb"\d+|[a-z]+")


class Sample(NamedTuple):
    """A real payload.

    Attributes:
        raw: As the broker has it.
        plain: What was sealed.
        kind: Of its seal; None: it has none.
        context: Of its seal.
        head: Before what was sealed.
    """

    raw: bytes
    plain: bytes
    kind: Kind | None
    context: bytes
    head: bytes


class Sealer:
    """Opens real payloads and seals others.

    Args:
        seal: Of the project.
        names: Of its workers.
    """

    def __init__(self, seal: KeySeal, names: Sequence[str]) -> None:
        self._seal = seal
        self._contexts = [b"", b"*", b"post", *(name.encode() for name in names)]
        self._names = re.compile(b"|".join(b'"%b"' % re.escape(name.encode()) for name in names))

    def opened(self, raw: bytes, field: bytes = b"") -> Sample:
        """What is known of a payload; field: where it was found."""
        kinds: tuple[Kind, ...] = ("payload", "note", "stored", "lease", "record", "activation")
        parts = raw.split(b"\n", 2)
        for body in (raw, parts[-1]):
            for kind in kinds:
                for context in (*self._contexts, field):
                    try:
                        plain = self._seal.open(kind, body, context)
                    except SealError:
                        continue
                    return Sample(raw, plain, kind, context, raw[: len(raw) - len(body)])
        return Sample(raw, raw, None, b"", b"")

    def sealed(self, sample: Sample, data: bytes, field: bytes) -> bytes | None:
        """Mutated data under the seal of its sample; None: a holder of the key must not say that."""
        kind = sample.kind
        if kind is None or _ORDERS.search(data):
            return None
        data = _INCARNATION.sub(b"fuzz" + b"0" * 12, data)  # it speaks in no other's name
        if kind in {"lease", "record", "activation"}:
            data = self._names.sub(b'"fuzz"', data)
        context = field if field and kind in {"record", "activation", "stored"} else sample.context
        return sample.head + self._seal.close(kind, data, context)

    def stored(self, samples: Sequence[Sample]) -> list[Sample]:
        """The messages of payloads, as they would be stored."""
        lines = [
            signed(line, "fuzz", is_holder=True)
            for one in samples
            if one.kind == "payload"
            for line in one.plain.split(b"\n")[1:]
        ]
        return [
            Sample(self._seal.close("stored", line, context), line, "stored", context, b"")
            for line in lines
            for context in (b"clerk", b"post", b"post.1")
        ]
