"""Whose messages of a recording are sent, and whose answers are compared."""

import msgspec
import pytest

from pbus.client.recordings.job_script import JobScript
from pbus.client.recordings.recording import RecordedMessage, Recording, RecordingHead
from pbus.client.recordings.replay_plan import planned, roles_of, said_message, said_messages
from pbus.errors import ReplayError
from pbus.messages import (
    BusEndMessage,
    BusJobCreditMessage,
    BusJobUpdateMessage,
    BusWorkerStateMessage,
)
from support.recordings import note, recorded, request, response


def said(*messages):
    head = RecordingHead(project="p", began=0.0)
    return said_messages(Recording(head=head, messages=tuple(map(recorded, messages))))


TALK = [
    note(1.0, "cli-1", "begin", "from a client"),
    note(2.0, "begin", "middle"),
    request(3.0, "middle", "tools", "j1", {"n": 1}),
    response(4.0, "tools", "middle", "j1", n=1),
    note(5.0, "middle", "begin"),
    note(6.0, "mic", "stt.1"),
    note(7.0, "stt.1", None),
    BusJobCreditMessage(source="middle", target="tools", job_id="j1", position=1, time=8.0),
    BusEndMessage(source="cli-1", time=9.0),
    BusWorkerStateMessage(source="supervisor-1", project="p", worker="a", state="ready", time=9.0),
]
RUNNING = ["begin", "middle", "tools", "stt.1", "stt.2"]


def sent(messages, running=RUNNING, only=None, stand_ins=()):
    roles = roles_of(messages, running, only=only, stand_ins=stand_ins)
    return roles, [one.header.time for one in planned(messages, roles, only=only)]


def test_messages_of_clients_are_sent():
    """All workers that run answer for themselves; what would end the project is never sent."""
    roles, times = sent(said(*TALK))
    assert ([1.0], (), ("cli-1",), ("mic",)) == (
        times, roles.stand_ins, roles.clients, roles.absent
    )  # fmt: skip
    assert {"begin", "middle", "tools", "stt.1", "mic"} == roles.real


def test_stand_ins_send_their_messages():
    """And answer jobs when they are asked, not at a time; groups stand for their replicas."""
    messages = said(*TALK)
    roles, times = sent(messages, stand_ins=["mic"])
    assert ([1.0, 6.0], ("mic",), ()) == (times, roles.stand_ins, roles.absent)
    roles, times = sent(messages, ["begin", "middle", "stt.1"], stand_ins=["tools"])
    assert ([1.0], ("tools",)) == (times, roles.stand_ins)
    assert "tools" not in roles.real
    roles, times = sent(messages, ["begin"], stand_ins=["stt"])
    assert ([1.0, 7.0], ("stt.1",)) == (times, roles.stand_ins)


def test_only_one_worker_is_fed():
    """In the place of all that do not run: what it was sent, broadcasts included; its own are compared."""
    messages = said(*TALK)
    roles, times = sent(messages, ["middle"], only="middle")
    assert [2.0, 7.0] == times
    assert {"begin", "tools", "mic", "stt.1"} == set(roles.stand_ins)
    assert {"middle"} == roles.real
    roles, times = sent(messages, RUNNING, only="middle")
    assert ([], ("mic",)) == (times, roles.stand_ins)


@pytest.mark.parametrize(
    ("only", "stand_ins", "problem"),
    [
        (None, ["nome"], "'nome'"),
        ("nome", [], "'nome'"),
        ("mic", [], "'mic' does not run"),
        (None, ["mic", "tools"], "'tools' runs"),
    ],
)
def test_unknown_worker_is_told(only: str | None, stand_ins: list[str], problem: str):
    with pytest.raises(ReplayError, match=problem):
        sent(said(*TALK), only=only, stand_ins=stand_ins)


def test_nothing_to_send_is_told():
    """A recording without clients needs a stand-in."""
    with pytest.raises(ReplayError, match="no message was sent"):
        sent(said(*TALK[1:]))


def test_copies_and_damage_are_left_out():
    """Copies stayed in their process; what is no object has no fields."""
    assert said_message(recorded(note(1.0, "a", "b"), local=True)) is None
    for body in (b"[]", b"{}", b'{"type":"X","source":"a","x":1e999}'):
        one = RecordedMessage(at=1.0, lane="d", message=msgspec.Raw(body))
        found = said_message(one)
        assert found is None or found.fields["type"] == "X"


def test_order_is_by_time():
    """The order of arrival is not kept between processes."""
    assert [1.0, 2.0] == [one.header.time for one in said(note(2.0, "a", "b"), note(1.0, "b", "a"))]


def test_script_finds_the_job_that_is_like_a_request():
    """By requester, name and payload; else the next of that name; each once."""
    update = BusJobUpdateMessage(source="tools", target="middle", job_id="j2", time=3.5)
    script = JobScript(
        said(
            request(1.0, "middle", "tools", "j1", {"n": 1}),
            request(2.0, "middle", "tools", "j2", {"n": 2}),
            request(2.5, "other", "tools", "j3", {"n": 1}),
            update,
            response(4.0, "tools", "middle", "j2", n=2),
            response(4.5, "tools", "middle", "j1", n=1),
            response(5.0, "tools", "other", "j3", n=3),
            response(5.5, "tools", "other", "unasked"),
            request(6.0, "middle", "else", "j5"),
            response(6.5, "else", "middle", "j5"),
        ),
        ["tools"],
    )
    one = script.take("tools", "middle", "look", {"n": 1})
    assert ([4.5], True) == ([said.header.time for said in one.answers], one.is_answered)
    two = script.take("tools", "middle", "look", {"n": 77})
    assert [3.5, 4.0] == [said.header.time for said in two.answers]
    assert script.take("tools", "middle", "look", {"n": 1}) is None
    assert script.take("tools", "other", "other", {"n": 1}) is None
    assert script.take("else", "middle", "look", None) is None
    assert 5.0 == script.take("tools", "other", "look", {"n": 1}).answers[0].header.time
