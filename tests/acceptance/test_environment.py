"""What reaches a worker's process, and what stays hidden from other users."""

import psutil
import pytest

from support.cli_env import Place

pytestmark = pytest.mark.cli

SECRET = "sesame-4711"  # stands in an argument of the clerk


def test_topology_reaches_worker(sample: Place):
    """Arguments as they are, env over env_file with $$ as $, working_dir, and who it is."""
    names = ["CITY", "MAYOR", "PRICE", "PBUS_WORKER", "PBUS_CHANNEL", "PBUS_URL", "PBUS_SESSION"]
    answer = sample.ask("clerk", "place", {"names": names})

    record = sample.record()
    assert str(sample.folder / "hall") == answer["cwd"]
    assert {
        "greeting": "Good morning",
        "hours": {"from": 8, "to": [12, 18]},
        "safe": SECRET,
    } == answer["arguments"]
    assert {
        "CITY": "Ulm",
        "MAYOR": "Ada L.",
        "PRICE": "5$",
        "PBUS_WORKER": "clerk",
        "PBUS_CHANNEL": "pbus:sample",
        "PBUS_URL": record["url"],
        "PBUS_SESSION": record["session"],
    } == answer["environ"]


def test_others_get_nothing(sample: Place):
    """What one worker is given no other one has; its folder is the topology's."""
    answer = sample.ask("post.1", "place", {"names": ["CITY", "MAYOR", "PRICE"]})

    assert str(sample.folder) == answer["cwd"]
    assert {"CITY": None, "MAYOR": None, "PRICE": None} == answer["environ"]


def test_programs_are_told(sample: Place):
    """A command has the bus in its environment, too."""
    environ = psutil.Process(sample.rows()["bell"]["pid"]).environ()

    record = sample.record()
    assert (record["url"], record["channel"]) == (environ["PBUS_URL"], environ["PBUS_CHANNEL"])
    assert (record["session"], "bell") == (environ["PBUS_SESSION"], environ["PBUS_WORKER"])


def test_secrets_stay_hidden(sample: Place):
    """No command line has them: neither an argument's value nor the address of the bus."""
    words = sample.cli.command_lines()

    assert len(sample.cli.processes()) >= 8
    assert SECRET not in words
    assert "unix://" not in words
    assert 0o600 == sample.record_path().stat().st_mode & 0o777
