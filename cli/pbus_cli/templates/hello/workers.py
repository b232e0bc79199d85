"""Two workers, each a process: a visitor asks to be greeted, a greeter greets."""

from typing import Any

from pbus import BaseWorker, BusJobRequestMessage, WorkerReadyData, job, worker_ready


class Greeter(BaseWorker):
    """Greets the requester.

    Args:
        greeting: Said before the name; see `args` in topology.yaml.
    """

    def __init__(self, name: str, *, greeting: str = "Hello", **options: Any) -> None:
        super().__init__(name, **options)
        self._greeting = greeting

    @job(name="greet")
    async def greet(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """Greet by name."""
        who = (request.payload or {}).get("name", "you")
        return {"text": f"{self._greeting}, {who}!"}


class Visitor(BaseWorker):
    """Has itself greeted whenever a greeter has become ready."""

    @worker_ready(name="greeter")
    async def on_greeter_ready(self, data: WorkerReadyData) -> None:
        """Ask, and print the answer: `pbus up` and `pbus logs` show it."""
        async with self.job(data.worker_name, name="greet", payload={"name": self.name}) as asked:
            pass
        print(asked.response["text"])
