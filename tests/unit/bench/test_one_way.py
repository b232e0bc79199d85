"""From what players answer to the row of a table."""

import asyncio

import pytest

from pbus.bench.cases.one_way import Run, ThroughputCase, flow_row
from pbus.bench.meter import Meter, all_or_quiet
from pbus.bench.processes.roles import Received, Sent
from pbus.bench.results import Percentiles


def received(
    *, expected: int = 100, count: int = 100, first: float = 1.0, last: float = 2.0
) -> Received:
    """What a receiver answers."""
    return Received(
        expected=expected,
        count=count,
        first=first,
        last=last,
        cpu_s=0.001,
        misordered=0,
        delays=Percentiles(p50_ms=1.0, p90_ms=2.0, p99_ms=last),
    )


def sent(count: int = 100) -> Sent:
    """What a sender answers."""
    return Sent(count=count, seconds=1.0, cpu_s=0.002)


def test_rate_spans_all_receivers() -> None:
    """All that was handled, from the first message anywhere to the last anywhere."""
    flow = ThroughputCase(name="fanout", count=200, size=500_000, receivers=2)
    run = Run(sent=sent(200), received=[received(first=1.0, last=3.0), received(last=5.0)])
    row = flow_row(flow, "pbus", [run])

    assert (200, 50.0, 25.0) == (row.count, row.messages_per_s, row.megabytes_per_s)
    assert 5.0 == row.p99_ms  # of the slowest


def test_rounds_are_summed_up() -> None:
    """A slow round weighs as long as it took."""
    flow = ThroughputCase(name="throughput", count=100, size=256)
    runs = [Run(sent=sent(), received=[received(last=last)]) for last in (2.0, 4.0)]
    row = flow_row(flow, "pbus", runs)

    assert (200, 50.0) == (row.count, row.messages_per_s)
    assert 20.0 == pytest.approx(row.sender_cpu_us)
    assert 10.0 == pytest.approx(row.receiver_cpu_us)


def test_missing_messages_are_lost() -> None:
    """What a receiver expected and did not get is in the table, even if nothing came."""
    flow = ThroughputCase(name="stall", count=100, size=256)
    row = flow_row(flow, "pbus", [Run(sent=sent(), received=[received(count=0)])])

    assert (0, 100, None) == (row.count, row.lost, row.messages_per_s)


@pytest.mark.parametrize(("is_broadcast", "share"), [(False, 25), (True, 100)])
def test_broadcast_reaches_everyone(is_broadcast: bool, share: int) -> None:
    """In turn each receiver gets its part, a broadcast gives all of it to each."""
    flow = ThroughputCase(name="x", count=100, size=1, receivers=4, is_broadcast=is_broadcast)

    assert share == flow.share


class SilentCues:
    """A stage that says nothing, or says that the sender is done."""

    def __init__(self, is_done: bool) -> None:
        self.is_done = is_done

    async def next(self) -> bytes:
        if not self.is_done:
            await asyncio.Event().wait()
        return b"go"


def test_meter_ends_with_last_message() -> None:
    """The time runs from the first message to the last; order is watched."""

    async def main() -> Received:
        meter = Meter(4)
        for number in (0, 2, 1, 3):
            meter.note(number)
        return await meter.finished(SilentCues(is_done=False))

    found = asyncio.run(main())
    assert (4, 4, 1) == (found.expected, found.count, found.misordered)
    assert found.last >= found.first


def test_copies_hide_no_loss() -> None:
    """A message that comes again is counted apart: it does not stand in for a lost one."""

    async def main() -> Received:
        meter = Meter(3)
        for number in (0, 1, 1, 0, 2):
            meter.note(number)
        return await meter.finished(SilentCues(is_done=False))

    found = asyncio.run(main())
    assert (3, 2, 0) == (found.count, found.duplicates, found.misordered)


def test_meter_gives_up_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the sender is done and nothing more comes, the rest is lost."""
    monkeypatch.setattr("pbus.bench.meter.QUIET_S", 0.01)

    async def main() -> Received:
        meter = Meter(4)
        meter.note(0)
        return await meter.finished(SilentCues(is_done=True))

    found = asyncio.run(main())
    assert (4, 1) == (found.expected, found.count)


def test_meter_bears_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that sleeps on purpose has lost nothing yet, though the sender is done."""
    monkeypatch.setattr("pbus.bench.meter.QUIET_S", 0.0)

    async def main() -> Received:
        meter = Meter(1, pause_s=5.0)
        asyncio.get_running_loop().call_later(0.05, meter.note, 0)
        return await meter.finished(SilentCues(is_done=True))

    assert 1 == asyncio.run(main()).count


def test_waiting_goes_on_while_messages_come() -> None:
    """A slow receiver is not cut off as long as it gets on."""
    looks = iter([1, 2, 3, 3])
    seen: list[int] = []

    def count() -> int:
        seen.append(next(looks, 3))
        return seen[-1]

    asyncio.run(all_or_quiet(SilentCues(is_done=True), asyncio.Event(), count, 0.01))
    assert 3 == seen[-1]
    assert len(seen) > 4
