"""Recordings as MCAP, which Foxglove and others open: a topic for each source and type."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from mcap.exceptions import McapError
from mcap.records import Message, Metadata
from mcap.stream_reader import StreamReader
from mcap.writer import Writer

from pbus.bus.local.counters import EPHEMERAL_PREFIXES
from pbus.client.recordings.recording import RecordedMessage, RecordingEnd, RecordingHead
from pbus.client.traffic.type_names import short_type
from pbus.structs import DECODE_ERRORS

_HEAD: Final = "pbus.recording"
_END: Final = "pbus.end"
_RECORD_BYTES: Final = 256 * 1024 * 1024
_NANOSECONDS: Final = 1_000_000_000
_MOST_TOPICS: Final = 10_000  # a channel number has 16 bits; further ones share a topic
_OTHERS: Final = "/others"
_TEXT: Final = {"type": "string"}
_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "at": {"type": "number"},
        "lane": _TEXT,
        "message": {
            "type": "object",
            "properties": {"type": _TEXT, "source": _TEXT, "target": _TEXT, "id": _TEXT,
                           "time": {"type": "number"}, "traceparent": _TEXT},
        },
    },
}  # fmt: skip

_encode: Final = msgspec.json.Encoder().encode


class McapRecordingWriter:
    """Writes a recording as MCAP.

    Args:
        path: Of the file, which is replaced.
        head: The beginning.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, head: RecordingHead) -> None:
        self._file: BinaryIO = path.open("wb")
        self._writer = Writer(self._file)
        self._writer.start(profile="", library="pbus")
        self._writer.add_metadata(_HEAD, _texts(head))
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._count = 0
        self.flush()

    def add(self, message: RecordedMessage) -> None:
        """Write a message; see RecordingWriter."""
        header = message.header
        self._count += 1
        self._writer.add_message(
            channel_id=self._channel(_topic_of(header.source, header.type), header.type),
            log_time=int(message.at * _NANOSECONDS),
            publish_time=max(0, int(header.time * _NANOSECONDS)),
            sequence=self._count & 0xFFFFFFFF,
            data=_encode(message),
        )

    def flush(self) -> None:
        """Have it survive this process; see RecordingWriter."""
        self._writer.flush()  # type: ignore[no-untyped-call]
        self._file.flush()

    def end(self, end: RecordingEnd) -> None:
        """Write the end; see RecordingWriter."""
        self.flush()  # the end stands last
        self._writer.add_metadata(_END, _texts(end))
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.flush()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    def _channel(self, topic: str, type_name: str) -> int:
        if topic not in self._channels:
            if len(self._channels) >= _MOST_TOPICS:
                topic, type_name = _OTHERS, "Message"
            if topic not in self._channels:
                self._channels[topic] = self._writer.register_channel(
                    topic=topic, message_encoding="json", schema_id=self._schema(type_name)
                )
        return self._channels[topic]

    def _schema(self, type_name: str) -> int:
        if type_name not in self._schemas:
            self._schemas[type_name] = self._writer.register_schema(
                name=f"pbus.{type_name}", encoding="jsonschema", data=_encode(_SCHEMA)
            )
        return self._schemas[type_name]


def read_mcap_recording(
    path: Path,
) -> Iterator[RecordingHead | RecordedMessage | RecordingEnd]:
    """Yield what a file of MCAP has, in order.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no recording of pbus, or ends early.
    """
    with path.open("rb") as file:
        records = StreamReader(file, record_size_limit=_RECORD_BYTES).records
        while True:
            try:
                record = next(records, None)
                found = _decoded(record)
            except (McapError, *DECODE_ERRORS, EOFError, AssertionError) as error:
                raise ValueError(f"it ends early, or is no MCAP ({error!r})") from error
            except Exception as error:  # of the packages that decompress
                raise ValueError(f"it cannot be decompressed ({error!r})") from error
            if found is not None:
                yield found
            if record is None:
                return


def _decoded(record: Any) -> RecordingHead | RecordedMessage | RecordingEnd | None:
    if isinstance(record, Message):
        return msgspec.json.decode(record.data, type=RecordedMessage)
    if isinstance(record, Metadata) and record.name == _HEAD:
        return msgspec.convert(record.metadata, RecordingHead, strict=False)
    if isinstance(record, Metadata) and record.name == _END:
        return msgspec.convert(record.metadata, RecordingEnd, strict=False)
    return None


def _texts(value: msgspec.Struct) -> dict[str, str]:
    return {name: str(one) for name, one in msgspec.to_builtins(value).items()}


def _topic_of(source: str, type_name: str) -> str:
    """A topic for each worker and type; clients come and go, and share one."""
    name = "clients" if source.startswith(EPHEMERAL_PREFIXES) else source
    return f"/{name}/{short_type(type_name)}"
