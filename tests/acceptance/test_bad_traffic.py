"""What others put on the channel of a running project, by accident."""

import asyncio
import contextlib
import json
import time
from typing import Any

import pytest

from pbus import BaseWorker, WorkerRunner, connect
from pbus.seal import seal_of
from support.cli_env import Place, Rows, wait_for
from support.waiting import eventually

pytestmark = pytest.mark.cli

GARBAGE = [
    b"",
    b"\x00\xff\xfegarbage",
    b"hello",
    b"[]",
    b"{}\n{}",
    b'[1,"x",1,"d","clerk",1,1,0]',
    b'[1,"x",1,"d","clerk",1,1,0]\n{"type":"Note","source":"x"',
    b'[1,"x",1,"d","clerk",2,1,0]\n{"type":"Note","source":"x","text":7}',
    b'[1,"x",1,"d","clerk",3,1,0]\n{"type":"os.system","source":"x","command":"true"}',
    b'[99,"x",1,"d","clerk",1,1,0]\n{"type":"Note","source":"x","text":"later format"}',
    b'[1,"x",1,"d","clerk",9000000000000000000,1,0]\n{"type":"Note","source":"x","text":"far"}',
    b'[1,"x",1,"d","clerk",1,1,99999999999999999999999]\n{"type":"Note","source":"x","text":"n"}',
    b'["grant","\xff","a",1,2,3]',
    b'["probe","\xff","a",1,2,3]',
    b'["grant","s","clerk",9999999999999999999999999,0,-7]',
    b'["follower"]\xff',
    b"\xff\xff",
    b"[" * 100_000,
    b"x" * 20_000_000,
]


@pytest.fixture(scope="module")
def before(sample: Place) -> Rows:
    """The workers before."""
    return sample.rows()


def see_undisturbed(sample: Place, before: Rows) -> None:
    """The same processes, all ready, nothing lost, and they answer."""
    after = sample.rows()
    for key in ("pid", "state", "restarts", "lost"):
        assert {n: r[key] for n, r in before.items()} == {n: r[key] for n, r in after.items()}
    assert "Good morning, you" == sample.ask("clerk", "greet")["greeting"]


def test_garbage_is_refused(sample: Place, before: Rows):
    """Whatever bytes come on any of the project's channels: counted and said, nothing else."""
    began = time.monotonic()
    seal = sample.seal()
    with sample.broker() as broker:
        channels = broker.pubsub_channels("*pbus:sample*")
        for garbage in GARBAGE:
            is_small = len(garbage) < 1_000_000
            sealed = [seal.close(kind, garbage) for kind in ("payload", "note") if is_small]
            for channel in channels:
                for payload in (garbage, *sealed):
                    broker.publish(channel, payload)

    assert len(channels) >= 8
    see_undisturbed(sample, before)
    refused = wait_for(lambda: [line for line in sample.logs("clerk") if "refused" in line])
    assert len(refused) <= 2 + time.monotonic() - began  # at most one a second


def test_strange_times_are_shown(sample: Place, before: Rows):
    """A message from a clock of another world is handled, and tail shows it."""
    line = b'{"type":"Note","source":"future","target":"clerk","time":1.8e18,"text":"soon"}'
    tail = sample.start("tail", "--source", "future", "-n", "1")
    sample.until_followed(1)
    with sample.broker() as broker:
        payload = b'[1,"future",1,"d","clerk",1,1,0]\n' + line
        broker.publish("{pbus:sample}:d:clerk", sample.seal().close("payload", payload))
    done = tail.done()

    assert 0 == done.code
    assert "soon" in done.out
    wait_for(lambda: any("heard note 'soon'" in line for line in sample.logs("clerk")))
    see_undisturbed(sample, before)


def test_unknown_types_are_refused(sample: Place, before: Rows):
    """A type that the receiver does not know is refused there; what follows arrives."""
    telegram = (
        b'{"type":"Telegram","source":"far","target":"clerk","text":"no type of this sample"}'
    )

    def are_refused() -> bool:
        # Refusals are told once a second: those of the garbage may have taken the turn.
        with sample.broker() as broker:
            payload = b'[1,"far",1,"d","clerk",1,1,0]\n' + telegram
        broker.publish("{pbus:sample}:d:clerk", sample.seal().close("payload", payload))
        return eventually(lambda: any("Telegram" in line for line in sample.logs("clerk")), 2.0)

    wait_for(are_refused)
    assert 0 == sample.tell("send", "clerk", "--text", "after the telegrams").code

    wait_for(lambda: any("after the telegrams" in line for line in sample.logs("clerk")))
    see_undisturbed(sample, before)


def test_giant_is_not_sent(sample: Place, before: Rows):
    """20 MB are the sender's error, with advice; no other process is affected."""
    giant = json.dumps({"text": "giant", "blob": "x" * 20_000_000})
    (sample.folder / "giant.json").write_text(giant)
    done = sample.run("send", "clerk", "--type", "Note", "--data", "@giant.json")

    assert (1, "") == (done.code, done.out)
    assert "Note is 20,000," in done.err
    assert "the bus carries at most 4,194,304" in done.err
    assert "raise max_message_bytes" in done.err
    see_undisturbed(sample, before)
    assert [] == [line for line in sample.logs("clerk") if "giant" in line]


def test_nothing_comes_in_without_the_key(sample: Place, before: Rows):
    """Who can write to the broker and has no key sends nothing, ends nothing, registers nothing."""
    record = sample.record()
    note = b'{"type":"Note","source":"x","target":"clerk","text":"forged"}'
    end = b'{"type":"BusEndMessage","source":"x","session":null}'
    stop = b'{"type":"BusCancelMessage","source":"x","session":null}'

    async def register() -> list[str]:
        runner = WorkerRunner(bus=connect(record["url"], channel=record["channel"], key=""))
        await runner.add_workers(BaseWorker("burglar"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(runner.run(), 3)
        return [error.error for error in runner.errors]

    with sample.broker() as broker:
        old = sample.seal(lambda: time.time() - 1000)
        other = seal_of("another-key-altogether", "pbus:sample")
        for channel, line in (("clerk", note), ("*", end), ("*", stop)):
            for lane in ("d", "s"):
                payload = b'[1,"x",1,"%b","%b",1,1,0]\n%b' % (lane.encode(), channel.encode(), line)
                for sealed in (
                    payload,
                    other.close("payload", payload),
                    old.close("payload", payload),
                ):
                    assert broker.publish(f"{{pbus:sample}}:{lane}:{channel}", sealed)
        asyncio.run(register())

    see_undisturbed(sample, before)
    assert "burglar" not in sample.rows()
    assert [] == [line for line in sample.logs("clerk") if "forged" in line]
    assert any("not sealed" in line or "another key" in line for line in sample.logs("clerk"))


def test_taken_name_is_refused(sample: Place, before: Rows):
    """A second clerk, started by hand on the same channel, is told who has the name."""
    record = sample.record()

    async def main() -> list[str]:
        runner = WorkerRunner(
            bus=connect(record["url"], channel=record["channel"], key=record["key"]), name="hand"
        )
        await runner.add_workers(BaseWorker("clerk"))
        async with asyncio.timeout(20):
            await runner.run()
        return [error.error for error in runner.errors]

    (error,) = asyncio.run(main())
    assert f"taken by runner {before['clerk']['runner']!r}" in error
    assert f"pid {before['clerk']['pid']}" in error
    see_undisturbed(sample, before)


def test_stranger_shows_up(sample: Place):
    """A worker started by hand under a free name is a row of ps, and gone when it leaves."""
    record = sample.record()

    def shown() -> list[dict[str, Any]]:
        rows = sample.run("ps", "--json").json["workers"]
        return [row for row in rows if row["name"] == "stranger" and row["ready"]]

    async def main() -> list[dict[str, Any]]:
        runner = WorkerRunner(
            bus=connect(record["url"], channel=record["channel"], key=record["key"])
        )
        await runner.add_workers(BaseWorker("stranger"))
        running = asyncio.create_task(runner.run())
        rows = await asyncio.to_thread(wait_for, shown)
        await runner.end()
        await asyncio.wait_for(running, 20)
        return rows

    (row,) = asyncio.run(main())
    assert ("ready", True, 0, None) == tuple(
        row[key] for key in ("state", "ready", "restarts", "rss_bytes")
    )
    assert "stranger" not in sample.rows()
