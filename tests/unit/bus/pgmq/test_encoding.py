"""Entries as Postgres hands them out, by two ways."""

import json

import pytest

from pbus.bus.pgmq.encoding import decode_pushed, in_order, messages_of


def word(hold: int, number: int, *texts: str) -> str:
    """A notification that hands an entry over."""
    pairs = [[f"id {text}", text] for text in texts]
    return json.dumps([hold, 7, "box", "d", {"n": len(texts), "i": number}, pairs])


def taken(hold: int | None, number: int, *texts: str) -> dict[str, object]:
    """The same entry as an answer has it."""
    return decode_pushed(word(hold or 0, number, *texts)) | {"hold": hold}


def test_handed_entry_is_read():
    """Its messages, in order, with what settles each."""
    messages = messages_of(decode_pushed(word(5, 1, "a", "b")))
    assert [("5.0.7", "id a", b"a"), ("5.1.7", "id b", b"b")] == [
        (message.receipt_handle, message.id, message.body) for message in messages
    ]
    assert ("box", "d", 1, 0, False) == (
        messages[0].queue,
        messages[0].lane.value,
        messages[0].attempt,
        messages[0].crashes,
        messages[0].is_poison_suspect,
    )


def test_number_decides_the_order():
    """What was handed over while the server answered comes where its number belongs."""
    answer = [taken(1, 3, "c"), taken(2, 12, "e"), taken(None, 0)]
    handed = [decode_pushed(word(3, 2, "b")), decode_pushed(word(4, 11, "d"))]
    texts = [message.body for row in in_order(answer, handed) for message in messages_of(row)]
    assert [b"b", b"c", b"d", b"e"] == texts


def test_row_of_others_has_a_place():
    """A row whose headers cannot be read is refused by itself, not with what was handed over."""
    foreign = taken(1, 1, "a") | {"headers": '{"i":' + "[" * 5000 + "]" * 5000 + "}"}
    rows = in_order([foreign], [decode_pushed(word(3, 2, "b"))])
    assert [1, 3] == [row["hold"] for row in rows]
    with pytest.raises(ValueError, match=r"."):
        messages_of(foreign)


@pytest.mark.parametrize(
    "forged",
    [
        "", "x", "[]", "[1, 2]", "[" * 5000, '[1, 2, "w", "x", {}, []]', '[1, 2, "w", "d", [], []]',
        f'[{10**30}, 2, "w", "d", {{}}, []]', f'[1, {2**63}, "w", "d", {{}}, []]',
        f'[1, 2, "w", "d", {{"i": {10**30}}}, []]', f'[1, 2, "w", "d", {{"a": {2**31}}}, []]',
        '[1, 2, "w", "d", {"c": -1}, []]', f'[1, 2, "w", "d", {"[" * 5000}',
    ],
)  # fmt: skip
def test_forged_notification_is_refused(forged: str):
    """What is no entry, or has numbers that the server would refuse, is an error of one kind."""
    with pytest.raises(ValueError, match=r"."):
        decode_pushed(forged)
