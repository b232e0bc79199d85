"""Texts for programs that cannot be started: the cause, and what to do."""

import codecs
import contextlib
import errno
import os
import shutil
import stat
import struct
from pathlib import Path

from pbus.process.system.launch_plan import Launch

MAX_STRING_BYTES = 128 * 1024  # of one argument or variable, on Linux

_ELF = b"\x7fELF"
_ELF_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
_ELF_HEADER_BYTES = 20
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HEAD_BYTES = 256
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # what shells and env exit with


def explain(launch: Launch, error: OSError) -> OSError:
    """Return the error with a text about the program, its script or folder."""
    try:
        text = _folder_problem(launch.cwd) or _problem(launch, error)
    except OSError:  # it is not accessible
        text = ""
    return OSError(error.errno, text or _plain(error))


def hint_at_exit(launch: Launch, code: int) -> str:
    """Return the likely cause of an exit code of env or a shell, or ""."""
    if code not in {_NOT_FOUND, _NOT_EXECUTABLE}:
        return ""
    with contextlib.suppress(OSError, ValueError):
        for word in launch.argv[:2]:  # a script, or the script of an interpreter
            path = _find(launch, word)
            first = b"" if path is None else _head(path).split(b"\n")[0]
            if path is not None and first.startswith(b"#!") and first.endswith(b"\r"):
                return _crlf(path)
    return ""


def _problem(launch: Launch, error: OSError) -> str:
    program = launch.argv[0]
    if error.errno == errno.E2BIG:
        return _too_long(launch)
    if error.errno not in {errno.ENOENT, errno.EACCES, errno.ENOEXEC}:
        return ""
    path = _find(launch, program)
    if path is None:
        return _not_there(launch, program) if error.errno == errno.ENOENT else ""
    if path.is_dir():
        return f"{path} is a folder, not a program"
    if error.errno == errno.EACCES and not os.access(path, os.X_OK):
        return f"{path} is not executable (chmod +x {path})"
    return _misfit(launch, path, error)


def _misfit(launch: Launch, path: Path, error: OSError) -> str:
    """Describe the fault of an existing executable file."""
    head = _head(path)
    if head.startswith(b"#!"):
        return _script_problem(launch, path, head, error)
    if head.startswith((codecs.BOM_UTF8 + b"#!", *_UTF_16)):
        return (
            f"{path} begins with a byte order mark, as editors on Windows write it, so that its #!"
            " is not seen (save it as UTF-8 without BOM)"
        )
    if head.startswith(_ELF):
        if error.errno == errno.ENOENT:
            return f"{path} is there, but not the loader that it needs (built for another system?)"
        return f"{path} is built for another kind of machine ({_machine(head)})"
    if error.errno == errno.ENOEXEC:
        what = "is empty" if not head else "is no program and names no interpreter"
        return f"{path} {what} (a script begins with a line like #!/bin/sh)"
    return ""


def _script_problem(launch: Launch, path: Path, head: bytes, error: OSError) -> str:
    first = head.split(b"\n")[0]
    if first.endswith(b"\r"):
        return _crlf(path)
    words = os.fsdecode(first[2:]).split()
    if not words:
        return f"{path} names no interpreter after #!"
    interpreter = Path(words[0])
    if error.errno == errno.ENOENT or not (launch.cwd / interpreter).exists():
        return f"{path} wants the interpreter {interpreter}, which does not exist"
    return f"{path} wants the interpreter {interpreter}: {os.strerror(error.errno or 0)}"


def _crlf(path: Path) -> str:
    return (
        f"the first line of {path} ends with CR LF, as on Windows, so its interpreter is not"
        f" found (convert it: sed -i 's/\\r$//' {path})"
    )


def _folder_problem(folder: Path) -> str:
    if not folder.exists():
        return f"its working folder {folder} does not exist"
    if not folder.is_dir():
        return f"its working folder {folder} is no folder"
    if not os.access(folder, os.X_OK):
        return f"its working folder {folder} may not be entered"
    return ""


def _not_there(launch: Launch, program: str) -> str:
    where = f"{program} (not in PATH)" if os.sep not in program else str(launch.cwd / program)
    return f"{os.strerror(errno.ENOENT)}: {where}"


def _too_long(launch: Launch) -> str:
    words = [(len(os.fsencode(word)), "an argument") for word in launch.argv]
    words += [
        (len(os.fsencode(f"{name}={value}")), f"the variable {name}")
        for name, value in launch.env.items()
    ]
    size, what = max(words)
    if size >= MAX_STRING_BYTES:
        return (
            f"{what} has {size:,} bytes, and a program is given at most"
            f" {MAX_STRING_BYTES:,} in one (pass a file's name instead)"
        )
    total = sum(size for size, _ in words)
    return f"its arguments and variables have {total:,} bytes, more than the system passes on"


def _find(launch: Launch, program: str) -> Path | None:
    """Return the path of the program; None where it is not found."""
    if os.sep in program:
        path = launch.cwd / program
        return path if path.exists() else None
    found = shutil.which(program, path=launch.env.get("PATH", os.defpath))
    if found is not None:
        return launch.cwd / found
    folders = launch.env.get("PATH", os.defpath).split(os.pathsep)
    there = (launch.cwd / folder / program for folder in folders)
    return next((path for path in there if path.is_file()), None)


def _head(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""


def _machine(head: bytes) -> str:
    if len(head) < _ELF_HEADER_BYTES:
        return "it is cut off"
    number: int = struct.unpack(">H" if head[5:6] == b"\x02" else "<H", head[18:20])[0]
    return _ELF_MACHINES.get(number, f"ELF machine {number}")


def _plain(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{text}: {error.filename}" if error.filename else text
