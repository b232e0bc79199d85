"""Problems of the code that a topology names, found by reading it."""

import sys
from pathlib import Path

import pytest

from pbus.errors import TopologyError
from pbus.process.strict_check import check_by_import
from pbus.topology import load_topology
from pbus.topology.code.check_code import code_problems, problems_beside, refuse_problems
from support.topologies import write_topology

WORKERS = """
from typing import Generic, TypeVar

from pbus import BaseWorker
from shared import Base, Known as Renamed

T = TypeVar("T")
try:
    from missing_module import Optional
except ImportError:
    Optional = None


class Greeter(BaseWorker):
    def __init__(self, name, folder, *, greeting="hi", loud):
        super().__init__(name)


class Plain(BaseWorker):
    pass


class Any(BaseWorker):
    def __init__(self, name, needed, **rest):
        super().__init__(name)


class Inheriting(Base):
    pass


class Typed(BaseWorker, Generic[T]):
    pass


class Mixed(Base, BaseWorker):
    pass



class Nameless(BaseWorker):
    def __init__(self):
        super().__init__("x")


def changed(cls):
    return cls


@changed
class Decorated(BaseWorker):
    def __init__(self, name):
        super().__init__(name)


class Unrelated:
    pass


def function(name):
    pass


Made = type("Made", (BaseWorker,), {})
if True:
    class Conditional(BaseWorker):
        pass
"""
SHARED = """
from pbus import BaseWorker
from shared.inner import Deep as Known

class Base(BaseWorker):
    def __init__(self, name, *, port=1):
        super().__init__(name)
"""
INNER = """
import pbus

class Deep(pbus.BaseWorker):
    def __init__(self, name, depth):
        super().__init__(name)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A topology's folder with some code in it."""
    (tmp_path / "workers.py").write_text(WORKERS)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").write_text(SHARED)
    (tmp_path / "shared" / "inner.py").write_text(INNER)
    (tmp_path / "bare").mkdir()
    return tmp_path


def found(folder: Path, *sections: str, path: str = "/usr/bin:/bin") -> list[str]:
    """The texts of the problems of workers, with their keys."""
    text = "workers:\n" + "".join(f"  w{n}: {one}\n" for n, one in enumerate(sections))
    file = write_topology(folder, text)
    topology = load_topology(file, {})
    problems = code_problems(topology, {"PATH": path})
    return [f"{'.'.join((one.worker, *one.keys))}: {one.text}" for one in problems]


def worker(reference: str, args: str = "{}") -> str:
    """The section of a worker class."""
    return f"{{worker: '{reference}', args: {args}}}"


@pytest.mark.parametrize(
    ("reference", "args", "problem"),
    [
        ("worker:Greeter", "{}", "worker: there is no module `worker` (did you mean `workers`?)"),
        ("workers.sub:X", "{}", "worker: there is no module `workers.sub`: workers.py is no package"),
        ("shared.outer:X", "{}", "worker: there is no module `shared.outer`"),
        ("bare:X", "{}", "worker: `bare` is a folder without `__init__.py`"),
        ("workers:Plane", "{}", "worker: workers.py has no class `Plane` (did you mean `Plain`?)"),
        ("shared:Basis", "{}", "worker: __init__.py has no class `Basis` (did you mean `Base`?)"),
        ("workers:Unrelated", "{}", "worker: `Unrelated` is no subclass of BaseWorker"),
        ("workers:function", "{}", "worker: `function` is a function, no class"),
        ("workers:Nameless", "{}", "worker: `Nameless.__init__` has no parameter for the worker's name"),
        ("workers:Plain", "{activ: true}", "args.activ: `Plain` has no parameter `activ` (did you mean `active`?)"),
        ("workers:Plain", "{name: x}", "args.name: `Plain` gets the worker's name as `name`: remove it"),
        ("workers:Any", "{more: 1}", "args: `Any` needs the argument `needed`"),
        ("workers:Inheriting", "{prt: 1}", "args.prt: `Inheriting` has no parameter `prt` (did you mean `port`?)"),
        ("workers:Mixed", "{x: 1}", "args.x: `Mixed` has no parameter `x` (it takes port)"),
        ("workers:Typed", "{zzz: 1}", "args.zzz: `Typed` has no parameter `zzz`"),
        ("workers:Renamed", "{}", "args: `Renamed` needs the argument `depth`"),
        ("workers:Conditional", "{b: 1}", "args.b: `Conditional` has no parameter `b`"),
    ],
)  # fmt: skip
def test_problem_of_a_class(folder: Path, reference: str, args: str, problem: str):
    """Each tells the key, what is wrong, and the nearest valid name."""
    (text,) = found(folder, worker(reference, args))

    assert text.startswith(f"w0.{problem}")


@pytest.mark.parametrize(
    ("reference", "args"),
    [
        ("workers:Greeter", "{folder: x, loud: true}"),
        ("workers:Any", "{needed: 1, more: 2}"),
        ("workers:Inheriting", "{port: 2}"),
        ("workers:Decorated", "{x: 1}"),
        ("workers:Made", "{x: 1}"),
        ("workers:Optional", "{x: 1}"),
        ("shared.inner:Deep", "{depth: 1}"),
        ("math:Anything", "{}"),
    ],
)
def test_what_is_right_or_unknown_is_no_problem(folder: Path, reference: str, args: str):
    """Decorated, made at run time, imported under a condition, built in: reading cannot tell."""
    assert [] == found(folder, worker(reference, args))


@pytest.mark.parametrize(
    "source",
    [
        "from somewhere import *\n",
        "def __getattr__(name):\n    return name\n",
        "globals()['X'] = object\n",
        "import sys\nsetattr(sys.modules[__name__], 'X', object)\n",
        "def make():\n    global X\n    X = object\nmake()\n",
        "with open('f') as X: pass\n",
        "for X in (): pass\n",
        "import a.b as X\n",
        "match 1:\n    case X: pass\n",
        "(X := 1)\n",
        "exec('X = 1')\n",
        "from elsewhere import make_classes\nmake_classes(__name__)\n",
        "class X: pass\nfrom somewhere import *\n",
    ],
)
def test_names_made_at_run_time_are_believed(folder: Path, source: str):
    """Whatever may bind the name is no problem."""
    (folder / "odd.py").write_text(source)

    assert [] == found(folder, worker("odd:X"))


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (b"class X(:\n", "odd.py, line 1: "),
        (b"x = 1\0\n", "odd.py"),
        (b"\xff\xfe = 1\n", "odd.py"),
        (b"", "odd.py has no class `X`"),
    ],
)
def test_sources_that_are_no_python(folder: Path, source: bytes, problem: str):
    """An import would raise: file and line are told."""
    (folder / "odd.py").write_bytes(source)
    (text,) = found(folder, worker("odd:X"))

    assert problem in text


def test_circle_of_imports_ends(folder: Path):
    """Two modules that import a name from each other, and a class that is its own base."""
    (folder / "one.py").write_text("from two import X\n")
    (folder / "two.py").write_text("from one import X\n")
    (folder / "three.py").write_text("class X(X): pass\nclass A(B): pass\nclass B(A): pass\n")

    assert [] == found(folder, worker("one:X"), worker("three:X"), worker("three:A"))


def test_programs(folder: Path):
    """In PATH, in the folder, executable; the script of a Python."""
    for name, mode in (("run", 0o755), ("plain", 0o644)):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(mode)
    (folder / "app.py").touch()
    sections = [
        "{command: [sh]}", "{command: [./run]}", f"{{command: ['{sys.executable}', app.py]}}",
        "{command: [slep]}", "{command: [run]}", "{command: [./rum]}", "{command: [./plain]}",
        "{command: [./shared]}", "{command: [python, ap.py]}",
        "{command: [run], env: {PATH: '.'}}", "{command: [./run], working_dir: bare}",
    ]  # fmt: skip
    path = f"/usr/bin:/bin:{Path(sys.executable).parent}"

    assert [
        "w3.command: there is no program `slep` in PATH (did you mean `sleep`?)",
        "w4.command: there is no program `run` in PATH (did you mean `./run`?)",
        "w5.command: there is no program `./rum` (did you mean `./run`?)",
        "w6.command: `./plain` is not executable (chmod +x ./plain)",
        "w7.command: `./shared` is a folder, not a program",
        "w8.command: there is no file `ap.py` (did you mean `app.py`?)",
        "w10.command: there is no program `./run`",
    ] == found(folder, *sections, path=path)


def test_programs_of_policies(folder: Path):
    """Probes and commands at the end are programs, too."""
    section = """
    worker: workers:Plain
    ready: {exec: [./ready]}
    health: {exec: [helth-of-it], every: 5s}
    stop: {command: [./leave]}"""

    assert [
        "w0.ready.exec: there is no program `./ready`",
        "w0.health.exec: there is no program `helth-of-it` in PATH",
        "w0.stop.command: there is no program `./leave`",
    ] == found(folder, section)


def test_paths_of_imports_are_those_of_workers(folder: Path):
    """PYTHONPATH counts, relative to the working folder; the folder of a linked file does."""
    (folder / "lib").mkdir()
    (folder / "lib" / "extra.py").write_text("class X(Y): pass\n")
    with_path = "{worker: 'extra:X', env: {PYTHONPATH: lib}}"

    assert ["w0.worker: there is no module `extra`"] == found(folder, worker("extra:X"), with_path)


def test_problems_have_lines(folder: Path):
    """As all problems do: file, line, key; in the order of the lines."""
    text = (
        "workers:\n  a:\n    worker: workers:Greeter\n    args:\n      folder: x\n      lound: 1\n"
    )
    file = write_topology(folder, text)
    with pytest.raises(TopologyError) as caught:
        refuse_problems([file], {}, code_problems(load_topology(file, {}), {}))

    assert (
        f"{file}:4: workers.a.args: `Greeter` needs the argument `loud`",
        f"{file}:6: workers.a.args.lound: `Greeter` has no parameter `lound` (did you mean `loud`?)",
    ) == caught.value.problems


def test_beside_other_problems(folder: Path):
    """A file that does not load: what its classes lack is told in the same go, as far as that is sure."""
    file = write_topology(
        folder,
        "workers:\n"
        "  a: {worker: 'workers:Plane', replica: 2}\n"
        "  b: {worker: 'workers:Plain', args: {activ: '${UNSET}'}}\n"
        "  c: {worker: 'workers:${UNSET}'}\n"
        "  d: {worker: 'extra:X', env: {PYTHONPATH: lib}}\n"
        "  e: [worker]\n  f: {worker: [x]}\n  g: {worker: nothing}\n",
    )
    with pytest.raises(TopologyError) as caught:
        load_topology(file, {})
    whole = problems_beside(caught.value, [file], {})

    assert (
        f"{file}:2: workers.a.worker: workers.py has no class `Plane` (did you mean `Plain`?)",
        f"{file}:3: workers.b.args.activ: `Plain` has no parameter `activ` (did you mean `active`?)",
    ) == whole.problems[len(caught.value.problems) :]
    for text in ("", "[", "workers: 1", "workers: {a: {worker: 'm:C', x: 1}"):
        with pytest.raises(TopologyError) as caught:
            load_topology(write_topology(folder, text), {})
        assert caught.value.problems == problems_beside(caught.value, [file], {}).problems
    with pytest.raises(TopologyError) as caught:
        load_topology(folder / "none.yaml", {})
    assert problems_beside(caught.value, [folder / "none.yaml"], {}) is caught.value


def test_strict_imports(folder: Path):
    """Real imports confirm, refute or add; what a module prints, starts or ends is no answer."""
    (folder / "odd.py").write_text(
        "import sys\nfrom pbus import BaseWorker\nprint('noise')\n"
        "class X(BaseWorker):\n    def __init__(self, name, size): pass\n"
        "X.__init__ = BaseWorker.__init__\n"
    )
    (folder / "leaving.py").write_text("import os\nos._exit(7)\nclass X(Y): pass\n")
    (folder / "failing.py").write_text("raise OSError('no stove')\nclass X(Y): pass\n")
    (folder / "hanging.py").write_text("import time\ntime.sleep(600)\nclass X(Y): pass\n")
    names = {"fine": "workers:Plain", "odd": "odd:X", "leaving": "leaving:X", "failing": "failing:X",
             "wrong": "workers:Plane", "made": "workers:Made"}  # fmt: skip
    lines = [
        f"  {name}: {{worker: '{reference}', args: {{}}}}\n" for name, reference in names.items()
    ]
    topology = load_topology(write_topology(folder, "workers:\n" + "".join(lines)), {})
    read = code_problems(topology, {})
    strict = {one.worker: one.text for one in check_by_import(topology, {}, read)}

    assert ["odd", "wrong"] == [one.worker for one in read]
    assert {"leaving", "failing", "wrong"} == set(strict)
    assert "leaving:X ended the process (code 7)" in strict["leaving"]
    assert "importing failing raised OSError: no stove" in strict["failing"]
    hanging = load_topology(write_topology(folder, "workers:\n  h: {worker: 'hanging:X'}\n"), {})
    (problem,) = check_by_import(hanging, {}, [], timeout_s=0.5)
    assert "importing hanging:X takes longer than 0.5 s" == problem.text
