"""The files of a decision: ``decision.json``, ``junit.xml`` and ``comment.md``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pytest_decisionos.errors import UsageError, shown
from pytest_decisionos.hookspecs import plugins
from pytest_decisionos.model import strict_json
from pytest_decisionos.report.comment import comment_markdown
from pytest_decisionos.report.junit import junit_xml
from pytest_decisionos.trust.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_decisionos.model.decision import Decision

DECISION, JUNIT, COMMENT = "decision.json", "junit.xml", "comment.md"


def publish(
    decision: Decision, folder: Path, *, write_decision: bool, evidence_url: str | None = None
) -> list[Path]:
    """Write the files of ``decision`` into ``folder``, each whole or not at all.

    An earlier ``decision.json`` goes first and the new one comes last: whatever fails on the way,
    none that contradicts the other files is left.

    Args:
        decision: what to write.
        folder: made if it is missing.
        write_decision: whether to write ``decision.json``; a partial run writes none.
        evidence_url: where a reader of the comment finds the evidence, if it can be reached.

    Returns:
        The files written.

    Raises:
        UsageError: a file cannot be written or removed.
    """
    _remove(folder / DECISION)
    files = {
        JUNIT: junit_xml(decision),
        COMMENT: comment_markdown(decision, evidence_url=evidence_url).encode(),
    }
    if write_decision:
        files[DECISION] = decision_json(decision)
    for name, data in files.items():
        write_atomic(folder / name, data)
    return [folder / name for name in files]


def tell_reporters(decision: Decision, folder: Path) -> list[str]:
    """Call the reporters that other packages add; a line for each that raised.

    Args:
        decision: what to report.
        folder: where their files go.
    """
    lines: list[str] = []
    for plugin in plugins().hook.decisionos_report.get_hookimpls():
        given = {"decision": decision, "folder": folder}
        try:
            plugin.function(*(given[name] for name in plugin.argnames))
        except KeyboardInterrupt:
            raise
        except BaseException as fault:  # noqa: BLE001 - foreign code; it must not change the story
            lines.append(f"warning: reporter {plugin.plugin_name} raised {shown(repr(fault), 200)}")
    return lines


def decision_json(decision: Decision) -> bytes:
    """``decision`` as indented JSON that ``Decision`` reads back; half surrogates are escaped."""
    try:
        return (decision.model_dump_json(indent=2) + "\n").encode()
    except ValueError:  # half a surrogate pair, which a file name that is not UTF-8 brings along
        return strict_json.dumps(_told(decision.model_dump(mode="json"))).encode()


def _told(value: Any) -> Any:
    """``value`` as JSON in UTF-8 can tell it: half surrogates escaped, non-finite numbers null."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _told(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_told(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def withdraw(folder: Path) -> None:
    """Remove the files of an earlier run; that there are none is fine.

    Raises:
        UsageError: one is there and cannot be removed.
    """
    for name in (DECISION, JUNIT, COMMENT):
        _remove(folder / name)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as fault:
        raise UsageError(f"cannot be removed: {fault.strerror}", file=path) from None
    except ValueError:  # an embedded null character in the name
        raise UsageError("not a file name", file=path) from None
