"""From the results of processes to the row of a table."""

import asyncio

import pytest

from pbus.bench.bench_messages import BenchMessage
from pbus.bench.cases.one_way import Run, ThroughputCase, case_row, paced
from pbus.bench.meter import Meter, wait_complete_or_idle
from pbus.bench.processes.roles import ReceiveResult, SendResult
from pbus.bench.results import Percentiles
from pbus.testing import FakeClock


def received(
    *, expected: int = 100, count: int = 100, first: float = 1.0, last: float = 2.0
) -> ReceiveResult:
    """What a receiver answers."""
    return ReceiveResult(
        expected=expected,
        count=count,
        first=first,
        last=last,
        cpu_s=0.001,
        misordered=0,
        delays=Percentiles(p50_ms=1.0, p90_ms=2.0, p99_ms=last),
    )


def sent(count: int = 100) -> SendResult:
    """What a sender answers."""
    return SendResult(count=count, seconds=1.0, cpu_s=0.002)


def test_rate_spans_all_receivers() -> None:
    """All that was handled, from the first message anywhere to the last anywhere."""
    case = ThroughputCase(name="fanout", count=200, size=500_000, receivers=2)
    run = Run(sent=sent(200), received=[received(first=1.0, last=3.0), received(last=5.0)])
    row = case_row(case, "pbus", [run])

    assert (200, 50.0, 25.0) == (row.count, row.messages_per_s, row.megabytes_per_s)
    assert 5.0 == row.p99_ms  # of the slowest


def test_rounds_are_summed_up() -> None:
    """A slow round weighs as long as it took."""
    case = ThroughputCase(name="throughput", count=100, size=256)
    runs = [Run(sent=sent(), received=[received(last=last)]) for last in (2.0, 4.0)]
    row = case_row(case, "pbus", runs)

    assert (200, 50.0) == (row.count, row.messages_per_s)
    assert 20.0 == pytest.approx(row.sender_cpu_us)
    assert 10.0 == pytest.approx(row.receiver_cpu_us)


def test_missing_messages_are_lost() -> None:
    """What a receiver expected and did not get is in the table, even if nothing came."""
    case = ThroughputCase(name="stall", count=100, size=256)
    row = case_row(case, "pbus", [Run(sent=sent(), received=[received(count=0)])])

    assert (0, 100, None) == (row.count, row.lost, row.messages_per_s)


@pytest.mark.parametrize(("is_broadcast", "share"), [(False, 25), (True, 100)])
def test_broadcast_reaches_everyone(is_broadcast: bool, share: int) -> None:
    """In turn each receiver gets its share, a broadcast gives all of it to each."""
    case = ThroughputCase(name="x", count=100, size=1, receivers=4, is_broadcast=is_broadcast)

    assert share == case.share


class SilentPipe:
    """A pipe without orders, or with one once the sender is done."""

    def __init__(self, is_done: bool) -> None:
        self.is_done = is_done

    async def receive(self) -> bytes:
        if not self.is_done:
            await asyncio.Event().wait()
        return b"go"


def test_meter_ends_with_last_message() -> None:
    """The time runs from the first message to the last; order is watched."""

    async def main() -> ReceiveResult:
        meter = Meter(4)
        for number in (0, 2, 1, 3):
            meter.record(number)
        return await meter.result(SilentPipe(is_done=False))

    found = asyncio.run(main())
    assert (4, 4, 1) == (found.expected, found.count, found.misordered)
    assert found.last >= found.first


def test_copies_hide_no_loss() -> None:
    """A message that comes again is counted apart: it does not stand in for a lost one."""

    async def main() -> ReceiveResult:
        meter = Meter(3)
        for number in (0, 1, 1, 0, 2):
            meter.record(number)
        return await meter.result(SilentPipe(is_done=False))

    found = asyncio.run(main())
    assert (3, 2, 0) == (found.count, found.duplicates, found.misordered)


def test_meter_gives_up_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the sender is done and nothing more comes, the rest is lost."""
    monkeypatch.setattr("pbus.bench.meter.IDLE_S", 0.01)

    async def main() -> ReceiveResult:
        meter = Meter(4)
        meter.record(0)
        return await meter.result(SilentPipe(is_done=True))

    found = asyncio.run(main())
    assert (4, 1) == (found.expected, found.count)


def test_meter_outlasts_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that sleeps on purpose has lost nothing yet, though the sender is done."""
    monkeypatch.setattr("pbus.bench.meter.IDLE_S", 0.0)

    async def main() -> ReceiveResult:
        meter = Meter(1, pause_s=5.0)
        asyncio.get_running_loop().call_later(0.05, meter.record, 0)
        return await meter.result(SilentPipe(is_done=True))

    assert 1 == asyncio.run(main()).count


def test_waiting_goes_on_while_messages_come() -> None:
    """A slow receiver is not cut off as long as it gets on."""
    looks = iter([1, 2, 3, 3])
    seen: list[int] = []

    def count() -> int:
        seen.append(next(looks, 3))
        return seen[-1]

    asyncio.run(wait_complete_or_idle(SilentPipe(is_done=True), asyncio.Event(), count, 0.01))
    assert 3 == seen[-1]
    assert len(seen) > 4


@pytest.mark.parametrize(("rate", "seconds"), [(1_000, 0.25), (20_000, 0.01), (0, 0.0)])
def test_a_paced_sender_keeps_its_rate(rate: int, seconds: float) -> None:
    """Within a step of 5 ms, by a clock of the test; without a rate it never waits."""
    sent: list[float] = []

    async def send(message: object) -> None:
        sent.append(asyncio.get_running_loop().time())

    async def main() -> None:
        send_in_time = paced(send, rate)
        for _ in range(250):
            await send_in_time(BenchMessage(source="a", number=1, text=""))

    FakeClock().run(main())
    assert 250 == len(sent)
    assert abs(sent[-1] - sent[0] - seconds) <= 0.006
    if rate:
        late = [at - sent[0] - number / rate for number, at in enumerate(sent)]
        assert -0.0051 <= min(late) <= max(late) <= 0.001


def test_a_follower_shows_one_of_ten() -> None:
    """The meter counts those that a follower shows, of what came."""

    async def main() -> tuple[int, int]:
        meter = Meter(35)
        for number in (0, 3, 10, 10, 20, 34):
            meter.record(number)
        result = await meter.result(SilentPipe(is_done=True))
        return result.count, result.chosen

    assert (5, 3) == FakeClock().run(main())
