"""A library for LD_PRELOAD that makes each sync of a program take its time."""

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
typedef int (*sync_t)(int);
int fdatasync(int fd) { usleep(MICROSECONDS); return ((sync_t) dlsym(RTLD_NEXT, "fdatasync"))(fd); }
int fsync(int fd) { usleep(MICROSECONDS); return ((sync_t) dlsym(RTLD_NEXT, "fsync"))(fd); }
"""


def build(folder: Path, seconds: float) -> Path:
    """Compile it; the test is skipped where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no compiler to make syncs slow with")
    source, library = folder / "slow.c", folder / "slow.so"
    source.write_text(_SOURCE.replace("MICROSECONDS", str(int(seconds * 1e6))))
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library
