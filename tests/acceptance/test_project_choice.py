"""Which of several projects a command means."""

import pytest

from support.cli_env import CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

PROGRAM = "workers:\n  {worker}: {{command: [sh, -c, 'echo {worker} runs; exec sleep 600']}}\n"


@pytest.fixture(scope="module")
def places(cli: CliEnv) -> list[Place]:
    """Two projects that run side by side, and a folder without one."""
    made = [
        cli.place("one", {"topology.yaml": "name: one\n" + PROGRAM.format(worker="uno")}),
        cli.place("two", {"other.yaml": "name: two\n" + PROGRAM.format(worker="due")}),
        cli.place("elsewhere", {}),
    ]
    commands = [made[0].start("up", "--wait"), made[1].start("up", "--wait", "other.yaml")]
    assert [0, 0] == [command.done().code for command in commands]
    return made


def worker_of(place: Place, *options: str) -> str:
    """Whose worker `ps` lists."""
    (row,) = place.tell(*options, "ps", "--json").json["workers"]
    return str(row["name"])


def test_options_choose_project(places: list[Place]):
    """-p takes the name, -f the file, from anywhere, before or behind the verb."""
    one, _, elsewhere = places

    assert "due" == worker_of(elsewhere, "-p", "two")
    assert "due" == worker_of(one, "-f", "../two/other.yaml")
    behind = elsewhere.tell("ps", "--json", "-f", str(one.folder / "topology.yaml"))
    assert "one" == behind.json["project"]
    wait_for(lambda: "due runs" in places[1].logs("due"))
    assert "due  | due runs" in elsewhere.tell("logs", "-p", "two", "due").out.replace(
        "due |", "due  |"
    )


def test_folder_chooses_project(places: list[Place]):
    """Without an option it is this folder's."""
    one, two, _ = places

    assert ["uno", "due"] == [worker_of(one), worker_of(two)]


def test_several_are_ambiguous(places: list[Place]):
    """In another folder one has to be named: all are listed, and nothing is done."""
    elsewhere = places[2]
    for done in (elsewhere.tell(verb) for verb in ("ps", "down", "tail")):
        assert (2, "") == (done.code, done.out)
        assert "several projects are running: one, two" in done.err
        assert "-p NAME" in done.err
    assert 3 == elsewhere.tell("ps", "-p", "three").code


def test_projects_are_strangers(places: list[Place]):
    """Each has its own broker; the end of one leaves the other, which then needs no name."""
    one, two, elsewhere = places
    assert one.record()["url"] != two.record()["url"]

    assert 0 == two.run("down").code
    assert "uno" == worker_of(elsewhere)
    assert 0 == two.run("up", "--wait", "other.yaml").code


def test_same_name_elsewhere(cli: CliEnv, places: list[Place]):
    """A project is its name and its folder: two of one name run, and the file tells them apart."""
    namesake = cli.place(
        "one-too", {"topology.yaml": (places[0].folder / "topology.yaml").read_text()}
    )
    namesake.up()
    ambiguous = places[2].tell("ps", "-p", "one")

    assert 2 == ambiguous.code
    assert str(namesake.folder) in ambiguous.err
    assert "uno" == worker_of(namesake)
    assert 0 == namesake.tell("down").code
    assert "uno" == worker_of(places[0])
