"""Checks worker classes by importing them, each in a process and environment as its worker's."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pbus.process.system import path_json
from pbus.process.system.launch_plan import launch_spec
from pbus.topology.code.check_code import CodeProblem
from pbus.topology.model import Topology, WorkerSpec

IMPORT_S: Final = 60.0
_AT_ONCE: Final = 4


def check_by_import(
    topology: Topology,
    environ: Mapping[str, str],
    seen: Sequence[CodeProblem],
    *,
    timeout_s: float = IMPORT_S,
) -> list[CodeProblem]:
    """Import the class of every worker and bind its args; nothing is constructed.

    Args:
        topology: It was loaded.
        environ: Of this process; workers inherit it.
        seen: What reading found. It tells the place of what importing confirms; what importing
            refutes is dropped.
        timeout_s: For each import.

    Returns:
        The problems of all workers.
    """
    specs = [spec for spec in topology.workers.values() if spec.worker is not None]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        texts = pool.map(lambda spec: _problem(topology, spec, environ, timeout_s), specs)
        wrong = {spec.name: text for spec, text in zip(specs, texts, strict=True) if text}
    return _merged(seen, {spec.name for spec in specs}, wrong)


def _merged(
    seen: Sequence[CodeProblem], imported: set[str], wrong: Mapping[str, str]
) -> list[CodeProblem]:
    """Join problems found by reading with those of importing, which decides."""
    kept = [one for one in seen if one.worker not in imported or one.worker in wrong]
    placed = {one.worker for one in kept}
    return kept + [
        CodeProblem(name, ("worker",), text) for name, text in wrong.items() if name not in placed
    ]


def _problem(
    topology: Topology, spec: WorkerSpec, environ: Mapping[str, str], timeout_s: float
) -> str | None:
    reading, writing = os.pipe()
    command = (sys.executable, "-P", "-m", "pbus.process.class_check", str(writing))
    try:
        ended = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            input=path_json.encode(launch_spec(spec, topology.file)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**environ, **spec.env},
            cwd=spec.working_dir,
            pass_fds=(writing,),
            timeout=timeout_s,
            check=False,
        )
        text = _written(reading)
    except subprocess.TimeoutExpired:
        return f"importing {spec.worker} takes longer than {timeout_s:g} s"
    finally:
        os.close(writing)
        os.close(reading)
    if text:
        return text.strip() or None
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    last = f": {said[-1]}" if said else ""
    return f"importing {spec.worker} ended the process (code {ended.returncode}){last}"


def _written(reading: int) -> str:
    """Read the output of a process from a pipe, without waiting for others that hold it."""
    os.set_blocking(reading, False)
    try:
        return os.read(reading, 1 << 16).decode(errors="replace")
    except BlockingIOError:
        return ""
