"""The part of a fork in the new process: it becomes what an exec would have made of it."""

import gc
import importlib
import os
import socket
import struct
import sys
import time
import types
from collections.abc import Sequence
from typing import Final

from pbus.process.forking import process_image
from pbus.process.forking.fork_messages import ForkRequest
from pbus.process.system.launch_plan import SPEC_VARIABLE

PID_FORMAT: Final = "=i"
GO: Final = b"g"

_PARENT_S: Final = 5.0
_POLL_S: Final = 0.0005


def become_worker(
    request: ForkRequest, descriptors: Sequence[int], path: Sequence[str], program: types.ModuleType
) -> None:
    """Take over the place of a program that was started by exec.

    Args:
        request: The fork.
        descriptors: Those of the request.
        path: The import path of a new interpreter.
        program: The module that is run.

    Raises:
        OSError: It cannot be done; the supervisor uses exec.
        SystemExit: The supervisor does not want the process any more.
    """
    link_fd, out, err, spec = descriptors
    os.setsid()
    os.chdir(request.cwd)
    env = {**request.env, SPEC_VARIABLE: str(spec)}
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    process_image.show(request.argv, env)
    sys.path[:] = path
    importlib.invalidate_caches()
    _set_program(program, request.argv)
    _reseed()
    gc.enable()
    with socket.socket(fileno=link_fd) as link:
        _await_parent(request.parent)
        for descriptor, place in ((out, 1), (err, 2)):
            os.dup2(descriptor, place)
            os.close(descriptor)
        link.send(struct.pack(PID_FORMAT, os.getpid()))
        if link.recv(1) != GO:
            raise SystemExit(1)


def _set_program(program: types.ModuleType, argv: Sequence[str]) -> None:
    main = types.ModuleType("__main__", program.__doc__)
    for name in ("__spec__", "__file__", "__cached__", "__loader__", "__package__", "__builtins__"):
        setattr(main, name, getattr(program, name, None))
    sys.modules["__main__"] = main
    sys.orig_argv[:] = argv
    # What follows `-P -m MODULE`.
    sys.argv[:] = [str(program.__file__), *argv[4:]]


def _reseed() -> None:
    """Give the process random numbers of its own; the module random does that by itself."""
    numbers = sys.modules.get("numpy.random")
    if numbers is not None:
        numbers.seed()


def _await_parent(supervisor: int) -> None:
    """Wait until the process between has ended: the supervisor is the parent then."""
    deadline = time.monotonic() + _PARENT_S
    while os.getppid() != supervisor:
        if time.monotonic() > deadline:
            raise SystemExit(1)
        time.sleep(_POLL_S)
