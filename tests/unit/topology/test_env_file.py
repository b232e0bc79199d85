"""Environment files as Docker Compose reads them: the cases it publishes, and what users wrote."""

from pathlib import Path

import pytest

from pbus.errors import TopologyError
from pbus.topology.parsing.env_file import EnvFiles, expand_references
from pbus.topology.problems import Place, Problems

ENVIRON = {"SET": "outer", "EMPTY": ""}

# One line each: its text, the name, the value.
PUBLISHED = [
    ("FOO=bar", "FOO", "bar"),
    ("FOO =bar", "FOO", "bar"),
    ("FOO= bar", "FOO", "bar"),
    ("FOO=bar ", "FOO", "bar"),
    ('FOO="bar"', "FOO", "bar"),
    ("FOO='bar'", "FOO", "bar"),
    (r'FOO="escaped\"bar"', "FOO", 'escaped"bar'),
    (r'FOO="\"quoted\""', "FOO", '"quoted"'),
    ("FOO=\"'d'\"", "FOO", "'d'"),
    ("OPTION_A: 1", "OPTION_A", "1"),
    ("OPTION_A: Foo=bar", "OPTION_A", "Foo=bar"),
    ("OPTION_A=1:B", "OPTION_A", "1:B"),
    ("export OPTION_A=2", "OPTION_A", "2"),
    (r"export OPTION_B='\n'", "OPTION_B", r"\n"),
    ("export exportFoo=2", "exportFoo", "2"),
    ("exportFOO=2", "exportFOO", "2"),
    ("export_FOO =2", "export_FOO", "2"),
    ("export.FOO= 2", "export.FOO", "2"),
    ("export\tOPTION_A=2", "OPTION_A", "2"),
    ("  export OPTION_A=2", "OPTION_A", "2"),
    ("\texport OPTION_A=2", "OPTION_A", "2"),
    ('export OPTION_A="export A"', "OPTION_A", "export A"),
    (r'FOO="bar\nbaz"', "FOO", "bar\nbaz"),
    (r"FOO=a\tb", "FOO", r"a\tb"),
    (r'FOO="a\tb"', "FOO", "a\tb"),
    (r"FOO='some\tvalue'", "FOO", r"some\tvalue"),
    (r'KEY="Z\aZ\bZ\fZ\nZ\rZ\tZ\vZ\\Z\0123Z"', "KEY", "Z\aZ\bZ\fZ\nZ\rZ\tZ\vZ\\ZSZ"),
    ("FOO.BAR=foobar", "FOO.BAR", "foobar"),
    ("FOO=foobar=", "FOO", "foobar="),
    ("FOO=bar # this is foo", "FOO", "bar"),
    ("FOO=bar #this is foo", "FOO", "bar"),
    ("FOO=bar #", "FOO", "bar"),
    ("FOO=123#not-an-inline-comment", "FOO", "123#not-an-inline-comment"),
    ('FOO="bar#baz"', "FOO", "bar#baz"),
    ('FOO="bar#baz"#', "FOO", "bar#baz"),
    ('FOO="bar#baz" # comment', "FOO", "bar#baz"),
    ("FOO='bar#baz' # comment", "FOO", "bar#baz"),
    ('FOO="bar#baz#bang" # comment', "FOO", "bar#baz#bang"),
    ("FOO='ba#r'", "FOO", "ba#r"),
    (r'FOO="bar\n\ b\az"', "FOO", "bar\n\\ b\az"),
    (r'FOO="bar\\\n\ b\az"', "FOO", "bar\\\n\\ b\az"),
    (r'FOO="bar\\r\ b\az"', "FOO", "bar\\r\\ b\az"),
    (r'FOO="bar\nbaz\\"', "FOO", "bar\nbaz\\"),
    (" KEY =value", "KEY", "value"),
    ("\tKEY=value", "KEY", "value"),
    (r'KEY="\0123"', "KEY", "S"),
    (r'KEY="\x07"', "KEY", r"\x07"),
    (r'KEY="\u12e4"', "KEY", r"\u12e4"),
    (r'KEY="\U00101234"', "KEY", r"\U00101234"),
    (r"VAR='Let\'s go!'", "VAR", "Let's go!"),
    (r'VAR="{\"hello\": \"json\"}"', "VAR", '{"hello": "json"}'),
    ("VAR='$OTHER'", "VAR", "$OTHER"),
    ("VAR='${OTHER}'", "VAR", "${OTHER}"),
    ("VAR-WITH-DASHES=dashes", "VAR-WITH-DASHES", "dashes"),
    ("a[1]=c", "a[1]", "c"),
    ("árvíztűrő-TÜKÖRFÚRÓGÉP=ÁRVÍZTŰRŐ", "árvíztűrő-TÜKÖRFÚRÓGÉP", "ÁRVÍZTŰRŐ"),
    ("TEST_URLS='first\nsecond'", "TEST_URLS", "first\nsecond"),
    (r'FOO="foo\$BAR"', "FOO", "foo$BAR"),
    (r'FOO="foo\${BAR}"', "FOO", "foo${BAR}"),
    ("TEST=$SET", "TEST", "outer"),
]
REPORTED = [
    ("V=#general", "V", "#general"),
    ("V= #general", "V", "#general"),
    (r'V="^\d+\s*$"', "V", r"^\d+\s*$"),
    (r'V="C:\Users\me"', "V", r"C:\Users\me"),
    (r"V=C:\new\table", "V", r"C:\new\table"),
    (r"V='^\d+\s*$'", "V", r"^\d+\s*$"),
    ("V=100$", "V", "100$"),
    ("V=a$$b", "V", "a$b"),
    ('V=say "hi"', "V", 'say "hi"'),
    ("V=", "V", ""),
    ('V=""', "V", ""),
]


def read(tmp_path: Path, text: str) -> tuple[dict[str, str], list[str]]:
    """The variables of a file with this text, and what is wrong with it."""
    file = tmp_path / "vars"
    file.write_text(text)
    problems = Problems(tmp_path / "topology.yaml")
    variables = EnvFiles(tmp_path, problems, ENVIRON).read("vars", Place(1, ""))
    try:
        problems.raise_if_any()
    except TopologyError as error:
        return variables, list(error.problems)
    return variables, []


@pytest.mark.parametrize(("line", "name", "value"), PUBLISHED + REPORTED)
def test_lines_are_read_as_compose_reads_them(tmp_path: Path, line: str, name: str, value: str):
    """Each alone, and between others."""
    assert {name: value} == read(tmp_path, line)[0]
    assert {"_A": "1", name: value, "_Z": "2"} == read(tmp_path, f"_A=1\n{line}\n#\n\n_Z=2")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FOO=test\nBAR=$FOO", {"FOO": "test", "BAR": "test"}),
        ("FOO=test\nBAR=${FOO}bar", {"FOO": "test", "BAR": "testbar"}),
        ("BAR=$FOO", {"BAR": ""}),
        ('FOO=test\nBAR="quote $FOO"', {"FOO": "test", "BAR": "quote test"}),
        ("BAR='quote $FOO'", {"BAR": "quote $FOO"}),
        ('FOO=test\nBAR="foo\\${FOO} ${FOO}"', {"FOO": "test", "BAR": "foo${FOO} test"}),
        ("SET=inner\nBAR=${SET}_$SET", {"SET": "inner", "BAR": "outer_outer"}),
        ("foo=bar\nSET\nUNSET\nbar=baz", {"foo": "bar", "SET": "outer", "bar": "baz"}),
        ("\r\n\t\t \n# Comment\n\t # comment\n", {}),
    ],
)
def test_files_refer_to_what_is_known(tmp_path: Path, text: str, expected: dict[str, str]):
    """To earlier lines and to the environment, which goes before; a name alone passes it on."""
    assert (expected, []) == read(tmp_path, text)


@pytest.mark.parametrize(
    ("reference", "unset", "empty", "full"),
    [
        (":-x y", "x y", "x y", "F"),
        ("-x y", "x y", "", "F"),
        (":+x", "", "", "x"),
        ("+x", "", "x", "x"),
        (":-${FULL}!", "F!", "F!", "F"),
        ("", "", "", "F"),
    ],
)
def test_references_have_defaults(reference: str, unset: str, empty: str, full: str):
    """For a variable that is not set, one that is empty, and one that has a value."""
    known = {"EMPTY": "", "FULL": "F"}
    names = ("UNSET", "EMPTY", "FULL")

    assert [unset, empty, full] == [
        expand_references(f"${{{name}{reference}}}", known) for name in names
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('KEY="', "expected one quoted value"),
        ('KEY="value', "expected one quoted value"),
        (r'KEY="value\"', "expected one quoted value"),
        ("KEY=\"value'", "expected one quoted value"),
        (r"KEY='value\'", "expected one quoted value"),
        ("lol$wut", "expected NAME=VALUE"),
        ("two words=value", "expected NAME=VALUE"),
        ('="value"', "expected NAME=VALUE"),
        ("KEY=${UNSET:?say it}", "the variable UNSET is required: say it"),
        ("KEY=${EMPTY:?}", "the variable EMPTY is required: it is not set"),
        ("KEY=${UNSET", "`${` without its `}`"),
    ],
)
def test_wrong_lines_are_told(tmp_path: Path, line: str, problem: str):
    """With their number; the others are read all the same, and the value is never quoted."""
    variables, said = read(tmp_path, f"A=1\n{line}\nZ=2\n")

    assert {"A": "1", "Z": "2"} == variables
    assert [f"{tmp_path}/vars:2"] == [line.partition(": ")[0] for line in said]
    assert problem in said[0]
    assert "value" not in said[0].replace("quoted value", "").replace("VALUE", "")
