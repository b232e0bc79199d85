"""An agent that answers: a pipeline with a model in it, which is bridged to the program that has the caller."""

import asyncio
import sys
from typing import Any

from pipecat.frames.frames import Frame, TextFrame, TranscriptionFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.base_worker import WorkerActivationArgs
from pipecat.workers.runner import WorkerRunner

COLLEAGUES = {"greeter": ("help", "support"), "support": ("bye", "greeter")}


class Model(FrameProcessor):
    """In the place of a language model: one word has it hand over, all others get an answer."""

    def __init__(self, agent: "Agent") -> None:
        super().__init__()
        self.agent = agent

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer what was said; hand over behind the answer."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, TranscriptionFrame):
            await self.push_frame(frame, direction)
            return
        word, colleague = COLLEAGUES[self.agent.name]
        text = f"{self.agent.name} heard: {frame.text}"
        await self.push_frame(TextFrame(text))
        if word in frame.text:
            self.create_task(self.agent.hand_over(colleague, frame.text), "handover")


class Agent(PipelineWorker):
    """Answers while it is active, and tells the next one what was said last."""

    def __init__(self, name: str) -> None:
        self.model = Model(self)
        pipeline = Pipeline([self.model])
        super().__init__(pipeline, name=name, active=False, bridged=(), idle_timeout_secs=None)

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        """Say so in the log."""
        await super().on_activated(args)
        print(f"{self.name} takes over: {args}", flush=True)

    async def hand_over(self, colleague: str, text: str) -> None:
        """Have a colleague go on."""
        args = WorkerActivationArgs(metadata={"last": text})
        await self.activate_worker(colleague, args=args, deactivate_self=True)


async def main() -> None:
    """Run until it is told to end."""
    runner = WorkerRunner()
    await runner.add_workers(Agent(sys.argv[1]))
    await runner.run()


asyncio.run(main())
