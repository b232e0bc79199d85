"""Counting by source, target and type: exact, bounded, and without decoding bodies."""

import random
import time
from collections import Counter

import pytest

from pbus.codec import Encoding, encode_message
from pbus.messages import BusDataMessage, BusSystemMessage
from pbus.messages.opaque_messages import BusOpaqueMessage
from pbus.stats.edge_table import (
    EVERYONE,
    MAX_EDGES,
    OTHER,
    SAMPLE_S,
    Edge,
    EdgeTable,
    kind_of_address,
)


class StatNote(BusDataMessage):
    """One kind."""

    text: str = ""


class StatAlarm(BusSystemMessage):
    """Another."""


def line(kind=StatNote, source="a", encoding=Encoding.JSON, **fields):
    return encode_message(kind(source=source, target="b", **fields), encoding=encoding)


def sent(table):
    """What was counted as sent, by edge."""
    return {
        (edge.source, edge.target, edge.type): (edge.sent, edge.sent_bytes)
        for edge in table.edges()
    }


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("kinds", [1, 3, 12])
def test_a_payload_is_counted_by_source_and_type(encoding, kinds):
    """However many of them it mixes, each message and byte is counted once."""
    rng = random.Random(kinds)
    sources = [f"worker-{number}" for number in range(kinds)]
    lines, expected, sizes = [], Counter(), Counter()
    for _ in range(400):
        source, kind = rng.choice(sources), rng.choice([StatNote, StatAlarm])
        if kinds == 1:
            kind = StatNote
        lines.append(line(kind, source, encoding))
        expected[source, "b", kind.__name__] += 1
        sizes[source, "b", kind.__name__] += len(lines[-1])
    table = EdgeTable()
    table.note_sent("b", lines, sum(map(len, lines)), is_undelivered=False)
    table.note_sent("b", lines, sum(map(len, lines)), is_undelivered=True)

    assert {key: (2 * count, 2 * sizes[key]) for key, count in expected.items()} == sent(table)
    assert 400 == sum(edge.undelivered for edge in table.edges())


@pytest.mark.parametrize(
    "source", ["a", "aa", 'quo"te', "back\\slash", "naïve", "a\u2028b", 'x","source":"y']
)
def test_sources_are_told_apart_by_all_their_characters(source):
    """One that begins another, or has characters that JSON escapes, is not taken for it."""
    lines = [line(source=source), line(source="a"), line(source=source), line(source="ab")]
    table = EdgeTable()
    table.note_sent("b", lines, sum(map(len, lines)), is_undelivered=False)

    expected = Counter([source, "a", source, "ab"])
    found = {key[0]: count for key, (count, _) in sent(table).items()}
    assert expected == found


@pytest.mark.parametrize("encoding", list(Encoding))
def test_messages_sent_singly_are_counted_like_those_of_a_payload(encoding):
    """One by one, of changing types, sources and addresses: each counts once, with its bytes."""
    rng = random.Random(7)
    table, together = EdgeTable(), EdgeTable()
    by_address = {"b": [], "c": []}
    for _ in range(300):
        one = line(rng.choice([StatNote, StatAlarm]), rng.choice(["a", "aa", 'a"']), encoding)
        address = rng.choice(["b", "c"])
        is_undelivered = address == "c"
        table.note_sent(address, [one], len(one), is_undelivered=is_undelivered)
        by_address[address].append(one)
    for address, lines in by_address.items():
        size = sum(map(len, lines))
        together.note_sent(address, lines, size, is_undelivered=address == "c")

    assert sent(together) == sent(table)
    assert [edge.undelivered for edge in together.edges()].count(0) == 6
    assert len(by_address["c"]) == sum(edge.undelivered for edge in table.edges())


def test_text_of_a_message_is_not_taken_for_one():
    """A message that has others in its text counts once."""
    inner = line(StatAlarm, "evil").decode()
    lines = [line(text=f"\n{inner}\n"), line()]
    table = EdgeTable()
    table.note_sent("b", lines, 1, is_undelivered=False)

    assert {("a", "b", "StatNote"): (2, 1)} == sent(table)


def test_what_is_no_message_is_counted_apart():
    """Bytes that another program sends through this process do not stop the sender."""
    table = EdgeTable()
    table.note_sent("b", [b"\x00rubbish", line()], 99, is_undelivered=False)

    assert {(OTHER, OTHER, OTHER), ("a", "b", "StatNote")} == set(sent(table))


def test_edges_are_bounded_and_nothing_is_lost():
    """Beyond the bound messages count together under one name."""
    table = EdgeTable()
    for number in range(3 * MAX_EDGES):
        table.note_put(StatNote(source=f"s{number}", target="b"), is_undelivered=False)
        table.job_edge(f"s{number}", "b", "find").note("completed", 0.1)

    edges, jobs = table.edges(), table.job_edges()
    assert MAX_EDGES + 1 == len(edges) == len(jobs)
    assert 3 * MAX_EDGES == sum(edge.sent for edge in edges)
    assert 2 * MAX_EDGES == next(edge.sent for edge in edges if edge.source == OTHER)
    assert 2 * MAX_EDGES == next(one.latency.count for one in jobs if one.worker == OTHER)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("cli-0a1b2c", "cli-*"),
        ("runner-0a1b2c", "runner-*"),
        ("supervisor-0a1b2c", "supervisor-*"),
        ("child@runner-0a1b2c", "child@runner-*"),
        ("cli", "cli"),
        ("client-7", "client-7"),
        ("db.1", "db.1"),
        ("*", "*"),
    ],
)
def test_addresses_made_at_each_start_share_an_edge(address, kind):
    """A thousand calls of a command are one edge."""
    assert kind == kind_of_address(address)


@pytest.mark.parametrize("fields", [{"source": ["a"]}, {"source": None}, {"target": {}}])
def test_fields_of_any_type_are_counted(fields):
    """Within a process nothing checks a message's fields, and counting must not fail."""
    message = StatNote(**({"source": "a", "target": "b"} | fields))
    edge = EdgeTable().find(message)
    edge.handled += 1
    edge.sample("yesterday", 1.0, 1.5)

    assert (1, 0.0) == (edge.wait.count, edge.wait.sum_s)


def test_broadcasts_have_an_edge_to_everyone():
    """Found by the message, and by the address of the payload."""
    table = EdgeTable()
    message = StatNote(source="a")
    encoded = encode_message(message)
    table.note_sent(EVERYONE, [encoded], len(encoded), is_undelivered=False)

    edge = table.find(message)
    assert ("a", "*", "StatNote", 1) == (edge.source, edge.target, edge.type, edge.sent)
    assert (edge.kind, edge.address) == (type(message), message.target)


def test_types_that_are_unknown_here_are_told_apart():
    """One class stands for all of them at a receiver that takes any."""
    table = EdgeTable()
    for name in ("Invoice", "Receipt", "Invoice"):
        table.find(BusOpaqueMessage(source="a", target="b", type_name=name)).handled += 1

    assert {"Invoice": 2, "Receipt": 1} == {edge.type: edge.handled for edge in table.edges()}


def test_unknown_types_between_several_are_told_apart():
    """One edge for each type, source and target, found again for each message; without a target, too."""
    table = EdgeTable()
    ends = [("a", "b"), ("a", "c"), ("b", "a"), ("a", None), ("kid@runner-1f", "b")]
    for _ in range(2):
        for source, target in ends:
            found = [
                table.find(BusOpaqueMessage(source=source, target=target, type_name=name))
                for name in ("Invoice", "Receipt")
            ]
            assert found[0] is not found[1]
            for edge in found:
                edge.handled += 1

    assert [2] * 10 == [edge.handled for edge in table.edges()]
    assert {("a", "*", "Invoice"), ("a", "*", "Receipt")} == {
        (edge.source, edge.target, edge.type) for edge in table.edges() if edge.target == "*"
    }
    long = "x" * 10_000
    assert table.find(BusOpaqueMessage(source=long, target="b", type_name=long)).source == OTHER


def handle(edge, started, seconds, made_ago_s=0.0):
    """Count a message as mailboxes do."""
    edge.handled += 1
    now = started + seconds
    if now > edge.due:
        edge.sample(time.time() - seconds - made_ago_s, started, now)
    return now


def test_histograms_have_every_message():
    """One message each millisecond stands for those that follow it."""
    edge, now = Edge("a", "b", "StatNote"), 10.0
    for _ in range(1_000):
        now = handle(edge, now, 5e-6)
    edge.settle()
    edge.settle()

    assert (1_000, 1_000, 1_000) == (edge.handled, edge.handling.count, edge.wait.count)
    assert 5e-6 == pytest.approx(edge.handling.quantile(0.99), rel=0.07)


def test_slow_handlers_are_all_timed():
    """One in a thousand that takes long is seen, with its own time, whenever it comes."""
    edge, now = Edge("a", "b", "StatNote"), 10.0
    for number in range(3_000):
        now = handle(edge, now, 0.2 if number % 1_000 == 3 else 2e-6)
    edge.settle()

    slow = edge.handling.count - edge.handling.count_to(0.1)
    assert (3, 3_000) == (slow, edge.handling.count)
    assert 3 * SAMPLE_S > edge.handling.quantile(0.99)


def test_waits_begin_when_a_message_is_made():
    """The time of its sender counts; one that is ahead counts as no wait."""
    edge = Edge("a", "b", "StatNote")
    now = handle(edge, 10.0, 0.25, made_ago_s=3.0)
    handle(edge, now, 0.25, made_ago_s=-60.0)

    assert 2 == edge.wait.count
    assert 3.0 == pytest.approx(edge.wait.sum_s, rel=0.05)


def test_restored_messages_are_not_timed_again():
    """Those of an earlier incarnation are in the histograms that come with them."""
    edge = Edge("a", "b", "StatNote")
    edge.restore(500)
    handle(edge, 10.0, 0.001)
    edge.settle()

    assert (501, 1) == (edge.handled, edge.handling.count)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_payloads_after_one_another_are_told_apart(encoding):
    """A payload that begins otherwise than the one before to that address is counted as what it is."""
    kinds = [(StatNote, "a"), (StatNote, "aa"), (StatAlarm, "a"), (StatNote, "a")]
    payloads = [
        ([line(kind, source, encoding) for kind, source in chosen], address)
        for address in ("b", "c", "b")
        for chosen in (kinds[:1], kinds[:1] * 3, kinds[1:2], kinds[2:3], kinds, kinds[3:])
    ]
    table, expected = EdgeTable(), Counter()
    for lines, address in [*payloads, ([b"\x00rubbish"], "b"), *payloads]:
        table.note_sent(address, lines, sum(map(len, lines)), is_undelivered=False)
    for lines, address in payloads * 2:
        one_by_one = EdgeTable()
        for each in lines:
            one_by_one.note_sent(address, [each], len(each), is_undelivered=False)
        expected.update({
            edge.type + edge.source + edge.target: edge.sent_bytes for edge in one_by_one.edges()
        })

    found = {edge.type + edge.source + edge.target: edge.sent_bytes for edge in table.edges()}
    assert found.pop(OTHER * 3) == len(b"\x00rubbish")
    assert expected == found


def test_edges_of_payloads_to_very_many_addresses():
    """What is remembered of each address is bounded, and none is counted as another's."""
    table = EdgeTable()
    for _ in range(2):
        for number in range(5 * MAX_EDGES):
            table.note_sent(f"b{number}", [line()], 1, is_undelivered=False)
            table.job_edge("a", f"b{number}", "find").note("completed", 0.1)

    assert 10 * MAX_EDGES == sum(edge.sent for edge in table.edges())
    assert {2} == {edge.sent for edge in table.edges() if edge.source != OTHER}
    assert {2} == {edge.latency.count for edge in table.job_edges() if edge.worker != OTHER}
