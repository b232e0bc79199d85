"""What processes say of themselves, oddly: readiness, HTTP answers, lines that cannot be written."""

import asyncio
import logging
import socket
from pathlib import Path

import pytest

from pbus.process.probes.checks import Surroundings, check
from pbus.process.probes.notify import NotifySocket
from pbus.process.project.log_files import LogFile
from pbus.process.project.log_writer import LogWriter
from pbus.process.project.project import Project
from pbus.process.supervisor.reports.event_dispatch import EventDispatch
from pbus.process.supervisor_events import Event, Line
from pbus.process.system import open_files
from pbus.topology.policy.policies import HttpProbe
from support.waiting import run, until


@pytest.mark.parametrize(
    ("said", "ready", "statuses"),
    [
        (b"READY=1", 1, []),
        (b"READY=1\n", 1, []),
        (b"STATUS=half\nREADY=1\nMAINPID=7", 1, ["half"]),
        (b"READY=0\nREADY=\nREADY\nready=1\n READY=1\nREADY=11", 0, []),
        ("STATUS=a\u2028READY=1".encode(), 0, ["a\u2028READY=1"]),
        ("STATUS=a\x0bREADY=1\x85READY=1".encode(), 0, ["a\x0bREADY=1\x85READY=1"]),
        (b"STATUS=a=b", 0, ["a=b"]),
        (b"STATUS=\xff\x00", 0, ["\ufffd\x00"]),
        (b"STATUS=" + b"x" * 5_000, 0, ["x" * 200]),
        (b"", 0, []),
        (b"\n\n=\n", 0, []),
    ],
)
def test_notifications(tmp_path: Path, said: bytes, ready: int, statuses: list[str]) -> None:
    """Only a line feed ends a line, as sd_notify(3) has it; nothing else is taken for readiness."""
    heard: list[str] = []
    found: list[str] = []

    async def main() -> None:
        path = tmp_path / "n"
        path.write_text("left behind")
        notify = NotifySocket(path, lambda: heard.append("ready"), found.append)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as process:
                process.sendto(said, str(path))
                process.sendto(b"STATUS=end", str(path))
            await until(lambda: "end" in found)
        finally:
            notify.close()
            notify.close()
        assert not path.exists()

    run(main())
    assert [*statuses, "end"] == found
    assert ready == len(heard)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 204\r\n", ""),
        (b"HTTP/1.1 399 \n", ""),
        (b"HTTP/1.1 400 Bad\r\n", "/health: status 400"),
        (b"HTTP/1.1 199 ?\r\n", "/health: status 199"),
        (b"HTTP/1.1 503 " + b"x" * 2_000 + b"\r\n", "/health: status 503"),
        (b"", ": the answer is not HTTP"),
        (b"\r\n", ": the answer is not HTTP"),
        (b"HTTP/1.1\r\n", ": the answer is not HTTP"),
        (b"HTTP/1.1 OK\r\n", ": the answer is not HTTP"),
        (b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n", ": the answer is not HTTP"),
        (b"HTTP/1.1 20\xb2 OK\r\n", ": the answer is not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n", ": the answer is not HTTP"),
        (b"HTTP/1.1 -200 OK\r\n", ": the answer is not HTTP"),
        (b"SSH-2.0-OpenSSH 200\r\n", ": the answer is not HTTP"),
        (b"HTTP/1.1 200 " + b"x" * 10_000, ": the answer is not HTTP"),
    ],
)
def test_http_answers(tmp_path: Path, answer: bytes, problem: str) -> None:
    """A status from 200 to 399 is good; whatever else comes is said in a few words."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def main() -> tuple[int, str]:
        server = await asyncio.start_server(reply, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            probe = HttpProbe(f"http://127.0.0.1:{port}/health")
            return port, await check(probe, Surroundings({}, tmp_path), 5.0)

    port, found = run(main())
    assert (f"http 127.0.0.1:{port}{problem}" if problem else "") == found


def a_line(worker: str, text: str = "said") -> Line:
    """A line of a worker."""
    return Line(worker=worker, stream="out", text=text, time=1.0)


def test_fault_of_one_log_is_said_once_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A log that cannot be written warns once, and once more after it could be; others go on."""
    path, blocked = tmp_path / "b.log", tmp_path / "a.log"
    blocked.mkdir()
    with LogFile(blocked) as bad, LogFile(path) as good:
        for _ in range(3):
            bad.write(1.0, "out", "lost")
            good.write(1.0, "out", "kept")
        assert 1 == len(caplog.records)
        blocked.rmdir()
        bad.write(1.0, "out", "kept")
        bad.close()
        blocked.unlink()
        blocked.mkdir()
        bad.write(1.0, "out", "lost")
        bad.write(1.0, "out", "lost")
    assert [logging.ERROR] * 2 == [record.levelno for record in caplog.records]
    assert 3 == path.read_text().count("kept")


def test_more_logs_than_files_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is closed and opened again; no line is lost or in another's log."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(open_files, "max_logs", lambda: 2)
    project = Project("app", tmp_path, tmp_path / "topology.yaml")
    writer = LogWriter(project)
    names = ("a", "b", "c", "a", "c", "b")
    for number, name in enumerate(names):
        writer.write(a_line(name, f"{name}{number}"))
        assert len(writer._files) <= 2
    writer.close()
    writer.close()
    for name in set(names):
        expected = [f"{name}{number}" for number, one in enumerate(names) if one == name]
        lines = project.log_path(name).read_text().splitlines()
        assert expected == [line.rsplit(" ", 1)[1] for line in lines]


def test_events_reach_all_listeners(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the log, of the state or of a listener keeps no other from the event."""
    heard: list[Event] = []
    changes: list[Event] = []

    class Broken(LogWriter):
        def write(self, line: Line) -> None:
            raise OSError(line.text)

    def fail(event: Event) -> None:
        raise LookupError(repr(event))

    dispatch = EventDispatch(Broken(Project("app", tmp_path, tmp_path / "t")), changes.append)
    dispatch.listeners += [fail, heard.append]
    for text in ("one", "one", "two"):
        dispatch.emit(a_line("a", text))
    assert ["one", "one", "two"] == [event.text for event in heard]
    assert [] == changes
    of_the_log = [one for one in caplog.records if "writing down" in one.getMessage()]
    assert 2 == len(of_the_log)  # equal errors in a row are said once
    assert 3 == len(caplog.records) - len(of_the_log)
