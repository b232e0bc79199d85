"""Keys: what one is, which replica it belongs to, and how it travels."""

import json
import subprocess
import sys
from collections import Counter
from typing import ClassVar

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pbus.codec import Encoding, Header, decode_header, decode_message, encode_message, encode_raw
from pbus.errors import MessageDecodeError, MessageDefinitionError, MessageEncodeError
from pbus.frames import Frame
from pbus.jobs import JobGroupParams, JobParams
from pbus.jobs.params import as_group
from pbus.messages import BusDataMessage, BusJobRequestMessage
from pbus.routing_keys import MAX_KEY_BYTES, key_problem, owner_of


class Plain(BusDataMessage):
    """Has no fields of its own."""


KEYS = [f"call-{number}" for number in range(4_000)]
keys = st.text(min_size=1, max_size=64).filter(lambda text: key_problem(text) is None)
groups = st.sets(st.integers(1, 40), min_size=1, max_size=12).map(
    lambda numbers: [f"stt.{number}" for number in sorted(numbers)]
)


@given(keys, groups, st.randoms())
def test_owner_is_one_of_the_replicas_in_any_order(key, replicas, random):
    """Senders that list the replicas in another order agree."""
    shuffled = list(replicas)
    random.shuffle(shuffled)

    assert owner_of(key, replicas) == owner_of(key, shuffled) == owner_of(key, set(replicas))
    assert owner_of(key, replicas) in replicas


@given(keys, groups, st.integers(41, 50))
def test_a_key_moves_only_to_the_one_that_came(key, replicas, number):
    """Between those that were there nothing moves; nor when the new one leaves again."""
    new = f"stt.{number}"
    before, after = owner_of(key, replicas), owner_of(key, [*replicas, new])

    assert after in {before, new}


@given(keys, groups, st.data())
def test_a_key_moves_only_from_the_one_that_left(key, replicas, data):
    """Those of the others stay."""
    assume(len(replicas) > 1)
    left = data.draw(st.sampled_from(replicas))
    before = owner_of(key, replicas)
    after = owner_of(key, [one for one in replicas if one != left])

    assert (after == before) == (before != left)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_are_alike(count):
    """Each of n replicas has about 1/n of the keys, and a new one takes about 1/(n+1)."""
    names = [f"stt.{number}" for number in range(1, count + 1)]
    shares = Counter(owner_of(key, names) for key in KEYS)
    moved = sum(owner_of(key, names) != owner_of(key, [*names, "stt.new"]) for key in KEYS)

    assert set(names) == set(shares)
    assert all(abs(share * count / len(KEYS) - 1) < 0.15 for share in shares.values())
    assert abs(moved * (count + 1) / len(KEYS) - 1) < 0.15


def test_owner_is_the_same_in_every_process():
    """Whatever seeds the hashes of texts there; the values are part of the protocol."""
    names = ["stt.1", "stt.2", "stt.3"]
    program = (
        "from pbus.routing_keys import owner_of;"
        f"print([owner_of(f'call-{{n}}', {names!r}) for n in range(6)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }

    assert {str([owner_of(key, names) for key in KEYS[:6]])} == said
    assert ["stt.3", "stt.3", "stt.3", "stt.1"] == [
        owner_of(key, names) for key in ("call-0", "call-1", "ü", "17")
    ]


def test_no_replicas_own_nothing():
    """And a single one owns everything."""
    assert owner_of("x", []) is None
    assert "stt.7" == owner_of("x", ["stt.7"])


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("call-17", None),
        (" spaces and € are fine ", None),
        ("x" * MAX_KEY_BYTES, None),
        ("x" * (MAX_KEY_BYTES + 1), "a key has at most 256 bytes, not 257"),
        ("é" * 129, "a key has at most 256 bytes, not 258"),
        ("", "a key is not empty"),
        ("a\x00", "a key has no control characters"),
        ("a\n", "a key has no control characters"),
        ("\x9b31m", "a key has no control characters"),
        ("\udcff", "a key is text that UTF-8 can carry"),
        (17, "a key is text, not int"),
        (b"x", "a key is text, not bytes"),
        (None, "a key is text, not NoneType"),
    ],
)
def test_what_a_key_is(key, problem):
    """Each wrong one is told why."""
    assert problem == key_problem(key)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_key_travels_only_where_there_is_one(encoding):
    """A message without a key has the bytes that it had before there were keys."""
    plain = Plain(source="a", target="b", id="1", time=2.0)
    keyed = msgspec.structs.replace(plain, key="call-17")
    line = encode_message(plain, encoding=encoding)

    assert b"key" not in line
    assert plain == decode_message(line)
    assert keyed == decode_message(encode_message(keyed, encoding=encoding))
    assert "call-17" == decode_header(encode_message(keyed, encoding=encoding)).key
    assert decode_header(line).key is None


@pytest.mark.parametrize("encoding", list(Encoding))
def test_raw_messages_have_keys(encoding):
    """By the same rules, also where the type is unknown."""
    header = Header(type="Strange", source="a", target="b", id="1", time=2.0)
    keyed = msgspec.structs.replace(header, key="k")

    assert b"key" not in encode_raw(header, {"x": 1}, limit=1_000, encoding=encoding)
    assert keyed == decode_header(encode_raw(keyed, {}, limit=1_000, encoding=encoding))
    with pytest.raises(
        MessageEncodeError, match=r"Strange\.key cannot be sent: a key is not empty"
    ):
        encode_raw(msgspec.structs.replace(header, key=""), {}, limit=1_000)


@pytest.mark.parametrize("key", ["", "a\nb", "\x1b[2J", "x" * 257, 17, ["k"], {"k": 1}, True, 1.5])
@pytest.mark.parametrize("pack", [json.dumps, msgspec.msgpack.encode])
def test_hostile_keys_are_refused(key, pack):
    """On reading, as any other field of another type or form."""
    packed = pack({"type": "Plain", "source": "a", "target": "b", "id": "1", "key": key})
    line = packed if isinstance(packed, bytes) else packed.encode()

    for read in (decode_message, decode_header):
        with pytest.raises(MessageDecodeError):
            read(line)


def test_a_field_of_ones_own_cannot_be_the_key():
    """It would choose replicas unasked; the error says so where the class is defined."""
    with pytest.raises(MessageDefinitionError, match="'key' chooses the replica"):

        class Put(BusDataMessage):
            """Of a store, say."""

            key: str

    with pytest.raises(MessageDefinitionError, match="rename that field"):

        class PutJob(BusJobRequestMessage):
            """Also where the type is named in quotes, and optional."""

            key: "int | None" = None

    class KeyFrame(Frame):
        """What is no message may have one."""

        key: int

    class Counted(BusDataMessage):
        """What is no field is none."""

        keys: ClassVar[int] = 1
        keyed: int = 0

    assert (3, "k") == (KeyFrame(key=3).key, Counted(source="a", key="k").key)


def test_params_of_jobs_have_keys():
    """A single job's is that of the group that it is."""
    assert "k" == as_group(JobParams(key="k")).key
    assert JobGroupParams().key is None
    for key in ("", "a\n", 17):
        with pytest.raises(ValueError, match="a key"):
            JobParams(key=key)
