"""Following the log lines of a project that this machine's supervisor runs."""

from collections.abc import AsyncIterator

from pbus.bus.base import WorkerBus
from pbus.client.status import read_facts
from pbus.observe import HostRecord
from pbus.process.project.log_files import LogLine
from pbus.process.project.log_reader import follow_lines
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord


async def follow_logs(bus: WorkerBus, record: ProjectRecord) -> AsyncIterator[LogLine]:
    """Yield lines as they are written, of the workers that there are now or were before.

    Args:
        bus: Started.
        record: Of the supervisor.

    Raises:
        BusUnavailableError: The broker does not answer.
    """
    project = Project.of_record(record)
    _, hosts = await read_facts(bus)
    names = {process.name for host in hosts for process in host.processes if _is_of(host, record)}
    paths = {name: project.log_path(name) for name in sorted(names)} | project.log_paths()
    async for line in follow_lines(paths):
        yield line


def _is_of(host: HostRecord, record: ProjectRecord) -> bool:
    return (host.session, host.pid) == (record.session, record.pid)
