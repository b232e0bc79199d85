"""Storing what is sent, without a broker."""

import asyncio

import pytest

from pbus.bus.dispatch import Dispatch, DispatchOptions, Stamped
from pbus.bus.mail import Stored
from pbus.messages import Lane
from support.waiting import run


class FaultyStore:
    """Raises what no store should, once."""

    def __init__(self) -> None:
        self.is_faulty = True

    async def put(self, entries):
        if self.is_faulty:
            self.is_faulty = False
            raise ValueError("a bug")
        return [Stored(mailboxes=1) for _ in entries]


def test_fault_costs_one_batch(caplog: pytest.LogCaptureFixture):
    """A bug below is told to those it hit, logged, and stops nobody after them."""

    async def main():
        dispatch = Dispatch(FaultyStore(), "me", DispatchOptions(5.0))
        tasks = [asyncio.create_task(chore) for chore in dispatch.chores()]
        try:
            with pytest.raises(ValueError, match="a bug"):
                await dispatch.put(Stamped("w", Lane.DATA, "1", b"{}"))
            assert 1 == await dispatch.put(Stamped("w", Lane.DATA, "2", b"{}"))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    run(main())

    assert "storing messages failed" in caplog.text
