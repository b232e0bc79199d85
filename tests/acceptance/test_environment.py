"""What reaches a worker's process, and what stays hidden from other users."""

import psutil
import pytest

from support.cli_env import Place

pytestmark = pytest.mark.cli

SECRET = "sesame-4711"  # stands in an argument of the clerk


def test_topology_reaches_worker(town: Place):
    """Arguments as they are, env over env_file with $$ as $, working_dir, and who it is."""
    names = ["CITY", "MAYOR", "PRICE", "PBUS_WORKER", "PBUS_CHANNEL", "PBUS_URL", "PBUS_SESSION"]
    answer = town.ask("clerk", "place", {"names": names})

    record = town.record()
    assert str(town.folder / "hall") == answer["cwd"]
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
        "PBUS_CHANNEL": "pbus:town",
        "PBUS_URL": record["url"],
        "PBUS_SESSION": record["session"],
    } == answer["environ"]


def test_others_get_nothing(town: Place):
    """What one worker is given no other one has; its folder is the topology's."""
    answer = town.ask("post.1", "place", {"names": ["CITY", "MAYOR", "PRICE"]})

    assert str(town.folder) == answer["cwd"]
    assert {"CITY": None, "MAYOR": None, "PRICE": None} == answer["environ"]


def test_programs_are_told(town: Place):
    """A command has the bus in its environment, too."""
    environ = psutil.Process(town.rows()["bell"]["pid"]).environ()

    record = town.record()
    assert (record["url"], record["channel"]) == (environ["PBUS_URL"], environ["PBUS_CHANNEL"])
    assert (record["session"], "bell") == (environ["PBUS_SESSION"], environ["PBUS_WORKER"])


def test_secrets_stay_hidden(town: Place):
    """No command line has them: neither an argument's value nor the address of the bus."""
    words = town.home.command_lines()

    assert len(town.home.processes()) >= 8
    assert SECRET not in words
    assert "unix://" not in words
    assert 0o600 == town.record_path().stat().st_mode & 0o777
