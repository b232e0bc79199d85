"""Loading a worker class from what a topology says: odd references, odd modules, odd arguments."""

import sys
from pathlib import Path

import pytest

from pbus.errors import WorkerLoadError
from pbus.process.class_check import problem_of
from pbus.process.system.launch_plan import WorkerLaunchSpec
from pbus.process.worker_loader import load_class, load_worker
from pbus.workers.base_worker import BaseWorker

MODULE = """
from pbus import BaseWorker

class Plain(BaseWorker):
    class Inner(BaseWorker):
        pass

class Picky(BaseWorker):
    def __init__(self, name, *, size):
        super().__init__(name)
        self.size = size
        if size < 0:
            raise LookupError("too small")

NO_CLASS = Plain("x")

def make(name):
    return Plain(name)
"""
LAZY = """
def __getattr__(name):
    if name == "Lazy":
        raise ImportError("the extra 'lazy' is not installed")
    raise KeyError(name)
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that only these tests can import."""
    texts = {
        "loader_plain": MODULE,
        "loader_lazy": LAZY,
        "loader_broken": "class Plain(:",
        "loader_failing": "raise RuntimeError('no database')",
        "loader_lacking": "import loader_nowhere",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in texts:
        monkeypatch.delitem(sys.modules, name, raising=False)


def spec(worker: str, **args: object) -> WorkerLaunchSpec:
    """A worker with arguments."""
    return WorkerLaunchSpec(worker=worker, args=args, active=True, files=())


@pytest.mark.parametrize(
    ("reference", "why", "is_final"),
    [
        ("loader_plain:", "has no", True),
        ("loader_plain", "has no", True),
        (":Plain", "ValueError", False),
        (".loader_plain:Plain", "TypeError", False),
        ("loader_plain:Missing", "has no Missing", True),
        ("loader_plain:Plain.Missing", "has no Plain.Missing", True),
        ("loader_plain:Plain..Inner", "has no", True),
        ("loader_plain:NO_CLASS", "no subclass", True),
        ("loader_plain:make", "no subclass", True),
        ("loader_plain:__name__", "no subclass", True),
        ("loader_lazy:Lazy", "the extra 'lazy' is not installed", True),
        ("loader_lazy:Other", "KeyError", True),
        ("loader_broken:Plain", "SyntaxError", True),
        ("loader_failing:Plain", "no database", False),
        ("loader_lacking:Plain", "No module named 'loader_nowhere'", True),
        ("loader_nowhere:Plain", "No module named 'loader_nowhere'", True),
        ("loader_plain.sub:Plain", "not a package", True),
        ("sys:path", "no subclass", True),
    ],
)
def test_what_cannot_be_loaded_is_said(reference: str, why: str, *, is_final: bool) -> None:
    """Always as this one error, whose text names the reference; a class that is not there is final."""
    with pytest.raises(WorkerLoadError) as caught:
        load_class(reference)
    assert reference == caught.value.reference
    assert repr(reference) in caught.value.message
    assert why in caught.value.message
    assert is_final == caught.value.is_final
    assert caught.value.message == problem_of(spec(reference))


def test_class_within_a_class() -> None:
    """A dotted name leads into classes."""
    assert issubclass(load_class("loader_plain:Plain.Inner"), BaseWorker)
    assert None is problem_of(spec("loader_plain:Plain.Inner"))


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({}, "size"),
        ({"size": 1, "colour": "red"}, "colour"),
        ({"size": 1, "name": "another"}, "name"),
        ({"size": 1, "self": "another"}, "self"),
    ],
)
def test_arguments_that_do_not_fit(args: dict[str, object], why: str) -> None:
    """Told before a process is started, and by the process: the same argument is named."""
    worker = spec("loader_plain:Picky", **args)
    with pytest.raises(WorkerLoadError, match=why) as caught:
        load_worker(worker, "one")
    assert not caught.value.is_final
    assert why in (problem_of(worker) or "")


def test_a_constructor_that_fails_may_work_later() -> None:
    """Its own error is named with the arguments; nothing is said without constructing it."""
    worker = spec("loader_plain:Picky", size=-1)
    with pytest.raises(WorkerLoadError, match=r"LookupError: .*too small.*args: size") as caught:
        load_worker(worker, "one")
    assert not caught.value.is_final
    assert None is problem_of(worker)


def test_what_fits_is_made() -> None:
    """With its name and arguments."""
    worker = load_worker(spec("loader_plain:Picky", size=3), "one")
    assert ("one", 3) == (worker.name, worker.size)
