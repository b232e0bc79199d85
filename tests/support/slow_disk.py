"""A library for LD_PRELOAD that makes a program's syncs in the background take their time."""

import shutil
import subprocess
from pathlib import Path

import pytest

# The main thread syncs when the program starts and ends: that need not take longer.
_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>
typedef int (*sync_t)(int);
static int slowly(const char *name, int fd) {
  if (syscall(SYS_gettid) != getpid()) usleep(MICROSECONDS);
  return ((sync_t) dlsym(RTLD_NEXT, name))(fd);
}
int fdatasync(int fd) { return slowly("fdatasync", fd); }
int fsync(int fd) { return slowly("fsync", fd); }
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
