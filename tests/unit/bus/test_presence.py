"""Whether messages have receivers: by the registry, and by the announcements that pass."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from pbus.bus import presence as module
from pbus.bus.presence import Presence
from pbus.bus.tap import TapMessage
from pbus.codec import Header
from pbus.errors import BusUnavailableError


class Registry:
    """Leases and queues that a test changes."""

    def __init__(self, *workers: str, queues: tuple[str, ...] | None = None) -> None:
        self.workers = set(workers)
        self.looks = 0
        self.is_away = False
        self.leases_ = [SimpleNamespace(name=name) for name in queues or ()]
        self.queues: Any = None if queues is None else self
        self.leases = SimpleNamespace(leases=self._read)

    async def _read(self) -> list[SimpleNamespace]:
        self.looks += 1
        if self.is_away:
            raise BusUnavailableError("redis://x", "gone")
        return [SimpleNamespace(name=name) for name in self.workers]

    async def stats(self) -> list[SimpleNamespace]:
        """The queues."""
        return self.leases_


def announced(body: object) -> TapMessage:
    """An announcement as it passes."""
    header = Header(type="BusWorkerRegistryMessage", source="runner-1")
    data = body if isinstance(body, bytes) else json.dumps({"workers": body}).encode()
    return TapMessage(header=header, body=data, lane="s")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time, as the test sets it."""
    now = SimpleNamespace(at=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.at))
    return now


def reached(presence: Presence, *targets: str | None) -> list[bool]:
    """What is told of messages to these."""

    async def main() -> list[bool]:
        return [await presence.reaches(target) for target in targets]

    return asyncio.run(main())


def test_workers_groups_queues_and_other_addresses(clock: SimpleNamespace) -> None:
    """Everyone and addresses that come and go have receivers as far as can be told."""
    registry = Registry("a", "b.1", queues=("kept",))
    presence = Presence(registry)  # type: ignore[arg-type]

    assert [True] * 7 == reached(presence, None, "a", "b", "b.1", "kept", "cli-1", "~states")
    assert [False, False] == reached(presence, "b.2", "ghost")
    assert 1 == registry.looks


def test_the_last_message_to_a_worker_that_leaves_was_delivered(clock: SimpleNamespace) -> None:
    """It has left by the time that is looked; what comes after its announcement reaches nothing."""
    registry = Registry("a", "b")
    presence = Presence(registry)  # type: ignore[arg-type]
    asyncio.run(presence.look())
    clock.at += 5.0
    registry.workers.clear()

    assert [True] == reached(presence, "a")  # it was there, and has not announced its end
    assert [False] == reached(presence, "a")
    presence.note(announced([{"name": "c"}, {"name": "d.1", "ready": False}]))
    assert [True, True] == reached(presence, "c", "d")
    presence.note(announced([{"name": "c", "gone": "was killed", "unhandled": 3}]))
    assert [False, True] == reached(presence, "c", "d.1")


def test_an_announced_end_is_believed_at_once(clock: SimpleNamespace) -> None:
    """Without a look at the registry, which may still have its lease."""
    registry = Registry("a")
    presence = Presence(registry)  # type: ignore[arg-type]
    assert [True] == reached(presence, "a")
    presence.note(announced([{"name": "a", "gone": "left"}]))

    assert [False] == reached(presence, "a")
    clock.at += 0.5
    assert [True] == reached(presence, "a")  # started again: the registry has it


def test_nothing_is_claimed_while_the_registry_is_away(clock: SimpleNamespace) -> None:
    """A message counts as delivered, and is looked up again."""
    registry = Registry()
    registry.is_away = True
    presence = Presence(registry)  # type: ignore[arg-type]

    assert [True, True] == reached(presence, "a", "a")
    registry.is_away = False
    assert [False] == reached(presence, "a")


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b'{"workers":7}', b'{"workers":[{"name":3}]}', b"[" * 100_000]
)
def test_odd_announcements_change_nothing(clock: SimpleNamespace, body: bytes) -> None:
    """Foreign data on the channel."""
    presence = Presence(Registry("a"))  # type: ignore[arg-type]
    asyncio.run(presence.look())
    presence.note(announced(body))

    assert [True, False] == reached(presence, "a", "b")


def test_announcements_are_bounded(clock: SimpleNamespace) -> None:
    """A flood of names takes no more room than a full registry."""
    presence = Presence(Registry())  # type: ignore[arg-type]
    for batch in range(30):
        presence.note(announced([{"name": f"w{batch}-{n}"} for n in range(1_500)]))

    assert 10_000 == len(presence._workers)


def test_what_was_read_elsewhere_is_taken_over(clock: SimpleNamespace):
    """A display reads the registry anyway: no look of its own while that is fresh."""
    registry = Registry("a", "stt.1")
    presence = Presence(registry, fresh_s=3.0)  # type: ignore[arg-type]
    presence.take(["a", "stt.1"], ["stored"])
    clock.at += 2.9

    assert [True, True, True, True] == reached(presence, "a", "stt", "stored", None)
    assert 0 == registry.looks
    presence.take(["a"])  # queues were not looked at: they stay
    assert [True, True] == reached(presence, "a", "stored")
    assert [False] == reached(presence, "stt.2")
    clock.at += 3.1
    assert [True] == reached(presence, "a")
    assert 1 == registry.looks
