"""One worker's actor, played with children that are only objects."""

import asyncio
import errno
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pbus.process.supervisor import restart_policy
from pbus.process.supervisor.worker_process import WorkerProcess
from pbus.process.supervisor_events import Event, Exited, GaveUp, Line, Ready, Started, StateChanged
from pbus.topology.model import WorkerInstance, WorkerSpec

PATIENCE_S = 10.0


class FakeChild:
    """A process that ends when the test says so, or on a signal unless it is stubborn."""

    def __init__(self, pid: int, incarnation: str, on_exit: Callable[[], None]) -> None:
        self.pid = pid
        self.incarnation = incarnation
        self.started_at = 1000.0 + pid
        self.code: int | None = None
        self.signals: list[signal.Signals] = []
        self.closed = False
        self._on_exit = on_exit
        self._exited = asyncio.Event()

    @property
    def is_gone(self) -> bool:
        return self.code is not None

    def exit(self, code: int) -> None:
        self.code = code
        self._exited.set()
        self._on_exit()

    async def wait(self) -> int:
        await self._exited.wait()
        assert self.code is not None
        return self.code

    async def wait_drained(self, limit_s: float) -> None:
        pass

    def send_signal(self, number: signal.Signals) -> bool:
        self.signals.append(number)
        self.exit(-number)
        return True

    def close(self) -> None:
        self.closed = True


class FakeHouse:
    """Plays the supervisor: hands out fake children, notes what it is told."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []
        self.events: list[Event] = []
        self.buried: list[str] = []
        self.open_messages = ""
        self.forgotten: list[int] = []
        self.asked: list[str] = []
        self.given: list[float | None] = []
        self.obstacle: Exception | None = None
        self.is_broker_away = False
        self.was_broker_away = False
        self.ends_when_asked = False
        self._changed = asyncio.Event()

    async def start_child(
        self, instance: WorkerInstance, incarnation: str, on_line: Any, on_exit: Any
    ) -> FakeChild:
        if self.obstacle is not None:
            raise self.obstacle
        assert all(child.is_gone for child in self.children), "two copies at once"
        child = FakeChild(len(self.children) + 1, incarnation, on_exit)
        self.children.append(child)
        on_line("err", f"life {child.pid}")
        return child

    async def bury(self, child: FakeChild, reason: str) -> str:
        self.buried.append(reason)
        return self.open_messages

    def forget_group(self, child: FakeChild) -> None:
        self.forgotten.append(child.pid)

    def explain_exit(self, child: FakeChild, code: int) -> str:
        return ""

    async def ask_to_end(self, worker: str, timeout_s: float | None) -> bool:
        self.asked.append(worker)
        self.given.append(timeout_s)
        if self.ends_when_asked:
            self.children[-1].exit(0)
        return True

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, claim: Callable[[], object]) -> None:
        """Wait until a claim holds; looked at after each event."""
        async with asyncio.timeout(PATIENCE_S):
            while not claim():
                self._changed.clear()
                await self._changed.wait()

    async def lives(self, count: int) -> FakeChild:
        """Wait for the child of that number."""
        await self.until(lambda: [type(one) for one in self.events].count(Started) >= count)
        return self.children[count - 1]

    def states(self) -> list[str]:
        return [event.state for event in self.events if isinstance(event, StateChanged)]


class Play:
    """An actor on its stage."""

    def __init__(self, **spec: Any) -> None:
        values: dict[str, Any] = {"name": "w", "working_dir": Path("/"), "joins": True}
        instance = WorkerInstance(name="w", spec=WorkerSpec(**{**values, **spec}))
        self.house = FakeHouse()
        self.hurry = asyncio.Event()
        self.actor = WorkerProcess(instance, self.hurry)
        self.task = asyncio.create_task(self.actor.run(self.house))

    async def leave(self) -> None:
        """End the play as the supervisor does."""
        self.house.ends_when_asked = True
        self.actor.dismiss()
        self.actor.stop()
        await asyncio.wait_for(self.task, PATIENCE_S)

    def make_ready(self) -> None:
        self.actor.note_ready(self.house.children[-1].incarnation)

    async def state(self, state: str) -> None:
        await self.house.until(lambda: self.actor.state == state)


@pytest.fixture(autouse=True)
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays of a thousandth, so that a crash loop is over in milliseconds."""
    monkeypatch.setattr(restart_policy, "FIRST_DELAY_S", 0.0005)


def test_crash_loop_gives_up():
    """A worker that fails five times is restarted four times, then failed with its last lines."""

    async def main() -> None:
        play = Play()
        for life in range(1, 6):
            (await play.house.lives(life)).exit(1)
        await play.house.until(lambda: play.actor.is_over)

        last = play.house.events[-1]
        assert isinstance(last, GaveUp)
        assert tuple(f"life {n}" for n in range(1, 6)) == last.last_lines
        assert ["backoff", "starting"] * 4 + ["failed"] == play.house.states()
        assert [1, 2, 3, 4, 5] == play.house.forgotten
        assert all(child.closed for child in play.house.children)
        record = play.actor.record()
        assert ("failed", 4, 1, "life 5") == (
            record.state, record.restarts, record.exit_code, record.error,
        )  # fmt: skip
        await play.leave()

    asyncio.run(main())


def test_open_messages_are_said():
    """What became of the messages of a crashed life is in its log and with its state."""

    async def main() -> None:
        play = Play(restart="always")
        play.house.open_messages = "3 messages in hand given back"
        (await play.house.lives(1)).exit(-9)
        life = await play.house.lives(2)
        play.house.open_messages = ""
        life.exit(0)
        await play.house.lives(3)

        details = [one.detail for one in play.house.events if isinstance(one, StateChanged)]
        notes = [one.text for one in play.house.events if isinstance(one, Line)]
        assert 1 == notes.count("3 messages in hand given back")
        assert ["was killed by SIGKILL, 3 messages in hand given back", "exited with code 0"] == [
            detail.partition(", restarts in")[0] for detail in details if "restarts" in detail
        ]
        await play.leave()

    asyncio.run(main())


def test_missing_class_fails_at_once():
    """Where the class of a worker is not there, no second life would find it."""

    async def main() -> None:
        play = Play(worker="module:Class", restart="always")
        (await play.house.lives(1)).exit(restart_policy.UNLOADABLE)
        await play.house.until(lambda: play.actor.is_over)

        assert ["failed"] == play.house.states()
        assert "life 1" == play.actor.record().error
        await play.leave()

    asyncio.run(main())


def test_one_shot_exits_well():
    """A worker that ends with 0 is exited and stays so."""

    async def main() -> None:
        play = Play(joins=False, command=("true",))
        (await play.house.lives(1)).exit(0)
        await play.house.until(lambda: play.actor.is_over)

        assert ["ready", "exited"] == play.house.states()
        assert ["exited with code 0"] == play.house.buried
        await play.leave()

    asyncio.run(main())


def test_old_news_is_ignored():
    """A late announcement of an earlier life does not make its successor ready."""

    async def main() -> None:
        play = Play()
        first = await play.house.lives(1)
        first.exit(1)
        second = await play.house.lives(2)

        play.actor.note_ready(first.incarnation)
        assert play.actor.state == "starting"
        play.actor.note_ready(second.incarnation + "-7")
        assert play.actor.state == "ready"
        play.actor.note_ready(second.incarnation)
        assert 1 == len([one for one in play.house.events if isinstance(one, Ready)])
        await play.leave()

    asyncio.run(main())


def test_stop_asks_first():
    """A ready worker is asked over the bus and ends by itself, without a signal."""

    async def main() -> None:
        play = Play()
        child = await play.house.lives(1)
        play.make_ready()
        play.house.ends_when_asked = True
        play.actor.stop()
        await play.state("exited")

        assert ["w"] == play.house.asked
        assert [] == child.signals
        assert not play.actor.is_over
        await play.leave()

    asyncio.run(main())


def test_orders_say_how_long():
    """The seconds of an order go to the worker; without any it gets what it usually does."""

    async def main() -> None:
        play = Play()
        play.house.ends_when_asked = True
        for number, seconds in enumerate((60.0, None, 5.0), start=1):
            await play.house.lives(number)
            play.make_ready()
            play.actor.restart(seconds)
        await play.house.lives(4)
        await play.leave()

        first, second, third, *_ = play.house.given
        assert first is not None
        assert third is not None
        assert 5.0 < first <= 60.0
        assert second is None
        assert third <= 5.0

    asyncio.run(main())


def test_stop_interrupts_start():
    """A worker that is not ready yet is not asked but signalled."""

    async def main() -> None:
        play = Play()
        child = await play.house.lives(1)
        play.actor.stop()
        await play.state("exited")

        assert [] == play.house.asked
        assert [signal.SIGTERM] == child.signals
        await play.leave()

    asyncio.run(main())


def test_stop_interrupts_backoff(monkeypatch: pytest.MonkeyPatch):
    """A worker that waits for its restart is stopped at once."""
    monkeypatch.setattr(restart_policy, "FIRST_DELAY_S", 30.0)

    async def main() -> None:
        play = Play()
        (await play.house.lives(1)).exit(1)
        await play.state("backoff")
        play.actor.stop()
        await play.state("exited")
        await play.leave()

        assert 1 == len(play.house.children)

    asyncio.run(main())


def test_restart_never_doubles():
    """Restart orders in a row end in one new life, and never in two at a time."""

    async def main() -> None:
        play = Play()
        await play.house.lives(1)
        for _ in range(5):
            play.actor.restart()
        await play.house.lives(2)
        play.actor.restart()
        await play.house.lives(3)
        await play.leave()

        assert 3 == len(play.house.children)
        assert 2 == play.actor.record().restarts

    asyncio.run(main())


def test_failed_worker_starts_again():
    """A start order revives a failed worker, with a restart budget as new."""

    async def main() -> None:
        play = Play()
        for life in range(1, 6):
            (await play.house.lives(life)).exit(1)
        await play.state("failed")
        play.actor.start()
        (await play.house.lives(6)).exit(1)
        await play.house.lives(7)
        play.make_ready()
        play.actor.start()
        await play.leave()

        assert 7 == len(play.house.children)

    asyncio.run(main())


def test_missing_program_fails_at_once():
    """What can never start is not tried again, and the record says why."""

    async def main() -> None:
        play = Play()
        play.house.obstacle = FileNotFoundError(errno.ENOENT, "No such file or directory", "/x")
        await play.state("failed")

        reason = "cannot be started: No such file or directory: /x"
        assert GaveUp("w", reason, ()) == play.house.events[-1]
        assert reason == play.actor.record().error
        await play.leave()

    asyncio.run(main())


def test_busy_system_is_retried():
    """A start that fails for lack of memory is tried again later."""

    async def main() -> None:
        play = Play()
        play.house.obstacle = OSError(errno.EAGAIN, "Resource temporarily unavailable")
        await play.house.until(lambda: play.house.states().count("backoff") > 10)
        assert "cannot be started: Resource temporarily unavailable" == play.actor.record().error
        play.house.obstacle = None
        await play.house.lives(1)
        await play.leave()

    asyncio.run(main())


def test_error_costs_a_life(caplog: pytest.LogCaptureFixture):
    """An unexpected error in looking after a worker is logged, and counts as an end of its life."""

    async def main() -> None:
        play = Play()
        play.house.obstacle = ZeroDivisionError("a bug")
        await play.state("backoff")
        assert "ZeroDivisionError: a bug" in (play.actor.record().error or "")
        play.house.obstacle = None
        child = await play.house.lives(1)
        child.wait_drained = None  # type: ignore[assignment,method-assign]
        child.exit(0)
        await play.house.lives(2)
        await play.leave()

    asyncio.run(main())
    assert "an error in its supervision" in caplog.text


@pytest.mark.parametrize(("code", "state"), [(0, "exited"), (3, "failed")])
def test_dismissed_worker_ends_itself(code: int, state: str):
    """After the session's end a ready worker ends by itself and is not restarted."""

    async def main() -> None:
        play = Play(restart="always")
        child = await play.house.lives(1)
        play.make_ready()
        play.actor.dismiss()
        child.exit(code)
        await asyncio.wait_for(play.task, PATIENCE_S)

        assert state == play.actor.state
        assert [] == child.signals
        assert Exited("w", 1, code) in play.house.events

    asyncio.run(main())


def test_dismissed_newcomer_is_ended():
    """A worker that was still starting when the session ended would never hear of it."""

    async def main() -> None:
        play = Play()
        child = await play.house.lives(1)
        play.actor.dismiss()
        await asyncio.wait_for(play.task, PATIENCE_S)

        assert [signal.SIGTERM] == child.signals

    asyncio.run(main())


def test_start_leaves_starting_alone():
    """Who is told to start while it starts goes on; who is being taken down comes back."""

    async def main() -> None:
        play = Play()
        play.actor.start()
        await play.house.lives(1)
        play.actor.start()
        assert (1, 1) == (play.actor.lives, play.actor.due_life)
        play.make_ready()
        play.house.ends_when_asked = True
        play.actor.stop()
        assert (True, False) == (play.actor.is_held, play.actor.is_wanted)
        play.actor.start()
        assert (1, 2) == (play.actor.lives, play.actor.due_life)
        await play.house.lives(2)

        assert (2, 2) == (play.actor.lives, play.actor.due_life)
        await play.leave()
        assert play.actor.is_final

    asyncio.run(main())


def test_endings_have_reasons():
    """A worker that is over says how its process ended, whether it was told to or not."""

    async def main() -> None:
        play = Play(joins=False, command=("true",))
        await play.house.lives(1)
        play.actor.stop()
        await play.state("exited")
        play.actor.start()
        (await play.house.lives(2)).exit(0)
        await play.house.until(lambda: play.actor.is_over)

        endings = [
            event.detail
            for event in play.house.events
            if isinstance(event, StateChanged) and event.state == "exited"
        ]
        assert ["was killed by SIGTERM", "exited with code 0"] == endings
        await play.leave()

    asyncio.run(main())
