"""The digest covers every value, and no spelling."""

from __future__ import annotations

import copy
import hashlib
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_decisionos.evidence.digest import digest

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from(["meta", "perf", "usage", "한글"]), values)


def test_the_formula_that_existing_documents_carry():
    blocks = {"b": {"y": 1.0, "x": "한"}, "a": [1, None]}
    text = '{"a": [1, null], "b": {"x": "한", "y": 1.0}}'
    assert digest(blocks) == hashlib.sha256(text.encode()).hexdigest()
    assert digest(blocks | {"integrity": {"mac": 1}, "rating": None}) == digest(blocks)
    assert digest({}) == hashlib.sha256(b"{}").hexdigest()


@settings(max_examples=100)
@given(documents, st.randoms(use_true_random=False))
def test_another_spelling_is_no_change(document, draw):
    shuffled = list(document.items())
    draw.shuffle(shuffled)
    again = json.loads(json.dumps(dict(shuffled), ensure_ascii=draw.random() < 0.5, indent=2))
    assert digest(again) == digest(document)


@settings(max_examples=100)
@given(documents.filter(bool), st.data())
def test_any_other_value_is_a_change(document, data):
    name = data.draw(st.sampled_from(sorted(document)))
    changed = copy.deepcopy(document)
    changed[name] = data.draw(values)
    same = json.dumps(changed, sort_keys=True) == json.dumps(document, sort_keys=True)
    assert (digest(changed) == digest(document)) is same


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800"])
def test_what_has_no_digest(value):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own and unicode's own
        digest({"meta": value})
