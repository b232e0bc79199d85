"""The library behind the command: any program can ask the workers of a project, and control them.

::

    import pbus.client

    async with pbus.client.connect(project="shop") as client:
        response = await client.job("indexer", "load", {"day": 5}, timeout=20)

`connect_sync()` gives the same client to programs without an event loop.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pbus.client.attachment import Attachment as Attachment
    from pbus.client.control.control_requester import ControlResult as ControlResult
    from pbus.client.job_listing import OpenJobsResult as OpenJobsResult
    from pbus.client.project_client import Client as Client
    from pbus.client.project_client import connect as connect
    from pbus.client.status import ProjectStatus as ProjectStatus
    from pbus.client.status import WorkerStatus as WorkerStatus
    from pbus.client.sync.sync_client import SyncClient as SyncClient
    from pbus.client.sync.sync_client import connect_sync as connect_sync
    from pbus.client.traffic.edge_stats import EdgeStats as EdgeStats
    from pbus.client.traffic.edge_stats import JobStats as JobStats
    from pbus.client.traffic.edge_stats import ProjectStats as ProjectStats
    from pbus.client.traffic.message_input import MessageInput as MessageInput
    from pbus.client.traffic.message_tail import TailMessage as TailMessage
    from pbus.client.traffic.routes import Route as Route
    from pbus.client.traffic.tails.message_pairs import MessagePair as MessagePair

_HOMES = {
    "Attachment": "pbus.client.attachment",
    "Client": "pbus.client.project_client",
    "ControlResult": "pbus.client.control.control_requester",
    "EdgeStats": "pbus.client.traffic.edge_stats",
    "JobStats": "pbus.client.traffic.edge_stats",
    "MessageInput": "pbus.client.traffic.message_input",
    "MessagePair": "pbus.client.traffic.tails.message_pairs",
    "OpenJobsResult": "pbus.client.job_listing",
    "ProjectStats": "pbus.client.traffic.edge_stats",
    "ProjectStatus": "pbus.client.status",
    "Route": "pbus.client.traffic.routes",
    "SyncClient": "pbus.client.sync.sync_client",
    "TailMessage": "pbus.client.traffic.message_tail",
    "WorkerStatus": "pbus.client.status",
    "connect": "pbus.client.project_client",
    "connect_sync": "pbus.client.sync.sync_client",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - made from the table above


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'pbus.client' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
