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

# Where a word is right in English: the file and the text around it.
RIGHT = (
    (r".", r"dead[ _-]?letter(s|ed|ing)?"),
    (r".", r"""["'`]nobody["'`]|user nobody"""),  # the user
    (
        r".",
        r"at most 64 letters|begins with a letter|begins with a\"?$|letter or '?_|ASCII letters|[Ll]etters, digits",
    ),
    (r"^configs/(research|two-hosts)/|test_(research|demos)\.py$", r"desk|house"),  # their workers
    (r"pgmq_format_1\.sql$|test_pgmq_upgrade\.py$", r".*"),  # names of the version before
    (r"^tests/lint/(test_)?words\.py$", r".*"),
    (r"sql/tables\.sql$|pgmq_format_1\.sql$|test_pgmq_upgrade\.py$", r".*"),  # what it renames
    (r"/postgres_cluster\.py$", r'"nobody"'),  # a user's name
    (r"/dramatiq_client\.py$", r"dramatiq\.actor\(|actor_name="),  # names of its interface
)


_PATTERN = re.compile(rf"(?<![a-z])({'|'.join(sorted(LEFT, key=len)[::-1])})(?![a-z])")


@functools.cache
def left_words() -> list[str]:
    """Places of words that left, as "file:line: word"."""
    return [
        f"{name}:{number}: {word}"
        for path in texts()
        for name in [path.relative_to(ROOT).as_posix()]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for word in words_in(name, line)
    ]


def words_in(file: str, line: str) -> Iterator[str]:
    """The words in a line of a file that left."""
    if _PATTERN.search(_plain(line)) is None:  # as nearly always
        return
    for place, text in RIGHT:
        if re.search(place, file):
            line = re.sub(text, " ", line, flags=re.IGNORECASE)
    for found in _PATTERN.finditer(_plain(line)):
        yield found.group()


def texts() -> Iterator[Path]:
    """The files that people read: code, SQL, Lua, documents, examples."""
    yield from sorted(path for path in ROOT.iterdir() if path.suffix in KINDS)
    yield ROOT / "Makefile"
    for tree in TREES:
        for path in sorted((ROOT / tree).rglob("*")):
            if path.suffix in KINDS and not in_cache(path.relative_to(ROOT / tree)):
                yield path


def in_cache(path: Path) -> bool:
    """Whether a path below a tree lies in a cache: in a hidden folder or in __pycache__."""
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts[:-1])


def _plain(line: str) -> str:
    """A line in small letters, with the parts of CamelCase and snake_case apart."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", line).replace("_", " ").lower()
