"""One look at a process from outside: HTTP, TCP, or a program that is run."""

import asyncio
import contextlib
import re
import signal
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from pbus.process.supervisor_events import Stream
from pbus.process.system.launch_plan import Launch
from pbus.process.system.spawn import spawn
from pbus.topology.policy.policies import ExecProbe, HttpProbe, TcpProbe

_LINE_BYTES = 4096  # of a status line
_SHOWN = 200  # characters of a reason
_LEAST_GOOD, _MOST_GOOD = 200, 399
_DRAIN_S = 0.3  # for the last lines of a program that has ended

Check = HttpProbe | TcpProbe | ExecProbe


class Surroundings(msgspec.Struct, frozen=True):
    """Folder and environment of the programs that `exec` runs.

    Attributes:
        env: The environment of the worker.
        cwd: Its folder.
    """

    env: Mapping[str, str]
    cwd: Path


async def check(probe: Check, around: Surroundings, timeout_s: float) -> str:
    """Look once.

    Args:
        probe: How.
        around: Where a program runs.
        timeout_s: Seconds the check may take.

    Returns:
        Why the check failed, in a few words; "" where it succeeded.
    """
    try:
        async with asyncio.timeout(timeout_s):
            match probe:
                case HttpProbe(url):
                    return await _http(url)
                case TcpProbe(host, port):
                    return await _tcp(host, port)
                case ExecProbe(command):
                    return await _exec(command, around)
    except TimeoutError:
        return f"{_name(probe)}: no answer within {timeout_s:g} s"
    except (OSError, ValueError, ssl.SSLError) as error:
        return f"{_name(probe)}: {getattr(error, 'strerror', None) or error}"[:_SHOWN]


def _name(probe: Check) -> str:
    match probe:
        case HttpProbe(url):
            parts = urlsplit(url)
            return f"http {parts.hostname}:{parts.port or parts.scheme}{parts.path}"
        case TcpProbe(host, port):
            return f"tcp {host}:{port}"
        case ExecProbe(command):
            return f"exec {command[0]}"


async def _tcp(host: str, port: int) -> str:
    _, writer = await asyncio.open_connection(host, port)
    await _close(writer)
    return ""


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()  # nothing that is still on its way matters
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _http(url: str) -> str:
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    host = parts.hostname or ""
    port = parts.port or (443 if is_tls else 80)
    reader, writer = await asyncio.open_connection(
        host, port, limit=_LINE_BYTES, ssl=ssl.create_default_context() if is_tls else None
    )
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        named = f"[{host}]" if ":" in host else host
        request = f"GET {target} HTTP/1.1\r\nHost: {named}:{port}\r\nUser-Agent: pbus\r\nConnection: close\r\n\r\n"
        writer.write(request.encode("ascii", "backslashreplace"))
        answer = await reader.readline()
    except ValueError:  # a line without an end
        answer = b""
    finally:
        await _close(writer)
    problem = _status_problem(answer, parts.path)
    return f"http {host}:{port}{problem}" if problem else ""


def _status_problem(line: bytes, path: str) -> str:
    words = line.decode("latin-1").split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not re.fullmatch("[0-9]{3}", words[1]):  # noqa: PLR2004 - version and status
        return ": the answer is not HTTP"
    is_good = _LEAST_GOOD <= int(words[1]) <= _MOST_GOOD
    return "" if is_good else f"{path}: status {int(words[1])}"


async def _exec(command: tuple[str, ...], around: Surroundings) -> str:
    last = ""

    def keep(_stream: Stream, line: str) -> None:
        nonlocal last
        last = line.strip()[:_SHOWN] or last

    launch = Launch(argv=command, env=dict(around.env), cwd=around.cwd)
    child = await spawn(launch, "", keep, lambda: None)
    try:
        code = await child.wait()
        await child.wait_drained(_DRAIN_S)
    finally:
        child.send_signal(signal.SIGKILL)  # what is left of its group
        await child.abandon()
    if code == 0:
        return ""
    return f"exec {command[0]}: exit code {code}" + (f": {last}" if last else "")
