"""Recording of the messages of a project as they pass."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Final

from pbus.client.project_client import Client
from pbus.client.recordings.recording import (
    RecordedMessage,
    RecordingEnd,
    RecordingHead,
    RecordingWriter,
)
from pbus.client.recordings.recording_file import new_recording
from pbus.client.traffic.message_filter import Filter
from pbus.client.traffic.message_tail import TailMessage
from pbus.concurrency.background import running

_FLUSH_S: Final = 0.5


class Recorder:
    """Writes the messages of a project to a file.

    Args:
        path: Of the file; its ending is the format.
        project: The name of the project.

    Attributes:
        messages: The number of messages so far.
        missed: Messages known to have passed unseen.
        is_following: Whether what passes from now on is recorded.

    Raises:
        RecordingFileError: The ending is no format.
        McapMissingError: The package for it is not installed.
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, project: str) -> None:
        head = RecordingHead(project=project, began=time.time())
        self._writer: RecordingWriter = new_recording(path, head)
        self._is_ended = False
        self.messages = 0
        self.missed = 0
        self.is_following = False

    async def run(self, client: Client, duration_s: float | None = None) -> None:
        """Record until the time is over, or this is cancelled.

        Args:
            client: Open.
            duration_s: Seconds; None for no limit.

        Raises:
            OSError: The file cannot be written.
            BusError: The messages cannot be followed.
        """
        async with client.follow(Filter()) as passing, running(self._flush()):
            self.is_following = True
            try:
                await passing.read(self._write, duration_s)
            finally:
                self.missed = passing.missed

    def _write(self, message: TailMessage) -> None:
        self._writer.add(RecordedMessage.of(message, time.time()))
        self.messages += 1

    async def _flush(self) -> None:
        """Have the file be of use where this process is killed."""
        with contextlib.suppress(OSError):  # told by the next message
            while True:
                await asyncio.sleep(_FLUSH_S)
                self._writer.flush()

    def finish(self, problem: str = "") -> RecordingEnd:
        """Write the end, once; returns it.

        Args:
            problem: Why the recording is not complete, where that is known.

        Raises:
            OSError: The file cannot be written.
        """
        reason = problem if self.is_following else problem or "nothing could be followed"
        end = RecordingEnd(
            ended=time.time(), messages=self.messages, missed=self.missed, reason=reason
        )
        if not self._is_ended:
            self._is_ended = True
            try:
                self._writer.end(end)
            finally:
                self._writer.close()
        return end
