"""Write evidence/<scenario>.json: what the code makes today of each sample scenario.

The logs end at a fixed time, so the documents are the same on every run; they are too old to be
judged by a gate today. Usage: python scripts/sample_evidence.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pytest_decisionos.evidence.build import Inputs, build_evidence, forge_sample, write_evidence
from pytest_decisionos.harvest.options import Options
from pytest_decisionos.harvest.sample import SCENARIOS, write_sample
from pytest_decisionos.judge.gate import load_gate
from pytest_decisionos.release.canary_policy import load_policy

CHECKOUT = Path(__file__).parents[1]
END = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
SEED = 7


def sample_evidence(scenario: str, logs: Path, out: Path) -> None:
    """Write the logs of ``scenario`` into ``logs``, and their evidence to ``out``."""
    write_sample(logs, seed=SEED, scenario=scenario, end=END)
    if scenario == "evil-evidence":
        forge_sample(logs, now=END).replace(out)
        return
    policy = load_policy(CHECKOUT / "configs/canary/policy.json")
    inputs = Inputs(
        reqlog=(logs / "reqlog.csv",),
        judgelog=(logs / "judgelog.csv",),
        peer=(logs / "lb.csv",),
        blocks={name: logs / f"{name}.json" for name in ("budget", "quota", "usage")},
        target=load_gate(CHECKOUT / "configs/gate.yaml").target,
        options=Options(
            burst_threshold=policy.burst_threshold, ewma_tolerance=policy.ewma_tolerance
        ),
    )
    write_evidence(out, build_evidence(inputs, now=END))


def main(folder: Path) -> None:
    """Write the evidence of every scenario into ``folder``."""
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory() as logs:
            sample_evidence(scenario, Path(logs), folder / f"{scenario}.json")
        sys.stdout.write(f"{folder / scenario}.json\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / "evidence")
