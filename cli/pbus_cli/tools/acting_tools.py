"""Tools that change what runs: restart, send."""

from typing import Annotated, Any, Final

import msgspec
import typer
from msgspec import Meta

from pbus.client import Client, MessageInput
from pbus.errors import ControlError
from pbus.jobs import JobParams
from pbus.messages import ControlAction
from pbus_cli.tools.tool import ProjectChoice, Tool, ToolArguments
from pbus_cli.tools.tool_result import sanitised

_EVERYONE: Final = "*"
_MOST_EVENTS: Final = 100  # of a job


class _Restart(ToolArguments):
    workers: Annotated[
        list[str],
        Meta(min_length=1, max_length=100, description="Workers, groups, or patterns; * is all."),
    ]
    rolling: Annotated[
        bool, Meta(description="One replica after the other; the next is ready before one drains.")
    ] = False
    timeout_s: Annotated[float, Meta(gt=0, le=280)] = 60.0


class _Send(ToolArguments):
    target: Annotated[str, Meta(min_length=1, description="A worker or a group; * for everyone.")]
    text: Annotated[str, Meta(description="Send a text frame.")] | None = None
    type: Annotated[str, Meta(description="Or a message of this type.")] | None = None
    job: (
        Annotated[str, Meta(description="Or ask for the job of this name, and wait for its end.")]
        | None
    ) = None
    data: Annotated[
        dict[str, Any], Meta(description="Fields of the message, or payload of the job.")
    ] = msgspec.field(default_factory=dict)
    key: Annotated[str, Meta(description="All of one key go to the same replica.")] | None = None
    urgent: Annotated[bool, Meta(description="Overtake queued data.")] = False
    timeout_s: Annotated[float, Meta(gt=0, le=280, description="For a job.")] = 60.0


async def _restart(choice: ProjectChoice, given: _Restart) -> dict[str, Any]:
    async def restart(client: Client) -> dict[str, Any]:
        action: ControlAction = "roll" if given.rolling else "restart"
        failed: list[str] = []
        try:
            results = await client.control.run(action, given.workers, given.timeout_s)
        except ControlError as error:  # the others were restarted
            results, failed = list(error.results), list(error.failed)
        return {
            "failed": failed,
            "workers": [
                {
                    "worker": one.worker,
                    "outcome": one.outcome,
                    "pid": one.pid,
                    "detail": one.detail,
                }
                for one in results
            ],
        }

    return await choice.ask(restart)


async def _send(choice: ProjectChoice, given: _Send) -> dict[str, Any]:
    if sum(kind is not None for kind in (given.text, given.type, given.job)) != 1:
        raise typer.BadParameter("give one of text, type and job")
    if given.text is not None and given.data:
        raise typer.BadParameter("text brings its own data: leave out data")
    if given.job is not None and given.target == _EVERYONE:
        raise typer.BadParameter("a job is for one worker: give its name as target")

    async def act(client: Client) -> dict[str, Any]:
        return await (_post(client, given) if given.job is None else _ask(client, given))

    return await choice.ask(act)


async def _post(client: Client, given: _Send) -> dict[str, Any]:
    if given.text is not None:
        message = MessageInput.text(given.text, given.key)
    else:
        message = MessageInput(given.type or "", given.data, given.key).check()
    target = None if given.target == _EVERYONE else given.target
    route = await client.route(target, message, urgent=given.urgent)
    reached = await route.send()
    return {
        "sent": message.type,
        "to": [name or "everyone" for name in reached] if route.is_heard else [],
        "is_stored": route.is_stored,
        "inactive": route.inactive,
    }


async def _ask(client: Client, given: _Send) -> dict[str, Any]:
    params = JobParams(
        name=given.job,
        payload=given.data,
        timeout=given.timeout_s,
        priority="high" if given.urgent else "normal",
        key=given.key,
    )
    events: list[Any] = []
    async with client.job(given.target, params=params) as asked:
        async for event in asked:
            events.append(sanitised({"type": event.type, "data": event.data}))
            del events[:-_MOST_EVENTS]
    return {"worker": asked.worker, "response": dict(asked.response), "events": events}


ACTING_TOOLS = (
    Tool(
        "restart",
        "Stop workers and start them again with their current code and topology; returns when they are ready.",
        _Restart, _restart, "workers", is_reading=False,
    ),
    Tool(
        "send",
        "Send a message to a worker, or ask it for a job and return its response and progress.",
        _Send, _send, "events", is_reading=False,
    ),
)  # fmt: skip
