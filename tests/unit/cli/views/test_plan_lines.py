"""The plan of changes, as lines for people."""

from pbus.process.supervisor.changes.plan import Change, Plan
from pbus_cli.views.plan_lines import plan_lines


def plain(text: str, _sgr: str) -> str:
    """No colours."""
    return text


def test_each_change_has_a_line():
    """Names stand in a column; why comes last, and what needs no restart says so."""
    plan = Plan(
        changes=(
            Change("web", "add", (), ("web",)),
            Change("stt", "scale", ("2 → 4",), ("stt.3", "stt.4")),
            Change("stt", "restart", ("args.model", "env.LANG"), ("stt.1", "stt.2")),
            Change("db", "update", ("limits",), ("db",)),
            Change("x", "start", ("failed",), ("x",)),
            Change("old", "remove", ("not in the file any more",), ("old",)),
        )
    )
    assert [
        "+ web           add",
        "± stt           scale    2 → 4, stt.3, stt.4",
        "~ stt.1, stt.2  restart  args.model, env.LANG",
        "= db            update   limits, without a restart",
        "> x             start    failed",
        "- old           remove   not in the file any more",
    ] == plan_lines(plan, plain)


def test_what_cannot_change_is_a_line():
    """By its key alone."""
    assert ["! bus.url  cannot change while it runs"] == plan_lines(Plan(fixed=("bus.url",)), plain)


def test_many_are_counted():
    """A thousand replicas or keys fill no screen."""
    names = tuple(f"s.{number}" for number in range(1, 1001))
    (line,) = plan_lines(Plan(changes=(Change("s", "restart", names, names),)), plain)
    assert line.startswith("~ s.1, s.2, s.3, s.4, s.5, s.6 and 994 more  restart")
    assert 2 == line.count("and 994 more")
    assert [] == plan_lines(Plan(), plain)
