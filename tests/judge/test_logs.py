"""Which logs a judge reads, and what becomes of it when they are not what they should be."""

import hashlib
import json
from pathlib import Path

import pytest

from pytest_decisionos.judge.gate import JudgeConfig
from pytest_decisionos.judge.logs import ask_log
from pytest_decisionos.slo.compile import load_slo
from pytest_decisionos.testing import healthy

CONFIGS = Path(__file__).parents[2] / "configs/slo"
WITNESS, PEER = JudgeConfig(id="witness"), JudgeConfig(id="peer", path="log/lb.csv")
ROWS = "ts,status,latency_ms\n" + "".join(f"2026-01-15T11:{m:02}:00Z,200,{m}\n" for m in range(30))


def rules(name):
    path = next(p for p in CONFIGS.iterdir() if p.stem == name)
    return load_slo(path).rules


@pytest.fixture
def root(tmp_path):
    (tmp_path / "log").mkdir()
    for name in ("reqlog.csv", "judgelog.csv", "lb.csv"):
        (tmp_path / "log" / name).write_text(ROWS)
    return tmp_path


def named(*sources, **witness):
    blocks = healthy()
    blocks["witness"] = {"sources": list(sources), **witness}
    blocks["meta"]["window"] = {"start": "2026-01-15T11:00:00Z", "end": "2026-01-15T12:00:00Z"}
    return blocks


def log(role, name, **more):
    digest = hashlib.sha256(ROWS.encode()).hexdigest()
    return {"role": role, "name": name, "sha256": digest, "bytes": len(ROWS), **more}


BOTH = named(log("reqlog", "reqlog.csv"), log("judgelog", "judgelog.csv"), log("peer", "lb.csv"))


def test_only_the_logs_that_feed_the_rules_are_read(root):
    asked = ask_log(WITNESS, root, BOTH, rules("slo-infra-v2"))
    assert (asked.state, asked.exact, [Path(f.file).name for f in asked.logs]) == (
        "ready",
        True,
        ["reqlog.csv"],
    )
    assert asked.blocks["perf"]["count"] == 30
    # The judge log is not read for them, so that it is broken is not their matter.
    (root / "log/judgelog.csv").write_text("nonsense\n")
    assert ask_log(WITNESS, root, BOTH, rules("slo-infra-v2")).state == "ready"
    broken = ask_log(WITNESS, root, BOTH, rules("slo-judge-infra"))
    assert broken.state == "error"
    assert "judgelog.csv" in broken.reason


def test_a_peer_that_feeds_none_of_the_rules_abstains(root):
    asked = ask_log(PEER, root, BOTH, rules("slo-judge-infra"))
    assert (asked.state, asked.reason) == ("absent", "its log feeds none of these rules")
    asked = ask_log(PEER, root, BOTH, rules("slo-infra-v2"))
    assert (asked.state, asked.exact, asked.logs[0].sha256) == (
        "ready",
        False,
        log("x", "y")["sha256"],
    )


@pytest.mark.parametrize(
    ("blocks", "state", "says"),
    [
        (named(), "absent", "(none)"),
        (named(log("reqlog", "gone.csv")), "absent", "gone.csv"),
        (named("x", 3, None), "absent", "none"),
        (named(log("reqlog", 3)), "absent", "none"),
        ({}, "absent", "none"),
        ({"witness": []}, "absent", "none"),
        ({"witness": {"sources": {}}}, "absent", "none"),
        (named(log("reqlog", "../log/reqlog.csv")), "error", "not a plain file name"),
        (named(log("reqlog", "/etc/passwd")), "error", "not a plain file name"),
        (named(log("reqlog", "a\0b")), "error", "not a plain file name"),
        (named(log("reqlog", "x" * 300)), "error", "not a plain file name"),
        (named(log("reqlog", "가" * 200)), "error", "cannot be read"),  # 600 bytes
        (named(log("reqlog", "reqlog.csv", sha256="0" * 64)), "error", "was changed"),
        (named(log("reqlog", "reqlog.csv", sha256=None)), "error", "states no digest"),
        (
            named(log("reqlog", "reqlog.csv", bytes=10**9)),
            "error",
            "shorter than the evidence says",
        ),
        (named(log("else", "reqlog.csv")), "error", "not a role"),
        (named(log(["reqlog"], "reqlog.csv")), "error", "not a role"),
        (named(log("reqlog", "reqlog.csv"), harvest={"window_sec": "x"}), "error", "window_sec"),
    ],
)
def test_what_cannot_be_read_is_absent_or_an_error_by_name(root, blocks, state, says):
    asked = ask_log(WITNESS, root, blocks, rules("slo-infra-v2"))
    assert asked.state == state
    assert says in asked.reason
    assert "\n" not in asked.reason
    json.loads(asked.model_dump_json())


def test_producers_that_name_one_log_by_path(root):
    blocks = named()
    blocks["witness"] = {
        "csv_path": "reqlog.csv",
        "csv_sha256": log("x", "y")["sha256"],
        "rows": 30,
    }
    assert ask_log(WITNESS, root, blocks, rules("slo-infra-v2")).blocks["perf"]["count"] == 30
    blocks["witness"]["csv_sha256"] = "demo"
    assert ask_log(WITNESS, root, blocks, rules("slo-infra-v2")).state == "error"


def test_a_link_out_of_the_folder_is_refused(root):
    (root / "elsewhere.csv").write_text(ROWS)
    (root / "log/link.csv").symlink_to(root / "elsewhere.csv")
    asked = ask_log(WITNESS, root, named(log("reqlog", "link.csv")), rules("slo-infra-v2"))
    assert (asked.state, "leaves the log folder" in asked.reason) == ("error", True)
