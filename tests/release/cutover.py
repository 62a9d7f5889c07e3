"""A release's desk: keys, policy, sealed evidence of a healthy canary, and an adapter that writes down.

Everything is real but the clock, which stands at ``NOW``; of a live desk it is the real one, and
its commands run as processes.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import canary_cases
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pytest_decisionos.evidence import seal
from pytest_decisionos.judge import sign as signing
from pytest_decisionos.judge.decide import decide
from pytest_decisionos.judge.gather import Request, gather
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.release import audit
from pytest_decisionos.release.here import Here
from pytest_decisionos.release.repair import Asked
from pytest_decisionos.release.stage import change_stage, read_stage
from pytest_decisionos.testing import NOW, TARGET
from pytest_decisionos.trust import dsse, ed25519, journal
from pytest_decisionos.trust.ed25519 import PrivateKey
from pytest_decisionos.trust.keys import make_ring, ring_json
from pytest_decisionos.trust.trustfile import TrustFile

CHECKOUT = Path(__file__).parents[2]
SINCE = canary_cases.SINCE
RELEASE, BASELINE = "2026.01.1", "2026.01.0"
KEY = {"key_id": "k1", "secret": "made-up for tests, of 32 bytes or more", "state": "active"}
RING = make_ring([KEY | {"use": ["evidence", "stage"]}], "test ring")
MOVE = """#!/bin/sh
ulimit -S -f unlimited
test -e "$DECISIONOS_ROOT/kills" && rm "$DECISIONOS_ROOT/kills" && kill -9 $PPID && sleep 5
test -e "$DECISIONOS_ROOT/stuck" && exit 1
test -e "$DECISIONOS_ROOT/fails-once" && rm "$DECISIONOS_ROOT/fails-once" && exit 1
echo "$DECISIONOS_PCT $DECISIONOS_SHADOW $DECISIONOS_RELEASE $DECISIONOS_BASELINE_RELEASE" \
  >> "$DECISIONOS_ROOT/moved"
"""
TELL = """#!/bin/sh
test -e "$DECISIONOS_ROOT/tells" && exec cat "$DECISIONOS_ROOT/tells"
echo '{"pct": 10, "release": "2026.01.1", "baseline_release": "2026.01.0"}'
"""


def key(name):
    """The private key of a name: made-up, and the same every time."""
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def trust(**changes):
    """The trust file; ``changes`` are of keys, by name."""
    listed = {
        "gate": {"role": "gate"},
        "evidence": {"role": "judge", "judge": "evidence"},
        "owner": {"role": "deploy-owner"},
        "owner2": {"role": "deploy-owner"},
        "operator": {"role": "operator"},
        "operator2": {"role": "operator"},
    }
    keys = [
        {"keyid": key(n).keyid, "public_key": key(n).public.pem, "targets": ["checkout/*/*/*"]}
        | spec
        | changes.get(n, {})
        for n, spec in listed.items()
    ]
    return TrustFile.model_validate(
        {"version": 1, "expires": "2100-01-01T00:00:00Z", "keys": keys, "policy_sha256": ["*"]}
    )


def shifted(value, by):
    """A JSON value with all its times so much later."""
    if isinstance(value, dict):
        return {name: shifted(one, by) for name, one in value.items()}
    if isinstance(value, list):
        return [shifted(one, by) for one in value]
    time = parse_time(value)
    return value if time is None else (time + by).isoformat()


class Desk:
    def __init__(self, folder: Path, *, live: bool = False) -> None:
        self.folder, self.root, self.configs = folder, folder / "var", folder / "configs"
        self.now, self.scopes, self.ring = NOW, "deploy:*", RING
        self.later = timedelta()
        if live:
            self.now = datetime.now(UTC).replace(microsecond=0)
            self.later = self.now - NOW
        self.trust = trust()
        (self.configs / "slo").mkdir(parents=True)
        (self.configs / "canary").mkdir()
        self.root.mkdir()
        shutil.copy(CHECKOUT / "configs/labels.json", self.configs)
        self.write("slo/slo-canary.json", canary_cases.SLO)
        post = {k: v for k, v in canary_cases.SLO.items() if k != "canary"}
        self.write("slo/slo-post.json", post)
        self.gate()
        self.policy()
        self.write("freeze.yaml", {"zone": "Asia/Seoul"})
        for name, text in (("move", MOVE), ("tell", TELL)):
            script = folder / name
            script.write_text(text)
            script.chmod(0o755)
        self.rollout()
        self.evidence()

    # What lies there

    def write(self, name, document):
        path = self.configs / name
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    def gate(self, **cutover):
        def phase(slo, **more):
            return {"slos": [f"slo/{slo}.json"], "require_blocks": ["meta", "perf"], **more}

        spec = {
            "target": TARGET.model_dump(),
            "judges": [{"id": "evidence", "source": "evidence"}],
            "phases": {"cutover": phase("slo-canary", **cutover), "post": phase("slo-post")},
        }
        return self.write("gate.yaml", spec)

    def policy(self, **changes):
        document = json.loads((CHECKOUT / "configs/canary/policy.json").read_text())
        return self.write("canary/policy.json", document | changes)

    def rollout(self, **changes):
        command = {"argv": [str(self.folder / "move")], "report": [str(self.folder / "tell")]}
        return self.write("rollout.yaml", {"adapter": "command", "command": command, **changes})

    def evidence(self, blocks=None, **how):
        blocks = shifted(blocks or canary_cases.evidence(**how), self.later)
        path = self.root / "evidence/latest.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(seal.sealed(blocks, RING, now=self.now)))
        return path

    def stage(self, stage="canary", pct=10.0, *, audited=True, **more):
        """Bring the stage there over all that lies before it, each change as old as the step is."""
        way = [{"stage": "stable", "release": BASELINE}]
        if stage != "stable":
            first = {"stage": "canary", "release": RELEASE}
            way.append(first | ({"pct": pct} if stage == "canary" else {}))
        if stage in {"promote", "abort"}:
            way.append({"stage": stage})
        way[-1] = way[-1] | more
        how = {"ring": RING, "state_dir": self.folder / "state"}
        for changes in way:
            with change_stage(self.root, target=TARGET, now=SINCE + self.later, **how) as changer:
                made = changer.write(**changes)
        if audited:
            at = {"time": SINCE + self.later, "actor": "테스트", "command": "test", "allowed": True}
            entry = audit.AuditEntry(**at, code="made", to=audit.at(made), release=made.release)
            assert audit.record(self.root, entry) == ""
        return self.reading

    @property
    def reading(self):
        return read_stage(
            self.root, target=TARGET, ring=RING, state_dir=self.folder / "state", now=self.now
        )

    # What is done

    def asked(self):
        return Asked(
            root=self.root,
            target=TARGET,
            ring=lambda: self.ring,
            state_dir=self.folder / "state",
            scopes=self.scopes,
            actor="민수",
            now=self.now,
        )

    def here(self, command="test"):
        return Here(
            asked=self.asked(),
            command=command,
            gate=self.configs / "gate.yaml",
            evidence=self.root / "evidence/latest.json",
            trust=lambda: self.trust,
            max_age_sec=900.0,
        )

    def sign(self, to_pct=25.0, *, phase="cutover", now=None, by="gate", trusted=None, **step):
        """Sign what the evidence gives, as `dosctl decision sign` does; the bundle's folder."""
        request = Request(
            root=self.root,
            gate=self.configs / "gate.yaml",
            phase=phase,
            now=now or self.now - timedelta(seconds=1),
            ring=RING,
        )
        inputs = gather(request)
        decision = decide(inputs)
        reading = self.reading
        bound = {"from_pct": reading.pct, "to_pct": to_pct, "stage_sha256": reading.sha256}
        policy = self.configs / "canary/policy.json"
        bound["canary_policy_sha256"] = hashlib.sha256(policy.read_bytes()).hexdigest()
        keys = signing.SigningKeys(key(by), {"evidence": key("evidence")})
        return signing.sign(
            inputs,
            decision,
            self.configs,
            keys,
            trusted or self.trust,
            step=signing.Step(**bound | step),
            max_age_sec=900,
            bundles=self.root / "gate/bundle",
        ).folder

    def sign_again(self, folder, change=None, by="gate"):
        """Put another envelope into a bundle: signed by somebody else, or by nobody."""
        path = folder / "decision.json"
        envelope = dsse.parse(path.read_bytes())
        path.chmod(0o644)
        path.write_bytes(dsse.sign(envelope.payload, [key(by)] if by else []))

    def lines(self):
        found = journal.read(self.root / audit.FILE)
        assert found.fault is None
        return [
            entry
            for entry in found.entries
            if entry["command"] == "test" and entry["actor"] == "민수"
        ]

    def told(self):
        """What the journal tells of: (code, allowed, stage after)."""
        return [
            (e["code"], e["allowed"], e["to"] and (e["to"]["stage"], e["to"]["pct"]))
            for e in self.lines()
        ]

    @property
    def moved(self):
        """What the adapter was asked for, one after another: pct, shadow, release, baseline."""
        path = self.root / "moved"
        return path.read_text().splitlines() if path.exists() else []

    # As people do it

    def keys(self):
        """Keys and trust file on disk, and the variables that name them."""
        folder = self.folder / "keys"
        folder.mkdir(mode=0o700)
        ring = folder / "ring.json"
        ring.write_bytes(ring_json(RING))
        ring.chmod(0o600)
        names = {"gate": "gate", "judge-evidence": "evidence", "deploy-owner": "owner"}
        names |= {"operator": "operator", "operator2": "operator2"}
        for file, name in names.items():
            ed25519.write_private(folder / f"{file}.key", key(name))
        trusted = folder / "trust.json"
        trusted.write_text(self.trust.model_dump_json())
        trusted.chmod(0o644)
        return {
            "DECISIONOS_ALLOW_SCOPES": "judge:run,deploy:*",
            "DECISIONOS_JUDGE_KEYS": f"@{ring}",
            "DECISIONOS_KEYS_DIR": str(folder),
            "DECISIONOS_TRUST": str(trusted),
            "DECISIONOS_STATE_DIR": str(self.folder / "state"),
            "DECISIONOS_ACTOR": "민수",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def start(self, *words, cwd=None, **more):
        """Start a command in the project's folder."""
        if not (self.folder / "keys").exists():
            self.variables = self.keys()
        return subprocess.Popen(
            [str(word) for word in words],
            cwd=cwd or self.folder,
            env={**os.environ, **self.variables, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words, status=0, **how):
        """Run a command, which must end with this status; what it says."""
        with self.start(*words, **how) as process:
            out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        assert process.returncode == status, f"{process.returncode}: {out}{err}"
        return out + err

    def dosctl(self, *words, **how):
        return self.run(sys.executable, "-m", "pytest_decisionos.cli.main", *words, **how)
