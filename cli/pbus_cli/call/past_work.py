"""The fate of what an ended process had: from the traffic that is kept, and the dead letters."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pbus.client.attachment import attachment_of
from pbus.errors import PbusError
from pbus.process.project.history.capsule import Capsule
from pbus.process.project.history.traffic_history import KeptMessage, read_traffic
from pbus.process.project.history.work_fates import LOOK_ON_S, WorkFate, work_fates
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord
from pbus_cli.call.attach import call

if TYPE_CHECKING:
    from pbus.client import Client


def fates_of(project: Project, record: ProjectRecord | None, capsule: Capsule) -> list[WorkFate]:
    """The fates of a capsule's jobs and messages.

    Args:
        project: Whose.
        record: Of its supervisor; None where it does not run: dead letters are not known then.
        capsule: The capsule.
    """
    traffic = capsule.traffic
    if traffic is None or not (traffic.jobs or traffic.received):
        return []
    later: list[KeptMessage] = []
    with contextlib.suppress(OSError):  # as far as it can be read
        later.extend(_later(project, capsule.ended))
    return work_fates(capsule, later, _dead_letters(record, capsule))


def _later(project: Project, ended: float) -> Iterator[KeptMessage]:
    for entry in read_traffic(project):
        if isinstance(entry.what, KeptMessage) and ended <= entry.at <= ended + LOOK_ON_S:
            yield entry.what


def _dead_letters(record: ProjectRecord | None, capsule: Capsule) -> set[str]:
    found: set[str] = set()
    if record is None or not capsule.open.is_stored:
        return found

    async def look(client: "Client") -> None:
        found.update(one.id for one in await client.dead_letters.list())

    with contextlib.suppress(PbusError):  # the broker is away
        call(attachment_of(record), look)
    return found
