"""The measurement of many workers: what it runs, and what it counts."""

import asyncio

import msgspec
import pytest

from pbus.bench.cases import scale
from pbus.bench.cases.scale import ManyResult, broker_figures
from pbus.bench.processes.bench_project import BenchProject
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import Plan
from pbus.errors import ProcessError
from pbus.topology import load_topology
from support.waiting import run

_COMMAND = """\
#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
case "$1" in
  ps) case "$2" in --json) echo '{"workers": [{"pid": '$PPID'}, {"pid": '$PPID'}]}' ;; esac ;;
  down) if [ -e "$(dirname "$0")/fails" ]; then echo "it does not end" >&2; exit 1; fi ;;
esac
"""


class Control:
    """Takes the results of a role."""

    def __init__(self):
        self.sent = []
        self.is_ready = False

    def send_ready(self):
        self.is_ready = True

    def send(self, result):
        self.sent.append(result)


@pytest.fixture
def command(tmp_path):
    """A stand-in for `pbus` that notes how it is called."""
    script = tmp_path / "pbus"
    script.write_text(_COMMAND)
    script.chmod(0o755)
    return script


def test_processes_are_measured(command, tmp_path, valkey):
    """The project is started, listed and ended on the broker, whose bytes are counted."""

    async def main():
        async with BenchProcesses(valkey.url) as pool:
            plan = Plan(command=(str(command),), many=7, pause_s=0.01)
            return await scale.measure(pool, plan)

    checks = {check.name: check for check in run(main()).checks}
    calls = [line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert ["up", "ps", *["ps"] * 5, "down"] == calls
    assert {
        "7 workers, ready": "s",
        "7 workers, out of the broker at start": "MB",
        "7 workers, memory (PSS) each": "MB",
        "7 workers idle, broker": "%",
        "7 workers idle, supervisor": "%",
        "7 workers, pbus ps": "s",
        "7 workers, pbus down": "s",
    } == {name: check.unit for name, check in checks.items()}
    assert checks["7 workers, memory (PSS) each"].value > 1
    assert 7 * 0.04 == checks["7 workers, ready"].at_most  # 100 within 4 s, 1,000 within 40


def test_failing_command_is_said(command, tmp_path, valkey):
    """A command that fails ends the measurement, with what it wrote."""
    (tmp_path / "fails").touch()

    async def main():
        async with BenchProcesses(valkey.url) as pool:
            await scale.measure(pool, Plan(command=(str(command),), many=2, pause_s=0.01))

    with pytest.raises(ProcessError) as raised:
        run(main())
    assert "it does not end" in str(raised.value.hint)


def test_without_a_command_nothing_is_started():
    """A program that measures has no command: then there are no processes to measure."""

    async def main():
        async with BenchProcesses("redis://nowhere") as pool:
            return await scale.measure(pool, Plan())

    assert () == run(main()).checks


def test_topology_of_the_project(command, tmp_path):
    """The bus is as it was given, whatever is in its values; without one it is the project's own."""
    project = BenchProject((str(command),), tmp_path, timeout_s=5)
    project.write("bench-x", 3, {"backend": "redis", "url": "redis://h/1", "channel": "a:b"})
    found = load_topology(project.file, {})
    assert ("bench-x", "redis://h/1", "a:b") == (found.name, found.bus.url, found.bus.channel)
    project.write("bench-y", 2)
    found = load_topology(project.file, {})
    assert (2, "asyncio") == (len(found.instances()), found.loop)
    BenchProject((str(command),), tmp_path, timeout_s=5, loop="uvloop").write("bench-z", 1)
    assert "uvloop" == load_topology(project.file, {}).loop


@pytest.mark.parametrize("role", [scale.host_in_memory, scale.host_on_broker])
def test_workers_of_one_process(role, valkey):
    """All become ready, the last one gets the messages, and all end."""

    async def main():
        control = Control()
        async with BenchProcesses(valkey.url) as pool:
            config = scale.RoleConfig(bus=pool.new_bus(), workers=20, count=50)
            await role(config, control)
        assert control.is_ready
        (result,) = control.sent
        return msgspec.json.decode(msgspec.json.encode(result), type=ManyResult)

    result = run(main())
    assert result.ready_s > 0
    assert result.end_s > 0
    assert result.message_us > 0


def test_figures_are_of_redis_only(valkey):
    """A Postgres has none of them."""

    async def main():
        assert await broker_figures("postgresql://nowhere/x") is None
        before = await broker_figures(valkey.url)
        await asyncio.sleep(0)
        after = await broker_figures(valkey.url)
        assert after.out_mb > before.out_mb

    run(main())
