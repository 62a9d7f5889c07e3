"""gate.yaml and labels.json: what is wrong with them is one line that says where."""

import json

import pytest

from pytest_decisionos.errors import PolicyError, UsageError
from pytest_decisionos.judge.gate import load_gate, load_labels

GOOD = {
    "version": 1,
    "target": {"service": "checkout", "environment": "production"},
    "phases": {"cutover": {"slos": ["slo/a.json", {"file": "slo/b.json", "quorum": "2/3"}]}},
}


def write(tmp_path, spec, name="gate.yaml"):
    path = tmp_path / name
    path.write_text(spec if isinstance(spec, str) else json.dumps(spec))
    return path


def test_defaults(tmp_path):
    gate = load_gate(write(tmp_path, GOOD))
    assert [judge.id for judge in gate.spec.judges] == ["evidence", "witness", "peer"]
    assert str(gate.target) == "checkout/production/all/all"
    assert [slo.file for slo in gate.phase("cutover").slo_files()] == ["slo/a.json", "slo/b.json"]
    assert gate.spec.max_evidence_age_sec == 900
    assert gate.spec.harvest.max_bad_rows == 0
    with pytest.raises(UsageError, match="no such phase"):
        gate.phase("post")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"judges": [{"id": "a"}, {"id": "a"}]}, "id of its own"),
        ({"judges": [{"id": "a", "path": "/etc/passwd"}]}, "under the root folder"),
        ({"judges": [{"id": "a", "path": "log/../../x"}]}, "under the root folder"),
        ({"judges": []}, "judges"),
        ({"judges": [{"id": "A B"}]}, r"judges\[0\].id"),
        ({"judgs": []}, "did you mean judges"),
        ({"version": 2}, "version"),
        ({"target": {"service": ""}}, "target"),
        ({"target": {"service": "x", "enviroment": "y"}}, "environment"),
        ({"phases": {}}, "phases"),
        ({"phases": {"cutover": {"slos": []}}}, "slos"),
        ({"phases": {"cutoff": {"slos": ["a"]}}}, "phases"),
        ({"phases": {"cutover": {"slos": [{"file": "a", "quorum": "two"}]}}}, "quorum"),
        ({"phases": {"cutover": {"slos": ["a\0b"]}}}, r"slos\[0\]: has a null character"),
        ({"phases": {"cutover": {"slos": [{"file": "a\0b"}]}}}, r"file: has a null character"),
        ({"judges": [{"id": "a", "path": "log/a\0b"}]}, "path: has a null character"),
        ({"max_evidence_age_sec": 0}, "max_evidence_age_sec"),
        ({"harvest": {"max_bad_rows": -1}}, "max_bad_rows"),
        ({"quorum": "0/3"}, "quorum"),
    ],
)
def test_faults(tmp_path, change, says):
    with pytest.raises(PolicyError, match=says) as caught:
        load_gate(write(tmp_path, GOOD | change))
    assert "gate.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


LABELS = {
    "version": "v1",
    "groups": {"perf": {"weight": 1, "color": "ffffff", "description": "성능"}},
    "labels": {"reason:perf": {"group": "perf", "color": "ffffff", "description": "느림"}},
    "reasons": {"latency.*": "reason:perf", "*": "reason:perf"},
}


def test_labels(tmp_path):
    labels = load_labels(write(tmp_path, LABELS, "labels.json"))
    assert labels.label_of("latency.p95:over") == "reason:perf"
    for change, says in (
        ({"reasons": {"latency.*": "reason:perf"}}, "a last pattern"),
        ({"reasons": {"*": "reason:other"}}, "which is not a label"),
        ({"labels": []}, "labels"),
    ):
        with pytest.raises(PolicyError, match=says):
            load_labels(write(tmp_path, LABELS | change, "labels.json"))
