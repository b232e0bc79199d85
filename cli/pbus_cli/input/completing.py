"""Shell completion of live workers, jobs, projects and message types.

A shell waits for this at every press of the tab key: it is quick, says nothing, and knows nothing
rather than failing.
"""

import re
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import typer

if TYPE_CHECKING:
    from pbus.bus.base import WorkerBus

_ASK_S: Final = 1.0  # a person at a prompt waits no longer for names

# Shells evaluate what they complete: offered are names that no shell gives a meaning to.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:@%+=/-]*")

Completer: TypeAlias = Callable[[typer.Context, str], list[str]]


def _quietly(names: Callable[[typer.Context], Iterable[str]]) -> Completer:
    """Complete the typed prefix; offer nothing where the names cannot be read."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        import logging

        logging.disable()
        try:
            known = list(names(ctx))
        except (Exception, SystemExit):  # noqa: BLE001 - the prompt must not be disturbed
            return []
        return sorted({name for name in known if name.startswith(incomplete) and is_plain(name)})

    return complete


def is_plain(name: str) -> bool:
    """Whether a name means itself in every shell, wherever it is put."""
    return _PLAIN.fullmatch(name) is not None


def _worker_names(ctx: typer.Context) -> Iterable[str]:
    """All processes and workers, and what replicas have in common."""
    from pbus.names import with_groups

    return with_groups(_ask(ctx, _read_names))


def _crashed_names(ctx: typer.Context) -> Iterable[str]:
    """Workers that left a crash capsule, also where nothing runs."""
    import os

    from pbus.errors import NothingRunningError
    from pbus.names import with_groups
    from pbus.process.project.discovery import choose_project, stopped_record
    from pbus.process.project.history.capsule_files import read_capsules
    from pbus.process.project.project import Project
    from pbus.topology.paths import working_folder

    name, file = (_given(ctx, option) for option in ("project", "file"))
    path = Path(file) if file else None
    try:
        record = choose_project(name, path, working_folder(), os.environ)
    except NothingRunningError:
        found = stopped_record(name, path, working_folder())
        if found is None:
            return ()
        record = found
    capsules = read_capsules(Project.of_record(record))
    return with_groups(name for one in capsules for name in one.workers)


def _replicated_names(ctx: typer.Context) -> Iterable[str]:
    """The groups of replicas, as the beginning of a wish."""
    from pbus.names import group_of

    return {f"{group}=" for name in _ask(ctx, _read_names) if (group := group_of(name))}


def _job_names(ctx: typer.Context) -> Iterable[str]:
    """The jobs of the target that was typed, else of all workers."""
    from pbus.names import stands_for

    # Behind an option that still lacks its value the words before are not parsed.
    target = ctx.params.get("target") or next(iter(ctx.args), None)

    async def read(bus: "WorkerBus") -> list[str]:
        leases = await bus.leases.leases()
        return [
            job for one in leases if not target or stands_for(target, one.name) for job in one.jobs
        ]

    return _ask(ctx, read)


def _type_names(_: typer.Context) -> Iterable[str]:
    from pbus.messages import message_type, message_types

    known = ((name, message_type(name)) for name in message_types())
    return [name for name, cls in known if cls is not None and not cls.is_local]


def _worker_or_type_names(ctx: typer.Context) -> Iterable[str]:
    from pbus.client.traffic.type_names import short_type

    types = {name for whole in _type_names(ctx) for name in (whole, short_type(whole))}
    try:
        return {*types, *_worker_names(ctx)}
    except (Exception, SystemExit):  # noqa: BLE001 - types are known without a project
        return types


def _job_ids(ctx: typer.Context) -> Iterable[str]:
    """The open jobs."""
    from pbus.client import Client

    async def read(bus: "WorkerBus") -> list[str]:
        async with Client(bus) as client:
            return [job.job_id for job in (await client.open_jobs()).jobs]

    return _ask(ctx, read)


def _project_names(_: typer.Context) -> Iterable[str]:
    from pbus.process.project.discovery import running_projects

    return [record.name for record in running_projects()]


def _example_names(_: typer.Context) -> Iterable[str]:
    from pbus_cli.input.examples import example_names

    return example_names()


async def _read_names(bus: "WorkerBus") -> list[str]:
    from pbus.observe import decode_records

    hosts = decode_records(await bus.leases.records())
    processes = [process.name for host in hosts for process in host.processes]
    return [*processes, *(lease.name for lease in await bus.leases.leases())]


def _ask(
    ctx: typer.Context, question: "Callable[[WorkerBus], Coroutine[Any, Any, list[str]]]"
) -> list[str]:
    """Ask the bus of the project that the words typed so far mean."""
    import asyncio
    import os

    from pbus.client.attachment import attachment_of
    from pbus.process.project.discovery import choose_project
    from pbus.process.system.event_loop import run_patiently
    from pbus.topology.paths import working_folder

    name, file = (_given(ctx, option) for option in ("project", "file"))
    record = choose_project(name, Path(file) if file else None, working_folder(), os.environ)

    async def answer() -> list[str]:
        bus = attachment_of(record).new_bus()  # loads its client
        async with asyncio.timeout(_ASK_S), bus:
            return await question(bus)

    return run_patiently(answer())


def _given(ctx: typer.Context, option: str) -> str | None:
    """The value of an option, given to the verb or before it."""
    at: Any = ctx
    while at is not None:
        if value := at.params.get(option):
            return str(value[0] if isinstance(value, list) else value)
        at = at.parent
    return None


crashed_names: Final = _quietly(_crashed_names)
worker_names: Final = _quietly(_worker_names)
replicated_names: Final = _quietly(_replicated_names)
job_names: Final = _quietly(_job_names)
worker_or_type_names: Final = _quietly(_worker_or_type_names)
job_ids: Final = _quietly(_job_ids)
type_names: Final = _quietly(_type_names)
project_names: Final = _quietly(_project_names)
example_names: Final = _quietly(_example_names)
