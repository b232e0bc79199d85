"""The files by which other processes find a running project: record, lock and key."""

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pbus.concurrency.background import ErrorLog
from pbus.errors import ProcessError, ProjectRunningError
from pbus.process.project.broker_key import keep_key
from pbus.process.project.project import Project
from pbus.process.project.project_lock import hold_again, is_held
from pbus.process.project.record import ProjectRecord, write_last

logger = logging.getLogger(__name__)


class ProjectFiles:
    """Writes the files, and makes them again when they are removed.

    Args:
        project: The project, held by this process.
        record: Its record.
        own_key: The key of the embedded broker; None where the topology gives one, or none is used.
        is_own_broker: The broker is embedded.
    """

    def __init__(
        self, project: Project, record: ProjectRecord, *, own_key: str | None, is_own_broker: bool
    ) -> None:
        self._project = project
        self._record = record
        self._own_key = own_key
        self._is_own_broker = is_own_broker
        self._errors = ErrorLog("keeping the project's files")

    def write(self) -> None:
        """Write the records."""
        self._project.write_record(self._record)
        write_last(self._project.state_dir, self._record, is_own_broker=self._is_own_broker)

    def follow(self, overrides: Iterable[Path]) -> None:
        """Write the records again where the topology is of other files now."""
        names = tuple(map(str, overrides))
        if names != self._record.overrides:
            self._record = msgspec.structs.replace(self._record, overrides=names)
            with self._errors.catch():
                self.write()

    def restore(self) -> bool:
        """Make the removed ones again: without a record no command finds the project.

        Returns:
            Whether the state folder itself was made again.

        Raises:
            ProjectRunningError: It was removed, and another supervisor has the project now.
        """
        if not is_held(self._project):
            return self._restore_folder()
        with self._errors.catch():
            self._project.make_state_dir()
            if not self._project.record_path.exists():
                self.write()
            self._write_key()
        return False

    def _restore_folder(self) -> bool:
        folder = self._project.state_dir
        try:
            hold_again(self._project)
            self.write()
            self._write_key()
        except ProjectRunningError:
            logger.error("%s was removed, and another supervisor has the project now", folder)  # noqa: TRY400 - no fault of ours
            raise
        except (ProcessError, OSError) as error:
            logger.warning("%s was removed and cannot be made again: %s", folder, error)
            return False
        logger.warning("%s was removed and is made again; older logs are lost", folder)
        return True

    def _write_key(self) -> None:
        if self._own_key is not None:
            keep_key(self._project.state_dir, self._own_key)
