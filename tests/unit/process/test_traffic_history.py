"""Traffic history: bounded in rate and bytes, counted where it misses, kept headers only."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from pbus.bus.tap import TapMessage
from pbus.bus.tap_base import BrokerTap
from pbus.codec import Envelope, Header, encode_payload
from pbus.errors import BusUnavailableError
from pbus.messages import Lane
from pbus.process.project import log_files
from pbus.process.project.history.capsule import OpenJob
from pbus.process.project.history.traffic_history import (
    KeptMessage,
    Missed,
    TrafficFile,
    has_traffic,
    read_traffic,
)
from pbus.process.project.project import Project
from pbus.process.supervisor.reports import recent_traffic, traffic_recorder
from pbus.process.supervisor.reports.recent_traffic import RecentTraffic
from pbus.process.supervisor.reports.traffic_recorder import TrafficRecorder, kept
from support.waiting import PATIENCE_S, until


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a state folder of its own."""
    found = Project("shop", tmp_path, tmp_path / "topology.yaml")
    found.state_dir = tmp_path / "state"
    return found


def message(**changes: Any) -> KeptMessage:
    """A kept message with usual values."""
    usual = {
        "time": 1.0, "id": "i", "type": "T", "source": "a", "target": "b", "size_bytes": 9,
    }  # fmt: skip
    return KeptMessage(**{**usual, **changes})


class FakeTap(BrokerTap):
    """A follower that the test brings payloads."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.refusal: Exception | None = None
        self._first = 1

    async def __aenter__(self) -> Self:
        if self.refusal is not None:
            raise self.refusal
        return self

    async def catch_up(self) -> None:
        pass

    async def pause(self) -> None:
        self.calls.append("pause")

    async def resume(self) -> None:
        self.calls.append("resume")

    async def _heartbeat(self) -> None:
        pass

    async def _disconnect(self) -> None:
        self.calls.append("left")

    def bring(self, count: int, *, lost: int = 0) -> None:
        """A payload of messages to "b", after some that did not come."""
        self._first += lost
        lines = [
            b'{"type":"BusFrameMessage","source":"a","target":"b","id":"%d","time":1.0,'
            b'"frame":{"type":"TextFrame","text":"secret"}}' % number
            for number in range(self._first, self._first + count)
        ]
        envelope = Envelope(1, "s", 1, Lane.DATA, "b", self._first, count, 0)
        self._first += count
        self._follow(encode_payload(envelope, lines))


class FakeBus:
    """A bus with workers `b`, followed by fake taps."""

    queues = None

    def __init__(self) -> None:
        self.taps: list[FakeTap] = []
        self.leases = self
        self.refusal: Exception | None = None

    def tap(self) -> FakeTap:
        tap = FakeTap()
        tap.refusal = self.refusal
        self.taps.append(tap)
        return tap


@contextlib.asynccontextmanager
async def recording(project: Project) -> Any:
    """A recorder that runs, and its tap."""
    recorder, bus = TrafficRecorder(project), FakeBus()
    task = asyncio.create_task(recorder.run(bus))  # type: ignore[arg-type]
    await until(lambda: bus.taps and bus.taps[0].quota is not None)
    try:
        yield recorder, bus.taps[0]
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_S)


class AllReached:
    """Stands for the registry: every name is known."""

    def __init__(self, _bus: object) -> None:
        pass

    def note(self, item: TapMessage) -> None:
        pass

    def knows(self, _target: str | None) -> bool:
        return True


@pytest.fixture(autouse=True)
def all_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """No registry is asked."""
    monkeypatch.setattr(traffic_recorder, "Presence", AllReached)


def entries(project: Project) -> list[KeptMessage | Missed]:
    """All that is kept."""
    return [entry.what for entry in read_traffic(project)]


def test_headers_are_kept_and_nothing_else(project: Project) -> None:
    """What passes is in the file and in memory, without its own fields."""

    async def main() -> None:
        async with recording(project) as (recorder, tap):
            tap.bring(3)
            await until(lambda: len(entries(project)) == 3)
            assert 3 == len(recorder.last_of(["b"]).received)
            assert 3 == len(recorder.last_of(["a"]).sent)
            tap.bring(2)  # and not read before the end
        assert ["left"] == tap.calls

    before = time.time()
    asyncio.run(main())
    kept_ones = entries(project)
    assert ["1", "2", "3", "4", "5"] == [
        one.id for one in kept_ones if isinstance(one, KeptMessage)
    ]
    assert {"TextFrame"} == {one.frame for one in kept_ones if isinstance(one, KeptMessage)}
    text = project.service_log_path("traffic").read_text()
    assert "secret" not in text
    after = time.time() + 0.001  # times are rounded to the millisecond
    assert all(before - 0.001 <= entry.at <= after for entry in read_traffic(project))


def test_no_more_than_the_quota_is_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood is cut at the quota, and the follower leaves for a while; all that passed is counted."""
    monkeypatch.setattr(traffic_recorder, "BURST", 10)
    monkeypatch.setattr(traffic_recorder, "RATE", 50)
    monkeypatch.setattr(traffic_recorder, "_TICK_S", 0.01)
    monkeypatch.setattr(traffic_recorder, "_QUIET_TICK_S", 0.01)
    monkeypatch.setattr(traffic_recorder, "_PAUSE_S", 0.03)

    async def main() -> None:
        async with recording(project) as (_, tap):
            tap.bring(25)
            await until(lambda: "resume" in tap.calls)
            tap.bring(1, lost=100)  # passed while it was away
            await until(lambda: sum(isinstance(one, KeptMessage) for one in entries(project)) > 10)
        assert ["pause", "resume", "left"] == tap.calls

    asyncio.run(main())
    found = entries(project)
    assert [*map(str, range(1, 11)), "126"] == [
        one.id for one in found if isinstance(one, KeptMessage)
    ]
    assert 115 == sum(one.count for one in found if isinstance(one, Missed))


def test_quota_is_refilled_up_to_a_burst(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow stream is never cut, and a quiet time saves no more than a burst."""
    monkeypatch.setattr(traffic_recorder, "BURST", 5)
    monkeypatch.setattr(traffic_recorder, "RATE", 2_000)
    monkeypatch.setattr(traffic_recorder, "_TICK_S", 0.001)
    monkeypatch.setattr(traffic_recorder, "_QUIET_TICK_S", 0.001)

    async def main() -> None:
        async with recording(project) as (_, tap):
            for _ in range(10):
                tap.bring(4)
                await until(lambda: tap.quota == 5)
            assert [] == tap.calls

    asyncio.run(main())
    assert 40 == len(entries(project))


def test_channel_that_cannot_be_followed_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker that refuses is a warning, and asked again later."""
    monkeypatch.setattr(traffic_recorder, "_AGAIN_S", 0.0)
    bus, recorder = FakeBus(), TrafficRecorder(project)
    bus.refusal = BusUnavailableError("redis://x", "no permission")
    for _ in range(2):
        asyncio.run(recorder.run(bus))  # type: ignore[arg-type]
    assert 2 == len(bus.taps)
    assert 1 == caplog.text.count("the traffic is not kept for now: ")
    assert not has_traffic(project)


def test_recorder_that_is_off_does_nothing(project: Project) -> None:
    """No task, and nothing about a worker."""
    recorder = TrafficRecorder(project, is_on=False)
    assert {} == recorder.tasks(FakeBus())  # type: ignore[arg-type]
    assert recorder.last_of(["a"]) is None
    assert ["traffic history"] == [*TrafficRecorder(project).tasks(FakeBus())]  # type: ignore[arg-type]


def test_history_is_bounded_in_bytes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest falls with its file; what is left is whole and in order."""
    monkeypatch.setattr(log_files.LogFile.__init__, "__kwdefaults__", {"max_bytes": 2_000})
    file = TrafficFile(project)
    for number in range(200):
        file.add(1_000.0 + number, message(id=str(number)))
    file.close()
    paths = list(project.service_log_path("traffic").parent.glob("traffic.log*"))
    assert 3 == len(paths)
    assert sum(path.stat().st_size for path in paths) <= 6_000
    numbers = [int(one.id) for one in entries(project) if isinstance(one, KeptMessage)]
    assert [*range(numbers[0], 200)] == numbers
    assert len(numbers) > 20


def test_damaged_lines_are_counted_and_left_out(project: Project) -> None:
    """Foreign lines, other streams, cut ones, and values of other kinds."""
    file = TrafficFile(project)
    file.add(1.0, message())
    file.add(2.0, Missed(7))
    file.close()
    path = project.service_log_path("traffic")
    stamp = b"2026-11-28T05:00:00.000Z "
    good = path.read_bytes()
    bad = [
        b"foreign", b"\xff\xfe", stamp + b"message {", stamp + b'message {"time":"x"}',
        stamp + b"missed {}", stamp + b'other {"count":1}', stamp + b"missed " + b"[" * 5_000,
    ]  # fmt: skip
    path.write_bytes(b"\n".join(bad) + b"\n" + good)
    damaged: list[None] = []
    found = [entry.what for entry in read_traffic(project, lambda: damaged.append(None))]
    assert [message(), Missed(7)] == found
    assert len(bad) == len(damaged)


def item(**changes: Any) -> TapMessage:
    """A message that a tap saw."""
    header = {"type": "T", "source": "a", "target": "b", "id": "i", "time": 1.0}
    body = changes.pop("body", b"{}")
    lane = changes.pop("lane", "d")
    return TapMessage(header=Header(**{**header, **changes}), body=body, lane=lane)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (item(), {}),
        (item(lane="s"), {"is_urgent": True}),
        (item(target=None, key="k"), {"target": None, "key": "k"}),
        (item(type="x" * 999, source="s" * 999), {"type": "x" * 256, "source": "s" * 256}),
        (item(target="t" * 999), {"target": "t" * 256}),
        (item(body=b'{"job_id":"j"}'), {}),  # of a type that is none of jobs
        (
            item(type="BusJobRequestMessage", body=b'{"job_id":"j1","job_name":"n","x":[1]}'),
            {"job_id": "j1", "job_name": "n"},
        ),
        (
            item(type="BusJobResponseMessage", body=b'{"job_id":"j1","status":"failed"}'),
            {"job_id": "j1", "status": "failed"},
        ),
        (item(type="BusJobResponseMessage", body=b'{"job_id":7}'), {}),
        (item(type="BusJobResponseMessage", body=b"\xff"), {}),
        (item(type="BusJobCancelMessage", body=b'{"job_id":"%s"}' % (b"j" * 999)), {"job_id": "j" * 256}),
        (item(type="BusFrameMessage", body=b'{"frame":{"type":"F","audio":"AAAA"}}'), {"frame": "F"}),
        (item(type="BusFrameMessage", body=b'{"frame":7}'), {}),
        (item(type="BusFrameMessage", body=b'{"frame":{"type":"F"}}' + b" " * 70_000), {}),
    ],
)  # fmt: skip
def test_what_is_kept_of_a_message(seen: TapMessage, expected: dict[str, Any]) -> None:
    """Its header, cut to a bound, and the ids that a conversation is found by."""
    found = msgspec.structs.asdict(kept(seen, is_reached=True))
    usual = {"type": seen.header.type, "target": seen.header.target, "size_bytes": seen.size}
    assert msgspec.structs.asdict(message(**{**usual, **expected})) == found


def test_undelivered_is_kept() -> None:
    """A message that reached no process is told from others."""
    assert not kept(item(), is_reached=False).is_reached


def test_last_messages_of_a_worker() -> None:
    """Those to it, to its group and to everyone, by time; the newest 20."""
    recent = RecentTraffic()
    for number in range(30):
        recent.add(message(id=f"own{number}", time=float(number), source="c", target="x.1"))
    recent.add(message(id="group", time=100.0, source="c", target="x"))
    recent.add(message(id="all", time=50.0, source="c", target=None))
    recent.add(message(id="other", time=101.0, source="c", target="x.2"))
    recent.add(message(id="sent", time=102.0, source="x.1", target="c"))
    found = recent.of(["x.1"])
    assert [*(f"own{n}" for n in range(12, 30)), "all", "group"] == [
        one.id for one in found.received
    ]
    assert ["sent"] == [one.id for one in found.sent]
    assert {"all"} == {one.id for one in recent.of(["z"]).received}


def test_names_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was silent for longest is forgotten."""
    monkeypatch.setattr(recent_traffic, "_MAX_NAMES", 3)
    recent = RecentTraffic()
    for name in ("a", "b", "c", "a", "d"):
        recent.add(message(source=name, target=name))
    assert [True, False, True, True] == [bool(recent.of([name]).sent) for name in "abcd"]


def test_open_jobs_of_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is open from its request to its answer, end of stream or cancel; the oldest fall."""
    monkeypatch.setattr(recent_traffic, "_MAX_JOBS", 4)
    recent = RecentTraffic()

    def job(kind: str, number: int) -> None:
        source, target = ("c", "w") if kind in {"Request", "Cancel"} else ("w", "c")
        recent.add(
            message(
                type=f"BusJob{kind}Message", source=source, target=target, job_id=f"j{number}",
                time=float(number),
            )
        )  # fmt: skip

    for number in range(6):
        job("Request", number)
    job("Update", 3)
    job("Response", 3)
    job("Cancel", 4)
    request = {"requester": "c", "worker": "w", "message_id": message().id}
    open_ones = (
        OpenJob(job_id="j2", since=2.0, **request),
        OpenJob(job_id="j5", since=5.0, **request),
    )
    assert () == recent.of(["z"]).jobs
    assert open_ones == recent.of(["c"]).jobs
    assert open_ones == recent.of(["w"]).jobs
    assert () == recent.of(["w"]).jobs  # they ended with it: its next end is without them


def test_members_of_a_group_have_jobs_of_their_own() -> None:
    """They share the id; the answer of one leaves that of the other open."""
    recent = RecentTraffic()
    for worker in ("w", "v"):
        recent.add(message(type="BusJobRequestMessage", source="c", target=worker, job_id="j"))
    recent.add(message(type="BusJobResponseMessage", source="w", target="c", job_id="j"))
    assert ["v"] == [job.worker for job in recent.of(["c"]).jobs]
    recent.add(message(type="BusJobCancelMessage", source="c", target="v", job_id="j"))
    assert () == recent.of(["c"]).jobs


def test_answer_may_pass_before_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the job was never open; the id is forgotten with it, and the oldest ids fall."""
    monkeypatch.setattr(recent_traffic, "_MAX_JOBS", 2)
    recent = RecentTraffic()

    def job(kind: str, job_id: str) -> None:
        source, target = ("c", "w") if kind == "Request" else ("w.1", "c")
        recent.add(
            message(type=f"BusJob{kind}Message", source=source, target=target, job_id=job_id)
        )

    job("Response", "j0")
    job("Request", "j0")
    assert () == recent.of(["c"]).jobs
    job("Request", "j0")
    assert ["j0"] == [job.job_id for job in recent.of(["c"]).jobs]
    for number in range(1, 4):
        job("Response", f"j{number}")
    job("Request", "j1")
    assert ["j0", "j1"] == [job.job_id for job in recent.of(["c"]).jobs]


def test_jobs_of_a_capsule_are_bounded() -> None:
    """The newest of them: a capsule has a limit in bytes, and would lose its messages, too."""
    recent = RecentTraffic()
    for number in range(150):
        recent.add(message(type="BusJobRequestMessage", target="w", job_id=f"j{number}"))
    assert [f"j{number}" for number in range(50, 150)] == [
        job.job_id for job in recent.of(["w"]).jobs
    ]


def test_capsule_has_what_was_not_read_yet(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message that ended a worker is among its last ones, also while the registry is asked."""
    asked = asyncio.Event()

    class Asking(AllReached):
        def knows(self, _target: str | None) -> bool:
            return False

        async def reaches(self, _target: str | None) -> bool:
            asked.set()
            await asyncio.sleep(PATIENCE_S)
            return True

    monkeypatch.setattr(traffic_recorder, "Presence", Asking)

    async def main() -> None:
        async with recording(project) as (recorder, tap):
            tap.bring(1)
            await asked.wait()
            tap.bring(2)
            assert ["1", "2", "3"] == [one.id for one in recorder.last_of(["b"]).received]

    asyncio.run(main())
    assert {"1", "2", "3"} == {one.id for one in entries(project) if isinstance(one, KeptMessage)}


def test_undelivered_is_told_by_the_registry(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that is not there is asked for, and the answer is kept."""

    class Nowhere(AllReached):
        def knows(self, _target: str | None) -> bool:
            return False

        async def reaches(self, _target: str | None) -> bool:
            return False

    monkeypatch.setattr(traffic_recorder, "Presence", Nowhere)

    async def main() -> None:
        async with recording(project) as (_, tap):
            tap.bring(2)
            await until(lambda: len(entries(project)) == 2)

    asyncio.run(main())
    assert {False} == {one.is_reached for one in entries(project) if isinstance(one, KeptMessage)}
