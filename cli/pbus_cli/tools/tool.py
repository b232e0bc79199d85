"""Tool: a verb that a program calls with named arguments, and the project that it is for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pbus.client import Client
from pbus.client.attachment import Attachment, find_project, while_running
from pbus_cli.tools.tool_result import result_text


class ToolArguments(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The arguments of a tool; a subclass has those of one, with their bounds."""


class NoArguments(ToolArguments):
    """The arguments of a tool that takes none."""


@dataclass(frozen=True)
class ProjectChoice:
    """The project as the user named it; looked for at each call, for it may come and go.

    Attributes:
        project: Its name.
        files: Its topology files.
    """

    project: str | None = None
    files: Sequence[Path] | None = None

    def find(self) -> Attachment:
        """The running project.

        Raises:
            PbusError: As of find_project().
        """
        return find_project(self.project, self.files)

    async def ask(self, do: Callable[[Client], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Run one call of a client, for as long as the project runs.

        Raises:
            NothingRunningError: It does not run, or ended meanwhile.
            BusUnavailableError: The broker is not reached.
        """
        attachment = self.find()

        async def asked() -> dict[str, Any]:
            async with Client.at(attachment) as client:
                return await do(client)

        return await while_running(attachment, asked())


Run = Callable[[ProjectChoice, Any], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        description: For the model that chooses it.
        arguments: Their type.
        run: Does it, and returns an object of JSON.
        listed: The key of the list in the result that is shortened where it is too long.
        is_reading: Whether it changes nothing.
    """

    name: str
    description: str
    arguments: type[ToolArguments]
    run: Run
    listed: str | None = None
    is_reading: bool = True

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the arguments."""
        _, found = msgspec.json.schema_components([self.arguments])
        schema: dict[str, Any] = found[self.arguments.__name__]
        return {key: schema[key] for key in schema if key not in {"title", "description"}}

    async def call(self, choice: ProjectChoice, arguments: dict[str, Any]) -> str:
        """Do it, and return the text of its result.

        Raises:
            msgspec.ValidationError: An argument is wrong.
            PbusError: It cannot be done.
            typer.BadParameter: A name or value means nothing here.
        """
        given = msgspec.convert(arguments, self.arguments)
        return result_text(await self.run(choice, given), self.listed)


@contextlib.asynccontextmanager
async def at_most(seconds: float) -> AsyncIterator[None]:
    """End a block quietly after so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            yield
