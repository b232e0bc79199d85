"""What `pbus config` prints: readable YAML that is the same topology again."""

import yaml

from pbus.topology import describe
from pbus.topology.yaml_text import yaml_text
from support.topologies import load_text

FULL = """
name: shop
loop: asyncio
bus: {backend: redis, delivery: at-least-once, max_backlog: 7, max_backlog_bytes: 1MB}
workers:
  a:
    worker: w:A
    args: {on: 'no', number: 1.5, big: 1e30, text: "5", cost: "$$5", none: ~, deep: [{x: [1, two]}], odd: "tab\\tbell\\a"}
    replicas: 2
    restart: always
    active: false
  b: {command: [sh, -c, 'echo $$HOME $${X}'], joins: true, working_dir: .}
  c:
    command: [x]
    depends_on: {b: {condition: started, restart: true}, a: {condition: ready, required: false}}
    ready: {http: 'http://localhost:80/', timeout: 5s}
    health: {exec: [curl, 'a b'], every: 500ms, failures: 2}
    restart: {policy: always, max: 3, within: 1m}
    success_exit_codes: [3]
    on_exit: stop
    stop: {grace: 2s, signal: SIGINT, command: [./leave]}
    profiles: [dev]
  d: {worker: 'w:D', ready: bus, depends_on: [a]}
"""


def test_round_trip(tmp_path):
    """The text loads as the same topology; words of YAML 1.1, numbers and dollars stay what they are."""
    topology = load_text(tmp_path, FULL)
    text = yaml_text(describe(topology))

    assert describe(topology) == describe(load_text(tmp_path, text))
    assert text == yaml_text(describe(load_text(tmp_path, text)))


def test_reads_well(tmp_path):
    """Defaults are filled in, what is empty is left out, words of a list stand on one line."""
    text = yaml_text(
        describe(load_text(tmp_path, "name: x\nworkers:\n  a: {command: [sleep, 1]}\n"))
    )
    values = yaml.safe_load(text)

    assert text.startswith(
        "name: x\nloop: asyncio\nhistory:\n  traffic: true\nbus:\n  backend: redis\n  channel: pbus:x\n"
    )
    assert "    command: [sleep, '1']\n" in text
    assert {"url", "key", "max_backlog"}.isdisjoint(values["bus"])
    assert {"name", "worker", "args", "instances"}.isdisjoint(values["workers"]["a"])


def test_masks(tmp_path):
    """No secret is in it, and it is YAML all the same."""
    text = yaml_text(
        describe(
            load_text(
                tmp_path,
                "bus: {url: 'redis://u:geheim@h/0', key: '${KEY}'}\n"
                "workers:\n  a: {worker: 'w:A', env: {X: geheim}, args: {token: geheim, y: !secret geheim}}\n",
                KEY="geheim-geheim-geheim",
            )
        )
    )

    assert "geheim" not in text
    assert {"token": "***", "y": "***"} == yaml.safe_load(text)["workers"]["a"]["args"]
