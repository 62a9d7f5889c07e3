"""A model's faults in words: where, what, and nothing of pydantic's own."""

from typing import Annotated

import pytest
from pydantic import Field, ValidationError, model_validator

from pytest_decisionos.errors import EvidenceError, UnusableInputError
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.target import Target
from pytest_decisionos.model.validate import first_fault, strict_model, validate


class Part(Frozen):
    name: Annotated[str, Field(min_length=2)] = "ab"


class Whole(Frozen):
    parts: tuple[Part, ...] = ()

    @model_validator(mode="after")
    def _few(self):
        if len(self.parts) > 2:
            raise ValueError("more than two parts")
        return self


def fault_of(model, document):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(document)
    return first_fault(caught.value)


def test_where_and_what():
    found = fault_of(Whole, {"parts": [{}, {"name": "a"}]})
    assert (found.path, found.field, found.found) == (("parts", 1, "name"), "parts[1].name", "a")
    assert found.words == "String should have at least 2 characters"


def test_a_fault_of_the_whole_has_no_field():
    found = fault_of(Whole, {"parts": [{}] * 3})
    assert (found.words, found.path, found.field) == ("more than two parts", (), None)


def test_an_empty_text_is_said_to_be_empty():
    assert fault_of(Part, {"name": ""}).words == "empty"
    with pytest.raises(UnusableInputError) as caught:
        validate(Part, {"name": ""}, "part.json", b'{"name": ""}')
    assert str(caught.value) == "part.json:1: name: empty"


def test_json_as_a_model():
    assert strict_model(Part, b'{"name": "xy"}', "part").name == "xy"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"parts": [{"name": 1}]}', "whole: parts[0].name: Input should be a valid string"),
        (b'{"parts": [{}, {}, {}]}', "whole: more than two parts"),
        (b'{"parts": 1}', "whole: parts: not a list"),
        (b"[]", "whole: not an object of fields"),
        (b'{"parts": [], "parts": []}', "whole: duplicate key"),
        (b"{", "whole:1: not JSON"),
        (b" " * 100, "whole: too large"),
    ],
)
def test_json_that_is_no_model(data, says):
    with pytest.raises(EvidenceError) as caught:
        strict_model(Whole, data, "whole", EvidenceError, max_bytes=80)
    assert str(caught.value).startswith(says)


# The target

PARTS = {"service": "checkout", "environment": "production", "region": "eu-1", "tenant": "all"}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("part", ["", "x" * 129, 1, None])
def test_what_is_no_part_of_a_target(name, part):
    assert fault_of(Target, PARTS | {name: part}).path == (name,)


def test_a_target_reads_as_its_four_parts():
    parts = {"service": "결제 b", "environment": "a\n", "region": "*", "tenant": ".."}
    assert str(Target(**parts)).split("/") == list(parts.values())
