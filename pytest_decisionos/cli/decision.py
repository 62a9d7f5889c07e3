"""``dosctl decision``: judge again from files alone, and sign what is GO."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_decisionos.cli.gathered import EXIT, judged
from pytest_decisionos.cli.output import echo_json, say
from pytest_decisionos.cli.trusted import must_keys, must_trust
from pytest_decisionos.errors import RefusedError, UsageError, shown
from pytest_decisionos.judge.gate import load_gate
from pytest_decisionos.judge.gather import Request
from pytest_decisionos.model.decision import Verdict
from pytest_decisionos.settings import from_environment
from pytest_decisionos.trust import rbac
from pytest_decisionos.trust.sources import ring_of

if TYPE_CHECKING:
    from pytest_decisionos.judge.sign import Signed, Step
    from pytest_decisionos.model.decision import Decision

_SIGN = """\b
Example:
  export DECISIONOS_ALLOW_SCOPES=judge:run
  dosctl decision sign --keys ~/keys --trust /etc/decisionos/trust.json \\
    --from-pct 5 --to-pct 25
"""

_POLICY = """\b
Example:
  dosctl trust add --policy "$(dosctl decision policy --phase cutover)"
"""


@click.group()
def decision() -> None:
    """Sign decisions, and tell the policy they are made by."""


@decision.command(epilog=_SIGN)
@click.option(
    "--keys", type=click.Path(path_type=Path), help="Folder of gate.key and judge-ID.key."
)
@click.option("--trust", type=click.Path(path_type=Path), help="Trust file it must verify by.")
@click.option("--evidence", type=click.Path(path_type=Path), help="Evidence document.")
@click.option("--gate", type=click.Path(path_type=Path), help="Gate configuration.")
@click.option("--root", type=click.Path(path_type=Path), help="Root folder of the target.")
@click.option("--phase", default=None, help="Phase of gate.yaml.")
@click.option(
    "--from-pct",
    type=click.FloatRange(0, 100),
    metavar="PCT",
    help="Traffic it has.  [default: as the stage says]",
)
@click.option(
    "--to-pct",
    type=click.FloatRange(0, 100),
    metavar="PCT",
    help="Traffic it may have next.  [default: as the policy says]",
)
@click.option("--without-tests", is_flag=True, help="Sign although no pytest run was made on it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sign(  # noqa: PLR0917 - click passes each option by name
    keys: Path | None,
    trust: Path | None,
    evidence: Path | None,
    gate: Path | None,
    root: Path | None,
    phase: str | None,
    from_pct: float | None,
    to_pct: float | None,
    without_tests: bool,
    as_json: bool,
) -> int:
    """Judge from files alone, write the bundle, and sign it if it is GO.

    Runs no code of the checkout. A pytest run on the same evidence that says no is a veto, and
    without a whole one nothing is signed unless --without-tests says so. Without options it uses
    DECISIONOS_KEYS_DIR, DECISIONOS_TRUST and the defaults of `judge quorum`.

    Needs the scope judge:run. Exit status: 0 signed, 2 NO-GO or refused, 3 denied, 4 unusable
    input, 10 HOLD.
    """
    from pytest_decisionos.judge.sign import load_keys, veto_of  # noqa: PLC0415 - loads keys
    from pytest_decisionos.judge.sign import sign as make  # noqa: PLC0415 - the same

    settings = from_environment()
    rbac.require(settings.allow_scopes, "judge:run")
    for option, share in (("--from-pct", from_pct), ("--to-pct", to_pct)):
        if share is not None and not math.isfinite(share):  # which click lets through
            raise UsageError("not a percentage", field=option, found=share)
    folder, now = must_keys(keys, settings), datetime.now(UTC)
    trusted = must_trust(trust, settings, now)
    request = Request(
        root=root or settings.root,
        gate=gate or settings.gate,
        phase=phase or settings.phase,
        now=now,
        evidence=evidence or settings.evidence,
        ring=ring_of(settings),
        # Whom the bundle must convince decides whose verdicts are believed here.
        settings=settings.model_copy(update={"trust": trust or settings.trust}),
    )
    inputs, found = judged(request)
    tests, veto = veto_of(request.root / "gate" / "decision.json", found)
    if found.verdict is Verdict.GO and (tests is not None or not without_tests) and veto:
        raise RefusedError(
            f"not signed: {veto}",
            file=request.root / "gate" / "decision.json",
            next_step="run `pytest gates/` on this evidence"
            + ("" if tests else ", or sign with --without-tests"),
        )
    signed = make(
        inputs,
        found,
        request.gate.parent,
        load_keys(folder, [one.id for one in inputs.judges if one.source != "remote"]),
        trusted,
        step=_bound(request, from_pct, to_pct)._replace(tests_sha256=tests or None),
        max_age_sec=settings.decision_max_age,
        bundles=request.root / "gate" / "bundle",
    )
    _tell(signed, found, as_json=as_json)
    return EXIT[found.verdict]


@decision.command(epilog=_POLICY, short_help="Print the digest of a phase's policy.")
@click.option("--gate", type=click.Path(path_type=Path), help="Gate configuration.")
@click.option("--phase", default=None, help="Phase of gate.yaml.")
def policy(gate: Path | None, phase: str | None) -> None:
    """Print policy_sha256: the digest of gate.yaml and a phase's SLO files together.

    The trust file lists the policies that may be decided by.
    """
    from pytest_decisionos.judge.bundled import policy_digest  # noqa: PLC0415 - costs start-up
    from pytest_decisionos.slo.compile import load_slo  # noqa: PLC0415 - the same

    settings = from_environment()
    loaded = load_gate(gate or settings.gate)
    folder = Path(loaded.file).parent
    files = [folder / one.file for one in loaded.phase(phase or settings.phase).slo_files()]
    slos = {slo.stem: slo.sha256 for slo in map(load_slo, files)}
    if len(slos) != len(files):
        raise UsageError("two SLO files have one name", file=loaded.file, field="slos")
    click.echo(policy_digest(loaded.sha256, slos))


def _bound(request: Request, from_pct: float | None, to_pct: float | None) -> Step:
    """The step that a GO is for, by the stage that is there."""
    from pytest_decisionos.cli.releasing import here_of  # noqa: PLC0415 - only signing needs it
    from pytest_decisionos.release.outlook import bound_to  # noqa: PLC0415 - the same

    here = here_of("dosctl decision sign", root=request.root, gate=request.gate)
    return bound_to(here, request.ring, from_pct, to_pct)


def _tell(signed: Signed, found: Decision, *, as_json: bool) -> None:
    claims = signed.claims
    if as_json:
        told = {"bundle": str(signed.folder), "signed": signed.signed}
        echo_json(told | claims.model_dump(mode="json"))
        return
    until = f", until {claims.expires_at.isoformat(timespec='seconds')}" if signed.signed else ""
    click.echo(
        f"{claims.verdict}, {claims.action}: {'signed' if signed.signed else 'unsigned'}{until}"
    )
    for reason in [one for one in found.reasons if not one.outvoted][:3]:
        say("reason", f"{reason.code}: {reason.message}")
    click.echo(f"→ {shown(str(signed.folder), 300)}")
