"""`pbus send` to the workers of a running project."""

import itertools
import json
import signal

import pytest

from pbus.routing_keys import owner_of
from support.cli_env import Command, Place, wait_for

pytestmark = pytest.mark.cli

_numbers = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def patient(sample: Place) -> Command:
    """Waits for a worker that does not come; begun first, for it takes its time."""
    return sample.start("send", "nobody", "--text", "x")


@pytest.fixture
def word() -> str:
    """A text that no other test sends."""
    return f"word-{next(_numbers)}"


def lines_of(sample: Place, worker: str, word: str, count: int) -> list[str]:
    """The lines of a worker in which a word stands, once there are so many."""

    def look() -> list[str]:
        found = [line for line in sample.logs(worker) if word in line]
        return found if len(found) >= count else []

    return wait_for(look)


def test_texts_reach_their_worker(sample: Place, word: str):
    """--text, --count and --rate: each arrives once, at its time, from an address of the command."""
    done = sample.run(*("send", "clerk", "--text", f"{word} €"), *("--count", "5", "--rate", "10"))

    assert (0, "") == (done.code, done.out)
    assert "sent 5 x BusFrameMessage to clerk\n" == done.err
    assert done.seconds >= 0.4
    lines = lines_of(sample, "clerk", word, 5)
    assert [f"heard text '{word} €' from cli-"] * 5 == [line[: len(word) + 25] for line in lines]


def test_data_comes_from_anywhere(sample: Place, word: str):
    """--data takes JSON, a file and stdin; a type that only the workers know passes through."""
    (sample.folder / "note.json").write_text(json.dumps({"text": f"{word} file"}))
    send = ("send", "clerk", "--type", "Note", "--data")
    ended = [
        sample.tell(*send, json.dumps({"text": f"{word} argument"})),
        sample.tell(*send, "@note.json"),
        sample.run(*send, "-", stdin=json.dumps({"text": f"{word} stdin"})),
    ]

    assert [0, 0, 0] == [done.code for done in ended]
    lines = lines_of(sample, "clerk", word, 3)
    assert [f"heard note '{word} {way}'" for way in ("argument", "file", "stdin")] == sorted(lines)


def test_inactive_is_said(sample: Place, word: str):
    """The sender is told what an inactive worker will drop; an activation is no such message."""
    warning = "warning: guest: inactive, drops data and refuses jobs until it is activated\n"

    data = sample.tell("send", "guest", "--text", word)
    job = sample.tell("send", "guest", "--job", "anything")
    order = sample.tell("send", "guest", "--type", "BusDeactivateWorkerMessage")

    assert (0, warning + "sent BusFrameMessage to guest\n") == (data.code, data.err)
    assert (0, warning + "sent job 'anything' to guest\n") == (job.code, job.err)
    assert (0, "sent BusDeactivateWorkerMessage to guest\n") == (order.code, order.err)


def test_broadcast_reaches_everyone(sample: Place, word: str):
    """--all reaches every active worker, and only those."""
    done = sample.tell("send", "--all", "--text", word)

    assert 0 == done.code
    for worker in ("clerk", "post.1", "post.2"):
        assert 1 == len(lines_of(sample, worker, word, 1))
    assert [] == [line for line in sample.logs("guest") if word in line]


def test_replicas_take_turns(sample: Place, word: str):
    """The name of replicas means one of them, one after the other."""
    assert 0 == sample.tell("send", "post", "--text", word, "--count", "4").code

    for worker in ("post.1", "post.2"):
        assert 2 == len(lines_of(sample, worker, word, 2))


def test_urgent_overtakes_queued(sample: Place, word: str):
    """--urgent is handled beside the message in progress and before those that wait."""
    held = sample.logs("clerk").count("heard note 'hold'")
    for text in ("hold", word):
        data = json.dumps({"text": text})
        assert 0 == sample.tell("send", "clerk", "--type", "Note", "--data", data).code
        wait_for(lambda: sample.logs("clerk").count("heard note 'hold'") == held + 1)
    assert [] == [line for line in sample.logs("clerk") if word in line]

    data = json.dumps({"text": "go"})
    assert 0 == sample.run("send", "clerk", "--type", "Note", "--data", data, "--urgent").code

    lines_of(sample, "clerk", word, 1)
    expected = ["heard note 'hold'", "heard note 'go'", f"heard note '{word}'"]
    notes = [line for line in sample.logs("clerk") if line.startswith("heard note")]
    assert expected == notes[-3:]


def test_job_is_answered(sample: Place):
    """--job --wait shows updates on stderr and prints the response as JSON."""
    done = sample.run("send", "clerk", "--job", "climb", "--wait")

    assert (0, {"steps": 2}) == (done.code, done.json)
    assert 'update: {"step":1}\nupdate: {"step":2}\n' == done.err


def test_replica_answers_job(sample: Place):
    """A job for the name of replicas is done by one of them."""
    assert {"greeting": "hello, Eve"} == sample.ask("post", "greet", {"who": "Eve"})


def test_keys_choose_the_replica(sample: Place, word: str):
    """All texts and jobs of a key come to one replica, and tail tells them by it."""
    tail = sample.start("tail", "--json", "--key", f"{word}-*")
    sample.until_followed(1)
    keys = [f"{word}-{number}" for number in range(6)]
    owners = [owner_of(key, ["post.1", "post.2"]) for key in keys]
    assert {"post.1", "post.2"} == set(owners)
    for key, owner in zip(keys, owners, strict=True):
        send = sample.run if key == keys[0] else sample.tell
        done = send("send", "post", "--text", f"<{key}>", "--key", key, "--count", "2")
        assert (0, f"sent 2 x BusFrameMessage to {owner}\n") == (done.code, done.err)
    for owner in ("post.1", "post.2"):
        mine = [key for key, one in zip(keys, owners, strict=True) if one == owner]
        lines = lines_of(sample, owner, word, 2 * len(mine))
        assert [f"heard text '<{key}>'" for key in mine for _ in "12"] == [
            line.partition(" from ")[0] for line in lines
        ]
    data = json.dumps({"names": ["PBUS_WORKER"]})
    job = sample.tell("send", "post", "--job", "place", "--data", data, "--wait", "--key", keys[0])
    assert owners[0] == job.json["environ"]["PBUS_WORKER"]
    wait_for(lambda: tail.out.count("\n") >= 13)
    seen = [json.loads(line) for line in tail.end().out.splitlines()]
    expected = [*((key, one) for key, one in zip(keys, owners, strict=True) for _ in "12")]
    assert [*expected, (keys[0], owners[0])] == [(one["key"], one["target"]) for one in seen]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_cancels_job(sample: Place, number: signal.Signals, code: int):
    """Ctrl-C and SIGTERM cancel the job at its worker."""
    before = sample.logs("clerk").count("endless was cancelled")
    command = sample.start("send", "clerk", "--job", "endless", "--wait")
    command.until('update: {"step":1}')

    assert code == command.end(number).code
    wait_for(lambda: sample.logs("clerk").count("endless was cancelled") == before + 1)


_BAD: list[tuple[int, str, str]] = [
    (1, "ValueError: no such street", "clerk --job fail --wait"),
    (1, "has no job 'greed'", "clerk --job greed --wait"),
    (1, "'guest' is not active", "guest --job greet --wait"),
    (4, "timed out after", "clerk --job endless --wait --timeout 1"),
    (2, "is no JSON", "clerk --job greet --data {who:"),
    (2, "cannot read '@nothing.json'", "clerk --job greet --data @nothing.json"),
    (2, "did you mean 'job_id'?", 'clerk --type BusJobUpdateMessage --data {"job_idd":1}'),
    (3, "no running project is named 'village'", "clerk --text x -p village"),
]


def test_bad_orders_are_refused(sample: Place):
    """Each says what is wrong and ends with the code for it; none prints to stdout."""
    failing = "send", *_BAD[0][2].split()
    ended = [sample.run(*failing), *(sample.tell("send", *words.split()) for *_, words in _BAD)]

    for done, (code, text, _) in zip(ended, [_BAD[0], *_BAD], strict=True):
        assert (code, "") == (done.code, done.out), done.err
        assert text in done.err.replace("\n", " ")
        assert "pbus_cli" not in done.err  # no traceback of our own


def test_unknown_target_times_out(patient: Command):
    """A worker that is not registered is waited for 5 s, then it is said that there is none."""
    done = patient.done()

    assert (4, "") == (done.code, done.out)
    assert "no worker 'nobody' was registered within 5 s" in done.err
    assert 5 <= done.seconds < 15  # with its own start
