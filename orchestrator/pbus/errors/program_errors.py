"""Errors of programs that are workers by their stdin and stdout."""

from pbus.errors.process_errors import ProcessError


class ProgramStartError(ProcessError):
    """The program of a worker cannot be started."""

    def __init__(self, program: str, reason: str) -> None:
        super().__init__(f"the program {program!r} cannot be started: {reason}")
        self.program = program


class StdinClosedError(ProcessError):
    """A program takes no messages any more."""

    def __init__(self, program: str) -> None:
        super().__init__(f"the program {program!r} has closed its stdin, or has ended")
        self.program = program


class ProgramLineError(ProcessError):
    """A program has printed a line that pbus does not know, or cannot act on."""

    def __init__(self, line: str, problem: str) -> None:
        super().__init__(f"a line of the program is refused: {problem}: {line}")
        self.line = line
