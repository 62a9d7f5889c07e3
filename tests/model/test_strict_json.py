"""JSON that two readers could read differently is refused; what is read is read exactly."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_decisionos.errors import EvidenceError, UnusableInputError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.strict_json import MISSING

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
@settings(max_examples=150)
def test_what_is_written_is_read(value):
    assert strict_json.loads(strict_json.dumps(value).encode()) == value
    assert strict_json.loads(b"\xef\xbb\xbf" + json.dumps(value).encode()) == value


@given(
    st.binary(max_size=40)
    | st.text('{}[]":,0123456789eE+-.truefalsn\\u d8', max_size=40).map(str.encode)
)
@settings(max_examples=400)
def test_anything_is_a_value_or_one_line(data):
    try:
        strict_json.loads(data, file="x.json")
    except UnusableInputError as fault:
        assert str(fault).startswith("x.json")
        assert "\n" not in str(fault)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty file"),
        (b"  \n", "empty file"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b'{"\\u0061": 1, "a": 2}', "duplicate key 'a'"),
        (b"NaN", "not finite"),
        (b"[-Infinity]", "not finite"),
        (b"[1e400]", "not finite"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b"[" * 65 + b"]" * 65, "nested deeper"),
        (b"[" * 100_000, "nested deeper"),
        (b"1" * 5000, "digit"),
        (b"1 2", "Extra data"),
    ],
)
def test_refused_by_name(data, says):
    with pytest.raises(EvidenceError, match=says) as caught:
        strict_json.loads(data, file="증거.json", error=EvidenceError)
    assert "증거.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(UnusableInputError, match="no such file"):
        strict_json.read(path)
    with pytest.raises(UnusableInputError, match="not a regular file"):
        strict_json.read(tmp_path)
    with pytest.raises(UnusableInputError, match="no such file"):
        strict_json.read(tmp_path / "a\0b")
    with pytest.raises(UnusableInputError, match="cannot be read|no such file"):
        strict_json.read(tmp_path / ("x" * 300))
    path.write_bytes(b'"' + b"x" * 100 + b'"')
    with pytest.raises(UnusableInputError, match="too large"):
        strict_json.read(path, max_bytes=50)
    with pytest.raises(UnusableInputError, match="too large"):
        strict_json.loads(path.read_bytes(), max_bytes=50)
    assert strict_json.read(path) == ("x" * 100, path.read_bytes())


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/a/b", 1), ("/a~1b", 2), ("/m~0n", 3), ("/l/0", 4), ("/l/01", MISSING), ("/l/-", MISSING), ("/l/9", MISSING),
        ("/l/99999999999", MISSING), ("/a/b/c", MISSING), ("/none", MISSING), ("/n", None), ("/l/٣", MISSING),
    ],
)  # fmt: skip
def test_pointers(pointer, value):
    document = {"a": {"b": 1}, "a/b": 2, "m~n": 3, "l": [4], "n": None}
    assert strict_json.at(document, pointer) == value or strict_json.at(document, pointer) is value
    assert repr(MISSING) == "nothing"


@pytest.mark.parametrize(
    ("value", "places"),
    [(1, 0), (0.5, 1), (0.005, 3), (1e-7, 7), (1.5e-7, 8), (1e20, -20), (123.25, 2), (1e15, 0)],
)
def test_decimals(value, places):
    assert strict_json.decimals(value) == places
