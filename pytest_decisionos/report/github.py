"""The decision for GitHub Actions: annotations, step summary and step outputs.

Limits and escapes: GitHub Docs, "Workflow commands for GitHub Actions" and "Job summaries"
(10 annotations of a kind and 1 MiB of summary per step), actions/toolkit ``core/src/command.ts``.
"""

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from pytest_decisionos.errors import UsageError
from pytest_decisionos.model.decision import Decision, Verdict
from pytest_decisionos.report.comment import comment_markdown
from pytest_decisionos.report.text import plain, reason_text

MAX_ANNOTATIONS = 10
MAX_SUMMARY_BYTES = 1024 * 1024
_KINDS = {Verdict.GO: "notice", Verdict.HOLD: "warning", Verdict.NO_GO: "error"}
_EXIT_CODES = {Verdict.GO: 0, Verdict.NO_GO: 1, Verdict.HOLD: 10}
"""Of ``pytest gates/``, the run that writes step outputs."""


def command(kind: str, title: str, message: str) -> str:
    """A workflow command whose title and message stay what they are."""
    data = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = title.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = name.replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={name}::{data}"


def annotations(decision: Decision) -> list[str]:
    """The decision as at most ten workflow commands, the verdict first."""
    kind = _KINDS[decision.verdict]
    about = f"{plain(decision.target)}, release {plain(decision.release or '(none named)', 200)}"
    partial = "".join(f"; partial: {plain(why)}" for why in decision.partial[:3])
    verdict = f"{decision.verdict}, action {decision.action}: {about}{partial}"
    lines = [command(kind, f"Release gate: {decision.verdict}", verdict)]
    room = MAX_ANNOTATIONS - len(lines)
    shown = decision.reasons if len(decision.reasons) <= room else decision.reasons[: room - 1]
    for reason in shown:
        # On GO nothing that is left to say has decided.
        kind_of = "warning" if reason.outvoted or decision.verdict is Verdict.GO else kind
        lines.append(command(kind_of, plain(reason.code, 200), reason_text(reason)))
    left = len(decision.reasons) - len(shown)
    if left:
        lines.append(command("notice", "Release gate", f"... and {left:,} more reasons"))
    return lines


def write_step_summary(decision: Decision, path: Path) -> None:
    """Append the decision to the step summary at ``path``.

    Raises:
        UsageError: the file cannot be written, or would be longer than 1 MiB.
    """
    _append(path, f"\n{comment_markdown(decision)}\n".encode(), MAX_SUMMARY_BYTES)


def write_output(decision: Decision, path: Path) -> None:
    """Append the decision to the step outputs at ``path``: one line of text each.

    ``verdict action decision_id target phase release evidence_sha256 evidence_digest exit_code
    partial``; the exit code is that of ``pytest gates/``.

    Raises:
        UsageError: the file cannot be written.
    """
    release = "" if decision.release is None else plain(decision.release)
    values = {
        "verdict": str(decision.verdict),
        "action": str(decision.action),
        "decision_id": plain(decision.decision_id),
        "target": plain(decision.target),
        "phase": plain(decision.phase),
        "release": release,
        "evidence_sha256": plain(decision.evidence.sha256),
        "evidence_digest": plain(decision.evidence_digest),
        "exit_code": str(_EXIT_CODES[decision.verdict]),
        "partial": "true" if decision.partial else "false",
    }
    # A value that cannot guess the delimiter cannot end its own text and begin another output.
    end = f"END-{secrets.token_hex(16)}"
    text = "".join(f"{name}<<{end}\n{value}\n{end}\n" for name, value in values.items())
    _append(path, text.encode(), MAX_SUMMARY_BYTES)


def report_github(decision: Decision, environ: Mapping[str, str]) -> list[str]:
    """The lines to print under GitHub Actions, with summary and outputs written; else nothing.

    Args:
        decision: what to tell.
        environ: ``GITHUB_ACTIONS``, ``GITHUB_STEP_SUMMARY`` and ``GITHUB_OUTPUT`` are read.
    """
    if environ.get("GITHUB_ACTIONS") != "true":
        return []
    faults: list[str] = []
    for variable, write in (
        ("GITHUB_STEP_SUMMARY", write_step_summary),
        ("GITHUB_OUTPUT", write_output),
    ):
        if environ.get(variable):
            try:
                write(decision, Path(environ[variable]))
            except UsageError as fault:
                faults.append(command("warning", f"Release gate: {variable}", str(fault)))
    return [*annotations(decision)[: MAX_ANNOTATIONS - len(faults)], *faults]


def run_url(environ: Mapping[str, str]) -> str | None:
    """The page of this workflow run, whose artifacts hold the evidence; None elsewhere."""
    parts = [environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")]
    server, repository, run = parts
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else None


def _append(path: Path, data: bytes, limit: int) -> None:
    """Append ``data`` in one write, unless the file would grow beyond ``limit`` bytes."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK  # never wait for a pipe's reader
    try:
        descriptor = os.open(path, flags, 0o644)
        with os.fdopen(descriptor, "ab", buffering=0) as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise UsageError("not a regular file", file=path)
            if found.st_size + len(data) > limit:
                raise UsageError(
                    "no room for the decision", file=path, expected=f"at most {limit:,} bytes"
                )
            stream.write(data)
    except OSError as fault:
        raise UsageError(f"cannot be written: {fault.strerror}", file=path) from None
    except ValueError:  # an embedded null character in the name
        raise UsageError("not a file name", file=path) from None
