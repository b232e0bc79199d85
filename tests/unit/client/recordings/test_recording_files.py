"""Files of recordings: what was written is read, what is broken is told."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader

from pbus.client.recordings import mcap_recording, recording_file
from pbus.client.recordings.recording import RecordedMessage, RecordingEnd, RecordingHead
from pbus.client.recordings.recording_file import check_ending, new_recording, read_recording
from pbus.codec import encode_message
from pbus.errors import McapMissingError, RecordingFileError
from pbus.frames import AudioRawFrame
from pbus.messages import BusDataMessage, BusFrameMessage, BusJobCancelMessage

ENDINGS = ["x.jsonl", "x.mcap"]
HEAD = RecordingHead(project="talk", began=1_700_000_000.25)


class TapedNote(BusDataMessage):
    """A message of the test's own."""

    text: str = ""


def recorded(message, at=1_700_000_001.5, **about):
    body = msgspec.Raw(encode_message(message))
    return RecordedMessage(at=at, lane=str(message.lane), message=body, **about)


MESSAGES = [
    recorded(TapedNote(source="a", target="b", text="ä\n\x1b")),
    recorded(TapedNote(source="a"), local=True),
    recorded(TapedNote(source="cli-1", target="none", key="k"), at=1.5, undelivered=True),
    recorded(BusJobCancelMessage(source="a", target="b", job_id="j")),
    recorded(
        BusFrameMessage(
            source="a",
            target="b",
            frame=AudioRawFrame(audio=bytes(range(256)), sample_rate=8000, num_channels=1),
        )
    ),
]


def written(path, those=MESSAGES, *, end=True, **about):
    writer = new_recording(path, HEAD)
    for message in those:
        writer.add(message)
    if end:
        writer.end(RecordingEnd(ended=1_700_000_009.0, **{"messages": len(those)} | about))
    writer.close()
    return path


def facts(messages):
    return [(round(one.at, 6), one.lane, one.local, one.undelivered, one.line) for one in messages]


@pytest.mark.parametrize("name", ENDINGS)
def test_recording_is_read_as_it_was_written(tmp_path: Path, name: str):
    """Byte by byte, in order; followers see what they saw."""
    found = read_recording(written(tmp_path / name))
    assert (HEAD, "") == (found.head, found.incomplete)
    assert facts(MESSAGES) == facts(found.messages)
    seen = [one.as_seen() for one in found.messages]
    assert ["ä\n\x1b", False, True] == [
        seen[0].data["text"], seen[2].is_reached, seen[1].is_local
    ]  # fmt: skip
    assert [False, True] == [seen[0].is_urgent, seen[3].is_urgent]
    assert read_recording(written(tmp_path / name, [])).messages == ()


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"missed": 3}, "3 messages passed unseen"),
        ({"reason": "talk has stopped"}, "talk has stopped"),
        ({"messages": 9}, "it has 5 of 9 messages"),
    ],
)
def test_incomplete_recording_says_why(tmp_path: Path, name: str, about: dict, reason: str):
    assert reason == read_recording(written(tmp_path / name, **about)).incomplete


@pytest.mark.parametrize("name", ENDINGS)
def test_recording_that_was_broken_off_is_incomplete(tmp_path: Path, name: str):
    """What it has is read: the process was killed, or the disk is full."""
    path = tmp_path / name
    many = [recorded(TapedNote(source="a", text=str(n) * 2000)) for n in range(2000)]
    whole = written(path, many).read_bytes()
    for share in (0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        found = read_recording(path)
        assert found.incomplete
        assert facts(found.messages) == facts(many)[: len(found.messages)]
    assert read_recording(written(path, end=False)).incomplete


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"\x89MCAP0\r\n", b"\xff" * 100, b"[1]"])
def test_what_is_no_recording_is_refused(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RecordingFileError, match=name):
        read_recording(path)


@pytest.mark.parametrize("name", ENDINGS)
@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(at=st.integers(0, 2_000), byte=st.integers(0, 255))
def test_changed_byte_is_no_crash(tmp_path: Path, name: str, at: int, byte: int):
    """Files come from anywhere: it is read, or it is refused."""
    path = written(tmp_path / name)
    content = bytearray(path.read_bytes())
    content[at % len(content)] = byte
    path.write_bytes(content)
    try:
        found = read_recording(path)
    except RecordingFileError:
        return
    assert len(found.messages) <= len(MESSAGES) or found.incomplete


def test_format_of_another_version_is_refused(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    line = {"recording": {"project": "p", "began": 1.0, "version": 2}}
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(RecordingFileError, match="version 2"):
        read_recording(path)


@pytest.mark.parametrize("name", ["x", "x.txt", "mcap", ".mcap", "x.mcap.gz"])
def test_ending_tells_the_format(tmp_path: Path, name: str):
    with pytest.raises(RecordingFileError, match="ending"):
        check_ending(tmp_path / name)


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is an extra; another module that is missing would be a bug."""

    def missing(name):
        raise ModuleNotFoundError(name=missing.module)

    monkeypatch.setattr(recording_file.importlib, "import_module", missing)
    missing.module = "mcap.writer"
    with pytest.raises(McapMissingError, match=r"pbus-orchestrator\[mcap\]"):
        new_recording(tmp_path / "x.mcap", HEAD)
    assert not (tmp_path / "x.mcap").exists()
    missing.module = "pbus"
    with pytest.raises(ModuleNotFoundError):
        new_recording(tmp_path / "x.mcap", HEAD)


def test_mcap_is_what_others_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By the reader of the package: topics, schemas, times; of many topics the last ones share one."""
    monkeypatch.setattr(mcap_recording, "_MOST_TOPICS", 3)
    extra = [recorded(TapedNote(source=f"w{number}")) for number in range(3)]
    path = written(tmp_path / "x.mcap", [*MESSAGES, *extra])
    with path.open("rb") as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        found = list(reader.iter_messages(log_time_order=False))
    topics = [channel.topic for _, channel, _ in found]
    assert [
        "/a/TapedNote",
        "/a/TapedNote",
        "/clients/TapedNote",
        "/a/JobCancel",
        "/others",
    ] == topics[:5]
    assert ["/others"] * 3 == topics[5:]
    assert {"json"} == {channel.message_encoding for channel in summary.channels.values()}
    assert {"jsonschema"} == {schema.encoding for schema in summary.schemas.values()}
    assert all(json.loads(schema.data)["type"] == "object" for schema in summary.schemas.values())
    assert "ä\n\x1b" == json.loads(found[0][2].data)["message"]["text"]
    assert 1_700_000_001_500_000_000 == found[0][2].log_time
    assert 8 == summary.statistics.message_count


def test_no_folder_is_an_error_of_the_system(tmp_path: Path):
    for name in ENDINGS:
        with pytest.raises(FileNotFoundError):
            new_recording(tmp_path / "none" / name, HEAD)
        with pytest.raises(RecordingFileError, match="No such file"):
            read_recording(tmp_path / name)
