"""Research by several at once: a desk asks its sources, passes on what they find, and sums up."""

import ast
import asyncio
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pbus import BaseWorker, BusJobRequestMessage, JobGroupEvent, job

FOUND_AT_MOST = 5  # places in one file
PATIENCE_S = 60.0


class Source(BaseWorker):
    """Looks for a topic in files, one after another; subclasses say in which, and how.

    Args:
        folder: Where; empty for the standard library of the running Python.
    """

    pattern = "*.py"
    pause_s = 0.0  # after each file

    def __init__(self, name: str, *, folder: str = "", **options: Any) -> None:
        super().__init__(name, **options)
        self._folder = Path(folder or sysconfig.get_path("stdlib"))

    @job(name="find")
    async def find(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """Streams ``{file, line, text}``; answers with how many files it read and found."""
        topic = str((request.payload or {}).get("topic", "")).lower()
        paths = await asyncio.to_thread(lambda: sorted(self._folder.glob(self.pattern)))
        found = done = 0
        try:
            for done, path in enumerate(paths, 1):
                for line, text in (await asyncio.to_thread(self.look, path, topic))[:FOUND_AT_MOST]:
                    place = {"file": path.name, "line": line, "text": text.strip()[:120]}
                    await self.send_job_stream_data(request.job_id, place)
                    found += 1
                await self.send_job_update(request.job_id, {"done": done, "total": len(paths)})
                await asyncio.sleep(self.pause_s)
        except asyncio.CancelledError:
            print(f"cancelled after {done} of {len(paths)} files")
            raise
        return {"files": len(paths), "found": found}

    def look(self, path: Path, topic: str) -> list[tuple[int, str]]:
        """The places in one file: line and text."""
        lines = path.read_text("utf-8", "replace").splitlines()
        return [(number, line) for number, line in enumerate(lines, 1) if topic in line.lower()]


class Code(Source):
    """Looks at every line of code, comments included."""


class Docs(Source):
    """Looks only into what modules, classes and functions say of themselves."""

    def look(self, path: Path, topic: str) -> list[tuple[int, str]]:
        """The first line of each docstring that mentions the topic."""
        return [
            (line, text.strip().splitlines()[0])
            for line, text in _docstrings(path)
            if topic in text.lower()
        ]


class Attic(Source):
    """Looks into old things, and takes its time."""

    pattern = "[a-f]*.py"
    pause_s = 0.1


class Archive(Source):
    """Looks into the texts of a folder that it must be given."""

    pattern = "*.txt"

    @job(name="find")
    async def find(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """Like any source, where there is an archive."""
        if self._folder == Path(sysconfig.get_path("stdlib")):
            raise LookupError("there is no archive: set RESEARCH_ARCHIVE to a folder of texts")
        return await super().find(request)


class Desk(BaseWorker):
    """Answers questions by asking all its sources.

    Args:
        sources: Their names.
    """

    def __init__(self, name: str, *, sources: list[str], **options: Any) -> None:
        super().__init__(name, **options)
        self._sources = sources

    @job(name="research")
    async def research(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """Streams ``{source, file, line, text}``, then how each source ended.

        With ``strict`` in the payload the first failure of a source cancels the others and ends
        the job; without it the desk makes do with what it gets.
        """
        payload = request.payload or {}
        if not payload.get("topic"):
            raise ValueError('say what about: {"topic": "priority queue"}')
        progress = _Progress()
        group = self.job_group(
            *self._sources,
            name="find",
            payload={"topic": payload["topic"]},
            timeout=PATIENCE_S,
            cancel_on_error=bool(payload.get("strict")),
        )
        async with group:
            async for event in group:
                if event.type == "stream_data":
                    place = {"source": event.worker_name, **event.data}
                    await self.send_job_stream_data(request.job_id, place)
                elif event.type == "update" and progress.note(event):
                    await self.send_job_update(request.job_id, progress.figures)
        return {
            "topic": payload["topic"],
            "found": sum(response.get("found", 0) for response in group.responses.values()),
            "sources": {
                name: {"status": response.status, **_brief(response)}
                for name, response in group.responses.items()
            },
        }


class _Progress:
    """How far all sources are together."""

    def __init__(self) -> None:
        self._done: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self.figures: dict[str, int] = {}

    def note(self, event: JobGroupEvent) -> bool:
        """Take in how far one is; whether that is a percent more of the whole."""
        name = event.worker_name
        self._done[name], self._totals[name] = event.data["done"], event.data["total"]
        before = self.figures.get("percent", -1)
        done, total = self._done.total(), self._totals.total()
        self.figures = {"done": done, "total": total, "percent": 100 * done // max(1, total)}
        return self.figures["percent"] != before


def _brief(response: dict[str, Any]) -> dict[str, Any]:
    """An answer without its traceback."""
    return {key: response[key] for key in ("files", "found", "error") if key in response}


def _docstrings(path: Path) -> Iterator[tuple[int, str]]:
    try:
        tree = ast.parse(path.read_text("utf-8", "replace"))
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text
