"""Control payloads with wrong values: refused and counted where they come in, and nothing else."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pbus.bus.brokered import BrokeredBus
from pbus.bus.connect import make_bus
from pbus.bus.redis.tap import FOLLOWER_NOTE
from pbus.bus.stream.send_stream import INITIAL_CREDIT_BYTES
from pbus.messages import Lane
from pbus.seal import seal_of
from pbus.settings import BusSettings
from support.waiting import run

KEY = "a-key-of-sixteen-or-more"
URLS = {"redis": "redis://127.0.0.1:1", "pgmq": "postgresql://127.0.0.1:1/none"}
FIELDS = ("kind", "process", "address", "stream", "consumed", "limit")
NOTES = {
    "grant": ["grant", "receiver", "a", 1, 0, 1_000_000],
    "probe": ["probe", "sender", "a", 1, 0, 0],
}
NO_NUMBERS: list[Any] = [None, True, "1", "", 1.0, 1.5, 1e308, [], [1], {}, {"a": 1}]
NO_COUNTS = [-1, -2, -(2**63), 2**53 + 1, 2**63, 2**64, 10**400]
NO_LIMITS = [-2, -(2**63), 2**54 + 1, 2**64, 10**400]
NO_TEXTS: list[Any] = [None, True, 0, -1, 2**64, 1.5, [], ["a"], {}]
NO_NAMES = ["\x00", "\x1b[2J", "\x7f", "\x9b31m", "\r\n", "\u202egnp", "\u2028", "\t", "x" * 257]
WRONG: dict[str, list[Any]] = {
    "kind": [*NO_TEXTS, "", "Grant", "grant ", "grants", "follower", "\x00", "x" * 10_000],
    "process": [*NO_TEXTS, *NO_NAMES],
    "address": [*NO_TEXTS, *NO_NAMES],
    "stream": [*NO_NUMBERS, *NO_COUNTS],
    "consumed": [*NO_NUMBERS, *NO_COUNTS],
    "limit": [*NO_NUMBERS, *NO_LIMITS],
}
RAW = {  # the bytes of a value that no JSON writer makes
    "kind": [b"\xff", b'"gr\xffant"', b'"\\ud800"', b'"\\x"', b"grant"],
    "process": [b'"\xff"', b'"\xc3"', b'"\\ud800"', b'"\\ud800\\ud800"', b'"\n"', b'"a', b"a"],
    "address": [b'"\xff"', b'"\xed\xa0\x80"', b'"\\udfff"', b'"\x00"', b"a", b""],
    "stream": [b"\xff", b"NaN", b"Infinity", b"-", b"01", b"1e3", b"0x1", b"1 1", b""],
    "consumed": [b"\xff", b"-Infinity", b"1_0", b"1e400", b"-0.0", b"", b"1" * 5000],
    "limit": [b"\xff", b"nan", b"+1", b"9" * 10_000, b"", b"[" * 50_000],
}


def with_value(note: list[Any], field: str, value: Any) -> bytes:
    """A control payload with another value of one field."""
    at = FIELDS.index(field)
    return json.dumps([*note[:at], value, *note[at + 1 :]]).encode()


def with_bytes(note: list[Any], field: str, value: bytes) -> bytes:
    """A control payload with any bytes for the value of one field."""
    parts = [json.dumps(part).encode() for part in note]
    parts[FIELDS.index(field)] = value
    return b"[" + b",".join(parts) + b"]"


def misshapen(note: list[Any]) -> Iterator[bytes]:
    """A control payload with fields that are missing, more, or in another order."""
    whole = json.dumps(note).encode()
    for at in range(len(note)):
        yield json.dumps([*note[:at], *note[at + 1 :]]).encode()
        yield json.dumps([*note[: at + 1], *note[at:]]).encode()
    yield json.dumps([*note, 0]).encode()
    yield json.dumps([*note, *[0] * 10_000]).encode()
    yield json.dumps(note[::-1]).encode()
    yield json.dumps([note]).encode()
    yield json.dumps(dict(zip(FIELDS, note, strict=True))).encode()
    yield whole + b"\xff"
    yield whole + whole
    yield whole + b"\n{}"
    yield from (whole[:at] for at in range(len('["grant"'), len(whole)))


def wrong_payloads() -> Iterator[tuple[str, list[bytes]]]:
    """All wrong payloads, by what is wrong with them."""
    for kind, note in NOTES.items():
        for field, values in WRONG.items():
            yield f"{kind} {field}", [with_value(note, field, value) for value in values]
        for field, values in RAW.items():
            yield f"{kind} {field} bytes", [with_bytes(note, field, value) for value in values]
        yield f"{kind} shape", list(misshapen(note))


WRONG_PAYLOADS = dict(wrong_payloads())


class Receiving:
    """A bus that is not connected, and what it does with control payloads."""

    def __init__(self, backend: str, *, has_key: bool) -> None:
        settings = BusSettings(channel="c", key=KEY if has_key else None)
        self.seal = seal_of(settings.key, "c")
        url = {"url": URLS[backend], "backend": backend}
        self.bus = make_bus(settings.updated(url))
        assert isinstance(self.bus, BrokeredBus)
        self.buffer = self.bus._send_buffers[Lane.DATA]
        self._take: Callable[[bytes], None] = (
            self.bus._take if backend == "redis" else lambda payload: self.bus._take(0, payload)
        )

    def take(self, payload: bytes) -> None:
        """Have a payload arrive, under a right seal where there is a key."""
        self._take(self.seal.close("note", payload))

    def state(self) -> Any:
        """All that control payloads may change."""
        streams = self.buffer._streams.values()
        return (
            [(one._receivers, one._consumed, one.limit, one._dead) for one in streams],
            dict(self.bus._flow_control._grants),
            getattr(self.bus, "_followed_until", None),
        )


@pytest.fixture(params=list(URLS))
def backend(request: pytest.FixtureRequest) -> str:
    """All that have control payloads."""
    return request.param


@pytest.mark.parametrize("has_key", [False, True], ids=["no key", "key"])
@pytest.mark.parametrize("wrong", list(WRONG_PAYLOADS))
def test_wrong_values_are_refused_and_counted(wrong: str, backend: str, has_key: bool):
    """Each of them: the counter rises by one, nothing is raised, and no credit changes."""

    async def main() -> None:
        receiving = Receiving(backend, has_key=has_key)
        await receiving.buffer.put("a", b"x")
        receiving.take(json.dumps(NOTES["grant"]).encode())
        before = receiving.state()
        for number, payload in enumerate(WRONG_PAYLOADS[wrong], 1):
            receiving.take(payload)

            assert number == receiving.bus.counters.refused, payload[:100]
            assert before == receiving.state(), payload[:100]

    run(main())


@pytest.mark.parametrize("kind", list(NOTES))
def test_right_values_are_taken(kind: str, backend: str):
    """What the wrong ones are made of is right, so each fails by what is wrong with it."""

    async def main() -> None:
        receiving = Receiving(backend, has_key=True)
        await receiving.buffer.put("a", b"x")
        before = receiving.state()
        receiving.take(json.dumps(NOTES[kind]).encode())

        assert 0 == receiving.bus.counters.refused
        assert before != receiving.state()

    run(main())


@pytest.mark.parametrize("extra", [b"\xff", b" ", b"\n", b"[]", b'["follower"]', b"\x00" * 1000])
@pytest.mark.parametrize("has_key", [False, True], ids=["no key", "key"])
def test_a_follower_asks_in_one_form(extra: bytes, has_key: bool):
    """Others are refused: it makes senders copy what they store."""

    async def main() -> None:
        receiving = Receiving("redis", has_key=has_key)
        before = receiving.state()
        receiving.take(FOLLOWER_NOTE + extra)
        assert (1, before) == (receiving.bus.counters.refused, receiving.state())
        receiving.take(FOLLOWER_NOTE)
        assert 1 == receiving.bus.counters.refused
        assert before != receiving.state()

    run(main())


@pytest.mark.parametrize("kind", list(NOTES))
def test_without_the_key_control_payloads_are_refused(kind: str, backend: str):
    """Not sealed, of another key, of another purpose, of another channel: counted as unsealed, too."""
    plain = json.dumps(NOTES[kind]).encode()
    sealed = [
        plain,
        seal_of("another-key-of-16", "c").close("note", plain),
        seal_of(KEY, "d").close("note", plain),
        seal_of(KEY, "c").close("payload", plain),
        seal_of(KEY, "c").close("stored", plain),
        seal_of(KEY, "c").close("note", plain, b"x"),
        seal_of(KEY, "c").close("note", plain)[:-1],
    ]

    async def main() -> None:
        receiving = Receiving(backend, has_key=True)
        await receiving.buffer.put("a", b"x")
        before = receiving.state()
        for payload in sealed:
            receiving._take(payload)
        counters = receiving.bus.counters
        assert (len(sealed), len(sealed)) == (counters.refused, counters.unsealed)
        assert before == receiving.state()

    run(main())


def test_extreme_but_possible_values_are_taken(backend: str):
    """The ends of each range: they change credit or are of no stream here, and disturb nothing."""

    async def main() -> None:
        receiving = Receiving(backend, has_key=False)
        await receiving.buffer.put("a", b"x")
        for stream in (0, 1, 2**53):
            for consumed in (0, 2**53):
                for limit in (-1, 0, 2**54):
                    note = ["grant", "é" * 256, "a", stream, consumed, limit]
                    receiving.take(json.dumps(note).encode())
        assert 0 == receiving.bus.counters.refused
        receiving.take(json.dumps(["grant", "é" * 256, "a", 1, 1, -1]).encode())
        receiving.take(json.dumps(NOTES["grant"]).encode())
        async with asyncio.timeout(1):
            await receiving.buffer.put("a", b"x" * INITIAL_CREDIT_BYTES)

    run(main())


def test_answers_to_invented_senders_are_bounded(backend: str):
    """Probes of ever new senders wait for the writer up to a number; then they are refused."""

    async def main() -> None:
        receiving = Receiving(backend, has_key=False)
        for number in range(25_000):
            receiving.take(b'["probe","s%d","a",1,0,0]' % number)
        waiting = len(receiving.bus._flow_control._grants)
        assert 10_000 < waiting <= 20_000
        assert 25_000 == waiting + receiving.bus.counters.refused

    run(main())


@pytest.mark.parametrize(
    "payload",
    [
        b'[1,"\\u001b[2J",1,"d","w",@,0,0]',
        b'[1,"\\u202e",1,"d","w",@,0,0]',
        b'[1,"x",1,"d","\\r",@,0,0]',
        b'[1,"%b",1,"d","w",@,0,0]' % (b"x" * 257),
        b'[1,"x",1,"d","%b",@,0,0]' % (b"x" * 257),
        b'[1,"x",1,"\\u001b[2J","w",@,0,0]',
        b'[1,"x",1,"d","*",@,1,0]\n{"type":"\\u001b]52;c;eA==\\u0007","source":"\\u001b[2J"}',
        b'[1,"x",1,"d","*",@,1,0]\n{"type":"BusEndMessage","source":"\\u202e\\u001b[2J","session":7}',
    ],
)
def test_no_control_characters_reach_the_log(
    payload: bytes, backend: str, caplog: pytest.LogCaptureFixture
):
    """A worker that was started by hand logs to a terminal: names, types and sources are escaped."""

    async def main() -> None:
        receiving = Receiving(backend, has_key=False)
        for first in (b"1", b"7"):  # a gap is logged
            receiving.bus._receive(payload.replace(b"@", first), is_note=False)
        for line in payload.split(b"\n")[1:]:
            receiving.bus._router._decoder.decode(line)

    with caplog.at_level(logging.DEBUG):
        run(main())

    assert caplog.messages
    assert all(message.isprintable() for message in caplog.messages), caplog.messages


@pytest.mark.parametrize(
    ("payload", "origin"),
    [
        (b'[1,"burglar",1,"d","clerk",1,1,0]\n{}', "process 'burglar', to 'clerk'"),
        (b'[1,"burglar",1,"d","clerk",1,0,0]', "process 'burglar', to 'clerk'"),
        (b'["grant","burglar","clerk",1,2,3]', "process 'burglar', to 'clerk'"),
        (b'[1,"\\u001b",1,"d","clerk",1,1,0]\n{}', ""),
        (b'[1,null,1,"d",[],1,1,0]', ""),
        (b'[1,"burglar"]', ""),
        (b'{"grant": 1}', ""),
        (b"\xff", ""),
        (b"[" * 5000, ""),
        (b"", ""),
    ],
)
@pytest.mark.parametrize("is_sealed", [False, True], ids=["no key", "another key"])
def test_a_refusal_says_where_it_claims_to_be_from(
    payload: bytes, origin: str, is_sealed: bool, backend: str, caplog: pytest.LogCaptureFixture
):
    """Of what no holder of the key wrote, as far as it says anything that can be shown."""
    sealed = seal_of("another-key-of-16", "c").close("payload", payload) if is_sealed else payload

    async def main() -> None:
        Receiving(backend, has_key=True)._take(sealed)

    run(main())

    (message,) = caplog.messages
    assert ("another key" if is_sealed else "not sealed") in message
    assert (f"(it says it is from {origin})" if origin else "(1 refused so far)") in message
    assert bool(origin) == ("it says" in message)
