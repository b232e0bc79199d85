"""The projects that `pbus init` writes."""

import pytest

from support.cli_env import CliEnv

pytestmark = pytest.mark.cli


@pytest.mark.parametrize(
    ("example", "job", "payload", "expected"),
    [
        ("hello", ("greeter", "greet"), {"name": "Ada"}, {"text": "Hello, Ada!"}),
        ("jobs", ("foreman", "total"), {"texts": ["a b", "b"]}, {"words": {"b": 2, "a": 1}}),
    ],
)
def test_example_works(
    cli: CliEnv, example: str, job: tuple[str, str], payload: object, expected: object
):
    """What `init` writes comes up and does a job; its tests are a test elsewhere."""
    place = cli.place(f"{example}-place", {})
    assert 0 == place.run("init", "--example", example).code
    place.up()

    assert expected == place.ask(*job, payload)
