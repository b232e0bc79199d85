"""Words that left the code base: private names of things that have a standard name, and old English."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TREES = ("orchestrator", "cli", "tests", "configs", ".github", ".ci")
KINDS = {".py", ".sql", ".lua", ".md", ".yaml", ".yml", ".toml", ".json", ".sh"}

# Each with what stands for it now.
LEFT = {
    # stored messages
    "letters?": "stored message",
    "parcels?": "pending put",
    "mails?": "stored messages, queue",
    "mail ?rooms?": "queue consumer",
    "outbox(es)?": "send buffer, queue producer",
    "inbox(es)?": "receiver, subscription",
    "switchboards?": "router",
    "post offices?": "queue admin",
    "custody": "deferred acks",
    "bury|buried|buries|burying|burial": "dead-letter, release",
    "graves?": "dead incarnation",
    "heirs?": "next waiter",
    # jobs and workers
    "desks?": "job client, control server",
    "workbench(es)?": "job executor",
    "households?": "hosted workers",
    "census(es)?": "job listing",
    "farewells?": "stop report",
    # processes
    "crews?": "worker set",
    "houses?": "process host",
    "ladders?": "shutdown",
    "life|lives": "incarnation",
    "actors?": "worker process",
    # plain English
    "somebody|someone": "the subject itself",
    "whoever": "the subject itself",
    "whom": "the subject itself",
    "nobody": "no process, no worker, not",
    "anew": "again",
}

# Still in the tree; each leaves this list with the slice that removes it.
PENDING: frozenset[str] = frozenset({
    "letters?", "parcels?", "mails?", "mail ?rooms?", "outbox(es)?", "inbox(es)?",
    "switchboards?", "post offices?", "custody", "bury|buried|buries|burying|burial", "graves?",
    "heirs?", "desks?", "workbench(es)?", "households?", "census(es)?", "farewells?", "crews?",
    "houses?", "ladders?", "life|lives", "actors?", "somebody|someone", "whoever", "whom",
    "nobody", "anew",
})  # fmt: skip

# Trees and files that have none of them any more.
CLEAN = (
    "cli/", ".github/", ".ci/", "ARCHITECTURE.md", "CHANGELOG.md", "README.md", "Makefile",
)  # fmt: skip

# Where a word is right in English: the file and the text around it.
RIGHT = (
    (r".", r"dead[ _-]?letter(s|ed|ing)?"),
    (r".", r"""["'`]nobody["'`]|user nobody"""),  # the user
    (r".", r"at most 64 letters|begins with a\"?$|letter or _|ASCII letters|[Ll]etters, digits"),
    (r"^configs/(research|two-hosts)/|test_(research|demos)\.py$", r"desk|house"),  # their workers
    (r"pgmq_format_1\.sql$|test_pgmq_upgrade\.py$", r".*"),  # names of the version before
    (r"^tests/lint/words\.py$", r".*"),
    (r"sql/tables\.sql$|pgmq_format_1\.sql$|test_pgmq_upgrade\.py$", r".*"),  # what it renames
    (r"/postgres_cluster\.py$", r'"nobody"'),  # a user's name
)


def left_words(words: frozenset[str] = frozenset(LEFT)) -> list[str]:
    """Places of words that left, as "file:line: word"."""
    pattern = re.compile(rf"(?<![a-z])({'|'.join(sorted(words))})(?![a-z])")
    return [place for path in texts() for place in _places(path, pattern)] if words else []


def texts() -> Iterator[Path]:
    """The files that people read: code, SQL, Lua, documents, examples."""
    yield from sorted(path for path in ROOT.iterdir() if path.suffix in KINDS)
    yield ROOT / "Makefile"
    for tree in TREES:
        for path in sorted((ROOT / tree).rglob("*")):
            if path.suffix in KINDS and "__pycache__" not in path.parts:
                yield path


def _places(path: Path, pattern: re.Pattern[str]) -> Iterator[str]:
    name = path.relative_to(ROOT).as_posix()
    right = [text for file, text in RIGHT if re.search(file, name)]
    for number, line in enumerate(path.read_text().splitlines(), 1):
        rest = functools.reduce(
            lambda text, good: re.sub(good, " ", text, flags=re.IGNORECASE), right, line
        )
        for found in pattern.finditer(_plain(rest)):
            yield f"{name}:{number}: {found.group()}"


def _plain(line: str) -> str:
    """A line in small letters, with the parts of CamelCase and snake_case apart."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", line).replace("_", " ").lower()
