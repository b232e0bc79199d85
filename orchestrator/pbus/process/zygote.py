"""The zygote: ``python -P -m pbus.process.zygote CONTROL LOG``, a process that forks the workers' processes.

A supervisor starts it with the descriptors of a socket and of a log. It imports what workers need,
then forks at each request and ends with the supervisor. A fork goes on as `pbus.process.child`. It
has no event loop, no threads and no connections.
"""

import gc
import importlib
import os
import socket
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Final

from pbus.process import child
from pbus.process.forking import process_image
from pbus.process.forking.fork_messages import (
    FileStamp,
    ForkRequest,
    ZygoteReady,
    ZygoteSpec,
    receive,
    send,
    stamp,
)
from pbus.process.forking.forked_worker import become_worker
from pbus.process.system.inherited_signals import undo_signals
from pbus.topology.paths import import_path

TITLE: Final = "pbus-zygote"


def main(control_fd: int, log_fd: int) -> bool:
    """Serve until the supervisor is gone; returns True in a fork, which is a worker then."""
    undo_signals()
    for place in (1, 2):
        os.dup2(log_fd, place)
    os.close(log_fd)
    control = socket.socket(fileno=control_fd)
    os.set_inheritable(control_fd, False)  # noqa: FBT003 - it has no name
    path = list(sys.path)
    gc.disable()  # a collection would write to pages that forks share
    received = receive(control, ZygoteSpec)
    if received is None:
        return False
    send(control, _prepare(received[0]))
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()
    return _serve(control, path)


def _prepare(spec: ZygoteSpec) -> ZygoteReady:
    for name in spec.modules:
        _import(name)  # a driver that is missing is the worker's error
    known = set(sys.modules)
    sys.path += import_path(Path(spec.file))
    problems = [f"preload: {problem}" for name in spec.preload if (problem := _import(name))]
    return ZygoteReady(
        files=_files(set(sys.modules) - known), problems=tuple(problems), obstacle=_obstacle()
    )


def _import(name: str) -> str:
    """Import a module; returns why that fails, or ""."""
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - of the user's code
        traceback.print_exc()
        return f"importing {name} raised {type(error).__name__}: {error}"
    return ""


def _files(modules: set[str]) -> dict[str, FileStamp]:
    places = (getattr(sys.modules.get(name), "__file__", None) for name in modules)
    stamps = {place: stamp(place) for place in places if isinstance(place, str)}
    return {place: one for place, one in stamps.items() if one is not None}


def _obstacle() -> str:
    """Why this process cannot fork; "" where it can."""
    names = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
    if names:
        return f"preload: the modules start threads ({', '.join(sorted(names))})"
    try:
        process_image.show([*sys.orig_argv[:4], TITLE], os.environ)
    except OSError as error:
        return f"the command line of a process cannot be set ({error})"
    return ""


def _serve(control: socket.socket, path: list[str]) -> bool:
    while (received := receive(control, ForkRequest)) is not None:
        request, descriptors = received
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads that libraries end
            is_fork = _fork()
        if is_fork:
            control.close()
            become_worker(request, descriptors, path, child)
            return True
        for descriptor in descriptors:
            os.close(descriptor)
    return False


def _fork() -> bool:
    """Fork a process without a parent, which the supervisor adopts; returns True in it."""
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        return False
    try:
        if os.fork() == 0:
            return True
    except OSError:
        traceback.print_exc()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(child.main() if main(*map(int, sys.argv[1:3])) else 0)
