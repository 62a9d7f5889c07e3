"""What a cutover needs beside traffic: keys, trust file, gate, SLO, canary policy, and what moves traffic."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from demo.nginx import program
from pytest_decisionos.cli.main import cli, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHECKOUT: Final = Path(__file__).parents[1]
BASELINE: Final = "v1"
RELEASE: Final = "v2"
WINDOW_SEC: Final = 10
"""The shortest window that a harvest has."""

SLO: Final[Mapping[str, Any]] = {
    "version": "demo",
    "description": "The canary against the control, with samples as small as seconds give.",
    "latency": {"max_p95_ms": 1200, "min_samples": 100},
    "canary": {
        "thresholds": {"max_error_abs_delta": 0.03},
        "min_sample_count": 90,
        "guardband_minutes": 0,
    },
    "witness": {"require_csv_sha256": True, "require_signature": True, "min_rows": 100},
    "integrity": {"require_signature": True},
}
_POLICY: Final[Mapping[str, Any]] = {
    "consecutive_passes": 1,
    "consecutive_failures": 3,
    "grace_burst": 0,
    "burst_threshold": 4.0,
    "ewma_tolerance": 4.0,
    "max_step_pct": 25,
    "holdback_pct_min": 5,
    "min_share": 0.5,
    "stickiness": "cookie:user",
    "max_looks": 1,
    "max_window_gap_sec": 30,
    "max_age_sec": 120,
    "cooldown_sec": 300,
}
_JUDGES: Final = {"evidence": "evidence", "witness": "log"}
_ROLES: Final = (
    ("gate", None),
    ("judge", "evidence"),
    ("judge", "witness"),
    ("index", None),
    ("deploy-owner", None),
)


class Keys(NamedTuple):
    """Keys of one demo, which all its targets share.

    Attributes:
        folder: of the private keys.
        ring: the HMAC keys of evidence and stage.
        trust: whose signature counts.
    """

    folder: Path
    ring: Path
    trust: Path


def make_keys(folder: Path) -> Keys:
    """Make every key, and the trust file that lets its signatures count.

    Raises:
        RuntimeError: a command fails.
    """
    folder.mkdir(mode=0o700)
    keys = Keys(folder, folder / "ring.json", folder / "trust.json")
    _dosctl("keys", "gen", "--use", "evidence", "--use", "stage", "--ring", keys.ring)
    _dosctl("trust", "init", "--out", keys.trust, "--expires", "1d")
    for role, judge in _ROLES:
        whose = ["--role", role, *(["--judge", judge] if judge else [])]
        _dosctl("keys", "gen", *whose, "--keys", folder)
        public = folder / f"{role}{f'-{judge}' if judge else ''}.pub"
        _dosctl("trust", "add", keys.trust, "--key", public, *whose, "--target", "checkout/*/*/*")
    _dosctl("trust", "add", keys.trust, "--policy", "any")
    return keys


def _dosctl(*words: object) -> None:
    """A command in this process, where starting one each would take the most time."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = run(cli, [str(word) for word in words])
    if status:
        raise RuntimeError(f"dosctl {words[0]} {words[1]} ended with {status}: {said.getvalue()}")


class Project:
    """One target's folder: configs/ and var/, and the environment in which its commands run."""

    def __init__(
        self, folder: Path, name: str, keys: Keys, *, steps: Sequence[float], judges: Sequence[str]
    ) -> None:
        self.name = name
        self.keys = keys
        self.root = folder / "var"
        self.configs = folder / "configs"
        self.state_dir = folder / "state"
        self.target = {"service": "checkout", "environment": "demo", "region": "local"}
        self.target["tenant"] = name
        self.last = steps[-1]
        for made in (self.root, self.configs / "slo", self.configs / "canary"):
            made.mkdir(parents=True)
        self._write("slo/slo-demo.json", SLO)
        self._write("gate.yaml", self._gate(judges))
        schedule = [{"pct": pct, "min_duration_sec": 5} for pct in steps]
        self._write("canary/policy.json", {**_POLICY, "step_schedule": schedule})
        self._write("freeze.yaml", {"zone": "Asia/Seoul"})
        labels = (CHECKOUT / "configs/labels.json").read_text(encoding="utf-8")
        (self.configs / "labels.json").write_text(labels, encoding="utf-8")

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        (self.configs / name).write_text(json.dumps(document, indent=2))  # JSON is YAML

    def _gate(self, judges: Sequence[str]) -> dict[str, Any]:
        slos = [{"file": "slo/slo-demo.json", "quorum": f"{len(judges)}/{len(judges)}"}]
        blocks = ["meta", "witness", "perf", "canary", "integrity"]
        approval = {"from_pct": 100, "count": 1}
        return {
            "version": 1,
            "target": self.target,
            "judges": [{"id": name, "source": _JUDGES[name]} for name in judges],
            "phases": {
                "cutover": {"slos": slos, "require_blocks": blocks, "approval": approval},
            },
        }

    def write_rollout(self, port: int, control: int, releases: Mapping[str, int]) -> dict[str, Any]:
        """Write rollout.yaml; its settings of nginx.

        Args:
            port: where users come in.
            control: where nginx says what it does.
            releases: where which release listens.
        """
        nginx: dict[str, Any] = {
            "listen": [f"127.0.0.1:{port}"],
            "control": f"127.0.0.1:{control}",
            "releases": {name: [f"127.0.0.1:{where}"] for name, where in releases.items()},
            "sticky": _POLICY["stickiness"],
            "program": [program() or "nginx"],
            **({"user": "root"} if os.geteuid() == 0 else {}),
        }
        self._write("rollout.yaml", {"version": 1, "adapter": "nginx", "nginx": nginx})
        return nginx

    def environment(self) -> dict[str, str]:
        """In which people and cron would run the commands."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("DECISIONOS_")}
        return {
            **clean,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "DECISIONOS_ROOT": str(self.root),
            "DECISIONOS_GATE": str(self.configs / "gate.yaml"),
            "DECISIONOS_STATE_DIR": str(self.state_dir),
            "DECISIONOS_JUDGE_KEYS": f"@{self.keys.ring}",
            "DECISIONOS_KEYS_DIR": str(self.keys.folder),
            "DECISIONOS_TRUST": str(self.keys.trust),
            "DECISIONOS_ALLOW_SCOPES": "judge:run,deploy:promote,deploy:abort",
            "DECISIONOS_ACTOR": "데모",
            "DECISIONOS_RELEASE": RELEASE,
            "DECISIONOS_BASELINE_RELEASE": BASELINE,
            "PYTHONUTF8": "1",
        }
