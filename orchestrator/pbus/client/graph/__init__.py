"""The graph of a project: messages and jobs between its workers, declared and observed."""
