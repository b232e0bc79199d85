"""`pbus mcp`: coding assistants look at a project and act on it, by the client of the package."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from support.cli_env import PATIENCE_S, PBUS, CliEnv, Place, wait_for

if TYPE_CHECKING:
    from mcp import Client

pytestmark = pytest.mark.cli

Call = Callable[..., Awaitable[Any]]
PROBLEMS: list[tuple[str, dict[str, Any], str]] = [
    ("nothing", {}, "there is no tool 'nothing'"),
    ("tail", {"duration_s": 3600}, "<= 60"),
    ("tail", {"match": "["}, "no JMESPath expression"),
    ("logs", {"counts": 3}, "unknown field `counts`"),
    ("logs", {"workers": ["clark"]}, "did you mean 'clerk'"),
    ("logs", {"grep": "("}, "is no pattern"),
    ("restart", {"workers": []}, "length >= 1"),
    ("send", {"target": "clerk"}, "one of text, type and job"),
    ("send", {"target": "*", "job": "greet"}, "a job is for one worker"),
    ("send", {"target": "clerk", "job": "fail"}, "no such street"),
    ("dlq", {}, "keeps no messages"),
]
READING = {"ps", "logs", "events", "tail", "stats", "jobs", "dlq", "graph"}


def with_client(place: Place, do: Callable[["Client"], Awaitable[Any]], *options: str) -> Any:
    """Run a function with a client of `pbus mcp` in a place."""
    from mcp import Client, StdioServerParameters  # noqa: PLC0415 - slow: only where it is used
    from mcp.client.stdio import stdio_client  # noqa: PLC0415

    server = StdioServerParameters(
        command=PBUS, args=["mcp", *options], cwd=place.folder, env=dict(place.cli.environ)
    )

    async def main() -> Any:
        async with asyncio.timeout(40), Client(stdio_client(server)) as client:
            return await do(client)

    return asyncio.run(main())


async def call(client: "Client", tool: str, **arguments: Any) -> Any:
    """The result of a tool that succeeds."""
    done = await client.call_tool(tool, arguments)
    (content,) = done.content
    assert not done.is_error, content.text
    return json.loads(content.text)


async def problem(client: "Client", tool: str, **arguments: Any) -> str:
    """The error of a tool that fails."""
    done = await client.call_tool(tool, arguments)
    (content,) = done.content
    assert done.is_error
    return json.loads(content.text)["error"]


async def look(client: "Client") -> dict[str, Any]:
    """The results of tools that look, after some traffic."""
    await call(client, "send", target="clerk", text="\x1b[31mmcp\u202e line")
    tailed = asyncio.create_task(
        call(client, "tail", duration_s=20, count=2, type=["Note"], target=["clerk"])
    )
    found: dict[str, Any] = {}
    while not tailed.done():  # the tail begins meanwhile
        data = {"text": "n\u200b"}
        found["sent"] = await call(client, "send", target="clerk", type="Note", data=data)
    found["tail"] = await tailed
    found["job"] = await call(client, "send", target="clerk", job="climb")
    for tool in ("ps", "jobs", "stats", "events", "graph"):
        found[tool] = await call(client, tool)
    while "Note" not in {edge["type"] for edge in found["stats"]["edges"]}:  # the next heartbeat
        found["stats"] = await call(client, "stats", workers=["clerk"])
    found["observed"] = await call(client, "graph", observed=True)
    found["logs"] = await call(client, "logs", workers=["clerk"], grep="mcp", count=1)
    found["restart"] = await call(client, "restart", workers=["guest"])
    found["restarted"] = await call(client, "ps")
    found["listed"] = (await client.list_tools()).tools
    found["problems"] = [await problem(client, tool, **given) for tool, given, _ in PROBLEMS]
    found["goes on"] = await call(client, "jobs")
    return found


@pytest.fixture(scope="module")
def found(sample: Place) -> dict[str, Any]:
    """What one client was told."""
    result: dict[str, Any] = with_client(sample, look)
    return result


def test_each_tool_that_looks(sample: Place, found: dict[str, Any]):
    """The values are those of the command's JSON; texts of programs are cleaned."""
    assert sample.tell("ps", "--json").json.keys() <= found["ps"].keys()
    assert "clerk" in {row["name"] for row in found["ps"]["workers"]}
    assert {"jobs": [], "silent": []} == found["jobs"]
    assert ("clerk", "Note") in {(one["target"], one["type"]) for one in found["stats"]["edges"]}
    assert "ready" in {one["state"] for one in found["events"]["events"]}
    assert [False, True] == [found[name]["is_observed"] for name in ("graph", "observed")]
    assert found["graph"]["workers"][0]["name"] == "clerk"
    (line,) = found["logs"]["lines"]
    assert ("clerk", "out") == (line["worker"], line["stream"])
    assert "mcp" in line["text"]
    assert "\x1b" not in line["text"]
    assert "\u202e" not in line["text"]


def test_messages_and_jobs_are_sent(found: dict[str, Any]):
    """Receivers are named; a job returns its response and its progress; a tail shows messages."""
    assert {"sent": "Note", "to": ["clerk"], "is_stored": False, "inactive": []} == found["sent"]
    assert found["job"]["response"] == {"steps": 2}
    assert [{"step": 1}, {"step": 2}] == [one["data"] for one in found["job"]["events"]]
    assert 2 == len(found["tail"]["messages"])
    first = found["tail"]["messages"][0]
    assert ("Note", "clerk", "n\\u200b") == (first["type"], first["target"], first["data"]["text"])
    assert found["tail"]["passed"] >= 2


def test_a_worker_is_restarted(found: dict[str, Any]):
    """It has another process then, and the tool returns when it is ready."""
    guests = [
        next(one for one in found[when]["workers"] if one["name"] == "guest")
        for when in ("ps", "restarted")
    ]
    (done,) = found["restart"]["workers"]

    assert guests[0]["pid"] != guests[1]["pid"]
    assert ("guest", "done", guests[1]["pid"]) == (done["worker"], done["outcome"], done["pid"])
    assert guests[1]["ready"]


def test_tools_are_described(found: dict[str, Any]):
    """Each with a schema, and whether it only looks."""
    listed = found["listed"]

    assert READING | {"restart", "send"} == {tool.name for tool in listed}
    assert READING == {tool.name for tool in listed if tool.annotations.read_only_hint}
    assert all(tool.description and tool.input_schema["type"] == "object" for tool in listed)


def test_what_is_wrong_is_refused(found: dict[str, Any]):
    """Errors are results that say what is wrong; the server goes on."""
    wanted = [text for _, _, text in PROBLEMS]

    assert [] == [
        (want, got) for want, got in zip(wanted, found["problems"], strict=True) if want not in got
    ]
    assert {"jobs": [], "silent": []} == found["goes on"]


def test_a_project_may_come_later(cli: CliEnv):
    """The server starts without one; logs and the graph of a stopped project are there."""
    topology = "name: late\nworkers:\n  once:\n    command: [sh, -c, 'echo was here']\n"
    place = cli.place("late", {"topology.yaml": topology})

    async def ask(client: "Client") -> Any:
        before = await problem(client, "ps")
        ended = await asyncio.to_thread(place.run, "up")
        return before, ended.code, await call(client, "logs"), await call(client, "graph")

    before, code, logs, graph = with_client(place, ask)

    assert "late" in before or "running" in before
    assert 0 == code
    assert "was here" in {one["text"] for one in logs["lines"]}
    assert "late" == graph["project"]


def test_signals_and_the_end_of_stdin_end_it(sample: Place):
    """At once, while it waits for input; what is no JSON is survived."""
    initialize = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        },
    }  # fmt: skip
    said = f"no json\n{json.dumps(initialize)}\n"
    command = sample.start("mcp")
    command.process.stdin.write(said.encode())
    command.process.stdin.flush()
    wait_for(lambda: '"id":1' in command.out.replace(" ", ""))

    command.process.send_signal(signal.SIGTERM)  # its stdin stays open
    assert 143 == command.process.wait(PATIENCE_S)
    assert 0 == sample.run("mcp", stdin=said).code


def test_without_the_package_it_says_what_to_install(sample: Place):
    """The verb is there; its error names the extra."""
    program = (
        "import sys; sys.modules['mcp'] = None; sys.argv = ['pbus', 'mcp'];"
        "from pbus_cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=sample.cli.environ, cwd=sample.folder, capture_output=True, text=True, timeout=30,
    )  # fmt: skip

    assert 1 == done.returncode
    assert "pip install 'pbus-orchestrator[mcp]'" in done.stderr
    assert "Traceback" not in done.stderr
