"""Workers with names of any text: reached, registered, stored for and lost as others are."""

from pbus import BaseWorker, job
from pbus.messages import BusDataMessage
from support.job_helpers import hosted
from support.odd_names import ODD_NAMES
from support.waiting import PATIENCE_S, run, until

NAMES = [*ODD_NAMES, "a", "b", "Acme", "Acme Bo.1"]  # some are parts of others


class OddNote(BusDataMessage):
    """Text for one worker."""

    text: str


class Odd(BaseWorker):
    """Notes what it gets."""

    def __init__(self, name):
        super().__init__(name)
        self.texts = []

    async def on_bus_message(self, message):
        if isinstance(message, OddNote):
            self.texts.append(message.text)

    @job(name="who")
    async def who(self, request):
        return {"name": self.name, "asked_by": request.source}


def test_each_name_is_an_address_of_its_own(make_any_bus):
    """Messages and jobs reach the worker of just that name, in another process, and answers come back."""

    async def main():
        asker, workers = Odd("9 asker: x"), [Odd(name) for name in NAMES]
        async with hosted(make_any_bus, workers, [asker]):
            for name in NAMES:
                await asker.send_bus_message(OddNote(source=asker.name, target=name, text=name))
                answer = await asker.job(name, "who", timeout=PATIENCE_S)
                assert {"name": name, "asked_by": asker.name} == dict(answer)
            await until(lambda: all(worker.texts for worker in workers))
            assert [[name] for name in NAMES] == [worker.texts for worker in workers]

    run(main(), timeout=55)
