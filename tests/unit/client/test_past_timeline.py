"""What is kept, in the order of time: pairs of headers, log lines and state changes among messages."""

from pathlib import Path
from typing import Any

import pytest

from pbus.client.traffic.message_filter import TailTerms, filter_of
from pbus.client.traffic.message_tail import TailMessage
from pbus.client.traffic.tails.message_pairs import MessagePair
from pbus.client.traffic.tails.past_timeline import PastEntry, PastTimeline
from pbus.messages import BusWorkerStateMessage
from pbus.process.project.history.run_history import RunHistory, StateEvent
from pbus.process.project.history.traffic_history import KeptMessage, Missed, TrafficFile
from pbus.process.project.log_files import LogFile, LogLine
from pbus.process.project.project import Project

ROOT = f"00-{'ab' * 16}-{{}}-01"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One with a history of everything."""
    found = Project("shop", tmp_path, tmp_path / "topology.yaml")
    found.state_dir = tmp_path / "state"
    traffic, history = TrafficFile(found), RunHistory(found, "s1")

    def add(at: float, kind: str, source: str, target: str, **changes: Any) -> None:
        message = KeptMessage(
            time=at - 0.25, id=f"m{at:g}", type=kind, source=source, target=target, size_bytes=9,
            **changes,
        )  # fmt: skip
        traffic.add(at, message)

    add(1.0, "BusJobRequestMessage", "a", "stt", job_id="j1", job_name="hear")
    add(2.0, "BusJobRequestMessage", "a", "tts", job_id="j2", job_name="say")
    traffic.add(2.5, Missed(3))
    add(3.0, "BusTextMessage", "a", "b")
    add(4.0, "BusJobResponseMessage", "stt.2", "a", job_id="j1", status="failed")
    traffic.add(5.0, Missed(4))
    traffic.close()
    state = BusWorkerStateMessage(
        source="supervisor", project="shop", worker="stt.2", state="backoff", previous="ready",
        detail="exit 3", time=3.5,
    )  # fmt: skip
    history.add_event(state)
    history.add_event(BusWorkerStateMessage(**{**_fields(state), "worker": "tts", "time": 3.6}))
    history.close()
    for worker, at in (("stt.2", 3.25), ("tts", 4.5)):
        log = LogFile(found.log_path(worker))
        log.write(at, "out", f"{worker} says day {at:g}")
        log.close()
    return found


def _fields(state: BusWorkerStateMessage) -> dict[str, Any]:
    names = ("source", "project", "worker", "state", "previous", "detail", "time")
    return {name: getattr(state, name) for name in names}


def told(project: Project, *kinds: str, until: float = 99.0, **terms: Any) -> list[PastEntry]:
    """What is told of a project."""
    given: TailTerms = terms  # type: ignore[assignment]
    timeline = PastTimeline(
        project, filter_of(given), lambda at: at < until, lambda: None, frozenset(kinds)
    )
    return list(timeline)


def shown(entry: PastEntry) -> str:
    """An entry in short."""
    what = entry.entry
    if isinstance(what, MessagePair):
        return f"{what.request.id}-{what.answer.id if what.answer else None} {what.status}"
    if isinstance(what, TailMessage):
        return what.id
    if isinstance(what, LogLine):
        return f"log {what.worker}"
    return f"{what.state} {what.worker}" if isinstance(what, StateEvent) else "none"


def test_everything_in_the_order_of_time(project: Project):
    """Messages as of read_past, lines and changes between them, what was missed before each."""
    found = told(project, "logs", "events")
    assert [
        "m1", "m2", "m3", "log stt.2", "backoff stt.2", "backoff tts", "m4", "log tts", "none",
    ] == [shown(one) for one in found]  # fmt: skip
    assert [0, 0, 3, 0, 0, 0, 0, 0, 4] == [one.missed for one in found]
    assert sorted(one.at for one in found) == [one.at for one in found]


def test_pairs_come_with_their_answers(project: Project):
    """A group was asked, its replica answers; a job without an answer is last; others are none."""
    found = told(project, "pairs")
    assert ["m1-m4 failed", "m2-None None"] == [shown(one) for one in found]
    (first, last) = (one.entry for one in found)
    assert isinstance(first, MessagePair)
    assert first.seconds == pytest.approx(3.0)
    assert isinstance(last, MessagePair)
    assert None is last.seconds
    assert [3, 4] == [one.missed for one in found]


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"source": "stt"}, ["m1-m4 failed", "log stt.2", "backoff stt.2"]),
        ({"target": "tts"}, ["m2-None None", "log tts", "backoff tts"]),
        ({"match": "seconds > `1`"}, ["m1-m4 failed"]),
        ({"match": "status == null"}, ["m2-None None"]),
        ({"exclude": "tts"}, ["m1-m4 failed"]),
        ({"job": "j2"}, ["m2-None None"]),
        ({"pattern": "4.5"}, ["log tts"]),
        ({"pattern": "exit"}, ["backoff stt.2", "backoff tts"]),
        ({"source": "nothing"}, []),
    ],
)
def test_conditions_choose_as_of_what_passes_now(
    project: Project, terms: dict[str, Any], expected: list[str]
):
    """Names choose pairs by either of the two, and the workers of lines and changes."""
    found = [shown(one) for one in told(project, "pairs", "logs", "events", **terms)]
    names_only = not {"source", "target", "pattern"} & terms.keys()
    kept = [one for one in found if not (names_only and one.startswith(("log", "backoff")))]
    assert sorted(expected) == sorted(one for one in kept if one != "none")


def test_times_choose_all_kinds(project: Project):
    """What was seen later is left out; the request is without its answer then."""
    found = [shown(one) for one in told(project, "pairs", "logs", "events", until=3.3)]
    assert ["log stt.2", "m1-None None", "m2-None None"] == sorted(found)
