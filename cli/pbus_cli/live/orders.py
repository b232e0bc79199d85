"""Orders from the display to a project: a client's calls, and how they went in a line."""

from collections.abc import Callable
from typing import Final

from pbus.client import Client
from pbus.errors import PbusError

Tell = Callable[[str], None]

_DOING: Final = {
    "restart": "restarting", "stop": "stopping", "start": "starting", "scale": "scaling",
}  # fmt: skip
_DONE: Final = {"restart": "was restarted", "stop": "was stopped", "start": "was started"}


async def carry_out(client: Client, verb: str, name: str, count: int, tell: Tell) -> None:
    """Do it, and tell how it goes.

    Args:
        client: Open.
        verb: "restart", "stop", "start", "scale" or "requeue".
        name: The worker's, the group's, or a dead letter's key; "" for all dead letters.
        count: Replicas, with "scale".
        tell: Called with a line at the beginning and one at the end.
    """
    try:
        if verb == "requeue":
            tell(await _requeue(client, name))
            return
        tell(f"{_DOING[verb]} {name} …")
        if verb == "scale":
            await client.control.scale({name: count})
            tell(f"{name} runs {count}")
        else:
            await getattr(client.control, verb)(name)
            tell(f"{name} {_DONE[verb]}")
    except PbusError as error:
        hint = f" ({error.hint})" if error.hint else ""
        tell(f"{verb} {name}: {error}{hint}")


async def _requeue(client: Client, key: str) -> str:
    if not key:
        return f"{await client.dead_letters.requeue(every=True):,} are back in their queues"
    await client.dead_letters.requeue(key)
    return f"{key} is back in its queue"
