"""`backend: memory`: what cannot be had where all workers share one process."""

import pytest

from support.topologies import WORKER, load_text, problems_of

ONE_PROCESS = "on `backend: memory` all workers"


@pytest.mark.parametrize("bus", ["{backend: memory}", "{url: 'memory://'}"])
def test_memory_by_name_or_url(tmp_path, bus):
    """Either key says so, and then there is no broker to start."""
    topology = load_text(tmp_path, f"bus: {bus}\n{WORKER}")

    assert topology.bus.is_in_process
    assert ("memory", "memory://") == (topology.bus.backend, topology.bus.url)


def test_nothing_after_memory(tmp_path):
    """A URL that looks like an address of memory is a mistake."""
    assert ["topology.yaml:1: bus.url: expected nothing after memory://"] == problems_of(
        tmp_path, f"bus: {{url: 'memory://shop'}}\n{WORKER}"
    )


def test_memory_contradicts_broker_url(tmp_path):
    """A broker's URL is no URL of memory."""
    assert [
        "topology.yaml:1: bus.url: redis:// is a URL of the redis bus, but `backend` is memory"
    ] == problems_of(tmp_path, f"bus: {{url: 'redis://h', backend: memory}}\n{WORKER}")


def test_programs_refused_in_memory(tmp_path):
    """A program cannot be run inside this process."""
    found = problems_of(tmp_path, f"bus: {{backend: memory}}\n{WORKER}  b: {{command: [date]}}\n")

    assert [
        (
            "topology.yaml:4: workers.b.command: a program is a process of its own, and on"
            " `backend: memory` all workers share one: leave it out, or use a broker"
        )
    ] == found


def test_shared_environment_must_agree(tmp_path):
    """One process has one folder and one value of each variable; equal wishes are none."""
    (tmp_path / "data").mkdir()
    (tmp_path / ".env").write_text("X=1\nY=3\n")
    found = problems_of(
        tmp_path,
        """
bus: {backend: memory}
workers:
  a: {worker: 'w:A', env: {X: 1}, working_dir: data}
  b: {worker: 'w:B', env: {X: 1}, working_dir: ./data}
  c: {worker: 'w:C', env: {X: secret}, working_dir: data}
  d: {worker: 'w:D', env_file: .env}
""",
    )

    assert [
        f"topology.yaml:6: workers.c.env: {ONE_PROCESS} have one value of X: expected that of a",
        f"topology.yaml:7: workers.d.working_dir: {ONE_PROCESS} run in one folder: expected that of a",
    ] == found


def test_brokers_allow_all_that(tmp_path):
    """With a broker each process has its own."""
    text = "workers:\n  a: {worker: 'w:A', env: {X: 1}}\n  b: {command: [x], env: {X: 2}}\n"

    assert [] == problems_of(tmp_path, text)
