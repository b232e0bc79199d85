"""Errors of workers' hooks and tasks: logged in production, a failure in a test."""

import logging

_ANSWERED = "pbus.jobs.executor.executor"  # a job's error is the job's response


class LoggedErrors(logging.Handler):
    """Collects the errors that pbus logs, while it is open."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[Exception] = []
        self._logger = logging.getLogger("pbus")

    def open(self) -> None:
        """Start to collect."""
        self._logger.addHandler(self)

    def close(self) -> None:
        """Stop to collect."""
        self._logger.removeHandler(self)
        super().close()

    def forget(self, error: BaseException) -> None:
        """Drop an error that the test has seen."""
        self.errors = [other for other in self.errors if other is not error]

    def emit(self, record: logging.LogRecord) -> None:
        """Collect the error of a log record."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Exception) and record.name != _ANSWERED:
            self.errors.append(error)
