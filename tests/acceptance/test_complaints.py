"""What users of process orchestrators complain of most: one test for each that pbus is free of it."""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from support.cli_env import CliEnv, Place, living, wait_for
from support.terminal import terminal

pytestmark = pytest.mark.cli

# Programs append to a file what they do, so that a test sees the order over all of them.
NOTING = 'note() {{ echo "$PBUS_WORKER $1" >> order; }}; trap "note ends; exit 0" TERM; note begins; {}; while :; do sleep 0.2; done'
# The leader ends at once; a child in its group minds no SIGTERM.
LEAVER = "(trap '' TERM; while :; do sleep 600; done) & echo $! > {0}; echo left; {1}"
WORKERS = """
import os, pathlib, time
from pbus import BaseWorker, job

class Api(BaseWorker):
    async def on_bus_message(self, message):
        if hasattr(message, "frame"):
            print("got", message.frame.text)

    @job(name="pid")
    async def pid(self, request):
        return {"pid": os.getpid(), "place": os.environ.get("PLACE")}

class Hanging(BaseWorker):
    def __init__(self, name):
        super().__init__(name)
        print("loads for ever")
        time.sleep(600)
"""
SHOP = f"""
name: shop
env_file: shop.env
workers:
  api: {{worker: "workers:Api", depends_on: {{db: ready, migrate: completed}}, restart: {{backoff: {{initial: 10ms}}}}}}
  migrate: {{command: [sh, -c, 'echo "$PBUS_WORKER begins" >> order'], depends_on: [db]}}
  db:
    command: [sh, -c, '{NOTING.format("until test -e go; do sleep 0.02; done; note opens; echo accepting")}']
    ready: {{log: accepting}}
    health: {{exec: [test, "!", -e, sick], every: 250ms, failures: 2, restart: false}}
  edge: {{command: [sh, -c, '{NOTING.format(":")}'], depends_on: {{db: ready}}}}
  late: {{worker: "workers:Api", depends_on: [gate]}}
  gate: {{command: [sleep, '600'], ready: {{exec: [test, -e, open]}}}}
"""


def shop_at(cli: CliEnv, name: str, *files: str) -> Place:
    """A place with the shop's topology; it waits for the files `go` and `open`."""
    given = {"topology.yaml": SHOP, "workers.py": WORKERS, "shop.env": "PLACE=Ulm\n"}
    return cli.place(name, given | dict.fromkeys(files, ""))


@pytest.fixture(scope="module")
def shop(cli: CliEnv) -> Place:
    """A project that several tests complain of; they leave it running."""
    place = shop_at(cli, "shop", "go", "open")
    place.up()
    return place


@pytest.fixture
def project(cli: CliEnv) -> Iterator[Callable[..., Place]]:
    """Makes a project of these workers, which is down after the test."""
    made: list[Place] = []

    def make(name: str, workers: str, files: Mapping[str, str] | None = None) -> Place:
        text = f"workers:\n{workers}"
        made.append(cli.place(name, {"topology.yaml": text, **(files or {})}))
        return made[-1]

    yield make
    for place in made:
        place.tell("down", "--timeout", "5")


def pid_in(file: Path) -> psutil.Process:
    """The process whose pid a program wrote down."""
    return psutil.Process(int(wait_for(lambda: file.exists() and file.read_text().strip())))


def workers_of(place: Place) -> list[tuple[int, str]]:
    """Pid and name of the workers whose processes run; probes come and go beside them."""
    found = []
    for one in living(place.supervisor().children()):
        with contextlib.suppress(psutil.NoSuchProcess):
            if name := one.environ().get("PBUS_WORKER"):
                found.append((one.pid, name))
    return found


def test_order_and_readiness(cli: CliEnv):
    """Complaint: workers start in any order, and before what they need is ready."""
    shop = shop_at(cli, "opening")
    assert 0 == shop.run("up", "-d").code
    order = shop.folder / "order"
    rows = shop.until(
        lambda rows: rows["db"]["state"] == "starting" and rows["gate"]["state"] == "starting"
    )
    assert {"waiting"} == {rows[name]["state"] for name in ("api", "migrate", "edge", "late")}
    (shop.folder / "go").touch()
    shop.until(lambda rows: rows["api"]["ready"] and rows["edge"]["ready"])
    lines = order.read_text().splitlines()
    assert ["db begins", "db opens"] == lines[:2]
    assert {"migrate begins", "edge begins"} == set(lines[2:])
    assert 0 == shop.run("restart", "db").code  # the order holds at restarts, too
    assert "db ends" in order.read_text()
    shop.until(lambda rows: rows["db"]["ready"])
    assert 0 == shop.run("down", "--timeout", "5").code


def test_first_message_is_not_lost(shop: Place):
    """Complaint: what is sent before its receiver listens is lost without a word."""
    assert 0 == shop.tell("stop", "late").code
    with shop.broker() as broker:
        before = len(broker.client_list())
        sending = shop.start("send", "late", "--text", "early bird", "--timeout", "20")
        wait_for(lambda: len(broker.client_list()) > before)
    assert 0 == shop.tell("start", "late").code
    assert 0 == sending.done().code
    wait_for(lambda: "got early bird" in shop.logs("late"))


def test_probes_are_independent(shop: Place):
    """Complaint: readiness and health are one thing, or a failed check says and does nothing."""
    before = shop.rows()["db"]["pid"]
    (shop.folder / "sick").touch()
    rows = shop.until(lambda rows: rows["db"]["state"] == "unhealthy")
    assert "2 checks failed: exec test: exit code 1" in rows["db"]["error"]
    assert (before, True) == (rows["db"]["pid"], rows["api"]["ready"])  # only shown, as was asked
    (shop.folder / "sick").unlink()
    shop.until(lambda rows: rows["db"]["state"] == "ready")


def test_registry_shows_what_runs(shop: Place):
    """Complaint: the list shows processes that are dead, and misses those that run."""
    rows = shop.until(lambda rows: rows["api"]["ready"])
    assert {"pid": rows["api"]["pid"], "place": "Ulm"} == shop.ask("api", "pid")
    edge = psutil.Process(rows["edge"]["pid"])
    assert 0 == shop.tell("stop", "edge").code
    gone = shop.rows()["edge"]
    assert ("exited", False, None, []) == (
        gone["state"],
        gone["ready"],
        gone["pid"],
        living([edge]),
    )
    assert "edge" not in shop.tell("ps", "--ready").out
    os.kill(rows["api"]["pid"], signal.SIGKILL)
    back = shop.until(lambda now: now["api"]["ready"] and now["api"]["pid"] != rows["api"]["pid"])
    assert back["api"]["pid"] == shop.ask("api", "pid")["pid"]
    assert 0 == shop.tell("start", "edge").code


def test_followers_outlive_restarts(shop: Place):
    """Complaint: who follows a log loses a worker that is restarted."""
    following = shop.start("logs", "api", "-f", "-n", "1")
    following.until("api")
    for count in range(2):
        assert 0 == shop.tell("restart", "api").code
        assert 0 == shop.tell("send", "api", "--text", f"round {count}").code
        following.until(f"got round {count}")
    assert 130 == following.end().code


def test_chatty_children_never_freeze(project: Callable[..., Place]):
    """Complaint: output comes late, in blocks, and a child that writes much stands still."""
    code = "import pathlib\\nfor _ in range(4): print('x' * 2**20)\\nprint('end'); pathlib.Path('done').touch(); import time; time.sleep(600)"
    place = project("chatty", f'  chatty: {{command: [{sys.executable}, -c, "{code}"]}}\n')
    with terminal(place, "up", "--plain") as screen:
        wait_for((place.folder / "done").exists)  # the terminal is not read meanwhile
        wait_for(lambda: "end" in place.logs("chatty")[-1:])
        screen.press("\x03")
        assert 130 == screen.code()


def test_restarts_do_not_race(shop: Place):
    """Complaint: restarts at one time leave two copies or none, and one slow stop blocks all."""
    restarts = [shop.start("restart", "edge") for _ in range(3)]
    os.kill(shop.rows()["api"]["pid"], signal.SIGKILL)
    assert 0 == shop.run("restart", "api").code
    assert [0, 0, 0] == [one.done().code for one in restarts]
    rows = shop.until(lambda rows: rows["edge"]["ready"] and rows["api"]["ready"])
    workers = workers_of(shop)
    for name in ("edge", "api"):
        assert [rows[name]["pid"]] == [pid for pid, worker in workers if worker == name]


def test_machine_output_is_stable(shop: Place):
    """Complaint: nothing a script can read, no verb for the state, no file for the environment."""
    following = shop.start("events", "--json", "-n", "2")
    wait_for(lambda: shop.tell("restart", "edge").code == 0 and following.out)
    shop.tell("restart", "edge")
    assert all(
        {"time", "project", "worker", "state", "previous", "pid", "detail"} == set(one)
        for one in following.done().objects
    )
    assert ["api", "db", "edge", "gate", "late", "migrate"] == sorted(shop.rows())
    assert ["shop"] == [
        one["name"] for one in shop.tell("ls", "--json").json["projects"] if one["name"] == "shop"
    ]
    assert "Ulm" == shop.ask("api", "pid")["place"]
    assert "Ulm" not in shop.tell("config", "--json").out
    assert {"project", "jobs", "silent"} == set(shop.tell("jobs", "--json").json)
    done = shop.tell("send", "api", "--job", "none", "--wait")
    assert (1, "") == (done.code, done.out)


def test_children_do_not_survive_stop(cli: CliEnv, project: Callable[..., Place]):
    """Complaint: children of a stopped program go on, though the stop says that it is done."""
    place = project(
        "leavers",
        f'  stopped: {{command: [sh, -c, "{LEAVER.format("stopped", "exec sleep 600")}"]}}\n'
        f'  ended: {{command: [sh, -c, "{LEAVER.format("ended", "exit 0")}"]}}\n'
        f'  last: {{command: [sh, -c, "{LEAVER.format("last", "exec sleep 600")}"]}}\n',
    )
    place.up()
    stopped, last = pid_in(place.folder / "stopped"), pid_in(place.folder / "last")
    ended = int((place.folder / "ended").read_text())
    place.until(lambda rows: rows["ended"]["state"] == "exited")
    assert [] == living(one for one in cli.processes() if one.pid == ended)
    assert 0 == place.run("stop", "stopped", "--timeout", "0.2").code
    assert ([], [last]) == (living([stopped]), living([last]))
    assert 0 == place.run("down", "--timeout", "0.2").code
    assert [] == living([last])


def test_up_wait_tells_the_truth(project: Callable[..., Place]):
    """Complaint: no `up` that waits; or it fails because a one-shot has done its work."""
    place = project(
        "truth",
        "  once: {command: [sh, -c, 'echo did it'], restart: never}\n"
        "  good: {command: [sleep, '600'], depends_on: {once: completed}}\n"
        "  bad: {command: [sh, -c, 'echo no such table >&2; exit 3'], restart: never}\n"
        "  slow: {command: [sleep, '600'], ready: {log: never said}}\n"
        "  behind: {command: [sleep, '600'], depends_on: [slow]}\n"
        "  beside: {command: [sleep, '600'], depends_on: {bad: completed}}\n",
    )
    assert 0 == place.run("up", "--wait", "--only", "good,once").code
    assert 0 == place.run("down").code
    told = place.run("up", "--wait")
    assert 1 == told.code
    assert "no such table" in told.err
    for name, why in (
        ("bad", "failed: exited with code 3"),
        ("slow", "is not ready: starting, no line matches 'never said'"),
        ("behind", "is not ready: waiting for slow to be ready"),
    ):
        assert f"worker {name!r} {why}" in told.err
    again = place.run("restart", "beside")  # it cannot start now either, which is no timeout
    assert 1 == again.code
    assert "beside failed: a dependency failed: bad (failed)" in again.err


def test_hang_before_ready_is_reaped(project: Callable[..., Place]):
    """Complaint: what hangs before it is ready hangs for ever."""
    place = project(
        "hanging",
        "  program: {command: [sleep, '600'], restart: never, ready: {log: never said, timeout: 500ms}}\n"
        "  worker: {worker: 'workers:Hanging', restart: never, ready: {bus: true, timeout: 1s}}\n",
        {"workers.py": WORKERS},
    )
    told = place.run("up", "--plain")
    assert 1 == told.code
    assert "not ready within 0.5 s: no line matches 'never said'" in told.out
    assert "not ready within 1 s: it has not registered on the bus as ready" in told.out
    assert str(place.folder) not in place.cli.command_lines()


@pytest.mark.parametrize(
    ("workers", "option", "code", "expected"),
    [
        ("  a: {command: [no-such-program]}\n", "--wait", 1, "no-such-program"),
        ("  a: {worker: 'workers:Missing'}\n", "--plain", 1, "Missing"),
        ("  a: {command: [date], depend_on: [b]}\n", "-d", 2, "did you mean `depends_on`?"),
        ("  a: {command: [date]}\nbus: {url: 'redis://127.0.0.1:1'}\n", "-d", 3, "127.0.0.1:1"),
    ],
)
def test_failed_start_is_no_zero(
    project: Callable[..., Place], workers: str, option: str, code: int, expected: str
):
    """Complaint: the exit code is 0 though nothing started."""
    place = project(f"failing-{code}{option}", workers, {"workers.py": WORKERS})
    told = place.run("up", option)
    assert code == told.code
    assert expected in told.out + told.err
    assert "goes on running" not in told.err  # for nothing does


def test_instances_do_not_clash(shop: Place, cli: CliEnv):
    """Complaint: two instances fight for a port or a name, and stopping one stops the other."""
    twin = shop_at(cli, "twin", "go", "open")
    before = shop.rows()["api"]["pid"]
    started = [twin.start("up", "--wait"), twin.start("up", "--wait")]  # and at the same time
    codes = sorted(one.done().code for one in started)
    assert codes in ([0, 1], [0, 0])
    assert any("already running" in one.err or "runs already" in one.err for one in started)
    own = json.loads(twin.run("ps", "--json").out)["workers"]
    assert before not in {row["pid"] for row in own}
    assert 0 == twin.run("down", "--timeout", "5").code
    assert before == shop.rows()["api"]["pid"] == shop.ask("api", "pid")["pid"]


def test_stale_lock_is_no_running_project(project: Callable[..., Place]):
    """Complaint: after a crash it is "already running" though nothing runs."""
    place = project("stale", "  a: {command: [sleep, '600']}\n")
    place.up()
    path = place.record_path()
    text = path.read_text()
    assert 0 == place.run("down").code
    stale = json.loads(text) | {"pid": os.getpid()}  # the number belongs to another process now
    path.write_text(json.dumps(stale))
    with socket.socket(socket.AF_UNIX) as one:
        url = str(stale["bus"]["url"]).removeprefix("unix://").partition("?")[0]
        Path(url).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        one.bind(url)
    assert 3 == place.run("ps").code
    place.up()
    assert "ready" == place.rows()["a"]["state"]


def test_restart_policy_is_as_fine_as_needed(project: Callable[..., Place]):
    """Complaint: no pause between restarts or always the same, given up too soon or never."""
    flaky = "n=$(cat count); echo $((n + 1)) > count; test $n -ge 6 || exit 1; exec sleep 600"
    backoff = "backoff: {initial: 20ms, factor: 2, max: 100ms}"
    place = project(
        "restarts",
        "  bell: {command: [sleep, '600']}\n"
        "  gate: {command: [sleep, '600'], ready: {exec: [test, -e, go]}}\n"
        f"  flaky: {{command: [sh, -c, '{flaky}'], restart: {{max: 20, {backoff}}}, depends_on: [gate]}}\n"
        f"  never: {{command: ['false'], restart: {{max: 4, {backoff}}}}}\n",
        {"count": "0"},
    )
    assert 0 == place.run("up", "-d").code
    events = place.start("events")
    # Only what happens from now on is told: change something until it listens.
    wait_for(lambda: place.tell("restart", "bell").code == 0 and events.out)
    (place.folder / "go").touch()
    place.until(lambda rows: rows["flaky"]["ready"] and rows["flaky"]["restarts"] == 6)
    assert (3, "failed") == tuple(place.rows()["never"][key] for key in ("restarts", "state"))

    def pauses() -> list[str]:
        lines = [line for line in events.out.splitlines() if line.split()[1] == "flaky"]
        return [line.partition("restarts in ")[2] for line in lines if "restarts in" in line]

    assert ["0.02 s", "0.04 s", "0.08 s", "0.1 s", "0.1 s", "0.1 s"] == wait_for(
        lambda: len(pauses()) == 6 and pauses()
    )


def test_one_exit_is_the_workers_own_affair(project: Callable[..., Place]):
    """Complaint: one exit ends everything, or there is no worker whose end may end it."""
    place = project(
        "exits",
        "  other: {command: [sleep, '600']}\n"
        "  task: {command: [sh, -c, 'exit 5'], restart: never}\n"
        "  boss: {command: [sh, -c, 'until test -e go; do sleep 0.05; done; exit 7'],"
        " restart: never, on_exit: stop}\n",
    )
    running = place.start("up", "--plain")
    rows = place.until(lambda rows: rows["task"]["state"] == "failed" and rows["other"]["ready"])
    other = psutil.Process(rows["other"]["pid"])
    assert [other] == living([other])
    (place.folder / "go").touch()
    assert 7 == running.done().code
    assert [] == living([other])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stop_interrupts_start(project: Callable[..., Place], number: signal.Signals, code: int):
    """Complaint: Ctrl-C or SIGTERM while it starts hangs, or leaves processes behind."""
    place = project(
        f"hurry-{code}",
        "  a: {command: [sleep, '600'], ready: {log: never said}}\n"
        "  b: {worker: 'workers:Hanging'}\n"
        "  c: {command: [sleep, '600'], depends_on: [a, b]}\n",
        {"workers.py": WORKERS},
    )
    with terminal(place, "up", rows=24, columns=80) as screen:
        screen.until("loads for ever")
        screen.until("waiting for a to be ready")
        family = [
            psutil.Process(screen.process.pid),
            place.supervisor(),
            *place.supervisor().children(),
        ]
        if number == signal.SIGINT:
            screen.press("\x03")
        else:
            screen.process.send_signal(number)
        assert code == screen.code()
    assert [] == living(family)


def test_reload_is_not_all_or_nothing(project: Callable[..., Place]):
    """Complaint: an edited file needs a restart of everything, or is half applied when it is wrong."""
    base = "  a: {command: [sleep, '600']}\n  b: {command: [sleep, '600'], replicas: 2}\n"
    place = project("reloaded", base)
    place.up()
    before = place.rows()
    file = place.folder / "topology.yaml"
    file.write_text(f"workers:\n{base}  c: {{command: [sleep, '600'], depend_on: [a]}}\n")
    assert 2 == place.run("up", "-d").code
    assert before.keys() == place.rows().keys()
    file.write_text(f"workers:\n{base}  c: {{command: [no-such-program]}}\n")
    told = place.run("up", "-d")
    assert 1 == told.code  # not 0 though it did not start
    assert "c failed: cannot be started" in told.err
    file.write_text(f"workers:\n{base}  c: {{command: [sleep, '600'], depends_on: [b]}}\n")
    assert 0 == place.run("up", "-d").code
    rows = place.rows()
    assert "ready" == rows["c"]["state"]
    assert [before[name]["pid"] for name in before] == [rows[name]["pid"] for name in before]


def test_changes_do_not_race(project: Callable[..., Place]):
    """Complaint: commands at one time leave two copies or none, and one slow stop blocks the others."""
    slow = "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.2; done"
    place = project(
        "racing",
        f'  s: {{command: [sh, -c, "{slow}"], replicas: 2}}\n  other: {{command: [sleep, "600"]}}\n',
    )
    place.up()
    wishes = [("scale", "s=4"), ("scale", "s=1"), ("restart", "--rolling", "s"), ("up", "-d")]
    commands = [place.start(*words) for words in wishes]
    assert 0 == place.run("restart", "other").code
    ends = [one.done() for one in commands]
    for end in ends:  # done, or said why not
        assert end.code == 0 or "superseded" in end.err or "one by one" in end.err, end.err
    assert 0 == place.run("up", "-d").code
    place.until(lambda rows: {"s.1", "s.2", "other"} == rows.keys())
    assert ["other", "s.1", "s.2"] == sorted(worker for _, worker in workers_of(place))
