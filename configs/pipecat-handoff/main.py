"""The caller's side: a pipeline whose middle is the bus. What is said goes out, what is answered comes in."""

import asyncio
from typing import Any

from pipecat.bus import BusBridgeProcessor, BusJobRequestMessage, WorkerBus
from pipecat.frames.frames import Frame, TextFrame, TranscriptionFrame
from pipecat.pipeline.job_decorator import job
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.registry.types import WorkerReadyData
from pipecat.workers.runner import WorkerRunner


class Speaker(FrameProcessor):
    """In the place of a loudspeaker: keeps what is to be said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: asyncio.Queue[TextFrame] = asyncio.Queue()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Keep what is to be said."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            self.said.put_nowait(frame)
        await self.push_frame(frame, direction)


class Main(PipelineWorker):
    """Says what it is asked to say, and answers with what comes back."""

    def __init__(self, name: str, bus: WorkerBus, speaker: Speaker) -> None:
        bridge = BusBridgeProcessor(bus=bus, worker_name=name)
        super().__init__(Pipeline([bridge, speaker]), name=name, idle_timeout_secs=None)
        self.speaker = speaker
        self.met: set[str] = set()

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        """Wait for those who answer."""
        await super().on_activated(args)
        await self.watch_workers("greeter", "support")

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        """Have the greeter begin, and go on where one of the two was started again: it is not active."""
        await super().on_worker_ready(data)
        name = data.worker_name
        if name == "greeter" or name in self.met:
            await self.activate_worker("greeter")
        self.met.add(name)

    @job(name="say", sequential=True)
    async def say(self, message: BusJobRequestMessage) -> None:
        """Say something, and answer with what is said then."""
        said = TranscriptionFrame(text=message.payload["text"], user_id="caller", timestamp="")
        await self.queue_frame(said)
        answer = await asyncio.wait_for(self.speaker.said.get(), 10)
        await self.send_job_response(message.job_id, {"text": answer.text})


async def main() -> None:
    """Run until it is told to end."""
    runner = WorkerRunner()
    await runner.add_workers(Main("main", runner.bus, Speaker()))
    await runner.run()


asyncio.run(main())
