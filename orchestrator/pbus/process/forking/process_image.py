"""Command line and environment of this process, as others see them in /proc."""

import ctypes
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_PR_SET_MM: Final = 35
_PR_SET_MM_MAP: Final = 14
_NO_FILE: Final = 0xFFFFFFFF
# Positions in /proc/PID/stat, behind the name: where the parts of a process are.
_PLACES: Final = {
    "start_code": 23, "end_code": 24, "start_stack": 25, "start_data": 42, "end_data": 43,
    "start_brk": 44,
}  # fmt: skip

_shown: list[Any] = []  # the kernel reads it from our memory


def show(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Have others see this command line and this environment.

    Raises:
        OSError: The system does not allow it.
    """
    words = b"".join(os.fsencode(word) + b"\0" for word in argv)
    variables = b"".join(os.fsencode(f"{key}={value}") + b"\0" for key, value in environ.items())
    shown = ctypes.create_string_buffer(words + variables, len(words) + len(variables) + 1)
    library = ctypes.CDLL(None, use_errno=True)
    library.sbrk.restype = ctypes.c_void_p
    begin = ctypes.addressof(shown)
    middle, end = begin + len(words), begin + len(words) + len(variables)
    place = _places()
    layout = struct.pack(
        "=11QQII",
        *(place[name] for name in ("start_code", "end_code", "start_data", "end_data")),
        *(place["start_brk"], library.sbrk(0), place["start_stack"]),
        *(begin, middle, middle, end),
        *(0, 0, _NO_FILE),  # the auxiliary vector and the program stay as they are
    )
    if library.prctl(
        _PR_SET_MM, _PR_SET_MM_MAP, layout, ctypes.c_ulong(len(layout)), ctypes.c_ulong(0)
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    _shown[:] = [shown]


def _places() -> dict[str, int]:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return {name: int(fields[index]) for name, index in _PLACES.items()}
