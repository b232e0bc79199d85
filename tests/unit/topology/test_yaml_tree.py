"""YAML as pbus reads it: lines, keys given twice, aliases, and nothing that explodes."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pbus.topology.parsing.scalars import plain_value
from support.topologies import WORKER, load_text, problems_of


def args_of(folder, text):
    """The arguments of a worker, written as YAML."""
    return (
        load_text(folder, f"workers:\n  a:\n    worker: w:W\n    args: {text}\n").workers["a"].args
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("off", "off"),
        ("0", 0),
        ("-12", -12),
        ("010", 10),
        ("0o10", 8),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("٣", "٣"),
        ("nan", "nan"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_text_is_core_schema(text, value):
    """Unquoted text means what YAML 1.2 says: no Norway, no octal, no sexagesimal, no dates."""
    assert (value, type(value)) == (plain_value(text), type(plain_value(text)))


def test_merges_anchored_mappings(tmp_path):
    """Anchors, aliases and merge keys work, and own keys win over merged ones."""
    topology = load_text(
        tmp_path,
        """
workers:
  a: &base
    worker: w:W
    restart: always
    args: &args {x: 1, y: 2}
  b:
    <<: *base
    restart: never
    args:
      y: 3
      <<: [{x: 4}, *args, {z: 5}]
  c:
    <<: [{replicas: 2}, *base]
""",
    )
    a, b, c = topology.workers.values()

    assert ("always", {"x": 1, "y": 2}) == (a.restart.policy, a.args)
    assert ("w:W", "never", {"x": 4, "y": 3, "z": 5}) == (b.worker, b.restart.policy, b.args)
    assert (2, "always") == (c.replicas, c.restart.policy)


def test_reports_merged_lines(tmp_path):
    """A problem in a merged key points to where it is written, each use named."""
    text = "workers:\n  a: &base\n    worker: w:W\n    replica: 1\n  b:\n    <<: *base\n"

    assert [
        f"topology.yaml:4: workers.{name}.replica: unknown key (did you mean `replicas`?)"
        for name in "ab"
    ] == problems_of(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: a\n" + WORKER + "name: b\n", "4: name: the key is given twice, first on line 1"),
        (WORKER + "  a: {}\n", "3: workers.a: the key is given twice, first on line 2"),
        (
            "workers: {a: {worker: 'w:W', args: {k: [{x: 1, x: 2}]}}}",
            "1: workers.a.args.k[0].x: the key is given twice, first on line 1",
        ),
        (WORKER + "1: x\n", "3: expected a text as key, got '1' (quote it)"),
        (WORKER + "true: x\n", "3: expected a text as key, got 'true' (quote it)"),
        (WORKER + "? [a]\n: x\n", "3: expected a text as key, got a list"),
        (WORKER + "bus: {? {a: b} : x}\n", "3: bus: expected a text as key, got a mapping"),
        (
            WORKER + "name: !custom x\n",
            "3: name: a tag (`!...`) is not supported; quote the value if the ! belongs to it",
        ),
        (
            WORKER + "name: !!python/object/apply:os.system [x]\n",
            "3: name: a tag (`!...`) is not supported; quote the value if the ! belongs to it",
        ),
        (
            WORKER + "name: !!binary aGk=\n",
            "3: name: a tag (`!...`) is not supported; quote the value if the ! belongs to it",
        ),
        (
            WORKER + "name: *x\n",
            "3: name: an alias (`*...`) has no anchor; quote the value if the * belongs to it",
        ),
        (
            "workers: {a: {worker: 'w:W', args: &x {k: [*x]}}}",
            (
                "1: workers.a.args.k[0]: an alias (`*...`) is inside the value it stands for; quote the"
                " value if the * belongs to it"
            ),
        ),
        (
            WORKER + "    \nbus:\n  <<: 5\n",
            "5: bus.'<<': expected a mapping to merge, or a list of them",
        ),
        (WORKER + "---\nname: b\n", "3: expected one YAML document, found a second"),
        (WORKER + 'name: "a\\0b"\n', "3: name: a NUL character is not allowed"),
        (WORKER + 'name: "a\\ud800b"\n', "3: name: half a surrogate pair is not allowed"),
    ],
)
def test_refuses_yaml_traps(tmp_path, text, problem):
    """What YAML allows and a topology does not is told with its line and key, once."""
    assert [f"topology.yaml:{problem}"] == problems_of(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a: b: c", "1: not valid YAML: mapping values are not allowed here"),
        ("workers:\n  a: [1,\nb: 2", "3: not valid YAML: "),
        ("name: 'open\n", "2: not valid YAML: found unexpected end of stream"),
        (
            "workers:\n\ta: 1\n",
            "2: not valid YAML: found character '\\t' that cannot start any token",
        ),
        ("name: \x01\n", "1: not valid YAML: character U+0001 is not allowed"),
        ("\n\nname: @x\n", "3: not valid YAML: found character '@' that cannot start any token"),
    ],
)
def test_places_syntax_errors(tmp_path, text, start):
    """Text that is no YAML is one problem with its line."""
    (problem,) = problems_of(tmp_path, text)

    assert problem.startswith(f"topology.yaml:{start}")


def test_explains_braces_in_lists(tmp_path):
    """A `${VAR}` without quotes inside [ ] is no YAML; the problem says what to do."""
    (problem,) = problems_of(tmp_path, "workers:\n  a:\n    command: [run, ${X}]\n")

    assert problem.endswith("(inside [ ] and { } put quotes around ${...})")


def test_explains_tabs(tmp_path):
    """A tab as indentation is told by its name."""
    (problem,) = problems_of(tmp_path, "workers:\n\ta: 1\n")

    assert problem.endswith("(indent with spaces, not with tabs)")


@pytest.mark.parametrize("text", ['name: "\\UFFFFFFFF"', f"%YAML {'9' * 5000}.1\n---\na: b"])
def test_survives_impossible_numbers(tmp_path, text):
    """Numbers on which the parser itself fails are a problem like any other."""
    assert [
        "topology.yaml: not valid YAML: an escape or a directive holds an impossible number"
    ] == problems_of(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "args: {a: &a [x, x, x, x, x, x, x, x, x, x], "
        + ", ".join(
            f"{key}: &{key} [{', '.join([f'*{below}'] * 10)}]"
            for below, key in zip("abcdefgh", "bcdefghi", strict=True)
        )
        + "}",
        "a: &a {k: v}\n" + "".join(f"k{n}: {{<<: *a}}\n" for n in range(40_000)),
        "a:\n" + "- x\n" * 60_000,
    ],
)
def test_bounds_billion_laughs(tmp_path, text):
    """Aliases are counted as if written out, so a short file cannot become a huge value."""
    started = time.process_time()
    (problem,) = problems_of(tmp_path, text)

    assert "more than 50,000 values, with aliases written out" in problem
    assert time.process_time() - started < 15


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_bounds_nesting(tmp_path, opening):
    """Nesting ends at a limit and not in a crash."""
    (problem,) = problems_of(tmp_path, opening * 5000)

    assert "nested more than 40 levels deep" in problem


def test_bounds_nesting_through_aliases(tmp_path):
    """Depth that aliases add up to counts like any other."""
    lines = ["k0: &a0 [x]"]
    lines += [f"k{n}: &a{n} [[[[[*a{n - 1}]]]]]" for n in range(1, 100)]
    (problem, *_) = problems_of(tmp_path, "\n".join(lines))

    assert "nested more than 40 levels deep" in problem


def test_allows_reused_anchors(tmp_path):
    """An anchor given again stands for the newer value from there on."""
    assert {"a": 1, "b": 1, "c": 2, "d": 2} == args_of(tmp_path, "{a: &x 1, b: *x, c: &x 2, d: *x}")


def test_takes_standard_tags(tmp_path):
    """Tags that only say what is there anyway are harmless, and `!!str` quotes."""
    assert {"a": "5", "b": [1], "c": {"d": 2}} == args_of(
        tmp_path, "{a: !!str 5, b: !!seq [1], c: !!map {d: 2}}"
    )


def test_reads_byte_order_mark(tmp_path):
    """Files of Windows editors load: a byte order mark, and its line ends."""
    text = b"\xef\xbb\xbf" + WORKER.replace("\n", "\r\n").encode()

    assert "workers:Greeter" == load_text(tmp_path, text).workers["a"].worker


YAMLISH = st.lists(
    st.sampled_from([
        *"[]{}:,-?*&!|>'\"%@` \n\t#$~",
        *("workers:", "  a:", "    worker: w:W", "    args: ", "bus: ", "url: redis://"),
        *("<<: ", "*x", "&x ", "!!str ", "!x ", "${X}", "${", "$$", "\n", "\n  ", "---\n"),
        *("env_file: ", "working_dir: ", "replicas: ", "999", ".nan", "0x", "null", "\\0", "é"),
    ]),
    max_size=30,
).map("".join)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(YAMLISH, YAMLISH.map(lambda text: WORKER + text), st.text(), st.binary()))
def test_raises_only_topology_errors(tmp_path, text):
    """Whatever is in the file, it loads or is refused with problems of one line each."""
    problems = problems_of(tmp_path, text, X="{x: [")

    assert all(problem and "\n" not in problem for problem in problems)
