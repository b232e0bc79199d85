"""Seals: what holders of a key can open, and no other process can make."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus.errors import BusKeyError, MessageDecodeError, OtherKeyError, SealError
from pbus.seal import FRESH_S, KeySeal, is_sealed, new_key, parse_keys

ONE, TWO = "one-key-of-sixteen", "two-key-of-sixteen"


def seal(*keys: str, channel: str = "c", encrypt: bool = False, now: float = 1e9) -> KeySeal:
    """A seal at some time."""
    return KeySeal(keys or (ONE,), channel, encrypt=encrypt, clock=lambda: now)


@pytest.mark.parametrize("encrypt", [False, True])
@given(data=st.binary(max_size=2000), context=st.binary(max_size=50))
def test_holders_open_what_was_sealed(data: bytes, context: bytes, encrypt: bool):
    """Any bytes come back unchanged, at another process with the key."""
    sealed = seal(encrypt=encrypt).close("stored", data, context)

    assert is_sealed(sealed)
    assert data == seal(encrypt=not encrypt).open("stored", sealed, context)


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("kind", ["payload", "stored"])
@given(data=st.binary(max_size=200), at=st.integers(0), bit=st.integers(0, 7))
def test_any_changed_bit_is_noticed(data: bytes, at: int, bit: int, kind, encrypt: bool):
    """Wherever it is: in the data, in the time, in the MAC, in bits that base64 does not need."""
    sealed = bytearray(seal(encrypt=encrypt).close(kind, data))
    sealed[at % len(sealed)] ^= 1 << bit

    with pytest.raises(SealError):
        seal().open(kind, bytes(sealed))


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("kind", ["payload", "stored"])
def test_every_part_is_covered(kind, encrypt: bool):
    """Each bit of a sealed text, each shortening, each other mark."""
    sealed = seal(encrypt=encrypt).close(kind, b"data", b"x")
    changed = [
        sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :]
        for at in range(len(sealed))
        for bit in range(8)
    ]
    changed += [sealed[:at] for at in range(len(sealed))] + [sealed[at:] for at in range(1, 80)]
    changed += [sealed[:-28] + mark + sealed[-27:] for mark in (b"#", b"$", b"%")]
    for broken in {*changed} - {sealed}:
        with pytest.raises(SealError):
            seal().open(kind, broken, b"x")


@pytest.mark.parametrize(
    ("opener", "kind", "context"),
    [
        (seal(TWO), "payload", b"x"),
        (seal(channel="d"), "payload", b"x"),
        (seal(), "note", b"x"),
        (seal(), "payload", b"y"),
        (seal(), "payload", b""),
    ],
)
def test_others_do_not_open_it(opener: KeySeal, kind, context: bytes):
    """Another key, channel, purpose or place is another seal."""
    for encrypt in (False, True):
        sealed = seal(encrypt=encrypt).close("payload", b"data", b"x")

        with pytest.raises(SealError, match="of another key, or it was changed"):
            opener.open(kind, sealed, context)


def test_unsealed_is_refused():
    """So is what has no seal; the error is one of messages, which every reader counts."""
    with pytest.raises(MessageDecodeError, match="not sealed"):
        seal().open("payload", b'[1,"x",1,"d","w",1,1,0]\n{}')


@pytest.mark.parametrize("age", [FRESH_S + 1, -FRESH_S - 1])
def test_old_payloads_are_replays(age: float):
    """A payload holds for minutes, a stored message and a lease for ever."""
    now = seal(now=1e9 + age)

    for kind in ("payload", "note"):
        for encrypt in (False, True):
            with pytest.raises(SealError, match="a replay, or clocks differ"):
                now.open(kind, seal(encrypt=encrypt).close(kind, b"data"))
    for kind in ("stored", "lease", "record", "activation"):
        assert b"data" == now.open(kind, seal().close(kind, b"data"))


def test_keys_rotate():
    """With two keys at once the first seals and both open."""
    old, both, new = seal(ONE), seal(TWO, ONE), seal(TWO)

    assert b"1" == both.open("payload", old.close("payload", b"1"))
    assert b"2" == new.open("payload", both.close("payload", b"2"))
    with pytest.raises(SealError):
        old.open("payload", both.close("payload", b"3"))


def test_encryption_hides():
    """Nothing of the data is in what is sealed, and no two are alike."""
    hidden = [seal(encrypt=True).close("payload", b"confidential" * 10) for _ in range(2)]
    hider = seal(encrypt=True)
    hidden += [hider.close("payload", b"confidential" * 10) for _ in range(2)]

    assert 4 == len(set(hidden))
    assert not any(b"confidential" in one for one in hidden)


@pytest.mark.parametrize("kind", ["payload", "stored"])
def test_sizes_around_the_room_for_encryption(kind, monkeypatch: pytest.MonkeyPatch):
    """What was encrypted keeps its text when more is, in the same place or not."""
    monkeypatch.setattr("pbus.seal.aes_gcm._ROOM_BYTES", 100)
    hider = seal(encrypt=True)
    texts = [bytes([65 + at]) * size for at, size in enumerate([83, 84, 85, 0, 1, 1000, 84])]
    sealed = [hider.close(kind, text) for text in texts]

    assert texts == [seal().open(kind, one) for one in sealed]
    assert all(type(one) is bytes for one in sealed)


@pytest.mark.parametrize(
    ("text", "keys"), [(ONE, (ONE,)), (f"{ONE}, {TWO}", (ONE, TWO)), (f" {ONE} ", (ONE,))]
)
def test_keys_are_separated_by_commas(text: str, keys: tuple[str, ...]):
    """One key, or several for a rotation."""
    assert keys == parse_keys(text)


@pytest.mark.parametrize(
    "text", ["", "short", f"{ONE},", "sixteen and with spaces", "ü" * 20, "x" * 5000]
)
def test_bad_keys_are_refused(text: str):
    """Too short, or with characters that get lost between files, shells and environments."""
    with pytest.raises(BusKeyError) as caught:
        parse_keys(text)

    assert "token_urlsafe" in str(caught.value)
    assert not text or text not in str(caught.value)


def test_new_keys_are_keys():
    """A key made by pbus is one, and never the same."""
    assert new_key() != new_key()
    assert parse_keys(new_key())


NEW, OLD, THIRD = "new-key-of-sixteen", "old-key-of-sixteen", "key-of-sixteen-more"


@pytest.mark.parametrize("keys", [(NEW, OLD), (OLD, NEW), (THIRD, OLD, NEW), (OLD, THIRD, NEW)])
@pytest.mark.parametrize("one", [NEW, OLD])
def test_leases_are_read_with_any_key_of_their_process(keys: tuple[str, ...], one: str):
    """While keys are changed, a process with only one of them sees whose names are taken."""
    lease = seal(*keys).close("lease", b'{"name":"w"}')

    assert is_sealed(lease)
    assert b'{"name":"w"}' == seal(one).open("lease", lease)
    assert b'{"name":"w"}' == seal(*keys).open("lease", lease)
    with pytest.raises(SealError, match="of another key"):
        seal(TWO).open("lease", lease)
    with pytest.raises(SealError):
        seal(one, channel="d").open("lease", lease)


@pytest.mark.parametrize("keys", [(NEW, OLD), (NEW, THIRD, OLD)])
def test_encrypted_leases_are_known_by_any_key(keys: tuple[str, ...]):
    """They are read with the first key only; with another it shows that they are no forgeries."""
    lease = seal(*keys, encrypt=True).close("lease", b'{"name":"w"}')

    assert b'{"name":"w"}' == seal(NEW).open("lease", lease)
    with pytest.raises(OtherKeyError):
        seal(OLD).open("lease", lease)
    with pytest.raises(SealError) as caught:
        seal(TWO).open("lease", lease)
    assert not isinstance(caught.value, OtherKeyError)


@pytest.mark.parametrize("kind", ["payload", "note", "stored", "record", "activation"])
def test_only_leases_are_sealed_with_all_keys(kind):
    """All else is sealed once; a seal of a further key is none there."""
    sealed = seal(NEW, OLD).close(kind, b"data")

    assert len(b"data") + 28 == len(sealed)
    with pytest.raises(SealError):
        seal(OLD).open(kind, sealed)
    with pytest.raises(SealError, match="broken"):
        seal(NEW).open(kind, sealed[:-28] + b"&" + sealed[-27:])


@pytest.mark.parametrize("encrypt", [False, True])
def test_each_bit_of_a_lease_counts_for_each_key(encrypt: bool):
    """A change before the seal of one's own key is noticed; the seals of others are theirs."""
    lease = seal(NEW, THIRD, OLD, encrypt=encrypt).close("lease", b'{"name":"w"}')
    for at in range(len(lease)):
        changed = lease[:at] + bytes([lease[at] ^ 1]) + lease[at + 1 :]
        with pytest.raises(SealError) as caught:
            seal(OLD).open("lease", changed)
        assert not isinstance(caught.value, OtherKeyError)
    middle = seal(THIRD).open  # its seal is before that of OLD
    if not encrypt:
        assert b'{"name":"w"}' == middle("lease", lease[:-1] + b"A")
        assert b'{"name":"w"}' == seal(NEW).open("lease", lease[:-56])


@pytest.mark.parametrize("more", [b"&" + b"A" * 27, b"#" + b"A" * 27, b"$" + b"A" * 27])
@pytest.mark.parametrize("count", [1, 8, 2000])
def test_seals_without_a_key_do_not_help(more: bytes, count: int):
    """Any number of them after forged data, or after a lease whose own seal was taken away."""
    lease = seal(NEW, OLD).close("lease", b'{"name":"w"}')
    for start in (b'{"name":"w"}', lease[: -2 * 28]):
        with pytest.raises(SealError) as caught:
            seal(NEW, OLD).open("lease", start + more * count)
        assert not isinstance(caught.value, OtherKeyError)
