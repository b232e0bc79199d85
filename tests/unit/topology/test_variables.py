"""Variables in scalars: what expands, what stays, and what is an error."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus.topology.parsing.variables import MAX_NESTING, expand_text
from support.topologies import WORKER, load_text, problems_of

ENVIRON = {"NAME": "value", "EMPTY": "", "TRICKY": "a: [b\n- ${NAME} $$ #x"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("", ""),
        ("plain", "plain"),
        ("${NAME}", "value"),
        ("<${NAME}|${NAME}>", "<value|value>"),
        ("${NAME:-other}", "value"),
        ("${MISSING:-other}", "other"),
        ("${MISSING:-}", ""),
        ("${EMPTY}", ""),
        ("${EMPTY:-other}", "other"),
        ("${MISSING:-${NAME}}", "value"),
        ("${MISSING:-<${ALSO:-x}>}", "<x>"),
        ("${NAME:-${MISSING}}", "value"),
        ("${MISSING:-a$$b}", "a$b"),
        ("${MISSING:-a:-b}", "a:-b"),
        ("$$", "$"),
        ("$${NAME}", "${NAME}"),
        ("$$$${NAME}", "$${NAME}"),
        ("$$${NAME}", "$value"),
        ("$HOME costs $5 }", "$HOME costs $5 }"),
        ("$", "$"),
        ("${MISSING:-{}}", "{}"),
        ("${TRICKY}", "a: [b\n- ${NAME} $$ #x"),
    ],
)
def test_expands_like_shell(text, expanded):
    """Variables, defaults and escapes give what a shell user expects, once."""
    assert (expanded, []) == expand_text(text, ENVIRON)


@pytest.mark.parametrize(
    "text",
    [
        "${",
        "${}",
        "${NAME",
        "${1X}",
        "${NA ME}",
        "${NAME-x}",
        "${NAME:?x}",
        "${NAME:-x",
        "a ${b${c}}",
    ],
)
def test_refuses_malformed_expansions(text):
    """A `${` that is no expansion is an error that says how to write one."""
    _, complaints = expand_text(text, ENVIRON)

    assert 1 == len(complaints)
    assert "$${" in complaints[0]


def test_names_each_unset_variable():
    """All unset variables of one text are told, with the nearest that is set."""
    _, complaints = expand_text("${NAM} ${QQQ} ${NAME}", ENVIRON)

    assert [
        (
            "the variable NAM is not set; set it, or write a default: ${NAM:-...}"
            " (did you mean `NAME`?)"
        ),
        "the variable QQQ is not set; set it, or write a default: ${QQQ:-...}",
    ] == complaints


def test_bounds_nested_defaults():
    """Defaults within defaults end at a limit and not in a crash."""
    fine = "${A:-" * MAX_NESTING + "}" * MAX_NESTING
    deep = "${A:-" * 100_000

    assert ("", []) == expand_text(fine, {})
    assert ["more than 10 defaults within each other"] == expand_text(deep, {})[1]


@given(st.text(), st.dictionaries(st.text(string.ascii_uppercase, min_size=1), st.text()))
def test_escaped_text_stays(text, environ):
    """Any text comes through unchanged once its dollars are doubled."""
    assert (text, []) == expand_text(text.replace("$", "$$"), environ)


@given(st.text("${}:-AB ", max_size=40), st.sampled_from([{}, {"A": "1"}, {"A": "", "B": "${A}"}]))
def test_never_fails_on_text(text, environ):
    """Whatever is written, there is a text or a complaint."""
    expanded, complaints = expand_text(text, environ)

    assert isinstance(expanded, str)
    assert all(complaint and "\n" not in complaint for complaint in complaints)


@given(st.text(), st.text(), st.text())
def test_inserts_values_verbatim(before, value, after):
    """A value is inserted as it is and not read again."""
    text = f"{before.replace('$', '$$')}${{VALUE}}{after.replace('$', '$$')}"

    assert (before + value + after, []) == expand_text(text, {"VALUE": value})


def test_values_cannot_break_yaml(tmp_path):
    """YAML inside a variable stays text."""
    value = "x'\"\n  b: {worker: evil:Evil} # & * ! |"
    topology = load_text(
        tmp_path,
        "workers:\n  a:\n    worker: w:W\n    args:\n      plain: ${V}\n      quoted: '${V}'\n"
        "    env: {V: '${V}'}\n",
        V=value,
    )

    assert ["a"] == list(topology.workers)
    assert {"plain": value, "quoted": value} == topology.workers["a"].args
    assert {"V": value} == topology.workers["a"].env


def test_unquoted_results_get_types(tmp_path):
    """What stands without quotes is a number or a truth value after expansion, as in YAML."""
    topology = load_text(
        tmp_path,
        "bus:\n  max_message_bytes: ${BYTES}\n  url: ${URL:-}\n  channel: ${N}\n"
        "workers:\n  a:\n    command:\n    - run\n    - ${N}\n    - ${NO:-}\n    replicas: ${N}\n"
        "    active: ${NO:-false}\n    joins: ${YES}\n    env:\n      N: ${N}\n"
        "  b:\n    worker: w:W\n    replicas: ${NO:-}\n"
        "    args: {n: 0, list: ['${N}']}\n"
        "  c:\n    worker: w:W\n    args:\n      n: ${N}\n      t: ${NO:-true}\n      q: '${N}'\n"
        "      nothing: ${NO:-}\n      part: ${N}x\n",
        N="3",
        BYTES="2048",
        YES="yes",
    )
    a, b, c = topology.workers.values()

    assert (2048, None, "3") == (
        topology.bus.max_message_bytes,
        topology.bus.url,
        topology.bus.channel,
    )
    assert (3, False, True) == (a.replicas, a.active, a.joins)
    assert (("run", "3", ""), {"N": "3"}) == (a.command, a.env)
    assert (None, {"n": 0, "list": ["3"]}) == (b.replicas, b.args)
    assert {"n": 3, "t": True, "q": "3", "nothing": None, "part": "3x"} == c.args


def test_quoted_results_stay_text(tmp_path):
    """Quotes around an expansion keep it text, so it is no number."""
    text = "workers:\n  a:\n    worker: w:W\n    replicas: '${N}'\n"

    assert [
        "topology.yaml:4: workers.a.replicas: expected a whole number from 1 to 1000, got '${N}'"
    ] == problems_of(tmp_path, text, N="3")


def test_reports_every_unset_variable(tmp_path):
    """Unset variables are told with line and key, beside all other problems, and only once."""
    text = (
        "name: ${PROJECT}\n"
        + WORKER
        + "    \n  b:\n    worker: w:W\n    replicas: ${N}\n    x: 1\n"
    )

    assert [
        (
            "topology.yaml:1: name: the variable PROJECT is not set; set it, or write a default:"
            " ${PROJECT:-...}"
        ),
        (
            "topology.yaml:7: workers.b.replicas: the variable N is not set; set it, or write a default:"
            " ${N:-...}"
        ),
        (
            "topology.yaml:8: workers.b.x: unknown key (known here: worker, command, stdio, joins, pipecat, args, env,"
            " env_file, working_dir, active, replicas, depends_on, ready, health, restart, success_exit_codes, on_exit, limits, start, stop, watch, sends_to, profiles, process, extends)"
        ),
    ] == problems_of(tmp_path, text)


def test_keys_stay_unexpanded(tmp_path):
    """Only values expand."""
    topology = load_text(tmp_path, "workers: {a: {worker: 'w:W', args: {'${X}': 1}}}")

    assert {"${X}": 1} == topology.workers["a"].args


@pytest.mark.parametrize("value", ["a\0b", "a\udcffb"])
def test_refuses_impossible_values(tmp_path, value):
    """A value that no process could be given is refused, unseen."""
    problems = problems_of(tmp_path, "name: x\n" + WORKER + "    \nbus: {channel: '${V}'}", V=value)

    assert 1 == len(problems)
    assert problems[0].startswith("topology.yaml:5: bus.channel: after expansion, ")
