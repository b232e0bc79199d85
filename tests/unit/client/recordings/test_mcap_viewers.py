"""Recordings as readers of MCAP check them: the package's own with checksums, and what viewers need."""

import collections
import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from mcap.reader import NonSeekingReader, SeekingReader, make_reader
from mcap.well_known import MessageEncoding, SchemaEncoding

from pbus.client.recordings.recording import RecordedMessage, RecordingEnd, RecordingHead
from pbus.client.recordings.recording_file import new_recording
from pbus.codec import encode_message
from pbus.frames import AudioRawFrame
from pbus.messages import BusDataMessage, BusFrameMessage, BusJobCancelMessage

ODD = 'ä "b"/c\\d\x07\u202e'


class ViewedNote(BusDataMessage):
    """A message of the test's own."""

    number: int
    text: str | None = None


def made(number: int) -> RecordedMessage:
    """A message: of several sources, types and targets, each second one to everyone."""
    source = ("a", "cli-1", "cli-2", ODD)[number % 4]
    target = None if number % 2 else "b"
    message = (
        ViewedNote(source=source, target=target, number=number, text=ODD),
        BusJobCancelMessage(source=source, target=target, job_id="j"),
        BusFrameMessage(
            source=source, target=target, key="k",
            frame=AudioRawFrame(audio=bytes(range(256)) * 40, sample_rate=8000, num_channels=1),
        ),
    )[number % 3]  # fmt: skip
    return RecordedMessage(
        at=1_700_000_000 + number / 100, lane=str(message.lane), message=msgspec.Raw(encode_message(message)),
        undelivered=number % 5 == 0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of several chunks."""
    path = tmp_path_factory.mktemp("mcap") / "x.mcap"
    writer = new_recording(path, RecordingHead(project=ODD, began=1_700_000_000.0))
    for number in range(600):
        writer.add(made(number))
        if number % 250 == 0:
            writer.flush()
    writer.end(RecordingEnd(ended=1_700_000_009.0, messages=600))
    writer.close()
    return path


def test_index_and_statistics_are_those_of_the_messages(path: Path):
    """As `mcap doctor` compares: counts by channel, times, chunks, and their checksums."""
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert isinstance(reader, SeekingReader)
        summary = reader.get_summary()
        read = list(reader.iter_messages())
    assert summary is not None
    statistics = summary.statistics
    assert statistics is not None
    counts = collections.Counter(message.channel_id for _, _, message in read)
    times = [message.log_time for _, _, message in read]
    assert (600, counts) == (statistics.message_count, statistics.channel_message_counts)
    assert (min(times), max(times)) == (
        statistics.message_start_time, statistics.message_end_time,
    )  # fmt: skip
    assert (len(summary.channels), len(summary.schemas), len(summary.chunk_indexes)) == (
        statistics.channel_count, statistics.schema_count, statistics.chunk_count,
    )  # fmt: skip
    assert len(summary.chunk_indexes) > 1
    assert sorted(times) == times
    assert len({channel.topic for channel in summary.channels.values()}) == len(summary.channels)


def test_file_is_read_without_its_index_too(path: Path):
    """From a pipe: the same messages in the same order."""
    with path.open("rb") as file, path.open("rb") as other:
        indexed = [message for _, _, message in make_reader(file).iter_messages()]
        piped = [
            message for _, _, message in NonSeekingReader(other, validate_crcs=True).iter_messages()
        ]
    assert indexed == piped
    assert [number + 1 for number in range(600)] == [message.sequence for message in piped]


def test_viewers_get_what_they_show(path: Path):
    """Objects in JSON, each with a JSON Schema of its type that it keeps to; clients are one topic."""
    with path.open("rb") as file:
        read = list(make_reader(file).iter_messages())
    topics, validators = set(), {}
    for schema, channel, message in read:
        assert schema is not None
        topics.add(channel.topic)
        assert (SchemaEncoding.JSONSchema, MessageEncoding.JSON) == (
            schema.encoding, channel.message_encoding,
        )  # fmt: skip
        if schema.id not in validators:
            kind = json.loads(schema.data)
            assert "object" == kind["type"]
            jsonschema.Draft202012Validator.check_schema(kind)
            validators[schema.id] = jsonschema.Draft202012Validator(kind)
        data = json.loads(message.data)
        validators[schema.id].validate(data)
        assert f"pbus.{data['message']['type']}" == schema.name
    assert {"/a/ViewedNote", "/clients/Frame", f"/{ODD}/JobCancel"} <= topics
    assert [] == [topic for topic in topics if "cli-" in topic]


def test_damage_is_found_by_checksums(path: Path, tmp_path: Path):
    """One byte of a chunk: a reader that checks tells of it."""
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    chunk = summary.chunk_indexes[0]
    body = bytearray(path.read_bytes())
    body[chunk.chunk_start_offset + chunk.chunk_length // 2] ^= 0xFF
    damaged = tmp_path / "damaged.mcap"
    damaged.write_bytes(body)
    with damaged.open("rb") as file, pytest.raises(Exception, match=r".+"):
        list(NonSeekingReader(file, validate_crcs=True).iter_messages())
