"""The memory of payloads: used again without a page fault for each page."""

import platform
import subprocess
import sys

import pytest

ROUNDS = 50
# Eighteen buffers of 96 KiB, 432 pages, as of payloads on their way out; all freed before the next round.
PROGRAM = f"""
import resource
from pbus import connect
bus = connect("redis://localhost")
def write():
    pieces = [b"x" * 98_304 for _ in range(18)]
for _ in range(5):
    write()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    write()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / {ROUNDS})
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have no such limit")
def test_freed_buffers_are_used_again_without_faults():
    """A process with a bus keeps the memory of a few payloads; else each round takes hundreds."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)

    assert float(done.stdout) < 10
