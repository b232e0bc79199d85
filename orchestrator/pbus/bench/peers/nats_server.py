"""The NATS server of a benchmark: on loopback, at a free port, ended with the benchmark."""

import asyncio
import contextlib
import shutil
import sysconfig
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import RoleConfig

_PROGRAM: Final = "nats-server"
_START_S = 20.0
_END_S = 5.0
_POLL_S = 0.02


class _Ports(msgspec.Struct):
    """The file in which the server tells its addresses."""

    nats: list[str]


@contextlib.asynccontextmanager
async def running_server() -> AsyncIterator[str]:
    """The URL of a server that runs within the block.

    Raises:
        ProcessError: It does not start.
    """
    async with BenchProcesses("") as services:
        server = await services.start(_PROGRAM, RoleConfig())
        yield await server.result(str)


async def serve(config: RoleConfig, control: ControlPipe) -> None:  # noqa: ARG001 - as other roles
    """Role: run the server until the pool is gone."""
    with tempfile.TemporaryDirectory(prefix="pbus-bench-nats-") as folder:
        process = await asyncio.create_subprocess_exec(
            *(program() or _PROGRAM, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            ports = Path(folder, f"{_PROGRAM}_{process.pid}.ports")
            async with asyncio.timeout(_START_S):
                control.send(await _address(ports))
            await control.receive()
        finally:
            await _end(process)


async def _address(ports: Path) -> str:
    while (address := _read(ports)) is None:  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(_POLL_S)
    return address


def _read(ports: Path) -> str | None:
    try:
        return msgspec.json.decode(ports.read_bytes(), type=_Ports).nats[0]
    except (OSError, msgspec.DecodeError):  # not there, or not whole yet
        return None


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _END_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):  # it has ended just now
                process.kill()
            await process.wait()


def program() -> str | None:
    """The server beside this Python, or on the PATH."""
    return shutil.which(_PROGRAM, path=sysconfig.get_path("scripts")) or shutil.which(_PROGRAM)
