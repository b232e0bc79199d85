"""Events that users listen to: order, isolation, mistakes in names, and the end."""

import asyncio
import logging

import pytest

from pbus.concurrency import event_source
from pbus.concurrency.event_source import EventSource
from pbus.errors import UnknownEventError
from support.waiting import happens, run


class Base(EventSource):
    EVENTS = frozenset({"on_ready"})

    def __repr__(self):
        return "<source>"


class Source(Base):
    EVENTS = frozenset({"on_number"})


def test_handlers_get_object_and_values():
    """Handlers, plain and async, get the object and the event's values, in the order added."""

    async def main():
        source, seen = Source(), []

        @source.event_handler("on_number")
        def plain(*values):
            seen.append(("plain", *values))

        @source.event_handler("on_number")
        async def later(*values):
            seen.append(("later", *values))

        source._fire_event("on_number", 1)
        assert await source._settle_events(5.0)
        assert [("plain", source, 1), ("later", source, 1)] == seen

    run(main())


def test_calls_keep_order():
    """A slow call does not let the next call of the same event overtake it."""

    async def main():
        source, seen = Source(), []

        @source.event_handler("on_number")
        async def note(_, number):
            for _ in range(3 - number):
                await asyncio.sleep(0)
            seen.append(number)

        for number in range(3):
            source._fire_event("on_number", number)
        await source._settle_events(5.0)
        assert [0, 1, 2] == seen

    run(main())


def test_events_do_not_wait():
    """A handler that hangs keeps only its own event waiting."""

    async def main():
        source, called = Source(), asyncio.Event()

        @source.event_handler("on_number")
        async def hang(_, number):
            await asyncio.Event().wait()

        @source.event_handler("on_ready")
        def ready(_):
            called.set()

        source._fire_event("on_number", 1)
        source._fire_event("on_ready")
        await happens(called)
        assert not await source._settle_events(0.01)
        await source._close_events(0.01)

    run(main())


def test_raising_handler_is_logged(caplog):
    """What a handler raises is logged, and the next handler and call follow."""

    async def main():
        source, seen = Source(), []

        @source.event_handler("on_number")
        def fail(_, number):
            raise LookupError(number)

        @source.event_handler("on_number")
        def note(_, number):
            seen.append(number)

        source._fire_event("on_number", 1)
        source._fire_event("on_number", 2)
        await source._close_events(5.0)
        assert [1, 2] == seen

    with caplog.at_level(logging.ERROR):
        run(main())
    assert ["<source>: a handler of on_number raised"] * 2 == caplog.messages


def test_same_handler_once():
    """A handler added twice is called once, and not at all once removed."""

    async def main():
        source, seen = Source(), []

        def note(_, number):
            seen.append(number)

        source.add_event_handler("on_number", note)
        source.add_event_handler("on_number", note)
        source._fire_event("on_number", 1)
        await source._settle_events(5.0)
        source.remove_event_handler("on_number", note)
        source.remove_event_handler("on_number", note)
        source._fire_event("on_number", 2)
        assert ([1], {}) == (seen, source._event_tasks)

    run(main())


def test_unknown_event_is_refused():
    """A misspelt event is an error that names the nearest one, those of the bases included."""
    source = Source()
    with pytest.raises(UnknownEventError, match="did you mean 'on_ready'"):
        source.event_handler("on_redy")
    with pytest.raises(UnknownEventError, match="it has on_number, on_ready"):
        source.add_event_handler("x", print)
    with pytest.raises(UnknownEventError):
        source.remove_event_handler("on_numbers", print)


def test_waiting_calls_are_bounded(monkeypatch, caplog):
    """A handler that falls too far behind loses calls, and it is said."""
    monkeypatch.setattr(event_source, "MAX_WAITING_CALLS", 2)

    async def main():
        source, seen = Source(), []

        @source.event_handler("on_number")
        def note(_, number):
            seen.append(number)

        for number in range(4):
            source._fire_event("on_number", number)
        await source._close_events(5.0)
        assert [0, 1] == seen

    run(main())
    assert "<source>: handlers of on_number are 2 calls behind; one lost" in caplog.messages


def test_handler_may_close():
    """A handler that closes its own object does not wait for itself."""

    async def main():
        source, closed = Source(), asyncio.Event()

        @source.event_handler("on_ready")
        async def close(source):
            await source._close_events(5.0)
            closed.set()

        source._fire_event("on_ready")
        await happens(closed)

    run(main())


def test_cancelled_before_begun():
    """An event fired after its task was cancelled before it began is handled all the same."""

    async def main():
        source, seen = Source(), []
        source.add_event_handler("on_number", lambda _, number: seen.append(number))
        source._fire_event("on_number", 1)
        source._event_tasks["on_number"].cancel()
        await asyncio.sleep(0)
        source._fire_event("on_number", 2)
        await source._settle_events(5.0)
        assert 2 == seen[-1]

    run(main())


def test_waiting_calls_are_bounded_in_bytes(caplog):
    """A handler that is behind holds no more than a bound in bytes, whatever a call carries."""

    async def main():
        source, seen = Source(), []
        gate = asyncio.Event()

        @source.event_handler("on_number")
        async def note(_, value):
            await gate.wait()
            seen.append(len(value["pages"][0]))

        for _ in range(200):
            source._fire_event("on_number", {"pages": ["x" * 1_000_000]})
        gate.set()
        assert await source._settle_events(5.0)
        assert 60 < len(seen) < 80
        source._fire_event("on_number", {"pages": ["again"]})
        assert await source._settle_events(5.0)
        assert 5 == seen[-1]

    run(main())
    assert "calls behind; one lost" in caplog.text
