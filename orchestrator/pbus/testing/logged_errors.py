"""What hooks and tasks of workers raise: in production logged and survived, in a test a failure."""

import logging

_ANSWERED = "pbus.jobs.executor.executor"  # what a job's handler raised is the job's answer


class LoggedErrors(logging.Handler):
    """Collects the exceptions that pbus only logs, while it is open."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[Exception] = []
        self._logger = logging.getLogger("pbus")

    def open(self) -> None:
        """Begin to collect."""
        self._logger.addHandler(self)

    def close(self) -> None:
        """Collect no more."""
        self._logger.removeHandler(self)
        super().close()

    def forget(self, error: BaseException) -> None:
        """The test was told of this one."""
        self.errors = [other for other in self.errors if other is not error]

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception of a record that has one."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Exception) and record.name != _ANSWERED:
            self.errors.append(error)
