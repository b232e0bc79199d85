"""A worker process with children that are only objects."""

import asyncio
import errno
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pbus.process.supervisor.worker import restart_policy
from pbus.process.supervisor.worker.start_slots import StartSlots
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.supervisor_events import Event, Exited, GaveUp, Line, Ready, Started, StateChanged
from pbus.process.system.launch_plan import Launch
from pbus.stack_values import ProcessStacks
from pbus.topology.model import WorkerInstance, WorkerSpec
from pbus.topology.policy.policies import RestartSpec, StopSpec

PATIENCE_S = 10.0


class FakeChild:
    """A process that ends when the test says so, or on a signal unless it is stubborn."""

    launch = Launch(argv=("w",), env={}, cwd=Path("/"))

    def __init__(self, pid: int, incarnation: str, on_exit: Callable[[], None]) -> None:
        self.pid = pid
        self.incarnation = incarnation
        self.started_at = 1000.0 + pid
        self.code: int | None = None
        self.signals: list[signal.Signals] = []
        self.closed = False
        self.is_deaf = False
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
        if number == signal.SIGKILL or not self.is_deaf:
            self.exit(-number)
        return True

    def close(self) -> None:
        self.closed = True


class FakeHost:
    """A process host that makes fake children and records its calls."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []
        self.events: list[Event] = []
        self.released: list[str] = []
        self.open_messages = ""
        self.forgotten: list[int] = []
        self.asked_for_stacks: list[int] = []
        self.stacks_take_s = 0.0
        self.asked: list[str] = []
        self.given: list[float | None] = []
        self.spawn_error: Exception | None = None
        self.broker = SimpleNamespace(is_away=False, was_away=False)
        self.ends_when_asked = False
        self._changed = asyncio.Event()

    async def start_child(
        self, instance: WorkerInstance, incarnation: str, on_line: Any, on_exit: Any, env: Any
    ) -> FakeChild:
        if self.spawn_error is not None:
            raise self.spawn_error
        assert all(child.is_gone for child in self.children), "two copies at once"
        child = FakeChild(len(self.children) + 1, incarnation, on_exit)
        self.children.append(child)
        on_line("err", f"run {child.pid}")
        return child

    def socket_dir(self) -> Path:
        raise AssertionError("only for a process that notifies")

    async def release_incarnation(self, child: FakeChild, reason: str) -> str:
        self.released.append(reason)
        return self.open_messages

    def forget_group(self, child: FakeChild) -> None:
        self.forgotten.append(child.pid)

    def explain_exit(self, child: FakeChild, code: int) -> str:
        return ""

    async def read_stacks(self, child: FakeChild) -> ProcessStacks | str:
        self.asked_for_stacks.append(child.pid)
        self._changed.set()
        await asyncio.sleep(self.stacks_take_s)
        return ProcessStacks(pid=child.pid, threads=(), tasks=None)

    async def request_end(self, worker: str, timeout_s: float | None) -> bool:
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

    async def until_asked_for_stacks(self) -> None:
        await self.until(lambda: self.asked_for_stacks)

    async def started(self, count: int) -> FakeChild:
        """Wait for the child of that number."""
        await self.until(lambda: [type(one) for one in self.events].count(Started) >= count)
        return self.children[count - 1]

    def states(self) -> list[str]:
        return [event.state for event in self.events if isinstance(event, StateChanged)]


class Fixture:
    """A worker process and its host."""

    def __init__(self, slots: StartSlots | None = None, **spec: Any) -> None:
        values: dict[str, Any] = {"name": "w", "working_dir": Path("/"), "joins": True}
        values["restart"] = RestartSpec(initial_s=0.0005)  # a crash loop is over in milliseconds
        instance = WorkerInstance(name="w", spec=WorkerSpec(**{**values, **spec}))
        self.host = FakeHost()
        self.kill_now = asyncio.Event()
        self.worker = WorkerProcess(instance, self.kill_now, slots=slots)
        self.task = asyncio.create_task(self.worker.run(self.host))

    async def leave(self) -> None:
        """End the play as the supervisor does."""
        self.host.ends_when_asked = True
        self.worker.finish_and_stop()
        self.worker.stop()
        await asyncio.wait_for(self.task, PATIENCE_S)

    def make_ready(self) -> None:
        self.worker.on_ready(self.host.children[-1].incarnation, self.worker.name)

    async def state(self, state: str) -> None:
        await self.host.until(lambda: self.worker.status.state == state)


@pytest.mark.parametrize("end", ["ready", "exit", "no process", "turn"])
def test_start_slot_is_held_until_registered_or_ended(end: str) -> None:
    """With one slot a second worker starts once the first is on the bus, or has failed."""

    async def main() -> None:
        slots = StartSlots(1, hold_s=1000.0)
        first = Fixture(slots, restart=RestartSpec(policy="never"))
        if end == "no process":
            first.host.spawn_error = FileNotFoundError(errno.ENOENT, "not there", "w")
        else:
            await first.host.started(1)
        second = Fixture(slots)
        if end != "no process":
            await second.host.until(lambda: second.worker.status.state == "starting")
            for _ in range(5):
                await asyncio.sleep(0)
            assert [] == second.host.children
        match end:
            case "ready":
                first.make_ready()
            case "exit":
                first.host.children[0].exit(1)
            case "turn":
                first.worker.turn.free()
        await second.host.started(1)
        await first.leave()
        await second.leave()

    asyncio.run(main())


def test_worker_off_the_bus_holds_no_start_slot() -> None:
    """A program that never registers lets others start as soon as it runs."""

    async def main() -> None:
        slots = StartSlots(1, hold_s=1000.0)
        workers = [Fixture(slots, joins=False) for _ in range(3)]
        for one in workers:
            await one.host.started(1)
        for one in workers:
            one.host.children[0].exit(0)
            await one.leave()

    asyncio.run(main())


def test_crash_loop_gives_up():
    """A worker that fails five times is restarted four times, then failed with its last lines."""

    async def main() -> None:
        fixture = Fixture()
        for number in range(1, 6):
            (await fixture.host.started(number)).exit(1)
        await fixture.host.until(lambda: fixture.worker.is_over)

        last = fixture.host.events[-1]
        assert isinstance(last, GaveUp)
        assert tuple(f"run {n}" for n in range(1, 6)) == last.last_lines
        assert ["backoff", "starting"] * 4 + ["failed"] == fixture.host.states()
        assert [1, 2, 3, 4, 5] == fixture.host.forgotten
        assert all(child.closed for child in fixture.host.children)
        record = fixture.worker.status.record()
        assert ("failed", 4, 1, "run 5") == (
            record.state, record.restarts, record.exit_code, record.error,
        )  # fmt: skip
        await fixture.leave()

    asyncio.run(main())


def test_open_messages_are_said():
    """The fate of the messages of a crashed process is in its log and with its state."""

    async def main() -> None:
        fixture = Fixture(restart=RestartSpec(policy="always"))
        fixture.host.open_messages = "3 messages in flight requeued"
        (await fixture.host.started(1)).exit(-9)
        child = await fixture.host.started(2)
        fixture.host.open_messages = ""
        child.exit(0)
        await fixture.host.started(3)

        details = [one.detail for one in fixture.host.events if isinstance(one, StateChanged)]
        notes = [one.text for one in fixture.host.events if isinstance(one, Line)]
        assert 1 == notes.count("3 messages in flight requeued")
        assert [
            "was killed by SIGKILL, 3 messages in flight requeued: run 1",
            "exited with code 0 (exit 2 of 5 within 60 s)",
        ] == [detail.partition(", restarts in")[0] for detail in details if "restarts" in detail]
        await fixture.leave()

    asyncio.run(main())


def test_missing_class_fails_at_once():
    """Where the class of a worker is missing, a second process would not find it."""

    async def main() -> None:
        fixture = Fixture(worker="module:Class", restart=RestartSpec(policy="always"))
        (await fixture.host.started(1)).exit(restart_policy.UNLOADABLE)
        await fixture.host.until(lambda: fixture.worker.is_over)

        assert ["failed"] == fixture.host.states()
        assert "run 1" == fixture.worker.status.record().error
        await fixture.leave()

    asyncio.run(main())


def test_one_shot_exits_well():
    """A worker that ends with 0 is exited and stays so."""

    async def main() -> None:
        fixture = Fixture(joins=False, command=("true",))
        (await fixture.host.started(1)).exit(0)
        await fixture.host.until(lambda: fixture.worker.is_over)

        assert ["ready", "exited"] == fixture.host.states()
        assert ["exited with code 0"] == fixture.host.released
        await fixture.leave()

    asyncio.run(main())


def test_old_news_is_ignored():
    """A late announcement of an earlier incarnation does not make its successor ready."""

    async def main() -> None:
        fixture = Fixture()
        first = await fixture.host.started(1)
        first.exit(1)
        second = await fixture.host.started(2)

        fixture.worker.on_ready(first.incarnation, fixture.worker.name)
        assert fixture.worker.status.state == "starting"
        fixture.worker.on_ready(second.incarnation + "-7", fixture.worker.name)
        assert fixture.worker.status.state == "ready"
        fixture.worker.on_ready(second.incarnation, fixture.worker.name)
        assert 1 == len([one for one in fixture.host.events if isinstance(one, Ready)])
        await fixture.leave()

    asyncio.run(main())


def test_stop_asks_first():
    """A ready worker is asked over the bus and ends by itself, without a signal."""

    async def main() -> None:
        fixture = Fixture()
        child = await fixture.host.started(1)
        fixture.make_ready()
        fixture.host.ends_when_asked = True
        fixture.worker.stop()
        await fixture.state("exited")

        assert ["w"] == fixture.host.asked
        assert [] == child.signals
        assert not fixture.worker.is_over
        await fixture.leave()

    asyncio.run(main())


def test_orders_say_how_long():
    """The seconds of an order go to the worker; without any it gets what it usually does."""

    async def main() -> None:
        fixture = Fixture()
        fixture.host.ends_when_asked = True
        for number, seconds in enumerate((60.0, None, 5.0), start=1):
            await fixture.host.started(number)
            fixture.make_ready()
            fixture.worker.restart(seconds)
        await fixture.host.started(4)
        await fixture.leave()

        first, second, third, *_ = fixture.host.given
        assert first is not None
        assert third is not None
        assert 5.0 < first <= 60.0
        assert second is None
        assert third <= 5.0

    asyncio.run(main())


def test_stop_interrupts_start():
    """A worker that is not ready yet is not asked but signalled."""

    async def main() -> None:
        fixture = Fixture()
        child = await fixture.host.started(1)
        fixture.worker.stop()
        await fixture.state("exited")

        assert [] == fixture.host.asked
        assert [signal.SIGTERM] == child.signals
        await fixture.leave()

    asyncio.run(main())


def test_stop_interrupts_backoff():
    """A worker that waits for its restart is stopped at once."""

    async def main() -> None:
        fixture = Fixture(restart=RestartSpec(initial_s=30.0))
        (await fixture.host.started(1)).exit(1)
        await fixture.state("backoff")
        fixture.worker.stop()
        await fixture.state("exited")
        await fixture.leave()

        assert 1 == len(fixture.host.children)

    asyncio.run(main())


def test_restart_never_doubles():
    """Restarts in a row lead to one new process, and never to two at a time."""

    async def main() -> None:
        fixture = Fixture()
        await fixture.host.started(1)
        for _ in range(5):
            fixture.worker.restart()
        await fixture.host.started(2)
        fixture.worker.restart()
        await fixture.host.started(3)
        await fixture.leave()

        assert 3 == len(fixture.host.children)
        assert 2 == fixture.worker.status.record().restarts

    asyncio.run(main())


def test_failed_worker_starts_again():
    """A start order revives a failed worker, with a restart budget as new."""

    async def main() -> None:
        fixture = Fixture()
        for number in range(1, 6):
            (await fixture.host.started(number)).exit(1)
        await fixture.state("failed")
        fixture.worker.start()
        (await fixture.host.started(6)).exit(1)
        await fixture.host.started(7)
        fixture.make_ready()
        fixture.worker.start()
        await fixture.leave()

        assert 7 == len(fixture.host.children)

    asyncio.run(main())


def test_missing_program_fails_at_once():
    """What can never start is not tried again, and the record says why."""

    async def main() -> None:
        fixture = Fixture()
        fixture.host.spawn_error = FileNotFoundError(
            errno.ENOENT, "No such file or directory", "/x"
        )
        await fixture.state("failed")

        reason = "cannot be started: No such file or directory: /x"
        assert GaveUp("w", reason, ()) == fixture.host.events[-1]
        assert reason == fixture.worker.status.record().error
        await fixture.leave()

    asyncio.run(main())


def test_busy_system_is_retried():
    """A start that fails for lack of memory is tried again later."""

    async def main() -> None:
        fixture = Fixture()
        fixture.host.spawn_error = OSError(errno.EAGAIN, "Resource temporarily unavailable")
        await fixture.host.until(lambda: fixture.host.states().count("backoff") > 10)
        assert (
            "cannot be started: Resource temporarily unavailable"
            == fixture.worker.status.record().error
        )
        fixture.host.spawn_error = None
        await fixture.host.started(1)
        await fixture.leave()

    asyncio.run(main())


def test_supervision_error_counts_as_exit(caplog: pytest.LogCaptureFixture):
    """An unexpected error in the supervision of a worker is logged, and counts as an exit."""

    async def main() -> None:
        fixture = Fixture()
        fixture.host.spawn_error = ZeroDivisionError("a bug")
        await fixture.state("backoff")
        assert "ZeroDivisionError: a bug" in (fixture.worker.status.record().error or "")
        fixture.host.spawn_error = None
        child = await fixture.host.started(1)
        child.wait_drained = None  # type: ignore[assignment,method-assign]
        child.exit(0)
        await fixture.host.started(2)
        await fixture.leave()

    asyncio.run(main())
    assert "an error in its supervision" in caplog.text


@pytest.mark.parametrize(("code", "state"), [(0, "exited"), (3, "failed")])
def test_dismissed_worker_ends_itself(code: int, state: str):
    """After the session's end a ready worker ends by itself and is not restarted."""

    async def main() -> None:
        fixture = Fixture(restart=RestartSpec(policy="always"))
        child = await fixture.host.started(1)
        fixture.make_ready()
        fixture.worker.finish_and_stop()
        child.exit(code)
        await asyncio.wait_for(fixture.task, PATIENCE_S)

        assert state == fixture.worker.status.state
        assert [] == child.signals
        assert Exited("w", 1, code) in fixture.host.events

    asyncio.run(main())


def test_dismissed_newcomer_is_ended():
    """A worker that was still starting when the session ended would never hear of it."""

    async def main() -> None:
        fixture = Fixture()
        child = await fixture.host.started(1)
        fixture.worker.finish_and_stop()
        await asyncio.wait_for(fixture.task, PATIENCE_S)

        assert [signal.SIGTERM] == child.signals

    asyncio.run(main())


def test_start_leaves_starting_alone():
    """Who is told to start while it starts goes on; who is being taken down comes back."""

    async def main() -> None:
        fixture = Fixture()
        fixture.worker.start()
        await fixture.host.started(1)
        fixture.worker.start()
        assert (1, 1) == (fixture.worker.status.start_count, fixture.worker.target_start_count)
        fixture.make_ready()
        fixture.host.ends_when_asked = True
        fixture.worker.stop()
        assert (True, False) == (
            fixture.worker.target.is_stopped_by_user,
            fixture.worker.target.is_wanted,
        )
        fixture.worker.start()
        assert (1, 2) == (fixture.worker.status.start_count, fixture.worker.target_start_count)
        await fixture.host.started(2)

        assert (2, 2) == (fixture.worker.status.start_count, fixture.worker.target_start_count)
        await fixture.leave()
        assert fixture.worker.target.is_final

    asyncio.run(main())


def test_endings_have_reasons():
    """A worker that is over says how its process ended, whether it was told to or not."""

    async def main() -> None:
        fixture = Fixture(joins=False, command=("true",))
        await fixture.host.started(1)
        fixture.worker.stop()
        await fixture.state("exited")
        fixture.worker.start()
        (await fixture.host.started(2)).exit(0)
        await fixture.host.until(lambda: fixture.worker.is_over)

        endings = [
            event.detail
            for event in fixture.host.events
            if isinstance(event, StateChanged) and event.state == "exited"
        ]
        assert ["was killed by SIGTERM", "exited with code 0"] == endings
        await fixture.leave()

    asyncio.run(main())


def test_failure_before_ready_is_kept_until_ready():
    """The record of the next process says how the last one ended, until one is ready."""

    async def main() -> None:
        fixture = Fixture()
        (await fixture.host.started(1)).exit(3)
        await fixture.host.started(2)
        assert "exited with code 3: run 1" == fixture.worker.status.record().last_end
        fixture.make_ready()
        await fixture.host.until(lambda: fixture.worker.status.state == "ready")
        assert fixture.worker.status.record().last_end is None
        await fixture.leave()

    asyncio.run(main())


def test_stopping_says_why():
    """While a process is replaced the record has the reason, and no older one."""

    async def main() -> None:
        fixture = Fixture()
        await fixture.host.started(1)
        fixture.make_ready()
        await fixture.host.until(lambda: fixture.worker.status.state == "ready")
        fixture.worker.status.enter("stopping", "recycled: it has finished 5 jobs")
        record = fixture.worker.status.record()
        assert "recycled: it has finished 5 jobs" == record.described_state.partition(", ")[2]
        fixture.worker.status.enter("ready")
        fixture.worker.status.set_pending("no line matches")
        fixture.worker.status.enter("stopping")
        assert fixture.worker.status.record().trouble is None
        fixture.worker.status.enter("ready")
        await fixture.leave()

    asyncio.run(main())


def test_stacks_are_read_before_a_process_is_killed():
    """One that does not end by its signal is asked for its stacks; one that ends is not."""

    async def main() -> None:
        fixture = Fixture(joins=False, stop=StopSpec(grace_s=0.05))
        child = await fixture.host.started(1)
        child.is_deaf = True
        fixture.worker.restart()
        (await fixture.host.started(2)).is_deaf = False
        ended = fixture.worker.status.facts.ended
        assert ended is not None
        assert (-9, True, True, "was killed by SIGKILL") == (
            ended.code, ended.is_told, ended.is_error, ended.reason,
        )  # fmt: skip
        assert ended.stacks == ProcessStacks(pid=1, threads=(), tasks=None)
        await fixture.leave()
        assert [1] == fixture.host.asked_for_stacks
        ended = fixture.worker.status.facts.ended
        assert ended is not None
        assert (-15, False, None) == (ended.code, ended.is_error, ended.stacks)

    asyncio.run(main())


def test_second_stop_waits_for_no_stacks():
    """A project that is to end at once does not wait until a process has answered."""

    async def main() -> None:
        fixture = Fixture(joins=False, stop=StopSpec(grace_s=0.05))
        child = await fixture.host.started(1)
        child.is_deaf, fixture.host.stacks_take_s = True, PATIENCE_S
        fixture.worker.stop()
        await fixture.host.until_asked_for_stacks()
        fixture.kill_now.set()
        await fixture.state("exited")
        ended = fixture.worker.status.facts.ended
        assert ended is not None
        assert (-9, None) == (ended.code, ended.stacks)
        await fixture.leave()

    asyncio.run(main())
