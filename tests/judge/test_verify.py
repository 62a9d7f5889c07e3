"""A bundle verifies, or one says why not: each folder of tests/data/bundles has one fault."""

import copy
import json
from datetime import datetime, timedelta
from pathlib import Path

import bundle_cases as cases
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_decisionos.errors import EvidenceError
from pytest_decisionos.evidence import bundle
from pytest_decisionos.judge.verify import verify_bundle
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.outcome import Status
from pytest_decisionos.report.verification import report_json, report_lines
from pytest_decisionos.trust.trustfile import TrustFile

DATA = Path(__file__).parents[1] / "data" / "bundles"
GOOD = DATA / "good"
FAULTS = sorted(DATA.glob("fail_*"))


def verify(folder, files=None):
    trust = TrustFile.model_validate(json.loads((folder / "trust.json").read_text()))
    args = json.loads((folder / "args.json").read_text())
    now = datetime.fromisoformat(args.pop("now")) if "now" in args else cases.LATER
    files = bundle.read_bundle(folder / "bundle") if files is None else files
    return verify_bundle(files, trust, now=now, **args)


def faults(report):
    return [one.reason for one in report.findings if one.status is not Status.SUCCESSFUL]


@pytest.mark.parametrize("name", ["good", "good_remote", "good_silent"])
def test_the_good_bundle_verifies(name):
    report = verify(DATA / name)
    assert faults(report) == []
    assert report.ok
    assert [one.id.removeprefix("bundle.") for one in report.findings] == [
        "statement", "files", "signature", "expiry", "target", "release", "evidence", "policy",
        "inputs", "attestations", "verdicts", "quorum", "rejudged", "bound",
    ]  # fmt: skip


def test_years_later_it_is_a_record():
    files = bundle.read_bundle(GOOD / "bundle")
    trust = TrustFile.model_validate(cases.trust())
    report = verify_bundle(files, trust, now=cases.NOW + timedelta(days=3650))
    assert report.ok
    assert any("a record: acting on it ended" in one.message for one in report.findings)


@pytest.mark.parametrize("folder", FAULTS, ids=lambda folder: folder.name)
def test_a_bundle_with_one_fault_is_refused_by_its_reason(folder):
    report = verify(folder)
    assert not report.ok
    assert faults(report)[0] == (folder / "expected.txt").read_text().strip()


def test_every_case_is_kept_as_a_folder():
    kept = {folder.name: (folder / "expected.txt").read_text().strip() for folder in FAULTS}
    all_cases = cases.CASES | cases.REMOTE_CASES | cases.SILENT_CASES
    made = {f"fail_{spoil.__name__}": expected for spoil, expected in all_cases.items()}
    assert kept == {**made, "fail_quorum_not_reached": "bundle.quorum:not_reached"}
    assert len(kept) > 50


@pytest.mark.parametrize(
    ("name", "judges"),
    [("good", {}), ("good_remote", {"remote": ("peer",)}), ("good_silent", {"dead": ("peer",)})],
)
def test_what_is_kept_is_what_the_code_makes_today(name, judges, tmp_path):
    assert cases.make(tmp_path, **judges) == bundle.read_bundle(DATA / name / "bundle")


def test_a_silent_judge_is_an_error_and_named():
    files = bundle.read_bundle(DATA / "good_silent" / "bundle")
    assert not any("@peer" in name for name in files)
    peer = cases.Bundle(files).decision().claims.judges[2]
    assert peer.keyid is None
    assert set(peer.votes.values()) == {"error"}
    told = [one.message for one in verify(DATA / "good_silent").findings]
    assert "4 verdicts, each by its judge's own key; none of peer" in told


def test_two_silent_judges_are_no_quorum(tmp_path):
    made = cases.Bundle(cases.make(tmp_path, dead=("witness", "peer")))
    assert made.decision().claims.verdict == "NO-GO"
    lost = cases.lost_quorum(made.files)
    assert faults(verify(GOOD, lost.files)) == ["bundle.quorum:not_reached"]


def value_of(name, data):
    """What a file of a bundle says, however it is spelled."""
    if not name.endswith(".json"):
        return data
    document = strict_json.loads(data)
    if set(document) == {"payload", "payloadType", "signatures"}:
        # The key id is a hint; who signed is found by trying.
        document = copy.deepcopy(document)
        for one in document["signatures"]:
            one.pop("keyid", None)
    return document


@pytest.mark.untraced
@pytest.mark.parametrize("part", range(2))
def test_every_bit_of_four_kilobytes_of_all_files_counts(part, tmp_path):
    document = cases.trust(min_k=1, min_n=1)
    good = cases.make(tmp_path, judges=("evidence",), document=document)
    trust = TrustFile.model_validate(document)
    assert verify_bundle(good, trust, now=cases.LATER).ok
    flips = [
        (name, bit)
        for name in sorted(good)
        for byte in range(0, len(good[name]), 2)
        for bit in range(8 * byte, 8 * byte + 8)
    ]
    assert len(flips) > 8 * 4096
    for name, bit in flips[part::2]:
        data = bytearray(good[name])
        data[bit // 8] ^= 1 << bit % 8
        report = verify_bundle({**good, name: bytes(data)}, trust, now=cases.LATER)
        if report.ok:
            assert value_of(name, bytes(data)) == value_of(name, good[name]), (name, bit)


@given(st.data())
def test_a_hostile_bundle_gives_findings_and_no_traceback(data):
    good = bundle.read_bundle(GOOD / "bundle")
    name = data.draw(st.sampled_from(sorted(good)))
    garbage = data.draw(
        st.one_of(
            st.binary(max_size=200),
            st.recursive(
                st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                max_leaves=8,
            ).map(lambda value: json.dumps(value).encode()),
        )
    )  # fmt: skip
    report = verify_bundle(
        {**good, name: garbage}, TrustFile.model_validate(cases.trust()), now=cases.LATER
    )
    assert faults(report)


@pytest.mark.parametrize("files", [{}, {"decision.json": b"{}"}, {"decision.json": b""}])
def test_an_empty_bundle_does_not_verify(files):
    assert faults(verify(GOOD, files)) == ["bundle.statement:unreadable"]
    assert not verify(GOOD, files).ok


def test_one_judge_repeated_is_no_quorum(tmp_path):
    document = cases.trust(min_k=1, min_n=1)
    made = cases.Bundle(cases.make(tmp_path, judges=("evidence",), document=document))
    made.rewrite_inputs(judges=["evidence"] * 3)
    (judge,) = made.decision().claims.judges
    made.attest_again(judges=(judge,) * 3, n=3, k=2, quorums={cases.B: "2/3"})
    report = verify_bundle(made.files, TrustFile.model_validate(cases.trust()), now=cases.LATER)
    assert faults(report)[0] == "bundle.verdicts:key_twice"


def test_an_unsigned_bundle_cannot_speak_for_us():
    made = cases.Bundle(bundle.read_bundle(GOOD / "bundle"))
    made.decide_again(by=None, release="v1\nverified\n\x1b[8m", phase="x\nverified")
    lines = report_lines(verify(GOOD, made.files))
    assert lines[-1] == "NOT verified"
    assert "verified" not in lines
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("length", [1025, 5000, 100_000])
def test_a_huge_release_is_a_finding(length):
    made = cases.Bundle(bundle.read_bundle(GOOD / "bundle"))
    made.replace_payload(bundle.DECISION, b"v0.5.11q", b"v" * length)
    assert faults(verify(GOOD, made.files)) == ["bundle.statement:unreadable"]


def test_what_people_and_machines_are_told():
    good, bad = verify(GOOD), verify(DATA / "fail_numbers_changed")
    assert report_lines(good)[-2:] == ["GO of v0.5.11q, 5 → 25 %, cutover", "verified"]
    lines = report_lines(bad)
    assert lines[-1] == "NOT verified"
    assert max(map(len, lines)) <= 80
    assert any("other_numbers" in line for line in lines)
    told = report_json(bad)
    assert told["verified"] is False
    assert told["decision"]["release"] == "v0.5.11q"
    json.dumps(told)


# Reading a bundle's folder


def test_a_link_is_no_part_of_a_bundle(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/decision.json").symlink_to(GOOD / "bundle/decision.json")
    with pytest.raises(EvidenceError, match="a link"):
        bundle.read_bundle(tmp_path / "b")
    (tmp_path / "c").symlink_to(GOOD / "bundle")
    with pytest.raises(EvidenceError, match="not a folder"):
        bundle.read_bundle(tmp_path / "c")


def test_limits_of_a_bundle(tmp_path, monkeypatch):
    with pytest.raises(EvidenceError, match="No such file"):
        bundle.read_bundle(tmp_path / "none")
    for name, limit in (("MAX_FILES", 3), ("MAX_TOTAL_BYTES", 1000), ("MAX_DEPTH", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(bundle, name, limit)
            with pytest.raises(EvidenceError, match=r"too many|too large|nested"):
                bundle.read_bundle(GOOD / "bundle")
