"""Full-text search over real files: a librarian hands out shares, indexers read and tokenise."""

import asyncio
import math
import re
import sysconfig
from collections import defaultdict
from pathlib import Path
from typing import Any

from pbus import BaseWorker, BusJobRequestMessage, JobError, job

BATCH = 25  # files a message; the postings of so many stay well below a message's limit
SHARE = 100  # files an indexer gets at once; then it is seen who is there to share the next
AGAIN_S = 1.0  # before it is tried again when nothing could be indexed at all
LINES_KEPT = 20  # places remembered of one word in one file
SKIPPED = {"test", "tests", "idle_test", "site-packages", "__pycache__", "node_modules", ".venv"}
WORD = re.compile(r"[a-z][a-z0-9]{1,30}")


class Indexer(BaseWorker):
    """Reads files and tells the words in them and the lines they stand on."""

    @job(name="index")
    async def index(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """Streams ``{"files": {path: {word: [line, …]}}}``, lines from 1, for its share of paths."""
        paths = (request.payload or {})["shares"][self.name]
        for at in range(0, len(paths), BATCH):
            batch = paths[at : at + BATCH]
            files = await asyncio.to_thread(lambda batch: {p: postings(p) for p in batch}, batch)
            await self.send_job_stream_data(request.job_id, {"files": files})
            progress = {"done": at + len(batch), "total": len(paths)}
            await self.send_job_update(request.job_id, progress)
        return {"files": len(paths)}


class Librarian(BaseWorker):
    """Has a folder indexed and answers searches.

    Args:
        folder: What to index; empty for the standard library of the running Python.
        pattern: Which files.
    """

    def __init__(
        self, name: str, *, folder: str = "", pattern: str = "*.py", **options: Any
    ) -> None:
        super().__init__(name, **options)
        self._folder = Path(folder or sysconfig.get_path("stdlib"))
        self._pattern = pattern
        self._index: dict[str, dict[str, list[int]]] = defaultdict(dict)  # word: {path: lines}
        self._lengths: dict[str, int] = {}
        self._total = 0
        self._indexed = asyncio.Event()

    async def start(self) -> None:
        """Begin to index; searches that come meanwhile wait for it."""
        await super().start()
        self.create_task(self._index_folder())

    @job(name="search")
    async def search(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """Ranked places: ``{"hits": [{file, line, snippet, score}], "files": n}``."""
        payload = request.payload or {}
        words = WORD.findall(str(payload.get("query", "")).lower())
        if not words:
            raise ValueError('say what to look for: {"query": "priority queue"}')
        while not self._indexed.is_set():
            await self.send_job_update(request.job_id, self._progress())
            try:
                await asyncio.wait_for(self._indexed.wait(), 0.5)
            except TimeoutError:
                continue
        limit = int(payload.get("limit", 10))
        return {"query": words, "files": len(self._lengths), "hits": self._rank(words)[:limit]}

    async def _index_folder(self) -> None:
        files = await asyncio.to_thread(self._find_files)
        self._total = len(files)
        print(f"indexing {self._total} files below {self._folder}")
        while left := [path for path in files if path not in self._lengths]:
            await self.registry.wait_ready("indexer")
            indexers = [ready.worker_name for ready in self.registry.ready("indexer")]
            await self._index_some(indexers, left[: SHARE * len(indexers)])
            if left[0] not in self._lengths:
                await asyncio.sleep(AGAIN_S)
        self._indexed.set()
        print(f"indexed {len(self._lengths)} files, {len(self._index)} words: ready to search")

    async def _index_some(self, indexers: list[str], paths: list[str]) -> None:
        """Have these indexers share these files; what one that dies leaves undone is done later."""
        shares = {name: paths[at :: len(indexers)] for at, name in enumerate(indexers)}
        group = self.job_group(
            *indexers, name="index", payload={"shares": shares}, cancel_on_error=False
        )
        try:
            async with group:
                async for event in group:
                    if event.type == "stream_data":
                        self._add(event.data["files"])
                        done = self._progress()
                        print(
                            f"indexed {done['done']} of {done['total']} files ({done['percent']} %)"
                        )
        except JobError as error:  # they were not done in time
            print(f"asking again: {error}")
        for name, response in group.responses.items():
            if response.status != "completed":
                print(f"asking again: {name} gave up: {response.get('error')}")

    def _find_files(self) -> list[str]:
        return sorted(
            str(path)
            for path in self._folder.rglob(self._pattern)
            if path.is_file() and not SKIPPED & set(path.relative_to(self._folder).parts)
        )

    def _add(self, files: dict[str, dict[str, list[int]]]) -> None:
        for path, words in files.items():
            self._lengths[path] = sum(map(len, words.values()))
            for word, lines in words.items():
                self._index[word][path] = lines

    def _progress(self) -> dict[str, Any]:
        done, total = len(self._lengths), self._total
        return {"done": done, "total": total, "percent": round(100 * done / total) if total else 0}

    def _rank(self, words: list[str]) -> list[dict[str, Any]]:
        """Files by how rare and how frequent the words are in them; the best line of each."""
        scores: dict[str, float] = defaultdict(float)
        lines: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for word in set(words):
            found = self._index.get(word, {})
            rarity = math.log(1 + len(self._lengths) / (1 + len(found)))
            for path, places in found.items():
                weight = len(places) / (1 + self._lengths[path] / 2000)
                scores[path] += rarity * weight / (weight + 1.5)
                for line in places:
                    lines[path][line] += 1
        for path, places in lines.items():
            scores[path] *= max(places.values())  # words that stand together count most
        best = sorted(scores, key=lambda path: (-scores[path], path))[:50]
        return [self._hit(path, lines[path], scores[path]) for path in best]

    def _hit(self, path: str, places: dict[int, int], score: float) -> dict[str, Any]:
        line = max(places, key=lambda number: (places[number], -number))
        text = Path(path).read_text("utf-8", "replace").splitlines()[line - 1 : line]
        return {
            "file": str(Path(path).relative_to(self._folder)),
            "line": line,
            "snippet": text[0].strip()[:120] if text else "",
            "score": round(score, 2),
        }


def postings(path: str) -> dict[str, list[int]]:
    """The words of one file and the lines they stand on; empty for a file that has gone."""
    try:
        text = Path(path).read_text("utf-8", "replace").lower()
    except OSError:
        return {}
    places: dict[str, list[int]] = defaultdict(list)
    for number, line in enumerate(text.splitlines(), 1):
        for word in set(WORD.findall(line)):
            if len(places[word]) < LINES_KEPT:
                places[word].append(number)
    return dict(places)
