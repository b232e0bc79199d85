"""Large payloads, which AES-GCM authenticates: nonces, forks, threads, replays, exchanged marks."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus.errors import SealError
from pbus.seal import FRESH_S, KeySeal, is_sealed
from pbus.seal.key_seal import LARGE_BYTES

ONE, TWO = "one-key-of-sixteen", "two-key-of-sixteen"
LARGE = b"0123456789abcdef" * (LARGE_BYTES // 16)
ROUNDS = 3000  # of each thread


def seal(*keys: str, channel: str = "c", encrypt: bool = False, now: float = 1e9) -> KeySeal:
    """A seal at some time."""
    return KeySeal(keys or (ONE,), channel, encrypt=encrypt, clock=lambda: now)


def salt_of(sealed: bytes) -> bytes:
    """Base64 of the salt, without the time."""
    return sealed[-22:]


def nonce_of(sealed: bytes, *, encrypt: bool) -> bytes:
    """The nonce of a sealed payload without context."""
    place = len(b"payload%12340:")
    return sealed[:12] if encrypt else sealed[-28 - 16 - place - 12 : -28 - 16 - place]


def in_a_fork(make: Callable[[], bytes]) -> bytes:
    """What a forked process makes."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, make())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        return pipe.read()


@pytest.fixture(params=[False, True], ids=["authenticated", "encrypted"])
def encrypt(request: pytest.FixtureRequest) -> bool:
    """Both ways in which AES-GCM is used."""
    return request.param


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@given(
    filler=st.binary(min_size=1, max_size=9),
    size=st.sampled_from([-1, 0, 1, 9, 60_000, 300_000]),
    context=st.binary(max_size=30),
)
def test_payloads_of_all_sizes_come_back(filler: bytes, size: int, context: bytes):
    """Around the size where the algorithm changes, and far beyond it."""
    size += LARGE_BYTES
    data = (filler * size)[:size]
    sealed = seal().close("payload", data, context)

    assert (b"%" if size >= LARGE_BYTES else b"#") == sealed[-28:-27]
    assert is_sealed(sealed)
    assert data == seal(TWO, ONE).open("payload", sealed, context)


@pytest.mark.parametrize("kind", ["note", "stored", "lease", "activation", "record"])
def test_only_payloads_are_sealed_so(kind):
    """What brokers may take for text, and `pbus ps` reads, needs no further library."""
    sealed = seal().close(kind, LARGE)

    assert b"#" == sealed[-28:-27]
    assert LARGE == seal().open(kind, sealed)


def test_every_bit_counts():
    """Of the seal each one, of the data some: a changed one is refused."""
    sealed = seal().close("payload", LARGE, b"x")
    tail = len(sealed) - len(LARGE)
    places = [0, 1, LARGE_BYTES // 2, *range(len(sealed) - tail - 1, len(sealed))]
    for at in places:
        for bit in range(8):
            broken = bytearray(sealed)
            broken[at] ^= 1 << bit
            with pytest.raises(SealError):
                seal().open("payload", bytes(broken), b"x")


def test_shortened_and_lengthened_payloads_are_refused():
    """Bytes that are missing or more, anywhere; also what is all seal and no data."""
    sealed = seal().close("payload", LARGE)
    tail = len(sealed) - len(LARGE)
    broken = [sealed[at:] for at in (1, 16, *range(LARGE_BYTES - 2, len(sealed)))]
    broken += [sealed[:-at] for at in range(1, tail + 2)]
    broken += [b"x" + sealed, LARGE[:16] + sealed, sealed + b"x", sealed + sealed[-28:]]
    broken += [LARGE[:1000] + sealed[len(LARGE) :], sealed[: len(LARGE)] + sealed[-28:]]
    for one in broken:
        with pytest.raises(SealError):
            seal().open("payload", one)


@pytest.mark.parametrize("mark", [b"#", b"$", b"%"])
@pytest.mark.parametrize(
    ("size", "encrypted"), [(0, True), (10, False), (5000, False), (5000, True)]
)
@pytest.mark.parametrize("other", ["payload", "stored", "note"])
def test_an_exchanged_mark_fails(mark: bytes, size: int, encrypted: bool, other):
    """No seal passes for one of another algorithm, nor for one of another purpose."""
    sealed = seal(encrypt=encrypted).close("payload", b"x" * size)
    changed = sealed[:-28] + mark + sealed[-27:]
    if changed == sealed and other == "payload":
        assert b"x" * size == seal().open(other, changed)
        return
    with pytest.raises(SealError, match=r"of another key, or it was changed"):
        seal().open(other, changed)


def test_the_algorithms_have_keys_of_their_own(monkeypatch: pytest.MonkeyPatch):
    """Under the same salt and nonce, a text encrypted for one purpose opens for no other."""
    monkeypatch.setattr("pbus.seal.aes_gcm.os.urandom", lambda size: b"s" * size)
    covered = seal().close("payload", LARGE)
    hidden = seal(encrypt=True).close("payload", b"payload%" + (10**9).to_bytes(4, "big") + b"0:")

    assert salt_of(covered) == salt_of(hidden)
    assert nonce_of(covered, encrypt=False) == nonce_of(hidden, encrypt=True)
    with pytest.raises(SealError):
        seal().open("payload", LARGE + hidden[:-28] + covered[-28:])


@pytest.mark.parametrize(
    ("opener", "kind", "context"),
    [
        (seal(TWO), "payload", b"x"),
        (seal(channel="d"), "payload", b"x"),
        (seal(), "stored", b"x"),
        (seal(), "record", b"x"),
        (seal(), "payload", b"y"),
        (seal(), "payload", b""),
        (seal(), "payload", b"xx"),
    ],
)
def test_large_payloads_are_bound_to_their_place(opener: KeySeal, kind, context: bytes):
    """Another key, channel, purpose or place is another seal."""
    sealed = seal().close("payload", LARGE, b"x")

    with pytest.raises(SealError, match="of another key, or it was changed"):
        opener.open(kind, sealed, context)


@pytest.mark.parametrize("age", [FRESH_S + 1, -FRESH_S - 1])
def test_old_large_payloads_are_replays(age: float):
    """Also where its time was made a later one: the seal covers it."""
    now, old, fresh = seal(now=1e9 + age), seal().close("payload", LARGE), b""
    fresh = now.close("payload", LARGE)

    with pytest.raises(SealError, match="a replay, or clocks differ"):
        now.open("payload", old)
    with pytest.raises(SealError, match="of another key, or it was changed"):
        now.open("payload", old[:-28] + fresh[-28:-22] + old[-22:])


def test_forked_processes_take_another_salt(encrypt: bool):
    """Parent and child never write under the same key and nonce, nor do two children."""
    writer = seal(encrypt=encrypt)
    writer.close("payload", LARGE)
    made = [in_a_fork(lambda: writer.close("payload", LARGE)) for _ in range(2)]
    made.append(writer.close("payload", LARGE))

    assert 3 == len({salt_of(one) for one in made})
    assert [LARGE] * 3 == [seal().open("payload", one) for one in made]


def test_a_process_with_the_id_of_its_ancestor_takes_another_salt(
    encrypt: bool, monkeypatch: pytest.MonkeyPatch
):
    """Process ids return: a grandchild may have the one that its copy of the counter was begun by."""
    writer = seal(encrypt=encrypt)
    monkeypatch.setattr("os.getpid", lambda: 4711)
    here = writer.close("payload", LARGE)

    assert salt_of(here) != salt_of(
        in_a_fork(lambda: in_a_fork(lambda: writer.close("payload", LARGE)))
    )


def test_a_fork_without_python_takes_another_salt(encrypt: bool, monkeypatch: pytest.MonkeyPatch):
    """A library that forks by itself calls no hooks: the process id tells."""
    writer = seal(encrypt=encrypt)
    here = writer.close("payload", LARGE)
    monkeypatch.setattr("os.getpid", lambda: 4711)

    assert salt_of(here) != salt_of(writer.close("payload", LARGE))


def test_salts_change_before_nonces_run_out(encrypt: bool, monkeypatch: pytest.MonkeyPatch):
    """No key is used more often than GCM allows."""
    monkeypatch.setattr("pbus.seal.aes_gcm._MOST_NONCES", 3)
    writer = seal(encrypt=encrypt)
    sealed = [writer.close("payload", LARGE) for _ in range(7)]

    assert [3, 3, 1] == list(Counter(salt_of(one) for one in sealed).values())
    assert {LARGE} == {seal().open("payload", one) for one in sealed}


def test_no_key_has_more_than_2_to_32_nonces():
    """The limit itself: the last nonce is used, and the next has another salt."""
    writer = seal()
    first = writer.close("payload", LARGE)
    period = writer._writer._period
    ahead = iter(range(2**32, 2**32 + 1))
    writer._writer._period = period._replace(nonces=ahead)
    last, after = (writer.close("payload", LARGE) for _ in range(2))

    assert salt_of(first) == salt_of(last) != salt_of(after)
    assert 2**32 == int.from_bytes(nonce_of(last, encrypt=False), "big")
    assert period.nonces.__length_hint__() == 2**32 - 1
    assert [LARGE] * 3 == [seal().open("payload", one) for one in (first, last, after)]


@pytest.mark.usefixtures("quick_switches")
def test_threads_never_use_a_nonce_twice(encrypt: bool, monkeypatch: pytest.MonkeyPatch):
    """Also while the salt changes under them; and nothing that one wrote is in another's payload."""
    monkeypatch.setattr("pbus.seal.aes_gcm._MOST_NONCES", 50)
    writer = seal(encrypt=encrypt)

    def work(name: int) -> list[bytes]:
        return [writer.close("payload", bytes([65 + name]) * LARGE_BYTES) for _ in range(ROUNDS)]

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(work, range(4)))
    used = {(salt_of(one), nonce_of(one, encrypt=encrypt)) for some in made for one in some}

    assert 4 * ROUNDS == len(used)
    for name, some in enumerate(made):
        assert {bytes([65 + name]) * LARGE_BYTES} == {seal().open("payload", one) for one in some}


def test_the_library_loads_with_the_first_large_payload():
    """It takes memory and time: a process that seals and opens smaller things has none of it."""
    program = f"""
import sys
from pbus.seal import KeySeal
seal = KeySeal(["{ONE}"], "c")
for kind, size in ("payload", {LARGE_BYTES - 1}), ("lease", 60_000), ("record", 60_000), ("note", 99):
    assert seal.open(kind, seal.close(kind, b"x" * size))
before = "cryptography" in sys.modules
seal.close("payload", b"x" * {LARGE_BYTES})
print(before, "cryptography" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert ("False True\n", "") == (done.stdout, done.stderr)
