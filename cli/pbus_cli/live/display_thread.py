"""The thread of the interactive display: the terminal comes back whatever becomes of it."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pbus_cli.views.board.arrangement import Focus

if TYPE_CHECKING:
    from pbus_cli.live.display.display_app import DisplayApp
    from pbus_cli.live.display.source import Source
    from pbus_cli.live.display.terminal_driver import TerminalDriver

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 2.0  # for a blocked terminal, at the end
_LEAVE_S: Final = 1.0  # likewise, before the process is stopped


class DisplayThread:
    """Runs the display until closed, while this process is in the foreground.

    Args:
        source: What is shown; called in the thread.
        on_closed: Called (in a thread) when the terminal has no reader any more.

    Attributes:
        focus: What is shown first.
    """

    def __init__(self, source: "Source", *, on_closed: Callable[[], None]) -> None:
        self._source = source
        self.focus = Focus()
        self._on_closed = on_closed
        self._is_done = False
        self._is_away = False
        self._is_stale = False
        self._left = threading.Event()
        self._app: DisplayApp | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)

    def open(self) -> None:
        """Begin to draw; does nothing the second time."""
        if self._thread.ident is None and not self._is_done:
            self._thread.start()

    def suspend(self) -> None:
        """Give the terminal back for a while; one that is blocked is waited for only briefly."""
        if self._thread.is_alive():
            self._left.clear()
            self._is_away = True
            self._wake()
            self._left.wait(_LEAVE_S)

    def resume(self) -> None:
        """Draw again, everything: others may have written to the terminal."""
        self._is_stale = True
        self._is_away = False
        self._wake()

    def close(self) -> None:
        """Give the terminal back; a terminal that is blocked is waited for only briefly."""
        self._is_done = True
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE_S)
            if (driver := self._driver) is not None:
                driver.restore_keyboard()

    @property
    def _driver(self) -> "TerminalDriver | None":
        app = self._app
        return None if app is None else app.terminal

    def _wake(self) -> None:
        loop, app = self._loop, self._app
        if loop is not None and app is not None:
            try:
                loop.call_soon_threadsafe(app.look_at_terminal)
            except RuntimeError:
                logger.debug("the display has ended")

    def _run(self) -> None:
        # A write or read in the background fails, and does not stop the process.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU, signal.SIGTTIN})
        try:
            asyncio.run(self._main())
        except OSError as error:
            logger.info("nothing is shown any more: %s", error)  # the terminal is gone
        except Exception:
            logger.exception("the display has ended: a bug in pbus")
        finally:
            self._left.set()

    async def _main(self) -> None:
        # Loaded here: workers are started meanwhile.
        from pbus_cli.live.display.display_app import DisplayApp  # noqa: PLC0415
        from pbus_cli.live.display.terminal_driver import driver_class  # noqa: PLC0415

        self._loop = asyncio.get_running_loop()
        self._app = DisplayApp(
            self._source,
            focus=self.focus,
            driver_class=driver_class(self._on_closed),
            keep_terminal=self._keep_terminal,
        )
        if not self._is_done:
            await self._app.run_async()

    def _keep_terminal(self, app: "DisplayApp") -> bool:
        """Take the terminal or give it back, as things are; False while it is others'."""
        from pbus_cli.live.display.terminal_driver import is_in_front  # noqa: PLC0415

        if self._is_done:
            app.exit()
            return False
        driver = app.terminal
        if driver is None:
            return False
        is_ours = not self._is_away and is_in_front()
        if driver.is_drawing and (self._is_stale or not is_ours):
            driver.stop_application_mode()
        self._is_stale = False
        if not is_ours:
            self._left.set()
            return False
        if not driver.is_drawing:
            driver.start_application_mode()
            app.draw_everything()
        driver.note_size()
        return True
