"""Advice about topologies that are valid but open to everyone on the broker."""

from typing import TYPE_CHECKING

from pbus_cli.terminal import console

if TYPE_CHECKING:
    from pbus.settings import BusSettings


def warn_of_open_bus(bus: "BusSettings") -> None:
    """Say where everyone who reaches the broker can send, end and control."""
    from pbus.urls import mask_url  # noqa: PLC0415 - after the options are read

    if bus.is_open_to_all:
        console.warn(
            f"the broker at {mask_url(bus.url or '')} asks for no password, so all who reach it can"
            " send to the workers and end them: set `bus.key`, or give it a password"
        )
