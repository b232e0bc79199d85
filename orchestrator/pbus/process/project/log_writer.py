"""The log files of all workers of a supervisor."""

from pbus.process.project.log_files import LogFile
from pbus.process.project.project import Project
from pbus.process.supervisor_events import Line
from pbus.process.system import open_files


class LogWriter:
    """Writes the lines of workers into their log files; a full disk stops no worker, see LogFile."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._files: dict[str, LogFile] = {}

    def write(self, line: Line) -> None:
        """Add a line to its worker's log."""
        self._file(line.worker).write(line.time, line.stream, line.text)

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, worker: str) -> LogFile:
        file = self._files.get(worker)
        if file is None:
            while (
                len(self._files) >= open_files.max_logs()
            ):  # the oldest is opened again when needed
                self._files.pop(next(iter(self._files))).close()
            file = self._files[worker] = LogFile(self._project.log_path(worker))
        return file
