"""A program of Pipecat's: a language model with a tool, which asks another worker."""

import asyncio
from typing import Any

from pipecat.bus import BusJobRequestMessage
from pipecat.frames.frames import (
    Frame,
    FunctionCallFromLLM,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMMessagesAppendFrame,
    LLMTextFrame,
)
from pipecat.pipeline.job_context import JobParams
from pipecat.pipeline.job_decorator import job
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import FunctionCallParams, LLMService
from pipecat.workers.llm import LLMContextWorker, tool
from pipecat.workers.runner import WorkerRunner


class CannedModel(LLMService[Any]):
    """In the place of a language model: looks each word of the user's up, and tells what it found."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer the context as a model would: by a call of the tool, then in words."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        last: Any = frame.context.get_messages()[-1]
        if last["role"] == "user":
            arguments = {"word": last["content"]}
            call = FunctionCallFromLLM("look_up", "call-1", arguments, frame.context)
            await self.run_function_calls([call])
        else:
            await self.push_frame(LLMFullResponseStartFrame())
            await self.push_frame(LLMTextFrame(f"The dictionary says: {last['content']}"))
            await self.push_frame(LLMFullResponseEndFrame())


class Assistant(LLMContextWorker):
    """Answers by what its model says."""

    def __init__(self, name: str) -> None:
        super().__init__(name, llm=CannedModel(), active=True)
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.assistant_aggregator.add_event_handler("on_assistant_turn_stopped", self.on_said)

    async def on_said(self, _aggregator: object, message: Any) -> None:
        """Keep what the model said."""
        self.said.put_nowait(message.content)

    @tool
    async def look_up(self, params: FunctionCallParams, word: str) -> None:
        """Look a word up in the dictionary.

        Args:
            params: Of the call.
            word: The word.
        """
        asking = JobParams(name="define", payload={"word": word}, timeout=10)
        async with self.job("dictionary", params=asking) as asked:
            async for event in asked:
                print(f"the dictionary: {event.type} {event.data}", flush=True)
        await params.result_callback(asked.response["meaning"])

    @job(name="ask", sequential=True)
    async def ask(self, message: BusJobRequestMessage) -> None:
        """Have the model answer a text."""
        user = {"role": "user", "content": (message.payload or {})["text"]}
        await self.queue_frame(LLMMessagesAppendFrame(messages=[user], run_llm=True))
        text = await asyncio.wait_for(self.said.get(), 10)
        await self.send_job_response(message.job_id, {"text": text})


async def main() -> None:
    """Run until it is told to end."""
    runner = WorkerRunner()
    await runner.add_workers(Assistant("assistant"))
    await runner.run()


asyncio.run(main())
