"""evidence.yaml: what it may say, and what it ships as."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_decisionos.errors import PolicyError
from pytest_decisionos.evidence.config import EvidenceFile, ObjectLock, load_config

SHIPPED = Path(__file__).parents[2] / "configs/evidence.yaml"


def test_what_ships_states_the_defaults():
    assert load_config(SHIPPED) == EvidenceFile()


def test_the_part_that_ships_commented_out_loads(tmp_path):
    text = SHIPPED.read_text(encoding="utf-8")
    before, _, rest = text.partition("# object_lock:\n")
    path = tmp_path / "evidence.yaml"
    path.write_text(before + "object_lock:\n" + re.sub(r"(?m)^# ", "", rest))
    lock = load_config(path).object_lock
    assert lock is not None
    assert (lock.mode, lock.days, lock.multipart_mb) == ("GOVERNANCE", 365, 64)
    # The holds that ship as a comment are holds too.
    path.write_text(re.sub(r"(?m)legal_holds: \[\]$", "legal_holds:", text.replace("  #  -", "    -").replace("  #    ", "      ")))  # fmt: skip
    (hold,) = load_config(path).retention.legal_holds
    assert hold.match == "tenant:acme"
    assert hold.until is not None


def test_a_missing_file_states_nothing(tmp_path):
    assert load_config(tmp_path / "none.yaml") == EvidenceFile()
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "none")
    with pytest.raises(PolicyError, match="no such file"):
        load_config(tmp_path / "dangling.yaml")


@pytest.mark.parametrize("prefix", ["", "a", "a/b/", "/a", "a..b/.c", "..."])
def test_prefixes(prefix):
    assert ObjectLock(bucket="release-evidence", prefix=prefix).prefix == prefix


def test_an_object_lock_has_strict_defaults():
    lock = ObjectLock(bucket="release-evidence")
    assert (lock.mode, lock.days, lock.prefix, lock.endpoint_url) == ("COMPLIANCE", 365, "", None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing in it"),
        ("version: 2", "version"),
        ("privacy: {masks: [/a]}", "did you mean mask?"),
        ("privacy: {mask: [a]}", "privacy.mask[0]"),
        ("privacy: {mask: [/a//b]}", "privacy.mask[0]"),
        ("privacy: {mask: /a}", "privacy.mask"),
        ("privacy: {allow: ['']}", "privacy.allow[0]"),
        ("privacy: {refuse_keys: [1]}", "privacy.refuse_keys[0]"),
        ("retention: {locked_days: 0}", "retention.locked_days"),
        ("retention: {locked_days: 1.5}", "retention.locked_days"),
        ("retention: {locked_days: true}", "retention.locked_days"),
        ("retention: {wip_days: 40000}", "retention.wip_days"),
        ("retention: {keep_per_tenant: -1}", "retention.keep_per_tenant"),
        ("retention: {legal_holds: [{match: a}]}", "a required field is missing"),
        (
            "retention: {legal_holds: [{match: a, owner: b, reason: c, until: 2027-01-01T00:00:00}]}",
            "until",
        ),
        ("object_lock: {}", "object_lock.bucket"),
        ("object_lock: {bucket: A}", "object_lock.bucket"),
        ("object_lock: {bucket: abc, mode: NONE}", "object_lock.mode"),
        ("object_lock: {bucket: abc, prefix: 'a b'}", "object_lock.prefix"),
        ("object_lock: {bucket: abc, prefix: ../../x}", "object_lock.prefix: a part of it is"),
        ("object_lock: {bucket: abc, prefix: a/..}", "object_lock.prefix: a part of it is"),
        ("object_lock: {bucket: abc, prefix: ./a}", "object_lock.prefix: a part of it is"),
        ("object_lock: {bucket: abc, multipart_mb: 4}", "object_lock.multipart_mb"),
        ("object_lock: {bucket: abc, workers: 0}", "object_lock.workers"),
        ("version: 1\nversion: 1", "duplicate key"),
    ],
)
def test_what_it_may_not_say(tmp_path, text, says):
    path = tmp_path / "evidence.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        load_config(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
