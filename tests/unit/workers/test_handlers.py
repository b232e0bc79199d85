"""@job and @worker_ready: what is marked, what is found, what is refused."""

import pytest

from pbus.errors import HandlerDefinitionError
from pbus.handlers import JobHandler, find_handlers, job, worker_ready
from pbus.workers.base_worker import BaseWorker


class Library(BaseWorker):
    @job(name="find")
    async def find(self, request):
        """Find a book."""

    @job(name="lend", sequential=True)
    @job(name="give")
    async def lend(self, request):
        """Lend a book, by two names."""

    @worker_ready(name="reader")
    async def on_reader(self, data):
        """A reader came."""


def test_marked_methods_are_found():
    """Each mark gives a name its method."""
    handlers = find_handlers(Library)
    assert {
        "find": JobHandler("find", sequential=False),
        "give": JobHandler("lend", sequential=False),
        "lend": JobHandler("lend", sequential=True),
    } == handlers.jobs
    assert {"reader": "on_reader"} == handlers.ready
    assert ("find", "give", "lend") == Library("x").job_names


def test_override_keeps_the_mark():
    """A subclass that overrides a handler need not mark it again."""

    class Branch(Library):
        async def find(self, request):
            """Find it elsewhere."""

    assert "find" == find_handlers(Branch).jobs["find"].method


def test_subclass_handler_wins():
    """A subclass's handler of a name replaces its base's."""

    class Branch(Library):
        @job(name="find")
        async def search(self, request):
            """Find it elsewhere."""

    assert "search" == find_handlers(Branch).jobs["find"].method
    assert "find" == find_handlers(Library).jobs["find"].method


@pytest.mark.parametrize("mark", [job, worker_ready])
def test_duplicate_names_are_refused(mark):
    """Two handlers of one name in one class are a mistake, seen where the class is defined."""
    with pytest.raises(HandlerDefinitionError, match="already on first"):

        class Twice(BaseWorker):
            @mark(name="x")
            async def first(self, value):
                """One."""

            @mark(name="x")
            async def second(self, value):
                """Two."""


def test_plain_function_is_refused():
    """Only async methods can be handlers."""
    with pytest.raises(HandlerDefinitionError, match="async def"):

        @job(name="x")
        def handler(self, request):
            """Not async."""


def test_wrong_arguments_are_refused():
    """A handler takes the request, and nothing else that has no default."""
    with pytest.raises(HandlerDefinitionError, match="too many positional"):

        @job(name="x")
        async def handler(self):
            """Takes no request."""


def test_empty_name_is_refused():
    """A handler has a name."""
    with pytest.raises(HandlerDefinitionError, match="empty"):

        @job(name="")
        async def handler(self, request):
            """Has no name."""
