"""Messages of the past: chosen as those that pass, with the count of what was missed before each."""

from pathlib import Path
from typing import Any

import pytest

from pbus.client.sequences.sequence_collector import SequenceCollector
from pbus.client.traffic.kept_traffic import PastMessage, read_past, read_states
from pbus.client.traffic.message_filter import Filter, TailTerms, filter_of
from pbus.client.traffic.message_tail import message_fields
from pbus.messages import BusWorkerStateMessage
from pbus.process.project.history.run_history import RunHistory
from pbus.process.project.history.traffic_history import KeptMessage, Missed, TrafficFile
from pbus.process.project.project import Project

TRACE = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a history."""
    found = Project("shop", tmp_path, tmp_path / "topology.yaml")
    found.state_dir = tmp_path / "state"
    file = TrafficFile(found)

    def add(at: float, **changes: Any) -> None:
        usual: dict[str, Any] = {
            "time": at - 0.5, "id": f"m{at:g}", "type": "BusTextMessage", "source": "a", "target": "b",
            "size_bytes": 100,
        }  # fmt: skip
        file.add(at, KeptMessage(**{**usual, **changes}))

    add(1.0)
    file.add(2.0, Missed(5))
    add(3.0, source="b.2", target=None, is_urgent=True)
    add(4.0, type="BusJobRequestMessage", job_id="j1~2", key="k")
    file.add(5.0, Missed(2))
    file.add(6.0, Missed(3))
    add(7.0, type="BusFrameMessage", frame="TextFrame", is_reached=False)
    add(8.0, traceparent=f"00-{TRACE}-0123456789abcdef-01", is_local=True)
    file.add(9.0, Missed(4))
    file.close()
    return found


def ids(project: Project, **terms: Any) -> list[str]:
    """The ids of the messages that meet some conditions."""
    given: TailTerms = terms  # type: ignore[assignment]
    past = read_past(project, filter_of(given))
    return [one.message.id for one in past if one.message is not None]


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({}, ["m1", "m3", "m4", "m7", "m8"]),
        ({"source": "b"}, ["m3"]),
        ({"target": "*"}, ["m1", "m3", "m4", "m7", "m8"]),
        ({"target": "b"}, ["m1", "m4", "m7", "m8"]),
        ({"type": "JobRequest"}, ["m4"]),
        ({"type": "TextFrame"}, ["m7"]),
        ({"category": "system"}, ["m3"]),
        ({"key": "k"}, ["m4"]),
        ({"job": "j1"}, ["m4"]),
        ({"trace": TRACE}, ["m8"]),
        ({"pattern": '"source":"b'}, ["m3"]),
        ({"exclude": "Frame"}, ["m1", "m3", "m4", "m8"]),
        ({"match": "undelivered"}, ["m7"]),
        ({"match": "size_bytes > `100`"}, []),
        ({"sample": 2}, ["m1", "m4", "m8"]),
    ],
)
def test_conditions_are_those_of_tail(
    project: Project, terms: dict[str, Any], expected: list[str]
) -> None:
    """Each condition that does not need the messages' own fields."""
    assert expected == ids(project, **terms)


def test_missed_ones_are_counted_between(project: Project) -> None:
    """Each message has the number of those that passed unseen before it; the end has the rest."""
    past = list(read_past(project, Filter()))
    assert [(1.0, 0), (3.0, 5), (4.0, 0), (7.0, 5), (8.0, 0), (9.0, 4)] == [
        (one.at, one.missed) for one in past
    ]
    assert past[-1] == PastMessage(9.0, 4, None)
    chosen = list(read_past(project, filter_of({"type": "TextFrame"})))
    assert [(7.0, 10), (9.0, 4)] == [(one.at, one.missed) for one in chosen]


def test_times_choose_messages_and_what_was_missed(project: Project) -> None:
    """Nothing from outside of the chosen time counts."""
    past = list(read_past(project, Filter(), lambda at: 2.5 <= at < 5.5))
    assert [(3.0, 0), (4.0, 0), (5.0, 2)] == [(one.at, one.missed) for one in past]


def test_messages_are_headers(project: Project) -> None:
    """They have their size and time, and say that they have no body."""
    found = {one.message.id: one.message for one in read_past(project, Filter()) if one.message}
    assert {100} == {one.size_bytes for one in found.values()}
    assert not any(one.has_body for one in found.values())
    assert all("data" not in message_fields(one) for one in found.values())
    assert (0.5, "job", "k") == (found["m1"].time, found["m4"].category, found["m4"].key)
    assert [False, True, TRACE] == [
        found["m7"].is_reached, found["m8"].is_local, found["m8"].trace_id,
    ]  # fmt: skip
    assert found["m3"].is_urgent


def test_sequence_of_the_past(project: Project) -> None:
    """Requests have the names of their jobs, answers their status; ends of workers are between them."""
    file = TrafficFile(project)
    for at, kind, own in (
        (20.0, "Request", {"job_name": "look"}),
        (24.0, "Response", {"status": "completed", "source": "b", "target": "a"}),
    ):
        usual: dict[str, Any] = {"source": "a", "target": "b"}
        file.add(
            at,
            KeptMessage(
                time=at, id=kind, type=f"BusJob{kind}Message", size_bytes=1, job_id="j9",
                **{**usual, **own},
            ),
        )  # fmt: skip
    file.close()
    history = RunHistory(project, "s")
    for at, state in ((21.0, "backoff"), (22.0, "starting")):
        history.add_event(
            BusWorkerStateMessage(
                source="supervisor-x", time=at, project="shop", worker="b", state=state, pid=7,
                detail="was killed",
            )
        )  # fmt: skip
    history.close()

    collector = SequenceCollector(filter_of({"job": "j9"}))
    for one in read_past(project, Filter()):
        if one.message is not None:
            collector.add(one.message)
    for change in read_states(project):
        collector.add(change)
    shown = [getattr(step, "label", None) or step.state for step in collector.diagram().steps]  # type: ignore[union-attr]
    assert ["look()", "backoff", "starting", "completed"] == shown
