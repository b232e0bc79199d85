"""`pbus doctor`: looks for what may keep a project from working."""

import os
import sys
from typing import TYPE_CHECKING

import typer

from pbus_cli.input.options import AsJson, ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pbus.client.doctor.findings import Finding


def doctor(
    project: ProjectName = None, file: TopologyFiles = None, as_json: AsJson = False
) -> None:
    """Look for what may keep a project from working, each with what to do.

    Looked at are versions, packages, limits, folders, the topology, leftovers of killed projects;
    and where the project runs or its file is named (-f), its broker: whether it answers, what it
    permits, clocks, clashes of names and channels, failed workers, queues that no worker has. It
    starts nothing and changes nothing.

    Exit code 0 without errors, 1 with. JSON: {"ok", "findings": [{"check", "status", "text", "hint"}]},
    where status is ok, warning or error.

    Example: pbus doctor -f production.yaml
    """
    from pbus_cli.call.run_command import run

    findings = run(_examine(project, file or (), is_shown=not as_json), shows_warnings=False)
    count = dict.fromkeys(("ok", "warning", "error"), 0)
    for finding in findings:
        count[finding.status] += 1
    if as_json:
        console.say_json({"ok": not count["error"], "findings": findings})
    else:
        console.note(f"{count['error']} errors, {count['warning']} warnings, {count['ok']} ok")
    if count["error"]:
        raise typer.Exit(console.FAILED)


async def _examine(
    project: str | None, files: "Sequence[Path]", *, is_shown: bool
) -> "list[Finding]":
    from pbus.client.doctor.examine import examine
    from pbus_cli.views.finding_lines import finding_lines

    findings = []
    async for finding in examine(project, files, os.environ):
        findings.append(finding)
        if is_shown:
            for line in finding_lines(
                finding, lambda text, sgr: console.paint(text, sgr, sys.stdout)
            ):
                console.say(line)
            console.flush()
    return findings


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(doctor)
