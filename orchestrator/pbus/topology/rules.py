"""Rules beyond the types of keys: keys that exclude each other, URLs, files and folders."""

import functools
from collections.abc import Mapping as AbstractMapping
from pathlib import Path

from pbus.errors import BusKeyError
from pbus.seal import parse_keys
from pbus.settings import DELIVERY_KEYS, default_backend, default_delivery
from pbus.topology.check import is_null
from pbus.topology.composition.anchoring import Origin
from pbus.topology.parsing.bounded_read import is_folder
from pbus.topology.parsing.env_file import EnvFiles
from pbus.topology.parsing.nodes import Mapping
from pbus.topology.places import locate as _locate
from pbus.topology.policy.policy_build import parse_address
from pbus.topology.policy.policy_rules import check_order, check_policies
from pbus.topology.policy.process_rules import Sharer, check_processes
from pbus.topology.problems import Place, Problems, did_you_mean, one_of
from pbus.topology.schema import (
    DEFAULT_LISTEN,
    BusSection,
    MetricsSection,
    TopologyFile,
    WorkerSection,
)
from pbus.urls import BACKEND_OF_SCHEME, Backend, url_problem, url_scheme

_MAX_JSONB_BYTES = 128 * 1024 * 1024  # Postgres takes texts of 256 MiB; base64 and others need room


def check_rules(
    file: TopologyFile,
    tree: Mapping,
    origins: AbstractMapping[str, Origin],
    env_files: EnvFiles,
    problems: Problems,
) -> None:
    """Add a problem for each broken rule; the types of the file's keys were checked."""
    if file.bus is not None:
        _check_bus(file.bus, _locate(tree, "bus", "url"), problems)
        _check_key(file.bus, tree, problems)
        _check_delivery(file.bus, tree, problems)
        if backend_of(file.bus) == "pgmq":
            _check_pgmq(file.bus, tree, problems)
    env_files.read_all(file.env_file or (), _locate(tree, "env_file"))
    if file.metrics is not None:
        _check_metrics(file, tree, problems)
    _check_history(file, tree, problems)
    check_order(file.workers, functools.partial(_locate, tree, "workers"), problems)
    _check_processes(file, tree, origins, env_files, problems)
    shared = _SharedProcess() if backend_of(file.bus) == "memory" else None
    for name, worker in file.workers.items():
        rules = _WorkerRules(worker, tree, name, problems)
        folder = origins[name].folder
        rules.check(folder, env_files)
        if shared is not None:
            rules.check_shared(shared, folder, env_files)


def _check_processes(
    file: TopologyFile,
    tree: Mapping,
    origins: AbstractMapping[str, Origin],
    env_files: EnvFiles,
    problems: Problems,
) -> None:
    place = functools.partial(_locate, tree, "workers")
    sharers = {
        name: Sharer(
            section,
            origins[name].folder,
            _own_variables(section, env_files, place(name, "env_file")),
        )
        for name, section in file.workers.items()
    }
    check_processes(sharers, place, problems)


def _own_variables(section: WorkerSection, env_files: EnvFiles, place: Place) -> dict[str, str]:
    """The variables of a worker's own keys."""
    from_files = env_files.read_all(section.env_file or (), place)
    return {**from_files, **{key: str(value) for key, value in (section.env or {}).items()}}


def backend_of(bus: BusSection | None) -> Backend:
    """The backend: as given, by the URL, or of the broker that pbus starts itself."""
    if bus is None:
        return "redis"
    return bus.backend or default_backend(bus.url)


def listen_text(section: MetricsSection) -> str:
    """The address to listen at, as text."""
    return DEFAULT_LISTEN if section.listen is None else str(section.listen)


def _check_metrics(file: TopologyFile, tree: Mapping, problems: Problems) -> None:
    if backend_of(file.bus) == "memory":
        problems.add(
            _locate(tree, "metrics"), "`backend: memory` has no supervisor: leave `metrics` out"
        )
    assert file.metrics is not None  # noqa: S101 - asked by the caller
    try:
        parse_address(listen_text(file.metrics))
    except ValueError:
        problems.add(
            _locate(tree, "metrics", "listen"),
            f"expected HOST:PORT or a port of this machine, like {DEFAULT_LISTEN}",
        )


def _check_history(file: TopologyFile, tree: Mapping, problems: Problems) -> None:
    if file.history is not None and file.history.traffic and backend_of(file.bus) == "memory":
        text = "`backend: memory` has no supervisor: leave it out"
        problems.add(_locate(tree, "history", "traffic"), text)


def _check_bus(bus: BusSection, place: Place, problems: Problems) -> None:
    if bus.url is None:
        return
    scheme = url_scheme(bus.url)
    backend = BACKEND_OF_SCHEME.get(scheme)
    if backend is None:
        known = [f"{scheme}://" for scheme in BACKEND_OF_SCHEME]
        advice = did_you_mean(f"{scheme}://", known) if scheme else ""
        problems.add(place, f"expected a URL that begins with {one_of(known)}{advice}")
    elif bus.backend is not None and bus.backend != backend:
        problems.add(
            place, f"{scheme}:// is a URL of the {backend} bus, but `backend` is {bus.backend}"
        )
    elif problem := url_problem(bus.url):
        problems.add(place, problem)


def _check_key(bus: BusSection, tree: Mapping, problems: Problems) -> None:
    if bus.key is not None:
        try:
            parse_keys(bus.key)
        except BusKeyError as error:
            problems.add(_locate(tree, "bus", "key"), f"{error.message} ({error.hint})")
    elif bus.encrypt and bus.url is not None:
        problems.add(
            _locate(tree, "bus", "encrypt"), "encryption needs a key: add `key: ${PBUS_KEY}`"
        )


def _check_delivery(bus: BusSection, tree: Mapping, problems: Problems) -> None:
    delivery = bus.delivery or default_delivery(backend_of(bus))
    if delivery == "at-least-once":
        if backend_of(bus) == "memory":
            problems.add(
                _locate(tree, "bus", "delivery"),
                "`backend: memory` stores nothing: at-least-once needs a broker",
            )
        return
    for key in DELIVERY_KEYS:
        if getattr(bus, key) is not None:
            problems.add(
                _locate(tree, "bus", key),
                f"`{key}` is about messages that are stored: add `delivery: at-least-once`",
            )


def _check_pgmq(bus: BusSection, tree: Mapping, problems: Problems) -> None:
    if bus.encoding == "msgpack":
        problems.add(
            _locate(tree, "bus", "encoding"),
            "Postgres keeps messages as JSON: leave `encoding` out",
        )
    if (bus.max_message_bytes or 0) > _MAX_JSONB_BYTES:
        problems.add(
            _locate(tree, "bus", "max_message_bytes"),
            f"expected at most {_MAX_JSONB_BYTES}, which is what fits into a jsonb value",
        )


class _SharedProcess:
    """The folder and variables of one process for all workers, as the first worker wants them."""

    def __init__(self) -> None:
        self.folder: tuple[Path, str] | None = None
        self.variables: dict[str, tuple[object, str]] = {}


class _WorkerRules:
    """The rules of one worker."""

    def __init__(
        self, section: WorkerSection, tree: Mapping, name: str, problems: Problems
    ) -> None:
        self._section = section
        self._tree = tree
        self._name = name
        self._problems = problems

    def check(self, folder: Path, env_files: EnvFiles) -> None:
        """Add a problem for each broken rule."""
        self._check_program()
        self._check_pipecat()
        self._check_stdio()
        self._check_start()
        section = self._section
        check_policies(section, self._place, self._is_given, self._problems)
        env_files.read_all(section.env_file or (), self._place("env_file"))
        if section.working_dir is not None and not is_folder(folder / section.working_dir):
            self._problems.add(
                self._place("working_dir"), "there is no such folder (relative to this file's)"
            )

    def check_shared(self, shared: _SharedProcess, folder: Path, env_files: EnvFiles) -> None:
        """Add problems for what workers of one process cannot have."""
        section = self._section
        if section.command is not None:
            self._problems.add(
                self._place("command"),
                "a program is a process of its own, and on `backend: memory` all workers share one:"
                " leave it out, or use a broker",
            )
        wanted = (folder / (section.working_dir or "")).resolve()
        shared.folder = shared.folder or (wanted, self._name)
        if wanted != shared.folder[0]:
            self._differs("working_dir", "run in one folder", shared.folder[1])
        for name, value in _own_variables(section, env_files, self._place("env_file")).items():
            held, holder = shared.variables.setdefault(name, (value, self._name))
            if held != value:
                self._differs("env", f"have one value of {name}", holder)

    def _differs(self, key: str, rule: str, other: str) -> None:
        self._problems.add(
            self._place(key), f"on `backend: memory` all workers {rule}: expected that of {other}"
        )

    def _check_program(self) -> None:
        has_worker, has_command = self._is_given("worker"), self._is_given("command")
        if has_worker and has_command:
            self._problems.add(
                self._place("command"), "expected `worker` or `command`, got both: remove one"
            )
        elif not (has_worker or has_command or self._is_extending()):
            self._problems.add(
                self._place(),
                "expected `worker: module:Class` or `command: [program, ...]`, got neither",
            )
        elif has_command and self._section.args:
            self._problems.add(
                self._place("args"),
                "`args` go to a worker class; put a program's arguments into `command`",
            )

    def _is_extending(self) -> bool:
        """Whether a worker that this one extends was not found: its keys are not known."""
        node = self._tree.entries["workers"].node
        section = node.entries[self._name].node if isinstance(node, Mapping) else node
        return isinstance(section, Mapping) and "extends" in section.entries

    def _check_pipecat(self) -> None:
        if not self._section.pipecat:
            return
        if self._section.worker is not None:
            self._problems.add(
                self._place("pipecat"),
                "`worker` names a class of pbus: a program of Pipecat's is a `command`",
            )
        elif self._section.joins is False:
            self._problems.add(
                self._place("joins"), "a program with `pipecat: true` joins the bus: remove `joins`"
            )

    def _check_stdio(self) -> None:
        if self._section.stdio is not None and self._section.pipecat:
            problem = "a program with `pipecat: true` is on the bus by itself: leave it out"
            self._problems.add(self._place("stdio"), problem)
        elif self._section.stdio is not None and self._is_given("worker"):
            problem = "a worker class is on the bus by itself: `stdio` is for a `command`"
            self._problems.add(self._place("stdio"), problem)
        elif self._section.stdio is not None and self._section.joins is False:
            problem = "a program with `stdio` is a worker: leave it out"
            self._problems.add(self._place("joins"), problem)

    def _check_start(self) -> None:
        is_program = self._is_given("command") and self._section.stdio is None
        if self._section.start == "fork" and is_program:
            problem = "a program is always started by exec: leave it out"
            self._problems.add(self._place("start"), problem)

    def _place(self, *keys: str) -> Place:
        return _locate(self._tree, "workers", self._name, *keys)

    def _is_given(self, *keys: str) -> bool:
        """Whether a key below the worker is given, valid or not."""
        node = self._tree.entries["workers"].node
        for key in (self._name, *keys):
            entry = node.entries.get(key) if isinstance(node, Mapping) else None
            if entry is None or is_null(entry.node):
                return False
            node = entry.node
        return True
