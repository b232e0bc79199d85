"""A player, a meter and a recorder: audio frames through three processes, nothing lost on the way."""

import array
import asyncio
import hashlib
import io
import math
import wave
from pathlib import Path
from typing import Any

from pbus import (
    AudioRawFrame,
    BaseWorker,
    BusDataMessage,
    BusFrameMessage,
    BusMessage,
    EndFrame,
    Frame,
    StartFrame,
)

FRAME_S = 0.02
PATIENCE_S = 30.0


class Recorded(BusDataMessage):
    """The recorder's report.

    Attributes:
        digest: SHA-256 of all samples.
    """

    frames: int
    size: int
    digest: str


class FrameWorker(BaseWorker):
    """Passes what it does with each frame to `on_frame`."""

    async def on_bus_message(self, message: BusMessage) -> None:
        """Unpack a frame."""
        if isinstance(message, BusFrameMessage):
            await self.on_frame(message.frame)

    async def on_frame(self, frame: Frame) -> None:
        """Handle a frame."""

    async def send_frame(self, target: str, frame: Frame) -> None:
        """Send a frame; waits where the receiver does not keep up."""
        await self.send_bus_message(BusFrameMessage(source=self.name, target=target, frame=frame))


class Player(FrameWorker):
    """Plays a WAV file, as fast as it is taken, and compares what was recorded.

    Args:
        file: What to play; empty for a tone of its own.
        output: Where the recorder is to write.
    """

    def __init__(self, name: str, *, file: str, output: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._file = file
        self._output = output
        self._recorded: asyncio.Future[Recorded] | None = None

    async def start(self) -> None:
        """Begin to play as soon as the others are there."""
        self.create_task(self._play())

    async def on_bus_message(self, message: BusMessage) -> None:
        """Take the report."""
        if isinstance(message, Recorded) and self._recorded is not None:
            self._recorded.set_result(message)

    async def _play(self) -> None:
        for name in ("meter", "recorder"):
            await self.registry.wait_ready(name, PATIENCE_S)
        data = await asyncio.to_thread(self._load)
        self._recorded = asyncio.get_running_loop().create_future()
        digest, count = await self._send(data)
        async with asyncio.timeout(PATIENCE_S):
            report = await self._recorded
        same = (report.frames, report.digest) == (count, digest)
        verdict = "byte for byte the same" if same else "NOT THE SAME"
        print(f"{report.frames} frames, {report.size} bytes: {verdict}", flush=True)
        await self.end("played")

    def _load(self) -> bytes:
        return Path(self._file).read_bytes() if self._file else two_tones()

    async def _send(self, data: bytes) -> tuple[str, int]:
        """Send a WAV file as frames; the digest of its samples, and how many frames that were."""
        digest, count = hashlib.sha256(), 0
        with wave.open(io.BytesIO(data)) as source:
            if source.getsampwidth() != 2:  # noqa: PLR2004 - bytes a sample, what frames carry
                raise ValueError("only WAV files with 16-bit samples can be played")
            rate, channels = source.getframerate(), source.getnchannels()
            about = {"output": self._output, "rate": rate, "channels": channels}
            await self.send_frame("meter", StartFrame(metadata=about))
            while audio := source.readframes(round(rate * FRAME_S)):
                digest.update(audio)
                count += 1
                frame = AudioRawFrame(audio=audio, sample_rate=rate, num_channels=channels)
                await self.send_frame("meter", frame)
        await self.send_frame("meter", EndFrame())
        return digest.hexdigest(), count


class Meter(FrameWorker):
    """Passes frames on, and knows how loud they were."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._peak = 0

    async def on_frame(self, frame: Frame) -> None:
        """Measure, and pass on unchanged."""
        if isinstance(frame, AudioRawFrame):
            samples = array.array("h", frame.audio)
            self._peak = max(self._peak, *map(abs, samples))
        await self.send_frame("recorder", frame)
        if isinstance(frame, EndFrame):
            print(f"peak: {20 * math.log10(max(self._peak, 1) / 32768):.1f} dB", flush=True)


class Recorder(FrameWorker):
    """Writes frames to a WAV file as they come."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._file: wave.Wave_write | None = None
        self._digest = hashlib.sha256()
        self._frames = self._size = 0

    async def on_frame(self, frame: Frame) -> None:
        """Open, write, close."""
        if isinstance(frame, StartFrame):
            self._create_file(frame.metadata or {})
        elif isinstance(frame, AudioRawFrame) and self._file is not None:
            self._file.writeframesraw(frame.audio)
            self._digest.update(frame.audio)
            self._frames += 1
            self._size += len(frame.audio)
        elif isinstance(frame, EndFrame) and self._file is not None:
            await self._finish_file(self._file)

    def _create_file(self, about: dict[str, Any]) -> None:
        self._file = wave.open(about["output"], "wb")  # noqa: SIM115 - closed at the last frame
        self._file.setparams((about["channels"], 2, about["rate"], 0, "NONE", "not compressed"))
        self._digest = hashlib.sha256()
        self._frames = self._size = 0

    async def _finish_file(self, file: wave.Wave_write) -> None:
        file.close()
        self._file = None
        await self.send_bus_message(
            Recorded(
                source=self.name,
                target="player",
                frames=self._frames,
                size=self._size,
                digest=self._digest.hexdigest(),
            )
        )


def two_tones(seconds: float = 5.0, rate: int = 44_100) -> bytes:
    """A WAV file: 440 Hz on the left, 660 Hz on the right."""
    samples = array.array("h")
    for at in range(int(seconds * rate)):
        turn = 2 * math.pi * at / rate
        samples.append(int(16_000 * math.sin(440 * turn)))
        samples.append(int(16_000 * math.sin(660 * turn)))
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setparams((2, 2, rate, 0, "NONE", "not compressed"))
        target.writeframes(samples.tobytes())
    return file.getvalue()
