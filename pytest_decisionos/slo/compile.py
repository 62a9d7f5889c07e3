"""Policy file → rules. A rule exists only for what is stated; a file without one is an error."""

from __future__ import annotations

import difflib
import glob
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_decisionos.errors import PolicyError, UsageError
from pytest_decisionos.model.policy import Rule, Slo
from pytest_decisionos.model.policy_text import line_of, read_policy
from pytest_decisionos.model.validate import validate
from pytest_decisionos.slo.blocks import block_rules, custom_rule
from pytest_decisionos.slo.schema import SloFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_FILES = 1000


def load_slo(path: Path) -> Slo:
    """Read and compile one SLO file (JSON or YAML).

    Raises:
        PolicyError: it cannot be read, breaks the schema, or compiles to no rule.
    """
    document, data = read_policy(path)
    return compile_slo(document, data, path)


def compile_slo(document: object, data: bytes, path: Path) -> Slo:
    """Compile one SLO file that was read already.

    Args:
        document: its value.
        data: its bytes; for the digest, and for the lines that errors name.
        path: where it was read from.

    Raises:
        PolicyError: it breaks the schema, or compiles to no rule.
    """
    spec = validate(SloFile, document, path, data)
    rules = compile_rules(spec, path, data)
    stated = {rule.id: rule for rule in rules}
    for index, waiver in enumerate(spec.waivers):
        base = stated.get(waiver.rule.partition("[")[0])
        rule = stated.get(waiver.rule) or (base if base and base.for_each else None)
        if rule is not None and rule.waivable:
            continue
        near = difflib.get_close_matches(waiver.rule, stated, n=1, cutoff=0.5)
        raise PolicyError(
            "integrity, freshness and witness cannot be waived"
            if rule is not None
            else "waives a rule that this file does not have",
            file=path,
            line=line_of(data, ("waivers", index, "rule")),
            field=f"waivers[{index}].rule",
            found=waiver.rule,
            next_step=f"did you mean {near[0]}?" if rule is None and near else None,
        )
    return Slo(
        stem=path.name.rsplit(".", 1)[0],
        file=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        version=spec.version,
        rules=tuple(rules),
        quorum=spec.quorum,
        on_inconclusive=spec.on_inconclusive,
        max_wait_sec=spec.max_wait_sec,
        waivers=spec.waivers,
    )


def compile_rules(spec: SloFile, path: Path, data: bytes = b"") -> list[Rule]:
    """The rules that ``spec`` states, sorted by id.

    Raises:
        PolicyError: it states none, or a rule asks for what its metric does not have.
    """
    level = spec.confidence.level if spec.confidence else None
    rules = sorted(
        (_with_level(rule, level) for rule in _rules(spec, path, data)), key=lambda rule: rule.id
    )
    if not rules:
        raise PolicyError(
            "compiles to no rule",
            file=path,
            next_step="state at least one bound; see `dosctl slo schema`",
        )
    return rules


def expand_globs(patterns: Iterable[str]) -> list[Path]:
    """SLO file names and globs → files, sorted within each glob, each once.

    Raises:
        UsageError: a pattern matches nothing, or everything matches too much.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        exact = Path(pattern)
        names = [pattern]
        if glob.has_magic(pattern) and not exact.exists():
            names = sorted(glob.glob(pattern))  # noqa: PTH207 - pathlib has no absolute patterns
        if not names:
            raise UsageError("no SLO file matches", found=pattern)
        found.update(dict.fromkeys(Path(name) for name in names))
        if len(found) > MAX_FILES:
            raise UsageError(
                "too many SLO files", found=len(found), expected=f"at most {MAX_FILES}"
            )
    return list(found)


def _with_level(rule: Rule, level: float | None) -> Rule:
    if level is None or rule.limits is None or rule.op == "==":
        return rule
    text = f"{rule.text}, proven at {level:.0%} confidence"
    return rule.model_copy(update={"level": level, "text": text})


def _rules(spec: SloFile, path: Path, data: bytes) -> Iterator[Rule]:
    yield from block_rules(spec)
    for index, custom in enumerate(spec.rules):
        try:
            yield custom_rule(custom)
        except ValueError as fault:
            raise PolicyError(
                str(fault),
                file=path,
                line=line_of(data, ("rules", index, "metric")),
                field=f"rules[{index}].metric",
                found=custom.metric,
            ) from None
