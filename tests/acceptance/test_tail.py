"""`pbus tail` beside workers that talk."""

import json
import signal

import pytest

from support.cli_env import Command, Done, Place, wait_for

pytestmark = pytest.mark.cli

KEYS = ["time", "id", "type", "category", "source", "target", "trace_id", "size_bytes", "data"]


def follow(sample: Place, *options: tuple[str, ...]) -> list[Command]:
    """Start followers, and wait until the broker serves them."""
    commands = [sample.start("tail", *words) for words in options]
    sample.until_followed(len(commands))
    return commands


def ended(commands: list[Command], lines: list[int]) -> list[Done]:
    """End followers when each has printed so many lines."""
    for command, count in zip(commands, lines, strict=True):
        wait_for(lambda: command.out.count("\n") >= count)  # noqa: B023 - it is over in this turn
    return [command.end() for command in commands]


def test_json_has_its_keys(sample: Place):
    """One object a line, targeted messages and broadcasts, with the message's own fields."""
    (command,) = follow(sample, ("--json", "--source", "cli-*"))
    sample.tell("send", "clerk", "--type", "Note", "--data", '{"text": "ä"}')
    sample.tell("send", "--all", "--text", "everyone")
    sample.tell("send", "clerk", "--job", "greet", "--wait")
    (done,) = ended([command], [3])

    note, text, request = done.objects
    assert 130 == done.code
    assert [KEYS] * 3 == [list(one) for one in (note, text, request)]
    assert ("Note", "data", "clerk", {"text": "ä"}) == (
        note["type"], note["category"], note["target"], note["data"],
    )  # fmt: skip
    assert ("BusFrameMessage", "data", None) == (text["type"], text["category"], text["target"])
    assert {"type": "TextFrame", "text": "everyone"} == text["data"]["frame"]
    assert ("BusJobRequestMessage", "job") == (request["type"], request["category"])
    assert note["time"] <= text["time"] <= request["time"]
    assert 3 == len({one["id"] for one in (note, text, request)})
    assert note["size_bytes"] > len(json.dumps(note["data"]))


def test_filters_choose_messages(sample: Place):
    """Each filter shows what it names, of several of a kind what any names."""
    filters = {
        "all": ("--source", "cli-*", "--source", "post"),
        "target": ("--target", "post"),
        "type": ("--type", "JobRequest", "--type", "Note"),
        "category": ("--category", "data"),
        "grep": ("--grep", "gr[e]en"),
    }
    commands = follow(sample, *((*options, "--json") for options in filters.values()))
    for text in ("green", "blue"):
        data = json.dumps({"text": text})
        sample.tell("send", "clerk", "--type", "Note", "--data", data)
    sample.tell("send", "post.2", "--job", "greet", "--data", '{"who": "green"}', "--wait")

    shown = {
        name: [(one["type"], one["target"]) for one in done.objects]
        for name, done in zip(filters, ended(commands, [4, 1, 3, 2, 3]), strict=True)
    }
    requester = shown["all"][-1][1]
    note, request = ("Note", "clerk"), ("BusJobRequestMessage", "post.2")
    response = ("BusJobResponseMessage", requester)
    expected = {
        "all": [note, note, request, response],
        "target": [request],
        "type": [note, note, request],
        "category": [note, note],
        "grep": [note, request, response],
    }
    assert expected == shown


def test_tail_ends_by_itself(sample: Place):
    """-n ends after so many lines, --for after a time; a line has the message in short."""
    timed = sample.start("tail", "--for", "100ms")
    assert 0 == timed.done().code
    (counted,) = follow(sample, ("-n", "2", "--type", "Note"))
    sample.tell("send", "clerk", "--type", "Note", "--data", '{"text": "x"}', "--count", "3")

    done = counted.done()
    assert (0, 2) == (done.code, done.out.count("\n"))
    source, arrow, target, kind = done.out.split()[1:5]
    assert ("→", "clerk", "Note", True) == (arrow, target, kind, source.startswith("cli-"))
    assert 'text="x"' in done.out


def test_sigterm_ends_tail(sample: Place):
    """SIGTERM is told from Ctrl-C."""
    (command,) = follow(sample, ())

    assert 143 == command.end(signal.SIGTERM).code


def test_jobs_conditions_values_and_events(sample: Place):
    """A job as a whole, a condition on the fields, some values only, and the form of CloudEvents."""
    events, values, job = follow(
        sample,
        ("--format", "cloudevents", "--type", "Note", "--sample", "2"),
        ("--fields", "target,text", "--fields", "payload.n,nothing", "--match", "data.text != 'b'"),
        ("--json", "--headers-only", "--job", "*", "--exclude", "target=post", "--exclude", "Note"),
    )
    for text in ("a", "b\\tc\\u001b[2J\\n", "b"):
        sample.tell("send", "clerk", "--type", "Note", "--data", f'{{"text": "{text}"}}')
    sample.tell("send", "post.1", "--job", "greet", "--wait")
    sample.tell("send", "clerk", "--job", "climb", "--data", '{"n": 5}', "--wait")
    wait_for(lambda: "\t5\t" in values.out)
    as_events, as_values, of_job = ended([events, values, job], [2, 3, 5])

    assert [("pbus.Note", "clerk", {"text": "a", "blob": ""}, "1.0")] == [
        (one["type"], one["subject"], {"blob": "", **one["data"]}, one["specversion"])
        for one in as_events.objects[:1]
    ]
    assert ["a", "b"] == [one["data"]["text"] for one in as_events.objects]
    lines = as_values.out.splitlines()
    notes = [line for line in lines if line.startswith("clerk\t")][:2]
    assert "clerk\ta\t-\t-" == notes[0]
    assert notes[1].startswith("clerk\tb c")
    assert notes[1].endswith("\t-\t-")
    assert "\x1b" not in as_values.out
    assert "clerk\t-\t5\t-" in lines
    assert "--fields: no message had nothing" in as_values.err
    kinds = [one["type"].removeprefix("BusJob") for one in of_job.objects]
    assert [
        "ResponseMessage", "RequestMessage", "UpdateMessage", "UpdateMessage", "ResponseMessage",
    ] == kinds  # fmt: skip
    assert [] == [one for one in of_job.objects if "data" in one]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--match", "data.text = 1"), "unknown token '=', at character 11"),
        (("--match", "lengt(data)"), "no function lengt(), at character 1"),
        (("--grep", "("), "'('"),
        (("--sample", "0"), "--sample"),
        (("--fields", " , "), "name at least one"),
        (("--fields", "a", "--format", "cloudevents"), "leave out --format"),
        (("--pairs", "--format", "cloudevents"), "leave out --format"),
        (("--with", "logs,trees"), "none of: logs; events"),
        (("--with", ""), "none of: logs; events"),
        (("--format", "xml"), "--format"),
    ],
)
def test_wrong_conditions_are_wrong_usage(sample: Place, options: tuple[str, ...], reason: str):
    """Said before anything is followed, with the place of a mistake."""
    done = sample.tell("tail", *options)

    assert (2, "") == (done.code, done.out)
    assert reason in " ".join(done.err.replace("│", " ").split())


def test_unknown_names_are_said(sample: Place):
    """With what may have been meant; a type that was never sent is asked of the workers."""
    words = (
        "--source", "clark", "--source", "cli-*", "--target", "post", "--target", "zz*",
        "--type", "Notes", "--type", "TextFram", "--type", "Frame", "--type", "Zzz?", "--type", "Note",
    )  # fmt: skip
    done = sample.tell("tail", *words, "--for", "10ms")

    lines = [line.removeprefix("warning: ") for line in done.err.splitlines()]
    said = [line for line in lines if line.startswith("--")]  # other tests leave things to warn of
    expected = [
        "--source: no worker is named 'clark' so far; did you mean 'clerk'?",
        "--target: no worker matches 'zz*' so far; there are bell, clerk, ",
        "--type: no message type is named 'Notes' so far; did you mean 'Note'?",
        "--type: no message type is named 'TextFram' so far; did you mean 'TextFrame'?",
        "--type: no message type matches 'Zzz?' so far; there are ",
    ]
    assert 0 == done.code
    assert expected == [one[: len(want)] for one, want in zip(said, expected, strict=True)]


def test_pairs_and_one_clock(sample: Place):
    """Jobs with their answers and the time between; messages, logs and events in one order."""
    pairs, lines, merged = follow(
        sample,
        ("--pairs", "--json", "--target", "clerk"),
        ("--pairs", "--fields", "request.data.job_name,status,answer.data.response.steps,gap"),
        ("--with", "logs,events", "--json", "--target", "clerk", "--target", "bell"),
    )
    sample.tell("send", "clerk", "--type", "Note", "--data", '{"text": "one clock"}')
    sample.ask("clerk", "climb")
    assert 0 == sample.tell("restart", "bell").code
    wait_for(lambda: '"ready"' in merged.out)
    both, values, entries = ended([pairs, lines, merged], [1, 1, 5])

    (pair,) = both.objects
    assert ["request", "answer", "seconds", "status"] == list(pair)
    assert ("climb", {"steps": 2}, "completed") == (
        pair["request"]["data"]["job_name"], pair["answer"]["data"]["response"], pair["status"],
    )  # fmt: skip
    assert pair["seconds"] == pair["answer"]["time"] - pair["request"]["time"]
    assert "climb\tcompleted\t2\t-" in values.out.splitlines()
    assert "--fields: no message had gap" in values.err
    kinds = [one["kind"] for one in entries.objects]
    assert {"message", "log", "event"} == set(kinds)
    note = next(at for at, one in enumerate(entries.objects) if one.get("type") == "Note")
    heard = next(at for at, one in enumerate(entries.objects) if "one clock" in one.get("text", ""))
    ready = next(at for at, one in enumerate(entries.objects) if one.get("state") == "ready")
    assert note < heard < ready
    assert {"clerk", "bell"} == {one["worker"] for one in entries.objects if "worker" in one}
    times = [one["time"] for one in entries.objects]
    assert times == sorted(times, key=lambda at: round(at, 2))
