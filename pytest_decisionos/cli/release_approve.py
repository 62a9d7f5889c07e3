"""``dosctl release approve``: a deploy owner's signature over one decision."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_decisionos.cli.output import say
from pytest_decisionos.cli.releasing import here_of, where
from pytest_decisionos.errors import DecisionOSError, ExitCode, RefusedError, shown
from pytest_decisionos.judge.sign import first_fault
from pytest_decisionos.judge.verify import verify_bundle
from pytest_decisionos.release.approval import approve as make
from pytest_decisionos.release.decisions import CUTOVER, find, read_decision
from pytest_decisionos.release.here import LATEST
from pytest_decisionos.trust.ed25519 import load_private

_APPROVE = """\b
Examples:
  dosctl release approve latest --key ~/keys/deploy-owner.key
  dosctl release approve var/gate/bundle/ID --key ~/keys/deploy-owner.key
"""


@click.command(epilog=_APPROVE)
@click.argument("bundle", default=LATEST, metavar="[BUNDLE]")
@click.option(
    "--key", required=True, type=click.Path(path_type=Path), help="Private key of a deploy owner."
)
@click.option("--phase", default=CUTOVER, show_default=True, help="Of which the newest is meant.")
@click.option("--trust", type=click.Path(path_type=Path), help="Trust file.")
@where
def approve(  # noqa: PLR0917 - click passes each option by name
    bundle: str, key: Path, phase: str, trust: Path | None, root: Path | None, gate: Path | None
) -> None:
    """Approve a decision: gate.yaml says which steps need it, and of how many.

    The decision must verify, and one must still be able to act on it. BUNDLE is its folder, its id,
    or the newest. What is signed lies in gate/approval/ of the root folder.

    Needs the scope deploy:promote. Exit status: 0 done, 2 refused, 3 denied, 4 unusable.
    """
    here = here_of("dosctl release approve", root=root, gate=gate, trust=trust)
    here.require("deploy:promote")
    scope, root, now = "deploy:promote", here.asked.root, here.asked.now
    try:
        owner = load_private(key)
        trusted = here.trust()
        found = read_decision(find(root, bundle, phase))
        fault = first_fault(verify_bundle(found.files, trusted, now=now, fresh=True).findings)
        if fault is not None:
            raise RefusedError(f"does not verify: {fault.message}", field=fault.reason)
        path = make(root, found.claims, found.sha256, owner, trusted, now=now)
    except DecisionOSError as refused:
        code = "refused" if refused.exit_code is ExitCode.NO_GO else "unusable"
        here.record(scope, allowed=False, code=code, why=str(refused))
        raise
    claims = found.claims
    # The journal's decision_sha256 names what was acted on; an approval is no act yet.
    why = f"{claims.decision_id} of {claims.release}, by {owner.keyid}"
    here.record(
        scope, allowed=True, code="approved", why=why, decision_id=claims.decision_id,
        release=claims.release,
    )  # fmt: skip
    step = "" if claims.to_pct is None else f", {claims.from_pct or 0:g} → {claims.to_pct:g} %"
    say("approved", f"{claims.decision_id} of {claims.release}{step}")
    click.echo(f"→ {shown(str(path), 300)}")
