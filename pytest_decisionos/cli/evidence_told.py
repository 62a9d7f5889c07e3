"""How ``dosctl evidence build`` and ``harvest`` tell what they measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pytest_decisionos.cli.output import echo_json
from pytest_decisionos.errors import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def tell(path: Path, document: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what stands in the document that was written to ``path``."""
    if as_json:
        echo_json(_digested(path, document))
    else:
        click.echo(_table(path, document))


def _digested(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    integrity = document.get("integrity") or {}
    return {
        "evidence": str(path),
        "sha256": integrity.get("signature_sha256"),
        "key_id": (integrity.get("mac") or {}).get("key_id"),
        "window": (document.get("meta") or {}).get("window"),
        "counts": {
            name: document[name]["count"] for name in ("perf", "perf_judge") if name in document
        },
        "sources": [
            {key: source[key] for key in ("role", "name", "rows", "bad_rows", "unterminated")}
            for source in document["witness"]["sources"]
        ],
    }


def _table(path: Path, document: Mapping[str, Any]) -> str:
    """What was measured, at most 80 columns wide."""
    canary = document.get("canary") or {}
    lines = [f"{'':<14}{'requests':>11}{'p50 ms':>11}{'p95 ms':>11}{'p99 ms':>11}{'errors':>11}"]
    rows = {
        "service": document.get("perf"),
        "  control": canary.get("control_perf"),
        "  canary": canary.get("canary_perf"),
        "judge": document.get("perf_judge"),
    }
    for name, block in rows.items():
        if block is not None:
            latency = [_cell(value, ",.1f") for value in block["latency_ms"].values()]
            cells = [f"{block['count']:,}", *latency, _cell(block["error_rate"], ".3%")]
            lines.append(f"{name:<14}" + "".join(f"{cell:>11}" for cell in cells))
    if canary:
        deltas = canary["deltas"]
        windows = canary["windows"]
        lines += [
            "canary − control: "
            + ", ".join(
                f"{name} {_cell(deltas[key], form)}"
                for name, key, form in (
                    ("p95", "p95_rel", "+.1%"),
                    ("errors", "error_delta", "+.3%"),
                    ("signature errors", "sig_error_delta", "+.4%"),
                )
            ),
            f"windows: {len(windows)}, bursts: {sum(window['burst'] for window in windows)}",
        ]
    for source in document["witness"]["sources"]:
        left_out = sum(one["rows"] for one in source["filters"])
        lines.append(
            f"{source['role']:<9} {shown(source['name'], 30)}: {source['rows']:,} rows,"
            f" {left_out:,} filtered"
            + (f", {source['bad_rows']:,} unreadable" if source["bad_rows"] else "")
            + (", last line unfinished" if source["unterminated"] else "")
        )
    if "integrity" in document:
        mac = document["integrity"].get("mac")
        lines.append(f"seal: MAC of key {mac['key_id']}" if mac else "seal: digest only, unsigned")
    return "\n".join([*lines, f"→ {shown(str(path), 300)}"])


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
