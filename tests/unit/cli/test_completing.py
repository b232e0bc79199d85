"""What shells are offered: names that mean nothing else to them."""

import logging
import subprocess

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from pbus_cli.input.completing import _quietly, is_plain, job_ids, worker_or_type_names

CONTEXT = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)))


@pytest.fixture(scope="module", autouse=True)
def logging_goes_on():
    """A shell that completes wants no word of anything; the tests after these do."""
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    "name",
    [
        "q$(touch x)",
        "q`touch x`",
        "q;touch x",
        "a b",
        "a\nb",
        "~root",
        "*",
        "-rf",
        "a'b",
        'a"b',
        "a|b",
        "ü",
        "",
    ],
)
def test_dangerous_names_are_not_offered(name: str):
    """A registered name or job must not choose what a shell runs at TAB."""
    assert ["load"] == _quietly(lambda _: ["load", name])(CONTEXT, "")


@given(name=st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=20))
def test_offered_names_mean_themselves(name: str):
    """A shell that evaluates an offered name gets the name."""
    if is_plain(name):
        told = subprocess.run(["sh", "-c", f"printf %s {name}"], capture_output=True, text=True)
        assert (0, name, "") == (told.returncode, told.stdout, told.stderr)


@pytest.mark.parametrize(
    "name", ["indexer", "indexer.2", "Load_All", "a-b", "team/x", "v1:2", "50%"]
)
def test_usual_names_are_offered(name: str):
    """Workers, replicas, jobs and types as people call them."""
    assert [name] == _quietly(lambda _: [name])(CONTEXT, name[:1])


def test_what_is_left_out_is_offered_without_a_project(monkeypatch, tmp_path):
    """Types by both of their names; workers join them where a project runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert {"Frame"} == set(worker_or_type_names(CONTEXT, "Fra"))
    assert "BusFrameMessage" in worker_or_type_names(CONTEXT, "BusF")
    assert [] == job_ids(CONTEXT, "")
