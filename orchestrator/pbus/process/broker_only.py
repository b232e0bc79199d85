"""The embedded broker of a project that does not run, for the length of a block."""

import contextlib
from collections.abc import AsyncIterator

import msgspec

from pbus.concurrency.background import run_forever, running
from pbus.ids import new_token
from pbus.process.project.broker_key import own_key
from pbus.process.project.discovery import refuse_other_path
from pbus.process.project.project import Project
from pbus.process.project.project_lock import ProjectLock
from pbus.process.project.record import write_last
from pbus.process.services.services import Services
from pbus.process.system.launch_plan import ProcessEnvironment
from pbus.topology.model import Topology


@contextlib.asynccontextmanager
async def broker_only(topology: Topology) -> AsyncIterator[ProcessEnvironment]:
    """Run a project's guard and embedded broker, and hold the project; no worker is started.

    Other processes find it meanwhile as any running project.

    Args:
        topology: Without a URL of a broker.

    Raises:
        ProjectRunningError: It runs.
        ProcessError: Guard or broker do not start.
    """
    project = Project.of(topology)
    refuse_other_path(project)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(ProjectLock(project))
        services = Services(project, topology.bus, lambda _: None)
        stack.push_async_callback(services.close)
        settings = msgspec.structs.replace(
            topology.bus,
            url=await services.open(),
            key=topology.bus.key or own_key(project.state_dir),
        )
        record = project.new_record(new_token(), settings)
        record = msgspec.structs.replace(record, has_supervisor=False)
        project.write_record(record)
        write_last(project.state_dir, record, is_own_broker=True)
        for name, function in services.tasks().items():
            keeping = run_forever(f"keeping the {name}", function)
            await stack.enter_async_context(running(keeping))
        yield ProcessEnvironment(
            bus=settings,
            session=record.session,
            project=project.name,
            file=project.file,
            state=project.state_dir,
            guard_token=services.guard.token,
            loop=topology.loop,
        )
