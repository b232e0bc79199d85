"""The workers without processes and without a broker: `python -m pytest`."""

import asyncio

from workers import Greeter, Visitor

from pbus.testing import WorkerHarness


def test_greeter_greets_by_name() -> None:
    """The greeting comes from the arguments, the name from the request."""

    async def main() -> None:
        async with WorkerHarness(Greeter("greeter", greeting="Hi")) as harness:
            assert await harness.job("greet", {"name": "Ada"}) == {"text": "Hi, Ada!"}

    asyncio.run(main())


def test_visitor_asks_for_greeting() -> None:
    """As soon as a greeter is there, here one that only plays it, the visitor asks."""

    async def main() -> None:
        async with WorkerHarness(Visitor("visitor")) as harness:
            greeter = await harness.add_worker("greeter", {"greet": {"text": "Welcome!"}})
            request = await greeter.asked("greet")
            assert request.payload == {"name": "visitor"}

    asyncio.run(main())
