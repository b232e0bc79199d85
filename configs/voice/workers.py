"""A telephone service in small: callers, two recognisers, an agent with tools, and speech out.

The audio is made of tones (tones.py) and the agent follows a few rules: put a recogniser, a language
model and a voice of your own in their places, and the rest stays as it is.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import tones

from pbus import (
    AudioRawFrame,
    BaseWorker,
    BusDataMessage,
    BusFrameMessage,
    BusJobRequestMessage,
    BusMessage,
    JobError,
    job,
)

PATIENCE_S = 20.0  # for an answer to a caller
TOOL_S = 10.0  # for a tool
LINES = ["hello, my name is ada", "what time is it", "how is the weather", "2 + 40", "bye"]


class Transcript(BusDataMessage):
    """An utterance as the recogniser heard it.

    Attributes:
        by: The replica that heard it.
    """

    call: str
    text: str
    by: str


class Say(BusDataMessage):
    """A sentence for a caller; the last one of an answer says so."""

    call: str
    text: str
    is_last: bool = False


class CallEnded(BusDataMessage):
    """A broadcast at the end of a call."""

    call: str
    turns: int


class Caller(BaseWorker):
    """The telephone line: sends what callers say as audio, and hears the answers.

    Args:
        calls: How many calls it makes by itself at the start.
    """

    def __init__(self, name: str, *, calls: int = 0, **options: Any) -> None:
        super().__init__(name, **options)
        self._calls = calls
        self._heard: dict[str, asyncio.Queue[Say]] = {}
        self._characters: dict[str, str] = {}

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        """Make the first calls."""
        del args
        for number in range(1, self._calls + 1):
            self.create_task(self._demonstrate(f"call-{number}"))

    async def _demonstrate(self, call: str) -> None:
        async for line, answer in self._hold(call, LINES):
            print(f"{call}: {line} -> {answer}", flush=True)

    @job(name="call")
    async def call(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """Holds a call; streams each line with its answer."""
        payload = request.payload or {}
        call, turns = payload.get("call", request.job_id), 0
        async for line, answer in self._hold(call, payload.get("lines", LINES)):
            turns += 1
            await self.send_job_stream_data(request.job_id, {"line": line, "answer": answer})
        return {"call": call, "turns": turns}

    async def _hold(self, call: str, lines: list[str]) -> AsyncIterator[tuple[str, str]]:
        """Say each line, and wait for its answer."""
        answers = self._heard[call] = asyncio.Queue()
        try:
            for line in lines:
                await self._speak(call, line)
                async with asyncio.timeout(PATIENCE_S):
                    said = [await answers.get()]
                    while not said[-1].is_last:
                        said.append(await answers.get())
                yield line, " ".join(one.text for one in said)
        finally:
            del self._heard[call]

    async def _speak(self, call: str, text: str) -> None:
        """Send an utterance: all frames of a call have its key, so one recogniser gets them."""
        for audio in tones.speak(text):
            frame = AudioRawFrame(audio=audio, sample_rate=tones.RATE)
            await self.send_bus_message(
                BusFrameMessage(source=self.name, target="stt", frame=frame, key=call)
            )

    async def on_bus_message(self, message: BusMessage) -> None:
        """Hear what is said to a caller: the audio, and then what it was."""
        if isinstance(message, BusFrameMessage) and isinstance(message.frame, AudioRawFrame):
            call = message.bridge or ""
            self._characters[call] = self._characters.get(call, "") + tones.hear(
                message.frame.audio
            )
        elif isinstance(message, Say) and message.call in self._heard:
            heard = self._characters.pop(message.call, "")
            said = Say(
                source=message.source, call=message.call, text=heard, is_last=message.is_last
            )
            self._heard[message.call].put_nowait(said)


class Recogniser(BaseWorker):
    """Turns audio into text; keeps the characters of each call until a silence."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._characters: dict[str, list[str]] = {}

    async def on_bus_message(self, message: BusMessage) -> None:
        """Hear one frame."""
        if not (isinstance(message, BusFrameMessage) and isinstance(message.frame, AudioRawFrame)):
            return
        call = message.key or message.source
        if character := tones.hear(message.frame.audio):
            self._characters.setdefault(call, []).append(character)
            return
        text = "".join(self._characters.pop(call, []))
        await self.send_bus_message(
            Transcript(source=self.name, target="agent", call=call, text=text, by=self.name)
        )


class Agent(BaseWorker):
    """Answers callers, each with a memory of its own; asks tools and passes on what they stream."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, interleave=True, **options)  # other calls go on beside a tool
        self._callers: dict[str, str] = {}
        self._turns: dict[str, int] = {}

    async def on_bus_message(self, message: BusMessage) -> None:
        """Answer an utterance."""
        if isinstance(message, Transcript):
            self._turns[message.call] = self._turns.get(message.call, 0) + 1
            await self._answer(message.call, message.text, message.by)

    async def _answer(self, call: str, text: str, by: str) -> None:
        print(f"{call}: {text!r}, heard by {by}", flush=True)
        try:
            async for sentence in self._sentences(call, text):
                await self._say(call, sentence)
        except JobError as error:
            print(f"{call}: {error}", flush=True)
            await self._say(call, "sorry, i cannot find out.")
        await self._say(call, self._close(call, text), is_last=True)

    async def _sentences(self, call: str, text: str) -> AsyncIterator[str]:
        """What to say, as soon as it is known."""
        if " name is " in text:
            self._callers[call] = text.rpartition(" ")[2]
        elif "time" in text:
            yield (await self.job("clock", "time", timeout=TOOL_S))["text"]
        elif "weather" in text:
            async with self.job("tools", "forecast", timeout=TOOL_S) as asked:
                async for piece in asked:
                    if piece.type == "stream_data":
                        yield piece.data["text"]
        elif "+" in text:
            answer = await self.job("tools", "add", {"text": text}, timeout=TOOL_S)
            yield f"that is {answer['result']}."

    def _close(self, call: str, text: str) -> str:
        """The last sentence of an answer."""
        name = self._callers.get(call, "caller")
        return f"goodbye, {name}." if text == "bye" else f"what else, {name}"

    async def _say(self, call: str, text: str, *, is_last: bool = False) -> None:
        say = Say(source=self.name, target="tts", call=call, text=text, is_last=is_last)
        await self.send_bus_message(say)
        if is_last and text.startswith("goodbye"):
            self._callers.pop(call, None)
            turns = self._turns.pop(call, 0)
            await self.send_bus_message(CallEnded(source=self.name, call=call, turns=turns))


class Tools(BaseWorker):
    """What the agent can look up. Its jobs run beside each other."""

    @job(name="forecast")
    async def forecast(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """The weather in pieces, as a slow source has them."""
        pieces = ["sunny at first,", "clouds after noon,", "rain at night."]
        for piece in pieces:
            await self.send_job_stream_data(request.job_id, {"text": piece})
            await asyncio.sleep(0)
        return {"pieces": len(pieces)}

    @job(name="add")
    async def add(self, request: BusJobRequestMessage) -> int:
        """The sum of the numbers in a text."""
        text = (request.payload or {})["text"]
        return sum(int(word) for word in text.replace("+", " ").split() if word.isdigit())


class Speech(BaseWorker):
    """Speaks: turns each sentence into audio for the caller."""

    async def on_bus_message(self, message: BusMessage) -> None:
        """Speak a sentence; the frames come before the word that it is over."""
        if not isinstance(message, Say):
            return
        for audio in tones.speak(message.text)[:-1]:
            frame = AudioRawFrame(audio=audio, sample_rate=tones.RATE)
            await self.send_bus_message(
                BusFrameMessage(source=self.name, target="caller", frame=frame, bridge=message.call)
            )
        await self.send_bus_message(
            Say(
                source=self.name,
                target="caller",
                call=message.call,
                text=message.text,
                is_last=message.is_last,
            )
        )


class Scribe(BaseWorker):
    """Writes down how calls went; only with `pbus up --profile record`."""

    async def on_bus_message(self, message: BusMessage) -> None:
        """Note the end of a call."""
        if isinstance(message, CallEnded):
            print(f"{message.call} ended after {message.turns} turns", flush=True)
