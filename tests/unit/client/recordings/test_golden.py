"""What workers said in a replay, compared with a golden recording."""

import pytest

from pbus.client.recordings.golden import AnswersBefore, Outcome, differences, edge_counts
from pbus.client.recordings.replay_plan import said_message
from pbus_cli.views.difference_lines import difference_lines
from support.recordings import note, recorded, request, response

REAL = {"begin", "middle", "tools"}


def said(messages):
    return [said_message(recorded(message)) for message in messages]


def outcome(*messages):
    return Outcome(said(messages), REAL)


def compared(expected, actual, ignored=()):
    found = differences(outcome(*expected), outcome(*actual), ignored)
    return [
        (one.kind, one.source, one.number, one.field, one.expected, one.actual) for one in found
    ]


def talk(job_id="j1", at=1.0, client="cli-1", text="A", data=None):
    return [
        note(at, client, "begin", "asked"),
        request(at + 1, "begin", "tools", job_id, {"n": 1}),
        response(at + 2, "tools", "begin", job_id, text=text, job=job_id, **(data or {})),
        note(at + 3, "begin", client, text),
    ]


def test_ids_and_times_may_differ():
    """Of messages, jobs (wherever they are in fields), traces and clients."""
    assert [] == compared(talk(), talk("j9", 100.0, "cli-2"))
    assert [] == compared([*talk(), *talk("j2", 5.0)], [*talk("j2", 5.0), *talk()])


def test_changed_field_is_told_with_its_path():
    """In lists and objects; an absent one, and one of another type, too."""
    before = {"a": {"b": [1, 2, {"c": None}]}, "gone": 1, "n": 1}
    after = {"a": {"b": [1, 3, {"c": 0}]}, "new": 1, "n": True}
    found = compared(talk(data=before), talk(data=after))
    assert [
        ("response.a.b.1", 2, 3),
        ("response.a.b.2.c", None, 0),
        ("response.gone", 1, "(absent)"),
        ("response.n", 1, True),
        ("response.new", "(absent)", 1),
    ] == [(field, one, other) for _, _, _, field, one, other in found]


@pytest.mark.parametrize(
    ("ignored", "left"),
    [
        (["response.a.b.1"], 4),
        (["response.a"], 3),
        (["response.*"], 0),
        (["response"], 0),
        (["*.n", "response.new"], 3),
        (["a", "b", ""], 5),
    ],
)
def test_fields_may_be_ignored(ignored: list[str], left: int):
    """By a path, a pattern, or what stands above."""
    before = {"a": {"b": [1, 2, {"c": None}]}, "gone": 1, "n": 1}
    after = {"a": {"b": [1, 3, {"c": 0}]}, "new": 1, "n": True}
    assert left == len(compared(talk(data=before), talk(data=after), ignored))


def test_missing_and_unexpected_messages_are_told():
    """By their number among those of their edge."""
    found = compared(talk(), talk()[:-1])
    assert [("missing", "begin", 1, "", {"text": "A"}, None)] == found
    found = compared(talk(), [*talk(), note(9.0, "begin", "cli-3", "B")])
    assert [("unexpected", "begin", 2, "", None, {"text": "B"})] == found
    assert [] == compared(talk(), [*talk(), note(9.0, "stand-in", "begin", "B")])


def test_counts_tell_when_nothing_is_missing():
    """Which is waited for, in any order, whatever jobs are called; more may come."""
    expected = edge_counts(said(talk()), REAL)
    assert not edge_counts(said(talk()[:-1]), REAL) >= expected
    assert edge_counts(said(talk("j9")[::-1]), REAL) >= expected
    assert edge_counts(said([*talk(), note(20.0, "begin", "middle")]), REAL) >= expected
    assert 3 == expected.total() == sum(outcome(*talk()).counts.values())


def test_answer_may_be_seen_before_its_request():
    """By the clocks of two hosts."""
    asked, answered = talk()[1:3]
    assert [] == compared([asked, answered], [answered, asked])


def test_lines_say_what_differs():
    """A line each, whatever is in the values."""
    hostile = "x\n\x1b[2J" + "y" * 500
    found = differences(outcome(*talk()), outcome(*talk(text=hostile)[:-1]))
    lines = difference_lines(found)
    assert 'begin -> client ReplayedNote 1: missing: {"text": "A"}' == lines[1]
    place = 'tools -> begin JobResponse 1 (begin look({"n": 1}) #1): response.text: '
    assert lines[0].startswith(place + 'expected "A", got "x')
    assert all("\n" not in line and "\x1b" not in line and len(line) < 500 for line in lines)


def test_answers_that_a_sender_had_are_counted():
    """Those to it, by the name of its group, or to all; not what it sent, nor what came after."""
    messages = said([
        note(1.0, "caller.1", "begin"),
        note(2.0, "begin", "caller", "by the group"),
        note(3.0, "tools", None, "to all"),
        note(4.0, "begin", "caller.2", "to the other"),
        note(5.0, "caller.1", "begin"),
        note(6.0, "begin", "caller.1"),
        note(7.0, "cli-1", "begin"),
        note(8.0, "begin", "cli-2", "clients are one"),
        note(8.5, "stand-in", "caller.1", "is none that answers"),
        note(9.0, "cli-1", "begin"),
        note(9.0, "caller.1", "begin"),
    ])
    before = AnswersBefore(messages, REAL)
    kind, to_all = "ReplayedNote", ("tools", "*", "ReplayedNote")
    by_group = {("begin", "caller", kind): 1, to_all: 1}
    assert [
        {},
        by_group,
        {to_all: 1},
        {to_all: 1, ("begin", "client", kind): 1},
        {**by_group, ("begin", "caller.1", kind): 1},
    ] == [before.of(one) for one in messages if one.header.source in {"caller.1", "cli-1"}]
