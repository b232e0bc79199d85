"""From the options -p and -f to one call of a client: what every verb needs."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import typer

from pbus.client import Client
from pbus.client.attachment import Attachment, find_project, while_running
from pbus.errors import UnknownNameError
from pbus_cli.call.run_command import run
from pbus_cli.input.name_hints import unknown_text
from pbus_cli.terminal import console

T = TypeVar("T")


def choose(project: str | None, files: Sequence[Path] | None) -> Attachment:
    """Find the project: by name, by file, this folder's, or the only one running.

    Raises:
        NothingRunningError: There is none.
        StrangeFileError: There is a file that the user has not named and not started with its broker.
        AmbiguousProjectError: There are several.
        UnseenProjectError: It runs without a broker.
    """
    attachment = find_project(project, files)
    if attachment.file is not None:
        console.note(
            f"{attachment.file} does not run on this machine: connecting to {attachment.shown_url}"
        )
    return attachment


def call(
    attachment: Attachment,
    do: Callable[[Client], Awaitable[T]],
    *,
    ends_with_project: bool = True,
    is_traced: bool = False,
) -> T:
    """Run one call of a client.

    Args:
        attachment: The project.
        do: The call.
        ends_with_project: Give it up when the supervisor on this machine ends.
        is_traced: Have its messages traced by OpenTelemetry, if that is configured.

    Raises:
        NothingRunningError: The supervisor ended meanwhile.
        BusUnavailableError: The broker is not reached.
    """

    async def called() -> T:
        async with Client.at(attachment, is_traced=is_traced) as client:
            return await do(client)

    return run(while_running(attachment, called()) if ends_with_project else called())


@contextlib.contextmanager
def names_as(parameter: str) -> Iterator[None]:
    """Turn an unknown name into wrong usage of a parameter.

    Raises:
        typer.BadParameter: A name stands for nothing.
    """
    try:
        yield
    except UnknownNameError as error:
        raise typer.BadParameter(unknown_text(error), param_hint=parameter) from None
