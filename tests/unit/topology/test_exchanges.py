"""Jobs and messages that the code of worker classes names in plain text; nothing is imported."""

import os

import pytest

from pbus.topology import load_topology
from pbus.topology.code.exchanges import Exchanges, exchanges_of


def found(tmp_path, code, worker="workers:W"):
    """The exchanges of one class."""
    (tmp_path / "workers.py").write_text("from pbus import BaseWorker, job\n" + code)
    file = tmp_path / "topology.yaml"
    file.write_text(f"workers: {{w: {{worker: '{worker}'}}}}\n")
    return exchanges_of(load_topology(file, os.environ), os.environ)["w"]


def in_method(line, head=""):
    return (
        f"{head}\nclass W(BaseWorker):\n    async def on_activated(self, args):\n        {line}\n"
    )


@pytest.mark.parametrize(
    ("line", "requests"),
    [
        ("await self.job('db', 'load', {})", [("db", "load")]),
        ("await self.job('db', name='load')", [("db", "load")]),
        ("async with self.job('db') as asked: pass", [("db", None)]),
        ("await self.request_job('db', name=self.what)", [("db", None)]),
        ("await self.job_group('a', 'b', name='find')", [("a", "find"), ("b", "find")]),
        ("await self.request_job_group(*self.all, 'c', name='x')", [("c", "x")]),
        ("await self.job(self.db, 'load')", []),
        ("await self.job(*names)", []),
        ("await self.job()", []),
        ("job('db', 'load')", []),
    ],
)
def test_requested_jobs(tmp_path, line, requests):
    """The worker and the job, where both are written; a name in a variable is not known."""
    assert tuple(requests) == found(tmp_path, in_method(line)).requests


@pytest.mark.parametrize(
    ("line", "sends"),
    [
        ("await self.send_bus_message(Note(source=self.name, target='a'))", [("a", "Note")]),
        ("await self.send_bus_message(m.Note(source='x', target='a', text=''))", [("a", "Note")]),
        ("await self.send_bus_message(Note(source=self.name))", [("*", "Note")]),
        ("Note(source=self.name, target=None)", [("*", "Note")]),
        ("Note(source=self.name, target=self.other)", []),
        ("open_it(source='x', target='a')", []),
        ("Path(target='a')", []),
        ("await self.activate_worker('a', args={})", [("a", "BusActivateWorkerMessage")]),
        ("await self.deactivate_worker('a')", [("a", "BusDeactivateWorkerMessage")]),
        ("await self.activate_worker(name)", []),
    ],
)
def test_sent_messages(tmp_path, line, sends):
    """What is made with a source is a message; without a target it is for everyone."""
    assert tuple(sends) == found(tmp_path, in_method(line)).sends


def test_jobs_of_a_class_and_its_bases(tmp_path):
    """Handlers are inherited, also from a class of another module; pbus' own are none."""
    (tmp_path / "bases.py").write_text(
        "from pbus import BaseWorker, job\n"
        "class Base(BaseWorker):\n"
        "    @job(name='one')\n    async def a(self, request): await self.job('db', 'load')\n"
    )
    code = (
        "import pbus\nfrom bases import Base\nNAME = 'x'\n"
        "class W(Base):\n"
        "    @job(name='two', sequential=True)\n    async def b(self, request): ...\n"
        "    @pbus.job(name='three')\n    async def c(self, request): ...\n"
        "    @job(name=NAME)\n    async def d(self, request): ...\n"
        "    @other\n    async def e(self, request): ...\n"
    )
    exchanges = found(tmp_path, code)

    assert ("two", "three", "one") == exchanges.jobs
    assert (("db", "load"),) == exchanges.requests


@pytest.mark.parametrize(
    "code", ["class Other: pass\n", "def (:\n", "W = make()\n", "from nowhere import W\n"]
)
def test_code_that_tells_nothing(tmp_path, code):
    """What `validate` reports, or cannot read, declares nothing here."""
    assert Exchanges() == found(tmp_path, code)


def test_a_circle_of_bases_ends(tmp_path):
    """Such a class cannot be made; it is read all the same."""
    assert () == found(tmp_path, "class W(V): pass\nclass V(W): pass\n").jobs
