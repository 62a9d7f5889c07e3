"""Object Lock on a real server: Ceph's gateway, which enforces it."""

import contextlib
import functools
import json
import os
import shutil
from datetime import timedelta
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from services.archive import PREFIX, Bucket, Clients, Root, Wire, causes, now

from pytest_decisionos.errors import RefusedError
from pytest_decisionos.evidence import s3
from pytest_decisionos.evidence.objectlock import Item, snapshot_of
from pytest_decisionos.evidence.objectlock_upload import upload
from pytest_decisionos.evidence.objectlock_verify import verify
from pytest_decisionos.evidence.s3_send import send
from pytest_decisionos.model.target import Target

pytestmark = pytest.mark.slow
MIB = 1024 * 1024
LATE = timedelta(days=1)


@pytest.fixture
def as_user(ceph, monkeypatch):
    """Be the owner of the buckets, or somebody else, by boto3's own variables."""

    def become(user):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", user.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", user.secret_key)

    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    become(ceph.owner)
    return become


@pytest.fixture(scope="module")
def clients():
    with contextlib.closing(Clients()) as made:
        yield made


@pytest.fixture
def bucket_of(ceph, as_user, clients):
    return functools.partial(Bucket, ceph, clients)


@pytest.fixture
def bucket(bucket_of):
    return bucket_of()


@pytest.fixture
def root(tmp_path):
    made = Root(tmp_path / "var")
    made.locked("1.0.0")
    made.locked("릴리스-1.0.1")
    made.bundle("d1", **{"decision.json": b"{}", "verdicts__slo@evidence.json": b'{"a": 1}'})
    made.file("evidence/latest.json", b"{}")  # in work: not uploaded
    made.index()
    return made


def refused(call, **arguments):
    """The code with which the server says no."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"]


# Upload


def test_everything_is_locked_hashed_and_recorded(bucket, root):
    start = now()
    report = bucket.upload(root)
    assert not report.refused
    assert sorted(receipt.path for receipt in report.uploaded if receipt.entries is None) == [
        "evidence/1.0.0.locked.json",
        "evidence/릴리스-1.0.1.locked.json",
        "gate/bundle/d1/decision.json",
        "gate/bundle/d1/verdicts/slo@evidence.json",
    ]
    (rows, head) = (receipt for receipt in report.uploaded if receipt.entries is not None)
    assert rows.path.endswith(".jsonl")
    assert head.path == rows.path.replace(".jsonl", ".head.json")
    assert rows.entries == 9  # five files, four receipts
    assert {(r.key, r.version_id) for r in report.uploaded} == set(bucket.versions())
    for receipt in report.uploaded:
        assert receipt.key == PREFIX + receipt.path
        lock = bucket.lock_of(receipt.key, receipt.version_id)
        assert lock.mode == "COMPLIANCE"
        assert lock.until == receipt.retain_until
        assert start + timedelta(days=2) <= lock.until <= now() + timedelta(days=2, seconds=2)
        told = bucket.owner.head_object(
            Bucket=bucket.name, Key=receipt.key, VersionId=receipt.version_id
        )
        assert told["Metadata"] == {"sha256": receipt.sha256}
    assert bucket.verify(root).findings == ()


def test_a_second_run_uploads_nothing(bucket, root):
    first = bucket.upload(root)
    before = bucket.versions()
    seen = []
    second = bucket.upload(root, progress=lambda share, text: seen.append((share, text)))
    assert second.uploaded == second.refused == ()
    assert len(second.present) == 4
    assert bucket.versions() == before
    assert [share for share, _ in seen] == [0.25, 0.5, 0.75, 1]
    assert {text for _, text in seen} == {r.path for r in first.uploaded if r.entries is None}


def test_only_what_is_new_goes_up_and_the_index_is_anchored_anew(bucket, root):
    bucket.upload(root)
    root.locked("1.0.2")
    root.index()
    report = bucket.upload(root)
    new = [receipt.path for receipt in report.uploaded]
    assert new[0] == "evidence/1.0.2.locked.json"
    assert [path.partition("-")[0] for path in new[1:]] == ["index/000013", "index/000013"]
    verified = bucket.verify(root)
    assert (verified.findings, verified.anchored, verified.versions) == ((), 13, 9)


def test_what_a_crash_left_without_receipt_is_found_and_not_sent_again(bucket, root):
    def crash(events):
        if events:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bucket.upload(root, record=crash)
    before = bucket.versions()
    assert len(before) == 4
    assert len(causes(bucket.verify(root))["error", "never_uploaded"]) == 4
    report = bucket.upload(root)
    assert len(report.uploaded) == 6
    assert set(before) <= {(r.key, r.version_id) for r in report.uploaded}
    assert len(bucket.versions()) == 6
    assert bucket.verify(root).findings == ()


def test_the_lock_is_put_on_a_version_that_has_our_bytes_and_none(bucket, root):
    data = (root.path / "evidence/1.0.0.locked.json").read_bytes()
    key = f"{PREFIX}evidence/1.0.0.locked.json"
    version = bucket.put(key, data)
    bucket.upload(root)
    assert bucket.versions(key) == [(key, version)]
    assert bucket.lock_of(key, version).mode == "COMPLIANCE"
    assert bucket.verify(root).findings == ()


def test_a_longer_time_lengthens_the_lock_and_sends_nothing(bucket, root):
    bucket.upload(root)
    before = bucket.versions()
    bucket.changed(days=4)
    report = bucket.upload(root)
    again = [receipt for receipt in report.uploaded if receipt.entries is None]
    assert len(again) == 4
    assert set(before) <= set(bucket.versions())
    for receipt in again:
        until = bucket.lock_of(receipt.key, receipt.version_id).until
        assert until == receipt.retain_until > now() + timedelta(days=3)
    assert bucket.verify(root).findings == ()
    bucket.changed(days=2)  # a shorter one changes nothing
    assert bucket.upload(root).uploaded == ()


@pytest.mark.parametrize("fault", ["changed", "not indexed", "link"])
def test_what_the_index_does_not_know_is_not_uploaded(bucket, root, fault):
    path = root.path / "evidence/1.0.0.locked.json"
    if fault == "changed":
        path.write_bytes(path.read_bytes() + b" ")
    elif fault == "link":
        path.rename(root.path / "aside")
        path.symlink_to(root.path / "aside")
    else:
        path = root.locked("9.9.9")
    report = bucket.upload(root)
    (said,) = report.refused
    assert path.name in str(said)
    assert path.name not in str(bucket.versions())
    assert len(report.uploaded) == (6 if fault == "not indexed" else 5)
    assert len(bucket.verify(root).findings) == 1


def test_a_broken_index_stops_the_upload(bucket, root):
    path = root.path / "evidence/index.jsonl"
    path.write_bytes(path.read_bytes().replace(b"1.0.0", b"1.0.9"))
    for record in (root.record, lambda events: None):
        with pytest.raises(RefusedError, match="changed"):
            bucket.upload(root, record=record)
    assert bucket.versions() == []


def test_receipts_are_kept_while_it_goes_on(bucket, root, monkeypatch):
    monkeypatch.setattr("pytest_decisionos.evidence.objectlock_upload._RECEIPTS", 1)
    counts = []

    def record(events):
        counts.append(len(events))
        root.record(events)

    bucket.changed(workers=1)
    assert len(bucket.upload(root, record=record).uploaded) == 6
    assert counts[0] == 0  # may it be recorded at all
    assert sum(counts) == 6
    assert len(counts) > 4
    assert bucket.verify(root).findings == ()


def test_the_files_of_another_target_are_refused(bucket, root):
    bucket.upload(root)
    before = bucket.versions()
    other = Target(service="checkout", environment="staging", region="eu-1", tenant="all")
    for call in (
        lambda: upload(
            root.path, bucket.config, other, client=bucket.ours, record=root.record, now=now()
        ),
        lambda: verify(root.path, bucket.config, other, client=bucket.ours, now=now()),
    ):
        with pytest.raises(RefusedError, match="about another target") as caught:
            call()
        assert "found checkout/production/eu-1/all" in str(caught.value)
    assert bucket.versions() == before


def test_two_uploads_at_once_do_not_mix(bucket, root):
    tried = []

    def second(events):
        if events and not tried:
            tried.append(1)
            with pytest.raises(RefusedError, match="another writer"):
                bucket.upload(root)
        root.record(events)

    assert bucket.upload(root, record=second).refused == ()
    assert tried


def test_a_bucket_without_versions_is_refused(bucket_of, root):
    bucket = bucket_of(lock=False)
    with pytest.raises(s3.S3Error, match="InvalidRequest"):
        bucket.upload(root)
    assert bucket.versions() == []


# Uploads in parts


@pytest.fixture
def large(root):
    """A LOCKED document that takes two parts of 5 MiB."""
    path = root.locked("large", 7 * MIB)
    root.index()
    return path


def put_in_parts(bucket, key, **more):
    place = {"Bucket": bucket.name, "Key": key}
    upload = bucket.owner.create_multipart_upload(**place, **more)["UploadId"]
    etag = bucket.owner.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    done = bucket.owner.complete_multipart_upload(
        **place, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    return done["VersionId"]


def test_this_server_forgets_the_lock_of_an_upload_in_parts(bucket):
    """Why the lock of every version is read, and put on where it lacks."""
    until = now() + timedelta(days=1)
    version = put_in_parts(
        bucket, "k", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until
    )
    assert bucket.lock_of("k", version).state == "none"
    bucket.owner.delete_object(Bucket=bucket.name, Key="k", VersionId=version)
    assert bucket.versions() == []


def test_what_came_in_parts_is_locked(bucket, root, large):
    bucket.changed(multipart_mb=5)
    report = bucket.upload(root)
    (receipt,) = (one for one in report.uploaded if "large" in one.path)
    assert receipt.part_bytes == 5 * MIB
    lock = bucket.lock_of(receipt.key, receipt.version_id)
    assert (lock.mode, lock.until) == ("COMPLIANCE", receipt.retain_until)
    code = refused(
        bucket.owner.delete_object,
        Bucket=bucket.name,
        Key=receipt.key,
        VersionId=receipt.version_id,
    )
    assert code == "AccessDenied"
    assert bucket.uploads() == []
    seen = []
    verified = bucket.verify(root, progress=lambda share, _: seen.append(share))
    assert verified.findings == ()
    assert (seen[-1], len(seen)) == (1, verified.versions)
    assert bucket.upload(root).uploaded == ()
    large.unlink()  # then the bytes there are held against the receipt alone
    assert bucket.verify(root).findings == ()


def test_twelve_mib_in_three_parts_and_the_default_threshold(bucket, root):
    for size, part_mb in ((12 * MIB, 5), (65 * MIB, 64)):
        data = os.urandom(MIB) * (size // MIB)
        item = Item("x", f"k{size}", s3.hashlib.sha256(data).hexdigest(), data)
        bucket.changed(multipart_mb=part_mb)
        until = now() + LATE
        send(bucket.ours, bucket.config, item, data, until=until, stopped=lambda: False)
        told = bucket.owner.head_object(Bucket=bucket.name, Key=item.key)
        assert told["ContentLength"] == size
        assert told["ETag"].strip('"').endswith("-3" if part_mb == 5 else "-2")
        body = bucket.owner.get_object(Bucket=bucket.name, Key=item.key)["Body"]
        assert body.read() == data
        body.close()


def test_a_default_of_governance_stays_and_is_said(bucket, root, large):
    bucket.owner.put_object_lock_configuration(
        Bucket=bucket.name,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}},
        },
    )
    bucket.changed(multipart_mb=5)
    result, message = bucket.precheck()
    assert result["default retention"] == "warning"
    assert "GOVERNANCE" in message["default retention"]
    for _ in range(2):
        report = bucket.upload(root)
        (said,) = report.refused
        assert "large.locked.json" in str(said)
        assert "found GOVERNANCE until" in str(said)
    assert len(bucket.versions(f"{PREFIX}evidence/large")) == 1
    assert causes(bucket.verify(root)) == {
        ("error", "never_uploaded"): ["evidence/large.locked.json"],
        ("warning", "unknown"): [f"{PREFIX}evidence/large.locked.json"],
    }


def test_a_cut_connection_is_one_line_and_the_next_run_goes_on(ceph, bucket, root, monkeypatch):
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    bucket.changed(multipart_mb=5, workers=1)
    content = os.urandom(8 * MIB - 1)
    root.bundle("d2", **{"large.bin": content})
    root.index()
    direct = bucket.config.endpoint_url
    with contextlib.closing(Wire(ceph, limit=6 * MIB)) as wire:
        bucket.changed(endpoint_url=wire.url)
        with pytest.raises(s3.S3Error) as caught:
            bucket.upload(root)
    assert "\n" not in str(caught.value)
    assert "no whole answer" in str(caught.value)
    assert bucket.uploads() == [f"{PREFIX}gate/bundle/d2/large.bin"]
    with contextlib.closing(Wire(ceph)) as wire:
        bucket.changed(endpoint_url=wire.url)
        report = bucket.upload(root)
    assert wire.sent < 4 * MIB  # the second part, and not the first again
    assert len([one for one in report.uploaded if one.path.endswith("large.bin")]) == 1
    bucket.changed(endpoint_url=direct)
    assert bucket.uploads() == []
    assert bucket.verify(root).findings == ()


def test_parts_of_other_bytes_are_not_gone_on_with(bucket, root, large):
    bucket.changed(multipart_mb=5)
    key = f"{PREFIX}evidence/large.locked.json"
    place = {"Bucket": bucket.name, "Key": key}
    foreign = bucket.owner.create_multipart_upload(**place)["UploadId"]
    bucket.owner.upload_part(**place, UploadId=foreign, PartNumber=1, Body=b"x" * 5 * MIB)
    bucket.owner.create_multipart_upload(**place)  # one without parts
    assert not bucket.upload(root).refused
    assert bucket.uploads() == [key, key]
    assert bucket.verify(root).findings == ()


def test_a_server_that_goes_away_ends_the_run_and_keeps_the_receipts(
    ceph, bucket, root, monkeypatch
):
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    for number in range(40):
        root.locked(f"n{number}", 200_000)
    root.index()
    bucket.changed(workers=2)
    direct = bucket.config.endpoint_url
    with contextlib.closing(Wire(ceph, limit=2_000_000)) as wire:
        bucket.changed(endpoint_url=wire.url)
        with pytest.raises(s3.S3Error):
            bucket.upload(root)
    bucket.changed(endpoint_url=direct)
    there = len(bucket.versions())
    assert 5 < there < 40
    report = bucket.upload(root)
    assert len(report.present) >= there - 2  # what was under way when it was cut may lack one
    assert len(bucket.versions()) == 42 + 2 + 2


# What nobody can do


@pytest.fixture
def kept(bucket, root):
    """The receipt of a version in COMPLIANCE mode."""
    report = bucket.upload(root)
    return next(one for one in report.uploaded if one.path == "evidence/1.0.0.locked.json")


def place_of(receipt):
    return {"Bucket": receipt.bucket, "Key": receipt.key, "VersionId": receipt.version_id}


def test_a_locked_version_cannot_be_deleted(bucket, root, kept):
    for more in ({}, {"BypassGovernanceRetention": True}):
        assert refused(bucket.owner.delete_object, **place_of(kept), **more) == "AccessDenied"
    assert bucket.verify(root).findings == ()


@pytest.mark.parametrize("bypass", [False, True])
@pytest.mark.parametrize("mode", ["COMPLIANCE", "GOVERNANCE"])
def test_compliance_cannot_be_shortened_or_weakened(bucket, root, kept, bypass, mode):
    sooner = {"Mode": mode, "RetainUntilDate": kept.retain_until - timedelta(hours=1)}
    code = refused(
        bucket.owner.put_object_retention,
        **place_of(kept),
        Retention=sooner,
        BypassGovernanceRetention=bypass,
    )
    assert code == "AccessDenied"
    assert bucket.verify(root).findings == ()


def test_governance_is_shortened_only_by_who_may_bypass_it(bucket, root):
    bucket.changed(mode="GOVERNANCE")
    report = bucket.upload(root)
    kept, gone, *_ = (place_of(one) for one in report.uploaded)
    sooner = {
        "Mode": "GOVERNANCE",
        "RetainUntilDate": report.uploaded[0].retain_until - timedelta(hours=1),
    }
    assert refused(bucket.owner.put_object_retention, **kept, Retention=sooner) == "AccessDenied"
    assert refused(bucket.owner.delete_object, **gone) == "AccessDenied"
    assert bucket.verify(root).findings == ()
    bypass = {"BypassGovernanceRetention": True}
    bucket.owner.put_object_retention(**kept, Retention=sooner, **bypass)
    bucket.owner.delete_object(**gone, **bypass)
    assert causes(bucket.verify(root)) == {
        ("error", "shortened"): [report.uploaded[0].path],
        ("error", "missing"): [report.uploaded[1].path],
    }
    later = bucket.verify(root, now=now() + timedelta(days=3))
    assert ("warning", "ended") in causes(later)
    # The next upload mends what it can.
    again = bucket.upload(root)
    assert {report.uploaded[0].path, report.uploaded[1].path} <= {r.path for r in again.uploaded}
    assert causes(bucket.verify(root)) == {("error", "missing"): [report.uploaded[1].path]}


def test_an_overwriting_makes_a_newer_version_and_ours_stays(bucket, root, kept):
    shadow = bucket.put(kept.key, b"forged")
    assert bucket.versions(kept.key) == [(kept.key, shadow), (kept.key, kept.version_id)]
    report = bucket.verify(root)
    assert causes(report) == {
        ("error", "not_locked"): [kept.key],
        ("warning", "shadowed"): [kept.path],
    }
    (shadowed,) = (f for f in report.findings if f.cause == "shadowed")
    assert shadowed.version_id == shadow
    assert "a newer version shadows it" in shadowed.message


def test_a_delete_marker_hides_ours_and_is_said(bucket, root, kept):
    bucket.owner.delete_object(Bucket=bucket.name, Key=kept.key)
    report = bucket.verify(root)
    assert causes(report) == {("warning", "shadowed"): [kept.path]}
    assert "a delete marker shadows it" in report.findings[0].message
    assert report.errors == 0


def test_an_object_whose_lock_was_never_set_is_found(bucket, root, kept):
    bucket.put(f"{PREFIX}evidence/other.locked.json")
    version = bucket.put(
        f"{PREFIX}stranger", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=now() + LATE
    )
    bucket.put("evidence/checkout/production/eu-1/other-tenant/x")  # not ours
    report = bucket.verify(root)
    assert causes(report) == {
        ("error", "not_locked"): [f"{PREFIX}evidence/other.locked.json"],
        ("warning", "unknown"): [f"{PREFIX}stranger"],
    }
    assert report.findings[1].version_id == version


def test_a_receipt_of_a_version_without_lock_is_found(bucket, root, kept):
    version = bucket.put("elsewhere", b"{}")
    empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    forged = kept._replace(path="p", key="elsewhere", version_id=version, size=2, sha256=empty)
    root.record([forged.event()])
    assert causes(bucket.verify(root)) == {("error", "not_locked"): ["p"]}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"sha256": "0" * 64}, "changed"),
        ({"size": 1}, "changed"),
        ({"version_id": "no-such-version"}, "missing"),
        ({"key": "no/such/key"}, "missing"),
    ],
)
def test_a_version_that_is_not_as_its_receipt_says_is_found(bucket, root, kept, change, cause):
    root.record([kept._replace(path="p", **change).event()])
    found = causes(bucket.verify(root))
    assert found.pop(("error", cause)) == ["p"]


def test_documents_and_bundle_files_never_uploaded_are_named(bucket, root, kept):
    root.locked("2.0.0")
    root.bundle("d2", **{"decision.json": b"{}"})
    root.index()
    assert causes(bucket.verify(root)) == {
        ("error", "never_uploaded"): [
            "evidence/2.0.0.locked.json",
            "gate/bundle/d2/decision.json",
        ]
    }


# The index


def test_an_index_that_was_put_back_is_found(bucket, root, tmp_path):
    bucket.upload(root)
    shutil.copytree(root.path / "evidence", tmp_path / "old")
    root.locked("1.0.2")
    root.index()
    bucket.upload(root)
    shutil.rmtree(root.path / "evidence")
    shutil.copytree(tmp_path / "old", root.path / "evidence")
    report = bucket.verify(root)
    errors = [finding for finding in report.findings if finding.severity == "error"]
    assert [finding.cause for finding in errors] == ["rolled_back"]
    assert "was anchored with 13 entries, and the index here has 11" in errors[0].message
    assert causes(report)["warning", "unknown"]
    # Also when it has grown longer than the one that was anchored, and was anchored again.
    for number in range(5):
        root.locked(f"2.0.{number}")
    root.index()
    bucket.upload(root)
    assert len(causes(bucket.verify(root))["error", "rolled_back"]) == 1


def test_without_an_index_everything_in_the_bucket_speaks(bucket, root):
    bucket.upload(root)
    for name in ("index.jsonl", "index.head.json"):
        (root.path / "evidence" / name).unlink()
    found = causes(bucket.verify(root))
    assert len(found["error", "rolled_back"]) == 1
    assert len(found["error", "never_uploaded"]) == 4
    assert len(found["warning", "unknown"]) == 6


def test_a_forged_head_in_the_bucket_is_no_head(bucket, root):
    bucket.upload(root)
    (_, head) = snapshot_of(root.path, PREFIX)
    forged = head.key.replace(f"index/{head.entries:06d}", "index/000011")
    bucket.put(forged, b"{}")
    found = causes(bucket.verify(root))
    assert found["error", "rolled_back"] == [forged]
    assert found["error", "not_locked"] == [forged]


# Precheck


def test_precheck_of_a_new_bucket_proves_what_can_be_proved_and_leaves_nothing(bucket):
    result, message = bucket.precheck()
    assert result == {
        "bucket": "ok",
        "clock": "ok",
        "versioning": "ok",
        "object lock": "ok",
        "default retention": "warning",
        "uploads in parts": "ok",
        "put with lock": "ok",
        "list versions": "ok",
        "read lock": "cannot tell",
        "add lock": "cannot tell",
        "read objects": "cannot tell",
    }
    assert "COMPLIANCE for 2 days is taken" in message["put with lock"]
    assert (bucket.versions(), bucket.uploads()) == ([], [])


def test_precheck_of_a_used_bucket_proves_reading_too_and_changes_nothing(bucket, root):
    bucket.upload(root)
    before = bucket.versions()
    locks = [bucket.lock_of(*version) for version in before]
    result, message = bucket.precheck()
    assert set(result.values()) == {"ok", "warning"}
    assert result["add lock"] == result["read lock"] == result["read objects"] == "ok"
    assert "without SHA-256: verify reads them whole" in message["read objects"]
    assert bucket.versions() == before
    assert [bucket.lock_of(*version) for version in before] == locks
    assert bucket.uploads() == []


def test_precheck_of_a_default_retention(bucket):
    def default(**rule):
        bucket.owner.put_object_lock_configuration(
            Bucket=bucket.name,
            ObjectLockConfiguration={
                "ObjectLockEnabled": "Enabled",
                "Rule": {"DefaultRetention": rule},
            },
        )

    for rule, expected in (
        ({"Mode": "COMPLIANCE", "Days": 1}, "warning"),
        ({"Mode": "COMPLIANCE", "Days": 2}, "ok"),
        ({"Mode": "COMPLIANCE", "Years": 1}, "ok"),
        ({"Mode": "GOVERNANCE", "Years": 1}, "warning"),
    ):
        default(**rule)
        assert bucket.precheck()[0]["default retention"] == expected
    assert (bucket.versions(), bucket.uploads()) == ([], [])


def test_precheck_of_a_bucket_without_lock(bucket_of):
    bucket = bucket_of(lock=False)
    result, message = bucket.precheck()
    assert {name for name, said in result.items() if said == "no"} == {
        "versioning",
        "object lock",
        "put with lock",
    }
    assert message["versioning"] == "never enabled"
    assert "COMPLIANCE for 2 days is refused" in message["put with lock"]
    for status in ("Enabled", "Suspended"):
        bucket.owner.put_bucket_versioning(
            Bucket=bucket.name, VersioningConfiguration={"Status": status}
        )
        result, message = bucket.precheck()
        assert result["versioning"] == ("ok" if status == "Enabled" else "no")
        assert message["versioning"] == status.lower()
        assert result["object lock"] == result["put with lock"] == "no"
    assert (bucket.versions(), bucket.uploads()) == ([], [])


def test_versioning_of_a_bucket_with_lock_cannot_be_suspended(bucket):
    suspend = {"Status": "Suspended"}
    code = refused(
        bucket.owner.put_bucket_versioning, Bucket=bucket.name, VersioningConfiguration=suspend
    )
    assert code == "InvalidBucketState"


def test_precheck_of_a_clock_that_is_wrong(bucket, monkeypatch):
    ahead = SimpleNamespace(now=lambda _zone: now() + timedelta(minutes=5))
    monkeypatch.setattr("pytest_decisionos.evidence.objectlock_precheck.datetime", ahead)
    result, message = bucket.precheck()
    assert result["clock"] == "no"
    assert "ahead of the server; at most 60 s are allowed" in message["clock"]
    monkeypatch.undo()
    for name, value in zip(
        ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"), bucket.gateway.owner, strict=True
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    hour = timedelta(hours=1)
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime", lambda: now().replace(tzinfo=None) + hour
    )
    result, message = bucket.precheck()
    assert result == {"bucket": "cannot tell", "clock": "no"}
    assert "RequestTimeTooSkewed" in message["clock"]


def test_precheck_of_a_bucket_that_is_not_there(bucket):
    bucket.changed(bucket="no-such-bucket")
    assert bucket.precheck()[0] == {"bucket": "no"}


# Permissions


@pytest.mark.parametrize(
    ("denied", "expected"),
    [
        ((), {}),
        (("s3:GetObjectRetention",), {"read lock": "no", "add lock": "cannot tell"}),
        (("s3:PutObjectRetention",), {"add lock": "warning"}),
        (("s3:PutObject",), {"put with lock": "no", "uploads in parts": None}),
        (("s3:GetBucketVersioning",), {"versioning": "cannot tell"}),
        (
            ("s3:GetBucketObjectLockConfiguration",),
            {"object lock": "cannot tell", "default retention": None},
        ),
        (
            ("s3:ListBucketVersions",),
            {
                "list versions": "no",
                "read lock": "cannot tell",
                "add lock": "cannot tell",
                "read objects": "cannot tell",
            },
        ),
        (("s3:ListBucket",), {"bucket": "cannot tell", "clock": None}),
        (("s3:GetObjectVersion",), {"read objects": "no"}),
        (
            ("s3:AbortMultipartUpload",),
            {"uploads in parts": "no", "put with lock": "cannot tell"},
        ),
        (("s3:ListMultipartUploadParts",), {"uploads in parts": "no"}),
        (("s3:ListBucketMultipartUploads",), {"uploads in parts": "no"}),
    ],
    ids=lambda value: ",".join(value).replace("s3:", "") if isinstance(value, tuple) else "",
)
def test_precheck_names_the_permission_that_is_missing(
    ceph, bucket, root, as_user, denied, expected
):
    bucket.upload(root)
    before = bucket.versions()
    _, fine = bucket.precheck()
    bucket.deny(*denied)
    as_user(ceph.guest)
    result, message = bucket.precheck()
    usual = {
        name: "warning" if name == "default retention" else "ok"
        for name in fine
    } | expected  # fmt: skip
    assert result == {name: said for name, said in usual.items() if said is not None}
    told = [message[name] for name, said in expected.items() if said in {"no", "warning"}]
    assert not told or any(denied[0] in text for text in told)
    assert (bucket.versions(), bucket.uploads()) == (before, [])


def test_verify_tells_not_locked_from_not_allowed_to_see(ceph, bucket, root, as_user):
    report = bucket.upload(root)
    bucket.put(f"{PREFIX}stranger")
    bucket.deny("s3:GetObjectRetention")
    as_user(ceph.guest)
    found = causes(bucket.verify(root))
    assert set(found) == {("error", "denied")}
    assert len(found["error", "denied"]) == len(report.uploaded) + 1
    bucket.deny()
    assert causes(bucket.verify(root)) == {("error", "not_locked"): [f"{PREFIX}stranger"]}


@pytest.mark.parametrize(
    ("action", "says", "count"),
    [
        ("s3:GetObjectVersion", "not allowed to read it", 7),  # of them one is the anchored head
        ("s3:ListBucketVersions", "not allowed to list versions", 1),
    ],
)
def test_verify_says_what_it_may_not_see(ceph, bucket, root, as_user, action, says, count):
    bucket.upload(root)
    bucket.deny(action)
    as_user(ceph.guest)
    report = bucket.verify(root)
    assert len(report.findings) == report.errors == count
    assert all(says in finding.message for finding in report.findings)


def test_a_lost_permission_to_put_is_one_line(ceph, bucket, root, as_user):
    bucket.deny("s3:PutObject")
    as_user(ceph.guest)
    with pytest.raises(s3.S3Error) as caught:
        bucket.upload(root)
    assert caught.value.denied
    assert "PutObject is answered with AccessDenied" in str(caught.value)
    assert "--precheck" in str(caught.value)
    assert ceph.guest.secret_key not in str(caught.value)
    assert bucket.versions() == []


def test_a_lock_that_may_not_be_seen_has_no_receipt(ceph, bucket, root, as_user):
    bucket.changed(workers=1)
    bucket.deny("s3:GetObjectRetention")
    as_user(ceph.guest)
    for _ in range(2):
        with pytest.raises(s3.S3Error, match="its lock may not be seen"):
            bucket.upload(root)
        assert len(bucket.versions()) == 1
    bucket.deny()
    assert len(bucket.upload(root).uploaded) == 6
    assert bucket.verify(root).findings == ()


def test_a_lock_that_may_not_be_put_on_is_refused(ceph, bucket, root, large, as_user):
    bucket.changed(multipart_mb=5)
    bucket.deny("s3:PutObjectRetention")
    as_user(ceph.guest)
    report = bucket.upload(root)
    (said,) = report.refused
    assert "found no lock" in str(said)
    assert "s3:PutObjectRetention" in str(said)
    assert len(report.uploaded) == 6
    found = causes(bucket.verify(root))
    assert found["error", "not_locked"] == [f"{PREFIX}evidence/large.locked.json"]
    bucket.deny()
    assert len(bucket.upload(root).uploaded) == 3
    assert bucket.verify(root).findings == ()


def test_wrong_credentials_are_one_line(bucket, root, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-value")
    with pytest.raises(s3.S3Error) as caught:
        bucket.upload(root)
    assert "wrong-secret-value" not in str(caught.value)
    assert "credentials" in str(caught.value)
    with pytest.raises(s3.S3Error):
        bucket.verify(root)


def test_events_are_what_the_index_keeps(bucket, root):
    report = bucket.upload(root)
    lines = (root.path / "evidence/index.jsonl").read_text().splitlines()
    events = [e for e in map(json.loads, lines) if e["event"] in {"uploaded", "anchored"}]
    assert [e["event"] for e in events] == ["uploaded"] * 4 + ["anchored"] * 2
    assert [r.event() for r in report.uploaded] == [
        {name: e[name] for name in e if name not in {"at", "seq", "prev"}} for e in events
    ]
