"""Every fault of an SLO file gives one clear line: never a rule, never a traceback."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_decisionos.errors import PolicyError
from pytest_decisionos.judge.gate import GateFile
from pytest_decisionos.model.policy_text import line_of, parse_policy
from pytest_decisionos.model.validate import faults
from pytest_decisionos.slo.compile import load_slo
from pytest_decisionos.slo.lint import lint
from pytest_decisionos.slo.schema import SloFile

DATA = Path(__file__).parents[1] / "data" / "slo"
FOLDERS = sorted(DATA.glob("fail_*"))
assert len(FOLDERS) > 50


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_one_fault_one_line(folder):
    (file,) = folder.glob("slo.*")
    expected = (folder / "expected.txt").read_text(encoding="utf-8").strip()
    with pytest.raises(PolicyError) as caught:
        load_slo(file)
    assert str(caught.value).startswith(str(file))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)

    (finding,) = lint(file)
    assert finding.severity == "error"
    assert str(finding) == str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("slo.json", b"[" * 100_000, "nested deeper than 64"),
        ("slo.json", b"[" * 70 + b"]" * 70, "nested deeper than 64"),
        ("slo.yaml", b"[" * 5000, "nested too deep"),
        ("slo.json", b'{"version": "' + b"x" * 1024 * 1024 + b'"}', "too large"),
        ("slo.yaml", b"#" * (1024 * 1024 + 1), "too large"),
        ("slo.json", b'{"latency": {"min_samples": ' + b"9" * 5000 + b"}}", "Exceeds the limit"),
        ("slo.yaml", b"latency: {min_samples: " + b"9" * 5000 + b"}", "Exceeds the limit"),
        ("slo.yaml", b"a: \x00", "not YAML: "),
    ],
    ids=["deep", "too deep", "deep yaml", "huge", "huge yaml", "digits", "digits yaml", "null"],
)
def test_hostile_bytes(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PolicyError) as caught:
        load_slo(tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_and_nothing(tmp_path):
    (finding,) = lint(tmp_path)
    assert "not a regular file" in str(finding)
    (finding,) = lint(tmp_path / "none.json")
    assert "no such file" in str(finding)


def test_all_faults_are_found_each_with_its_line(tmp_path):
    path = tmp_path / "slo.yaml"
    path.write_text(
        "latency:\n"
        "  max_p95_ms: -1\n"
        "  min_sample: 5\n"
        "eror:\n"
        "  max_error_rate: 0.1\n"
        "rules:\n"
        "  - id: 지연\n"
        "    metric: /perf/error_rate\n"
        "    op: <=\n"
        "    bound: null\n",
        encoding="utf-8",
    )
    found = {(finding.field, finding.line): finding for finding in lint(path)}
    assert set(found) == {
        ("latency.max_p95_ms", 2),
        ("latency.min_sample", 3),
        ("eror", 4),
        ("rules[0].id", 7),
        ("rules[0].bound", 10),
    }
    assert found["eror", 4].hint == "did you mean error?"
    assert found["latency.min_sample", 3].hint == "did you mean min_samples?"


@pytest.mark.parametrize("bound", ["{}", "{b: 1}", "[]", "[[]]", "null", "{float: 1}"])
def test_a_union_is_told_at_its_own_place(tmp_path, bound):
    path = tmp_path / "slo.yaml"
    path.write_text(f"rules:\n  - {{id: a, metric: /perf/count, op: in, bound: {bound}}}\n")
    (finding,) = lint(path)
    assert finding.field.removesuffix("[0]") == "rules[0].bound"
    assert finding.line == 2


def test_names_inside_unions_lists_and_maps_are_known_too():
    data = (
        b"target: {service: a, environment: b}\n"
        b"judges:\n"
        b"  - {id: a, pth: x}\n"
        b"phases:\n"
        b"  cutover:\n"
        b"    slos:\n"
        b"      - fil: x\n"
        b"        file: y\n"
    )
    found = faults(GateFile, parse_policy(data, Path("gate.yaml")), Path("gate.yaml"), data)
    told = {(fault.field, fault.line, fault.next_step) for fault in found}
    assert told == {
        ("judges[0].pth", 3, "did you mean path?"),
        ("phases.cutover.slos[0].fil", 7, "did you mean file?"),
    }


def test_thousands_of_faults_are_cut(tmp_path):
    path = tmp_path / "slo.json"
    path.write_text("{" + ",".join(f'"x{i}": 1' for i in range(500)) + "}", encoding="utf-8")
    assert len(lint(path)) == 100


def test_a_far_name_gets_no_suggestion():
    (fault,) = faults(SloFile, {"zzzzzzzz": 1}, Path("slo.json"), b'{"zzzzzzzz": 1}')
    assert fault.next_step is None


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 1),
        (("a", "b"), 2),
        (("a", "c", 0), 4),
        (("a", "c", 1, "d"), 5),
        (("a", "c", 9), 3),  # the nearest parent that is there
        (("a", "c", "x"), 3),
        (("a", "b", "under a scalar"), 2),
        (("none",), 1),
        ((), None),
    ],
)
def test_line_of(path, line):
    assert line_of(b"a:\n  b: 1\n  c:\n    - 5\n    - d: 6\n", path) == line


@pytest.mark.parametrize("data", [b"", b"\xff", b"a: [", b"[" * 5000, b"a: &x 1\nb: *y\n"])
def test_line_of_what_cannot_be_read(data):
    assert line_of(data, ("a",)) is None


def test_line_of_json_with_tabs():
    assert line_of(b'{\n\t"a": {\n\t\t"b": 1\n\t}\n}', ("a", "b")) == 3


# Anything that an editor may leave behind: valid pieces, put together by chance.
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.just("/perf/count"),
)
NAMES = st.sampled_from(
    [
        "latency",
        "max_p95_ms",
        "rules",
        "id",
        "metric",
        "op",
        "bound",
        "canary",
        "quorum",
        "k",
        "n",
        "x",
    ]
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_any_tree_is_a_policy_or_one_line_each(document):
    for fault in faults(SloFile, document, Path("slo.json"), b""):
        assert "\n" not in str(fault)
        assert str(fault).startswith("slo.json: ")


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="a:-?[]{},&*!|>%@#'\"\n\t ~<.0e1", max_size=40))
def test_any_yaml_text_is_a_value_or_one_line(text):
    try:
        parse_policy(text.encode(), Path("slo.yaml"))
        told = "slo.yaml"
    except PolicyError as fault:
        told = str(fault)
    assert "\n" not in told
    assert told.startswith("slo.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("+1", 1),
        ("1e3", 1000.0),
        ("1.5e-3", 0.0015),
        (".5", 0.5),
        ("5.", 5.0),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("2026-01-05", "2026-01-05"),
        ("2/3", "2/3"),
        ("<=", "<="),
    ],
)
def test_yaml_words_by_the_core_schema(text, value):
    found = parse_policy(f"a: {text}".encode(), Path("slo.yaml"))["a"]
    assert found == value
    assert type(found) is type(value)
