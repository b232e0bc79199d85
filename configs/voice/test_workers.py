"""The workers without processes and without a broker: `python -m pytest`."""

import asyncio

import pytest
import tones
from workers import Agent, CallEnded, Recogniser, Say, Speech, Tools, Transcript

from pbus import AudioRawFrame, BusFrameMessage
from pbus.testing import StandIn, WorkerHarness


@pytest.mark.parametrize("text", ["hello", "what time is it", tones.CHARACTERS])
def test_tones_are_heard_as_they_were_spoken(text: str) -> None:
    """A frame a character, and a silence at the end."""
    *characters, silence = tones.speak(text)
    assert "".join(map(tones.hear, characters)) == text
    assert tones.hear(silence) == ""


def test_recogniser_keeps_calls_apart() -> None:
    """Frames of two calls that come mixed are two utterances."""

    async def main() -> None:
        async with WorkerHarness(Recogniser("stt.1"), StandIn("agent")) as harness:
            calls = {"a": tones.speak("yes"), "b": tones.speak("not")}
            for number in range(4):
                for call, frames in calls.items():
                    frame = AudioRawFrame(audio=frames[number], sample_rate=tones.RATE)
                    await harness.send(
                        BusFrameMessage(source="caller", target="stt.1", frame=frame, key=call)
                    )
            first, second = await harness.sent(Transcript), await harness.sent(Transcript)
            assert [(first.call, first.text), (second.call, second.text)] == [
                ("a", "yes"),
                ("b", "not"),
            ]

    asyncio.run(main())


def test_agent_remembers_each_caller() -> None:
    """Until the call is over, and no other."""

    async def main() -> None:
        tools = StandIn("tools", {"add": {"result": 42}})
        async with WorkerHarness(Agent("agent"), tools, StandIn("tts")) as harness:

            async def last(call: str, text: str) -> str:
                await harness.send(Transcript(source="stt.1", call=call, text=text, by="stt.1"))
                said = await harness.sent(Say, where=lambda say: say.is_last and say.call == call)
                return said.text

            assert await last("a", "hello, my name is ada") == "what else, ada"
            assert await last("b", "2 + 40") == "what else, caller"
            assert await last("a", "bye") == "goodbye, ada."
            assert (await harness.sent(CallEnded)).call == "a"
            assert await last("a", "bye") == "goodbye, caller."

    asyncio.run(main())


def test_tools_and_speech() -> None:
    """Sums are sums, and a sentence is audio before it is over."""

    async def main() -> None:
        async with WorkerHarness(Tools("tools")) as harness:
            assert await harness.job("add", {"text": "2 + 40"}) == {"result": 42}
            assert await harness.job("forecast") == {"pieces": 3}
        async with WorkerHarness(Speech("tts"), StandIn("caller")) as harness:
            await harness.send(Say(source="agent", target="tts", call="a", text="ok"))
            frames = [await harness.sent(BusFrameMessage) for _ in "ok"]
            assert "".join(tones.hear(one.frame.audio) for one in frames) == "ok"

    asyncio.run(main())
