"""The workers without processes and without a broker: `python -m pytest`."""

import asyncio

import pytest
from workers import Counter, Foreman

from pbus import JobFailedError
from pbus.testing import WorkerHarness


def test_counter_counts_words() -> None:
    """Whatever their case."""

    async def main() -> None:
        async with WorkerHarness(Counter("counter")) as harness:
            answer = await harness.job("count", {"text": "To be or not to be"})
            assert answer == {"words": {"to": 2, "be": 2, "or": 1, "not": 1}}

    asyncio.run(main())


def test_foreman_adds_up() -> None:
    """What the counters answer, here one that only plays them, is added."""

    async def main() -> None:
        async with WorkerHarness(Foreman("foreman")) as harness:
            await harness.add_worker("counter", {"count": {"words": {"be": 2}}})
            answer = await harness.job("total", {"texts": ["one", "two", "three"]})
            assert answer == {"words": {"be": 6}}

    asyncio.run(main())


def test_failed_count_fails_total() -> None:
    """An error of a counter is one of the foreman, and its requester is told."""

    async def main() -> None:
        async with WorkerHarness(Foreman("foreman")) as harness:
            await harness.add_worker("counter", {"count": ValueError("no such text")})
            with pytest.raises(JobFailedError, match="no such text"):
                await harness.job("total", {"texts": ["one"]})

    asyncio.run(main())
