"""The log of the supervisor itself: rotated by size, and made again when it was removed."""

import logging
import logging.handlers
import time
from pathlib import Path
from typing import Any

from pbus.process.system import regular_files

_MAX_BYTES = 10 * 1024 * 1024
_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"


class SupervisorLogHandler(logging.handlers.RotatingFileHandler):
    """Writes log records into a file, with times in UTC.

    Args:
        path: The file; its folder is made when it is needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(
            path, maxBytes=_MAX_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace"
        )
        formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def _open(self) -> Any:
        return open(
            self._path,
            self.mode,
            encoding=self.encoding,
            errors=self.errors,
            opener=regular_files.opener,
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, into a new file where the old one is gone."""
        try:
            if not self._path.exists():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self.close()  # the next write opens it again
        except OSError:
            self.handleError(record)
        else:
            super().emit(record)
