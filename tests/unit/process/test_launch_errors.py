"""Programs that cannot be started: each error names the cause, and what to do."""

import codecs
import errno
import os
import struct

import pytest

from pbus.process.launch_errors import MAX_STRING_BYTES, explain, hint_at_exit
from pbus.process.system.launch_plan import Launch

ELF = b"\x7fELF\x02\x01" + bytes(12)


@pytest.fixture
def folder(tmp_path):
    """A working folder below one that has a program."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def launch(folder, *argv, **env):
    return Launch(argv=argv, env={"PATH": str(folder.parent / "bin"), **env}, cwd=folder)


def program(folder, content, name="prog", mode=0o755):
    path = folder.parent / "bin" / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


def why(folder, number, *argv, **env):
    """The text of an error of this number."""
    error = OSError(number, os.strerror(number), argv[0])
    found = explain(launch(folder, *argv, **env), error)
    assert number == found.errno
    return found.strerror


@pytest.mark.parametrize(
    ("content", "number", "said"),
    [
        (b"#!/none/python\nx", errno.ENOENT, "wants the interpreter /none/python, which does not exist"),
        (b"#! /none/python -u\n", errno.ENOENT, "wants the interpreter /none/python, which does"),
        (b"#!/bin/sh\r\nx\r\n", errno.ENOENT, "ends with CR LF, as on Windows"),
        (b"#!\necho", errno.ENOEXEC, "names no interpreter after #!"),
        (b"#!   \necho", errno.ENOEXEC, "names no interpreter after #!"),
        (b"#!/bin/sh\n", errno.EACCES, f"wants the interpreter /bin/sh: {os.strerror(errno.EACCES)}"),
        (codecs.BOM_UTF8 + b"#!/bin/sh\n", errno.ENOEXEC, "begins with a byte order mark"),
        ("#!/bin/sh\n".encode("utf-16"), errno.ENOEXEC, "begins with a byte order mark"),
        (b"", errno.ENOEXEC, "is empty (a script begins with a line like #!/bin/sh)"),
        (b"echo hello\n", errno.ENOEXEC, "is no program and names no interpreter"),
        (b"\0\xff\xfe", errno.ENOEXEC, "is no program and names no interpreter"),
        (ELF + struct.pack("<H", 183), errno.ENOEXEC, "is built for another kind of machine (aarch64)"),
        (ELF[:5] + b"\x02" + ELF[6:] + struct.pack(">H", 62), errno.ENOEXEC, "machine (x86_64)"),
        (ELF + struct.pack("<H", 9999), errno.ENOEXEC, "machine (ELF machine 9999)"),
        (ELF, errno.ENOEXEC, "machine (it is cut off)"),
        (ELF + struct.pack("<H", 62), errno.ENOENT, "but not the loader that it needs"),
    ],
)  # fmt: skip
def test_file_that_is_there_is_read(folder, content, number, said):
    """By its first bytes, whether it is named by PATH or by its own."""
    path = program(folder, content)
    for name in ("prog", str(path), "../bin/prog"):
        text = why(folder, number, name)
        assert said in text
        assert "/bin/prog" in text


def test_interpreter_is_looked_for_from_the_working_folder(folder):
    """As the kernel does it, not from the folder of the supervisor."""
    (folder / "python").write_bytes(b"")
    program(folder, b"#!./python\n")
    number = errno.EACCES
    assert f"wants the interpreter python: {os.strerror(number)}" in why(folder, number, "prog")


def test_file_that_is_not_there(folder):
    """The names that were looked for: by PATH, or from the working folder."""
    missing = os.strerror(errno.ENOENT)
    assert f"{missing}: prog (not in PATH)" == why(folder, errno.ENOENT, "prog")
    assert f"{missing}: {folder}/bin/prog" == why(folder, errno.ENOENT, "bin/prog")
    assert f"{missing}: /none/prog" == why(folder, errno.ENOENT, "/none/prog")


def test_what_may_not_be_executed(folder):
    """A folder, or a file that lacks the right; where it is found by PATH, too."""
    path = program(folder, b"#!/bin/sh\n", mode=0o644)
    for name in ("prog", str(path)):
        said = why(folder, errno.EACCES, name)
        assert f"{path} is not executable (chmod +x {path})" == said
    assert f"{path.parent} is a folder, not a program" == why(
        folder, errno.EACCES, str(path.parent)
    )


def test_working_folder_comes_first(folder):
    """It may be why the program is not found."""
    gone, file = folder / "gone", folder / "file"
    file.write_text("")
    assert f"its working folder {gone} does not exist" == why(gone, errno.ENOENT, "prog")
    assert f"its working folder {file} is no folder" == why(file, errno.ENOTDIR, "prog")


def test_too_long_a_command_names_the_longest_part(folder):
    """An argument, a variable, or all of them together; never their values."""
    secret = "s" * MAX_STRING_BYTES
    assert f"the variable TOKEN has {len(secret) + 6:,} bytes" in why(
        folder, errno.E2BIG, "prog", TOKEN=secret
    )
    assert f"an argument has {len(secret):,} bytes" in why(folder, errno.E2BIG, "prog", secret)
    many = [f"{number:0100d}" for number in range(300)]
    said = why(folder, errno.E2BIG, "prog", *many)
    assert said.startswith("its arguments and variables have 30,")
    assert "sss" not in why(folder, errno.E2BIG, "prog", TOKEN=secret)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EAGAIN, errno.EPERM])
def test_other_errors_stay_as_they_are(folder, number):
    """With the name that the system gave."""
    program(folder, b"")
    assert f"{os.strerror(number)}: prog" == why(folder, number, "prog")


@pytest.mark.parametrize("code", [126, 127])
def test_exit_code_of_a_shell_is_explained_by_line_ends(folder, code):
    """Of the script itself, or of the script that an interpreter is given; other codes say nothing."""
    path = program(folder, b"#!/usr/bin/env python3\r\nprint()\r\n")
    for argv in (("prog",), ("sh", "../bin/prog"), (str(path), "x")):
        assert "ends with CR LF" in hint_at_exit(launch(folder, *argv), code)
        assert "" == hint_at_exit(launch(folder, *argv), 1)
    program(folder, b"#!/usr/bin/env python3\nprint()\r\n")
    assert "" == hint_at_exit(launch(folder, "prog"), code)
    assert "" == hint_at_exit(launch(folder, "none", "\0", "prog"), code)


def test_odd_files_are_not_read(folder):
    """A pipe, that would block the supervisor, and a file that went meanwhile."""
    pipe = folder.parent / "bin" / "pipe"
    os.mkfifo(pipe, 0o755)
    assert "is empty" in why(folder, errno.ENOEXEC, "pipe")
    assert "" == hint_at_exit(launch(folder, "pipe"), 127)
    pipe.unlink()
    assert "pipe" in why(folder, errno.ENOEXEC, "pipe")
