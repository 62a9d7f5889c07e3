"""What pydantic found wrong with a file → one error with path, line and nearest name."""

from __future__ import annotations

import difflib
import typing
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from pytest_decisionos.errors import PolicyError, UnusableInputError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.policy_text import line_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[str | int, ...]

# pydantic says these in Python's words.
_TYPES = {
    "model_type": "not an object of fields",
    "dict_type": "not an object of fields",
    "tuple_type": "not a list",
}


class Fault(NamedTuple):
    """One thing that is wrong with a value.

    Attributes:
        words: what.
        path: where in it; empty is the value as a whole.
        found: what stands there. It may be a secret.
    """

    words: str
    path: Location
    found: Any

    @property
    def field(self) -> str | None:
        """The path as people write it; None for the value as a whole."""
        return dotted(self.path) or None


def first_fault(fault: ValidationError) -> Fault:
    """The first thing that ``fault`` tells, in words without pydantic's own prefix."""
    first = fault.errors(include_url=False, include_context=False)[0]
    return Fault(_words(first), first["loc"], first["input"])


def _words(fault: ErrorDetails) -> str:
    if fault["type"] == "string_too_short" and not fault["input"]:
        return "empty"
    return _TYPES.get(fault["type"], fault["msg"].removeprefix("Value error, "))


def strict_model(
    model: type[Model],
    data: bytes,
    file: object,
    error: type[UnusableInputError] = UnusableInputError,
    *,
    max_bytes: int = strict_json.MAX_BYTES,
) -> Model:
    """The JSON in ``data`` as ``model``.

    Args:
        model: what it should be.
        data: the document's bytes.
        file: named in errors.
        error: the class of error to raise.
        max_bytes: longer documents are refused.

    Raises:
        UnusableInputError: (as ``error``) as ``strict_json.loads``, or it is no such model.
    """
    document = strict_json.loads(data, file=file, error=error, max_bytes=max_bytes)
    try:
        return model.model_validate(document)
    except ValidationError as invalid:
        fault = first_fault(invalid)
        raise error(fault.words, file=file, field=fault.field) from None


def faults(
    model: type[BaseModel],
    document: object,
    file: Path,
    data: bytes,
    error: type[UnusableInputError] = PolicyError,
) -> list[UnusableInputError]:
    """Every fault of ``document`` held against ``model``, in the order of the file's fields."""
    if not isinstance(document, dict):
        what = "nothing in it" if document is None else _TYPES["model_type"]
        expected = f"fields such as {', '.join(list(model.model_fields)[:3])}"
        return [error(what, file=file, found=_short(document), expected=expected)]
    try:
        model.model_validate(document)
    except ValidationError as invalid:
        found: dict[Location, UnusableInputError] = {}
        for fault in invalid.errors(include_url=False, include_context=False):
            location = _in_document(fault, document)
            # Each member of a union complains about the same place: the first one speaks.
            if location not in found:
                found[location] = _as_error(model, fault, location, file, data, error)
        # And one that got further into the same place knows better what was meant.
        outer = {location[:depth] for location in found for depth in range(len(location))}
        return [fault for location, fault in found.items() if location not in outer]
    return []


def validate(
    model: type[Model],
    document: object,
    file: Path,
    data: bytes,
    error: type[UnusableInputError] = PolicyError,
) -> Model:
    """``document`` as ``model``.

    Raises:
        UnusableInputError: (as ``error``) the first fault, with its path, line and, for an unknown field, the nearest
            known name.
    """
    try:
        return model.model_validate(document)
    except ValidationError:
        raise faults(model, document, file, data, error)[0] from None


def _as_error(  # noqa: PLR0917 - called in one place
    model: type[BaseModel],
    fault: ErrorDetails,
    location: Location,
    file: Path,
    data: bytes,
    error: type[UnusableInputError],
) -> UnusableInputError:
    kind = fault["type"]
    line = line_of(data, location)
    field = dotted(location) or None
    if kind == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        return error(
            "unknown field",
            file=file,
            line=line,
            field=field,
            expected=f"one of {', '.join(known)}",
            next_step=f"did you mean {near[0]}?" if near else None,
        )
    if kind == "missing":
        return error("a required field is missing", file=file, line=line, field=field)
    if kind == "value_error":  # our own: the message says what was found
        return error(_words(fault), file=file, line=line, field=field)
    found = _short(fault["input"])
    return error(_words(fault), file=file, line=line, field=field, found=found)


def _short(value: object) -> object:
    if value == "":  # the words say so
        return None
    return (
        f"{type(value).__name__} with {len(value)} entries"
        if isinstance(value, dict | list)
        else value
    )


def dotted(location: Sequence[str | int]) -> str:
    """A location as people write it: ``rules[0].bound``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _in_document(fault: ErrorDetails, document: object) -> Location:
    """Where ``fault`` stands, without the union members that pydantic names inside it."""
    location = fault["loc"]
    path: list[str | int] = []
    value: Any = document
    for index, part in enumerate(location):
        lacking = fault["type"] == "missing" and index == len(location) - 1
        if isinstance(value, dict) and (part in value or lacking):
            path.append(part)
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            path.append(part)
            value = value[part]
    return tuple(path)


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The names of the fields that may stand at ``location``."""
    kinds: list[Any] = [model]
    for part in location:
        step: list[Any] = []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                if isinstance(part, str) and part in kind.model_fields:
                    step += _members(kind.model_fields[part].annotation)
            else:
                step += [m for argument in typing.get_args(kind) for m in _members(argument)]
        kinds = step
    return sorted(
        {
            n
            for k in kinds
            if isinstance(k, type) and issubclass(k, BaseModel)
            for n in k.model_fields
        }
    )


def _members(annotation: Any) -> list[Any]:
    """The types that an annotation may stand for, unions and ``Annotated`` opened."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin is typing.Union or str(origin) == "<class 'types.UnionType'>":
        return [m for argument in typing.get_args(annotation) for m in _members(argument)]
    return [annotation]
