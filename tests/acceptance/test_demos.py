"""The demos do what their topologies say: hand over, play, and meet across machines."""

import contextlib
import json
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cli_env import CliEnv, Command, Place, Rows, wait_for
from support.hosts import Host, broker_on, can_make_hosts, two_hosts
from support.valkey import Valkey

pytestmark = pytest.mark.cli

CONFIGS = Path(__file__).parents[2] / "configs"


# Handing over


def say(place: Place, text: str) -> None:
    """Say something to everybody."""
    done = place.tell("send", "--all", "--text", text)
    assert 0 == done.code, done.err


def heard(place: Place, worker: str, text: str) -> None:
    """Wait until a worker said this."""
    wait_for(lambda: any(text in line for line in place.logs(worker)))


def test_conversation_handed_over(cli: CliEnv):
    """One speaker at a time: who takes over knows what was said, and hands back."""
    place = cli.place("handoff", CONFIGS / "handoff")
    place.up()
    heard(place, "reception", "Good day.")
    say(place, "Hello, I am Ada")
    heard(place, "reception", "You said: Hello, I am Ada")
    say(place, "My bill is wrong")
    heard(place, "reception", "billing will take care of that")
    heard(place, "billing", "Billing here. I know of 2 things said so far")
    rows = place.until(lambda rows: rows["billing"]["active"] and not rows["reception"]["active"])
    assert all(row["ready"] for row in rows.values())
    say(place, "It says 80 for May")
    heard(place, "billing", "You said: It says 80 for May")
    say(place, "Thank you")
    heard(place, "reception", "Good day. I know of 4 things said so far")

    said = [line for line in place.logs("reception") if "You said" in line]
    assert ["You said: Hello, I am Ada"] == said


# Audio


def read_wav(path: Path) -> tuple[tuple[int, ...], bytes]:
    """Channels, width and rate of a WAV file, and its samples."""
    with wave.open(str(path)) as file:
        return tuple(file.getparams()[:3]), file.readframes(file.getnframes())


def test_audio_crosses_processes(cli: CliEnv):
    """Without a file of its own, `up` plays a tone through three processes and ends by itself."""
    place = cli.place("audio", CONFIGS / "audio")
    done = place.run("up", limit_s=60)

    assert 0 == done.code, done.err
    assert "250 frames, 882000 bytes: byte for byte the same" in done.out
    params, samples = read_wav(place.folder / "out.wav")
    assert ((2, 2, 44_100), 882_000) == (params, len(samples))


def test_given_wav_copied_exactly(cli: CliEnv, monkeypatch: pytest.MonkeyPatch):
    """A file that is given comes out byte for byte the same, its last short frame included."""
    place = cli.place("given", CONFIGS / "audio")
    with (place.folder / "topology.yaml").open("a") as file:
        file.write("bus: {backend: memory}\n")  # what is asked here is not how frames travel
    source, copy = place.folder / "in.wav", place.folder / "copy.wav"
    with wave.open(str(source), "wb") as wav:
        wav.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        wav.writeframes(bytes(value * 7 % 256 for value in range(2 * 8000 + 62)))
    monkeypatch.setitem(cli.environ, "WAV_IN", str(source))
    monkeypatch.setitem(cli.environ, "WAV_OUT", str(copy))
    done = place.run("up", limit_s=60)

    assert 0 == done.code, done.err
    assert source.read_bytes() == copy.read_bytes()


# Two hosts


def start_part(cli: CliEnv, url: str, part: str) -> tuple[Place, Command]:
    """The topology of both, brought up with one of its workers."""
    cli.environ["BUS_URL"] = url
    place = cli.place("two-hosts", CONFIGS / "two-hosts")
    command = place.start("up", "--only", part)
    command.until(part)
    return place, command


def are_both_ready(rows: Rows) -> bool:
    """Whether house and guest are."""
    return {"house", "guest"} == {name for name in rows if rows[name]["ready"]}


def watched(place: Place, claim: Callable[[Rows], bool]) -> Rows:
    """Wait until `ps --watch` shows rows of which a claim holds; `ps` is started again when it gives up."""
    watch = place.start("ps", "--json", "--watch")

    def look() -> Rows | None:
        nonlocal watch
        if watch.process.poll() is not None:
            watch = place.start("ps", "--json", "--watch")
        lines = watch.out.rpartition("\n")[0].splitlines()
        rows = {row["name"]: row for row in json.loads(lines[-1])["workers"]} if lines else {}
        return rows if rows and claim(rows) else None

    shown = wait_for(look)
    watch.end()
    return shown or {}


def test_two_projects_share_a_broker(valkey: Valkey):
    """Two copies of one topology, each with a state of its own, are one system on one URL."""
    with CliEnv() as here, CliEnv() as there:
        house, _ = start_part(here, valkey.tcp_url, "house")
        guest, visiting = start_part(there, valkey.tcp_url, "guest")
        visiting.until("I visited the house on")
        house.until(are_both_ready)
        guest.until(are_both_ready)
        assert 0 == house.run("down").code
        visiting.until("the house is gone")
        rows = guest.until(lambda rows: "house" not in rows)

        assert ["guest"] == list(rows)


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two machines."""
    if not can_make_hosts():
        pytest.skip("network namespaces may not be made here")
    with two_hosts() as hosts:
        yield hosts


def test_two_hosts(hosts: tuple[Host, Host], tmp_path: Path):
    """On two machines with a broker on one: they meet, lose each other with the wire, and meet again."""
    alpha, beta = hosts
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(broker_on(alpha, tmp_path))
        house, lodging = start_part(stack.enter_context(alpha.home()), url, "house")
        guest, visiting = start_part(stack.enter_context(beta.home()), url, "guest")
        visiting.until("from beta I visited the house on alpha")
        lodging.until("a visit from beta")
        rows = watched(guest, are_both_ready)
        assert ("alpha", "beta") == (rows["house"]["host"], rows["guest"]["host"])

        beta.link("down")
        watched(house, lambda rows: "guest" not in rows or not rows["guest"]["ready"])
        beta.link("up")
        watched(house, are_both_ready)
        watched(guest, are_both_ready)
