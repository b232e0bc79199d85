"""What the doctor says of a channel, a broker and folders, from plain values."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pbus.bus.broker_info import BrokerInfo
from pbus.bus.queues.store import QueueStats
from pbus.client.doctor.broker import info_findings, key_findings
from pbus.client.doctor.channel import channel_findings
from pbus.client.doctor.findings import Finding
from pbus.client.doctor.leftovers import shared_channels
from pbus.client.doctor.machine import folders, open_files, packages
from pbus.leases import Lease
from pbus.observe import HostRecord, ProcessRecord
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord
from pbus.settings import BusSettings
from support.topologies import load_text

NOW = 1000.0
INFO = BrokerInfo(product="Valkey", version="9", latency_s=0.001, ahead_s=0.0)


def lease(name: str, incarnation: str = "", **more: Any) -> Lease:
    """A worker's."""
    fields: dict[str, Any] = {"runner": "r", "host": "h", "pid": 1, "state": "ready", **more}
    return Lease(name=name, incarnation=incarnation or f"{name}.1", **fields)


def host(*names: str, project: str = "shop", where: str = "h", **more: Any) -> HostRecord:
    """A supervisor with processes of these names."""
    processes = tuple(
        ProcessRecord(name=name, incarnation=f"{name}.", **{"state": "ready", **more})
        for name in names
    )
    return HostRecord(project=project, host=where, pid=7, session="s", time=NOW, bus="", processes=processes)  # fmt: skip


def told(findings: Any) -> list[tuple[str, str]]:
    """Status and check of what is not well; each says what to do."""
    found: list[Finding] = list(findings)
    assert all(one.hint for one in found if one.status != "ok")
    return [(one.status, one.check) for one in found if one.status != "ok"]


def channel(leases: list[Lease], hosts: list[HostRecord], queues: Any = None, topology: Any = None):
    """What is not well on a channel."""
    return told(channel_findings(leases, hosts, queues, topology, NOW))


def test_healthy_channel_is_well():
    """Workers of one project, on two hosts."""
    leases = [lease("a"), lease("b")]

    assert [] == channel(leases, [host("a"), host("b", where="h2")])
    assert [] == channel([lease("a", "run-1.1")], [host("a", state="exited")])


@pytest.mark.parametrize(
    ("leases", "hosts", "expected"),
    [
        ([lease("a")], [host("a"), host("b", project="other")], ("warning", "clashes")),
        ([lease("a")], [host("a"), host("a", where="h2")], ("error", "clashes")),
        ([lease("a", "elsewhere.1", pid=99)], [host("a")], ("error", "clashes")),
        ([], [host("a", state="failed", reason="no stove")], ("error", "workers")),
        ([], [host("a", state="backoff")], ("warning", "workers")),
        ([lease("a", beat=NOW - 60)], [host("a")], ("warning", "workers")),
        ([lease("a", lost=3)], [host("a")], ("warning", "workers")),
        ([lease("a", ahead_s=30.0)], [host("a")], ("warning", "clocks")),
        ([lease("a", unsealed=4)], [host("a")], ("warning", "key")),
    ],
)
def test_trouble_of_a_channel(leases: list[Lease], hosts: list[HostRecord], expected: object):
    """Clashes, workers, clocks: one finding each, with what to do."""
    assert [expected] == channel(leases, hosts)


def test_clocks_matter_more_with_a_key(tmp_path: Path):
    """Sealed messages of such a host are refused."""
    topology = load_text(
        tmp_path, "bus: {url: 'redis://h', key: '0123456789abcdef'}\nworkers: {a: {command: [x]}}\n"
    )

    assert [("error", "clocks")] == channel([lease("a", ahead_s=-400)], [host("a")], None, topology)


def test_queues_without_a_worker(tmp_path: Path):
    """Of names that the topology has no more and nothing runs; not those of programs and groups."""
    topology = load_text(tmp_path, "workers:\n  a: {worker: 'w:A', replicas: 2}\n")
    names = ["a", "a.1", "a.2", "live", "cli-x", "gone"]
    queues = {name: QueueStats(name=name, backlog=2) for name in names}

    assert [("warning", "leftovers")] == channel([lease("live")], [], queues, topology)
    dead = {"a": QueueStats(name="a", dead=2)}
    assert [("warning", "queues")] == channel([], [], dead, topology)


@pytest.mark.parametrize(
    ("changes", "bus", "expected"),
    [
        ({}, {}, []),
        ({"may_evict": "allkeys-lru"}, {}, []),
        ({"may_evict": "allkeys-lru"}, {"delivery": "at-least-once"}, [("error", "broker")]),
        ({"ahead_s": 5.0}, {}, [("warning", "clocks")]),
        ({"ahead_s": -400.0}, {"key": "0123456789abcdef"}, [("error", "clocks")]),
        ({"pgmq": "SQL", "schema": "current"}, {}, []),
        ({"pgmq": "missing", "schema": "missing"}, {}, []),
        ({"pgmq": "1.5", "schema": "other"}, {}, [("warning", "schema")]),
        ({"pgmq": "missing", "schema": "current"}, {}, [("error", "schema")]),
    ],
)
def test_facts_of_a_broker(changes: Any, bus: Any, expected: object):
    """Eviction matters where messages are stored; clocks, PGMQ and pbus' functions."""
    info = msgspec.structs.replace(INFO, **changes)

    assert expected == told(info_findings(info, BusSettings.from_keys(bus), "redis://h"))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"url": "redis://h"}, [("warning", "key")]),
        ({"url": "redis://:pw@h"}, []),
        ({"url": "redis://h", "key": "0123456789abcdef"}, []),
    ],
)
def test_open_brokers(keys: Any, expected: object):
    """Neither password nor key: all who reach it can send."""
    assert expected == told(key_findings(BusSettings.from_keys(keys), is_own=False))


def test_channel_of_two_projects(tmp_path: Path):
    """Of those that run here, and the one that is asked about; the same project is no clash."""
    bus = BusSettings.from_keys({"url": "redis://h", "channel": "c"})
    records = [
        ProjectRecord(name=name, folder="/f", file=f"/f/{name}.yaml", session="s", bus=bus)
        for name in ("x", "y")
    ]
    topology = load_text(
        tmp_path, "bus: {url: 'redis://h', channel: c}\nworkers: {a: {command: [x]}}\n"
    )

    assert [("warning", "clashes")] == told(shared_channels(records, None))
    assert [] == told(shared_channels(records[:1], None))
    assert [("warning", "clashes")] == told(shared_channels(records[:1], topology))
    assert [] == told(shared_channels([], topology))


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Open to others, no folder at all, too long for sockets; not yet there is well."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    project = Project("p", tmp_path, tmp_path / "topology.yaml")

    assert [] == [one for one in told(folders(project)) if one[1] != "disk"]
    project.state_dir.mkdir(parents=True)
    project.state_dir.chmod(0o755)
    assert ("warning", "state") in told(folders(project))
    project.state_dir.rmdir()
    project.state_dir.touch()
    assert ("error", "state") in told(folders(project))
    project.runtime_dir = tmp_path / ("x" * 120)
    assert ("error", "runtime") in told(folders(project))


def test_limits_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Too few files for so many replicas; a package that a key needs is missing."""
    topology = load_text(
        tmp_path,
        "bus: {encrypt: true}\nloop: uvloop\nworkers: {a: {worker: 'w:A', replicas: 400}}\n",
    )
    monkeypatch.setattr("resource.getrlimit", lambda _: (100, 1024))
    assert [("error", "files")] == told(open_files(topology))
    monkeypatch.setattr("resource.getrlimit", lambda _: (100, 4096))
    assert [] == told(open_files(topology))
    monkeypatch.setattr("pbus.client.doctor.machine.find_spec", lambda name: None)
    assert [("error", "packages")] == told(packages(topology))
