"""A policy file as text → its value, and the line where each path of it stands."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import yaml

from pytest_decisionos.errors import PolicyError, shown
from pytest_decisionos.model import strict_json

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from pathlib import Path

MAX_BYTES = 1024 * 1024


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that means what JSON means, with what JSON forbids forbidden.

    Refused: aliases, merge keys, duplicate keys, non-finite numbers. Plain words are read by the
    core schema of YAML 1.2.2 §10.3.2, without its octal and hexadecimal numbers: YAML 1.1, which
    PyYAML reads by itself, makes 8 of ``010``, 90 of ``1:30``, true of ``yes``, and text of
    ``1e3``. Times stay text: a waiver's ``expires`` means what its author wrote.
    """

    # PyYAML's name and type: first character → tags and patterns to try.
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own name and type

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: ARG002 - PyYAML's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a key must be text", problem_mark=key.start_mark
                )
            if key.value == "<<":
                problem = "merge keys are not allowed"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"duplicate key {shown(key.value)!r}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=True)


def _finite_float(loader: _StrictLoader, node: yaml.ScalarNode) -> float:
    value = float(loader.construct_yaml_float(node))
    if not math.isfinite(value):
        problem = f"number {shown(node.value)} is not finite"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return value


_StrictLoader.add_constructor("tag:yaml.org,2002:float", _finite_float)
for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$",
        list("-+.0123456789"),
    ),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def is_yaml(path: Path) -> bool:
    """Whether the file name says YAML; everything else is JSON."""
    return path.suffix.lower() in {".yaml", ".yml"}


def read_policy(path: Path, *, next_step: str | None = None) -> tuple[Any, bytes]:
    """Read one JSON or YAML policy file strictly: its value, and its bytes (for the digest).

    Raises:
        PolicyError: missing, too large, not JSON or YAML, a duplicate key, an alias, a
            non-finite number, more than one document.
    """
    data = strict_json.read_bytes(path, error=PolicyError, max_bytes=MAX_BYTES, next_step=next_step)
    return parse_policy(data, path), data


def parse_policy(data: bytes, path: Path) -> Any:
    """Parse the bytes of a policy file strictly; see ``read_policy``."""
    if not is_yaml(path):
        return strict_json.loads(data, file=path, error=PolicyError, max_bytes=MAX_BYTES)
    try:
        text = data.decode("utf-8-sig")
        return yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader, made stricter
    except UnicodeDecodeError as fault:
        found = f"byte 0x{data[fault.start]:02x} at {fault.start}"
        raise PolicyError("not UTF-8", file=path, found=found) from None
    except yaml.MarkedYAMLError as fault:
        line = fault.problem_mark.line + 1 if fault.problem_mark else None
        raise PolicyError(f"not YAML: {fault.problem}", file=path, line=line) from None
    except yaml.YAMLError as fault:
        raise PolicyError(f"not YAML: {shown(str(fault), 200)}", file=path) from None
    except (RecursionError, ValueError) as fault:  # nested too deep; integer beyond the digit limit
        what = "nested too deep" if isinstance(fault, RecursionError) else str(fault)
        raise PolicyError(what, file=path) from None
    except (LookupError, AttributeError, TypeError):  # PyYAML's answers to a tag that does not fit
        raise PolicyError(
            "not YAML: a value is not of the type that its tag says", file=path
        ) from None


@lru_cache(maxsize=1)  # every fault of one file asks
def _tree(data: bytes) -> yaml.Node | None:
    try:
        # JSON may be indented by tabs; YAML may not.
        text = data.decode("utf-8-sig").replace("\t", " ")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def line_of(data: bytes, path: Sequence[str | int]) -> int | None:
    """The line (from 1) where ``path`` stands in the text, or the nearest of its parents.

    JSON is read as YAML here, which it is but for rare spellings; None where that fails.
    """
    node = _tree(data)
    line: int | None = None
    for part in path:
        if node is None:
            break
        line = node.start_mark.line + 1 if line is None else line
        if isinstance(node, yaml.MappingNode):
            pair = next((p for p in node.value if p[0].value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
