"""Other systems: where each is measured, and what is said of those that are missing."""

from typing import get_args

import pytest

from pbus.bench import MEASUREMENTS, PEER_MEASUREMENTS, PEERS
from pbus.bench.peers import catalog
from pbus.bench.peers.catalog import installed, peers_in
from pbus.bench.processes.process_main import ROLES
from pbus.bench.results import SHARE, System
from pbus.errors import PeersMissingError

EVERY = tuple(PEERS)
EXTRA = "pip install 'pbus-orchestrator[bench-peers]'"


@pytest.fixture
def only(monkeypatch):
    """Make some modules and the server of NATS importable, and nothing else."""

    def make(*modules, server=True):
        find = lambda name: object() if name in modules else None  # noqa: E731
        monkeypatch.setattr("importlib.util.find_spec", find)
        monkeypatch.setattr(catalog, "program", lambda: "/bin/nats-server" if server else None)

    return make


def test_every_system_is_known_everywhere():
    """It has a share of the work, measurements that exist, and processes for them."""
    assert set(get_args(System)) == set(SHARE)
    assert {"fanout", "rtt", "stored-jobs"} == PEER_MEASUREMENTS
    assert set(MEASUREMENTS) >= PEER_MEASUREMENTS
    for system, peer in PEERS.items():
        short = system.removesuffix("-py")
        roles = {"send", "receive"} if system == "pipecat" else {"send", "receive", "ping", "pong"}
        assert {f"{short}-{role}" for role in roles} <= set(ROLES), (system, peer)


@pytest.mark.parametrize(
    ("name", "backend", "expected"),
    [
        ("fanout", "redis", ("nats-py", "pipecat")),
        ("fanout", "pgmq", ("nats-py",)),
        ("rtt", "pgmq", ("nats-py",)),
        ("stored-jobs", "redis", ("taskiq", "arq", "dramatiq")),
        ("stored-jobs", "pgmq", ("procrastinate",)),
        ("stall", "redis", ()),
    ],
)
def test_systems_are_measured_on_their_broker(name, backend, expected):
    """NATS brings its own server; the others share ours, of their kind."""
    assert expected == peers_in(name, backend, EVERY)
    assert () == peers_in(name, backend, ())


def test_installed_ones_are_measured_and_the_others_named(only):
    """One that is missing hides none that is there, and is told with what installs it."""
    only("nats", "taskiq", "arq")
    there, missing = installed(["nats-py", "pipecat", "taskiq", "arq", "dramatiq"])

    assert ["nats-py", "arq"] == there
    assert [
        "pipecat: the Python module 'pipecat' is not installed (pip install 'pipecat-ai[redis]')",
        f"taskiq: the Python module 'taskiq_redis' is not installed ({EXTRA})",
        f"dramatiq: the Python module 'dramatiq' is not installed ({EXTRA})",
    ] == missing


def test_none_installed_is_an_error(only):
    """All that is missing is in it, each once."""
    only("nats", server=False)
    with pytest.raises(PeersMissingError) as caught:
        installed(["nats-py", "arq", "pipecat"])

    assert (
        "`pbus bench --peers` needs the program 'nats-server' and the Python module 'arq'"
        " and the Python module 'pipecat', which is not installed"
    ) == caught.value.message
    assert EXTRA == caught.value.hint
    assert ([], []) == installed([])


def test_the_error_tells_how_to_install_what_is_missing(only):
    """Pipecat is not in our extra."""
    only()
    with pytest.raises(PeersMissingError) as caught:
        installed(["pipecat"])
    assert "pip install 'pipecat-ai[redis]'" == caught.value.hint
