"""What `pbus validate --json` prints: everything, and no secret."""

import json

import pytest

from pbus.errors import TopologyError
from pbus.topology import describe
from support.topologies import WORKER, load_text

RESTART = {
    "policy": "on-failure",
    "backoff": {"initial": 0.5, "factor": 2.0, "max": 30.0, "jitter": 0.0},
    "max": 5,
    "within": 60.0,
}
STOP = {"drain": True, "grace": None, "signal": "SIGTERM", "command": None}


def test_describes_whole_topology(tmp_path):
    """The description has every key, defaults included, and is JSON."""
    topology = load_text(tmp_path, "name: shop\n" + WORKER + "  b: {command: [x], replicas: 2}\n")
    described = describe(topology)

    assert {
        "name": "shop",
        "file": str(tmp_path / "topology.yaml"),
        "files": [str(tmp_path / "topology.yaml")],
        "folder": str(tmp_path),
        "loop": "asyncio",
        "preload": [],
        "metrics": None,
        "history": {"traffic": True},
        "bus": {
            "backend": "redis",
            "url": None,
            "channel": "pbus:shop",
            "max_message_bytes": 4194304,
            "encoding": "json",
            "key": None,
            "encrypt": False,
            "delivery": "at-most-once",
            "stats": True,
            "direct": False,
            "max_backlog": 100000,
            "max_backlog_bytes": 268435456,
            "when_full": "wait",
            "max_attempts": 5,
            "max_crash_attempts": 3,
        },
        "workers": [
            {
                "name": "a",
                "worker": "workers:Greeter",
                "command": None,
                "stdio": None,
                "joins": True,
                "pipecat": False,
                "args": {},
                "env": {},
                "working_dir": str(tmp_path),
                "active": True,
                "replicas": None,
                "depends_on": {},
                "ready": None,
                "health": None,
                "restart": RESTART,
                "success_exit_codes": [],
                "on_exit": "ignore",
                "limits": {"memory": None, "age": None, "jobs": None},
                "start": "fork",
                "stop": STOP,
                "watch": None,
                "profiles": [],
                "sends_to": [],
                "process": None,
                "instances": ["a"],
            },
            {
                "name": "b",
                "worker": None,
                "command": ["x"],
                "stdio": None,
                "joins": False,
                "pipecat": False,
                "args": {},
                "env": {},
                "working_dir": str(tmp_path),
                "active": True,
                "replicas": 2,
                "depends_on": {},
                "ready": None,
                "health": None,
                "restart": RESTART,
                "success_exit_codes": [],
                "on_exit": "ignore",
                "limits": {"memory": None, "age": None, "jobs": None},
                "start": "exec",
                "stop": STOP,
                "watch": None,
                "profiles": [],
                "sends_to": [],
                "process": None,
                "instances": ["b.1", "b.2"],
            },
        ],
    } == described
    assert described == json.loads(json.dumps(described))


def test_masks_secrets(tmp_path):
    """Passwords of URLs, and whatever stands under a secret's name, are replaced."""
    topology = load_text(
        tmp_path,
        """
bus: {url: 'redis://user:${S}@host/0'}
workers:
  a:
    worker: w:W
    args:
      api_key: ${S}
      model: small
      nested: {list: [{accessToken: '${S}'}, 'redis://:${S}@host']}
      secrets: {a: '${S}', b: ['${S}']}
      no_password: null
    env: {DB_PASSWORD: '${S}', OPENAI_KEY: '${S}', EMPTY_TOKEN: '', URL: 'pg://u:${S}@h', LEVEL: info}
  b:
    command: [run, --password, '${S}', '--token=${S}', 'API_KEY=${S}', --url, 'redis://:${S}@h',
      '--db=redis://:${S}@h', --key, --verbose, plain, a=b]
""",
        S="hunter2",
    )
    described = describe(topology)
    a, b = described["workers"]

    assert "hunter2" not in json.dumps(described)
    assert "redis://user:***@host/0" == described["bus"]["url"]
    assert {
        "api_key": "***",
        "model": "small",
        "nested": {"list": [{"accessToken": "***"}, "***"]},
        "secrets": "***",
        "no_password": None,
    } == a["args"]
    assert {
        "DB_PASSWORD": "***",
        "OPENAI_KEY": "***",
        "EMPTY_TOKEN": "",
        "URL": "***",
        "LEVEL": "***",
    } == a["env"]
    assert [
        "run",
        "--password",
        "***",
        "--token=***",
        "API_KEY=***",
        "--url",
        "***",
        "--db=***",
        "--key",
        "--verbose",
        "plain",
        "a=b",
    ] == b["command"]


def test_masks_by_origin(tmp_path):
    """What came from a variable, from `env`, from an env_file or is tagged is masked, however named."""
    (tmp_path / "vars.env").write_text("DB_PW=hunter2\nPIN=hunter2\n")
    topology = load_text(
        tmp_path,
        """
workers:
  a:
    worker: w:W
    env_file: vars.env
    env: {DSN: hunter2, DEBUG: ''}
    args:
      pin: !secret hunter2
      port: ${PORT}
      city: ${CITY:-Ulm}
      street: ${STREET:-hunter2 lane}
      list: [plain, !secret 4711, 'Bearer ${S}']
      a.b: {c: "${S}"}
  b: {command: [run, '${S}', --mode=fast, 'x${S}y', '--pin=${S}', !secret hunter2]}
""",
        S="hunter2",
        PORT="4711",
        STREET="Main Street",
    )
    a, b = describe(topology)["workers"]

    assert "hunter2" not in json.dumps([a, b])
    assert "4711" not in json.dumps([a, b])
    assert {"DB_PW": "***", "PIN": "***", "DSN": "***", "DEBUG": ""} == a["env"]
    assert {
        "pin": "***",
        "port": "***",
        "city": "Ulm",
        "street": "***",
        "list": ["plain", "***", "***"],
        "a.b": {"c": "***"},
    } == a["args"]
    assert ["run", "***", "--mode=fast", "***", "--pin=***", "***"] == b["command"]
    assert {"pin": "hunter2", "list": ["plain", 4711, "Bearer hunter2"]} == {
        key: topology.workers["a"].args[key] for key in ("pin", "list")
    }


def test_secret_tag_is_for_single_values(tmp_path):
    """A list or a mapping cannot be tagged: mark what in it is secret."""
    with pytest.raises(TopologyError, match="a tag"):
        load_text(tmp_path, "workers: {a: {worker: w:W, args: {x: !secret [1, 2]}}}")
