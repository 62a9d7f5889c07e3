"""Object Lock without a server that enforces it: keys, receipts, answers, and what goes over the wire."""

import contextlib
import functools
import hashlib
import http.server
import io
import threading
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import unquote

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from services.archive import PREFIX, TARGET, Root, causes

from pytest_decisionos.errors import (
    DecisionOSError,
    EvidenceError,
    JournalError,
    RefusedError,
    RemoteError,
    UsageError,
)
from pytest_decisionos.evidence import objectlock_precheck, s3
from pytest_decisionos.evidence.config import ObjectLock
from pytest_decisionos.evidence.index_files import Fault, scan
from pytest_decisionos.evidence.index_verify import snapshot
from pytest_decisionos.evidence.objectlock import (
    Item,
    Receipt,
    items_of,
    key_of,
    prefix_of,
    read_item,
    receipts_of,
    snapshot_of,
    text_of,
)
from pytest_decisionos.evidence.objectlock_bucket import Stored, anchors, listed, stranger
from pytest_decisionos.evidence.objectlock_precheck import precheck
from pytest_decisionos.evidence.objectlock_upload import upload
from pytest_decisionos.evidence.objectlock_verify import _check, _of_lock, verify
from pytest_decisionos.evidence.s3_send import MAX_PARTS, MIB, part_size, send
from pytest_decisionos.model.target import Target

pytestmark = pytest.mark.slow

UNTIL = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
CONFIG = ObjectLock(bucket="bucket", days=2)
RECEIPT = Receipt(
    "evidence/a.locked.json", "ab" * 32, 7, "bucket", "k", "v", "COMPLIANCE", UNTIL, None
)


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def client():
    with s3.open_s3(CONFIG, region="us-east-1") as made:
        yield made


@pytest.fixture
def stub(client):
    with Stubber(client) as made:
        yield made


# Keys


@pytest.mark.parametrize(
    ("prefix", "target", "expected"),
    [
        ("", ("checkout", "production"), "checkout/production/all/all/"),
        ("a/b/", ("s", "e", "eu-1", "acme"), "a/b/s/e/eu-1/acme/"),
        ("/a//b", ("결제", "운영", "서울", "고객"), "a/b/결제/운영/서울/고객/"),
        ("", ("a/../b", "..", ".", "a b%+"), "a%2F..%2Fb/%2E%2E/%2E/a%20b%25%2B/"),
        ("", ("\n", "e\x00", "\u202e", "x"), "%0A/e%00/%E2%80%AE/x/"),
    ],
)
def test_what_keys_begin_with(prefix, target, expected):
    names = dict(zip(("service", "environment", "region", "tenant"), target, strict=False))
    assert prefix_of(CONFIG.model_copy(update={"prefix": prefix}), Target(**names)) == expected


paths = st.lists(
    st.text(
        st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=9
    ),
    min_size=1,
    max_size=4,
).map("/".join)


@given(paths, paths)
def test_two_paths_never_share_a_key(one, other):
    assert (key_of("p/", one) == key_of("p/", other)) == (one == other)
    assert unquote(key_of("", one)) == one
    assert not {"", ".", ".."} & set(key_of("", one).split("/"))


def test_a_key_longer_than_s3_takes_is_refused():
    assert len(key_of("", "x" * 1024)) == 1024
    with pytest.raises(RefusedError, match="too long"):
        key_of("", "x" * 1022 + "가")


# Receipts


@pytest.mark.parametrize(
    "receipt",
    [
        RECEIPT,
        RECEIPT._replace(part_bytes=5 * MIB, size=0, mode="GOVERNANCE"),
        RECEIPT._replace(path="index/000001-ab.head.json", entries=1),
    ],
)
def test_a_receipt_is_read_as_it_was_written(receipt):
    assert receipts_of([receipt.event()]) == [receipt]
    assert receipt.event()["event"] == ("uploaded" if receipt.entries is None else "anchored")
    assert receipt.event()["retain_until"] == text_of(UNTIL) == "2030-01-02T03:04:05Z"


def test_of_one_version_the_last_receipt_counts():
    longer = RECEIPT._replace(retain_until=UNTIL + timedelta(days=1))
    other = RECEIPT._replace(version_id="w")
    entries = [RECEIPT.event(), other.event(), {"event": "indexed"}, longer.event()]
    assert receipts_of(entries) == [longer, other]


@pytest.mark.parametrize(
    "change",
    [
        {"path": ""},
        {"path": 1},
        {"bucket": None},
        {"key": ""},
        {"version_id": None},
        {"sha256": "AB" * 32},
        {"sha256": None},
        {"size": -1},
        {"size": 1.0},
        {"size": True},
        {"mode": "NONE"},
        {"mode": ["COMPLIANCE"]},
        {"retain_until": "soon"},
        {"retain_until": "2030-01-02T03:04:05"},
        {"retain_until": 5},
        {"part_bytes": 0},
        {"part_bytes": "5"},
        {"entries": 1},
        {"event": "anchored"},
        {"event": "anchored", "entries": 0},
    ],
    ids=str,
)
def test_what_is_no_receipt_is_said(change):
    with pytest.raises(JournalError, match="not the receipt of an upload"):
        receipts_of([RECEIPT.event() | change])


# What is read from disk


@pytest.fixture
def root(tmp_path):
    made = Root(tmp_path / "var")
    made.locked("1.0.0")
    made.bundle("d1", **{"decision.json": b"{}"})
    made.index()
    return made


def item_of(root, name="evidence/1.0.0.locked.json"):
    return Item(name, "k", hashlib.sha256((root.path / name).read_bytes()).hexdigest())


def test_what_is_read_is_what_the_index_knows(root):
    item = item_of(root)
    path = root.path / item.path
    data = path.read_bytes()
    assert read_item(root.path, item) == data
    path.write_bytes(data + b" ")
    with pytest.raises(RefusedError, match="is not what the index says"):
        read_item(root.path, item)
    path.unlink()
    with pytest.raises(EvidenceError, match="No such file"):
        read_item(root.path, item)
    path.symlink_to(root.path / "gate/bundle/d1/decision.json")
    with pytest.raises(EvidenceError, match="cannot be read"):
        read_item(root.path, item)
    with pytest.raises(EvidenceError, match="No such file"):
        read_item(root.path, item._replace(path="gate/bundle/none/x"))


def test_a_path_too_long_for_a_key_is_refused_and_the_others_are_not(root):
    found = snapshot(root.path)
    files, _ = scan(root.path)
    items, refused = items_of(files, found, "x" * 1000 + "/")
    assert [item.path for item in items] == []
    assert len(refused) == 2
    items, refused = items_of(files, found, "x" * 996 + "/")
    assert ([item.path for item in items], len(refused)) == (["evidence/1.0.0.locked.json"], 1)


def test_a_snapshot_is_the_index_as_far_as_the_head_covers_it(root):
    path = root.path / "evidence/index.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"half of an entry')
    rows, head = snapshot_of(root.path, PREFIX)
    assert rows.data == whole
    assert head.data == (root.path / "evidence/index.head.json").read_bytes()
    line = hashlib.sha256(whole.splitlines()[-1]).hexdigest()
    assert (rows.path, rows.entries) == (f"index/000002-{line[:16]}.jsonl", 2)
    for broken in (whole[:-10], whole.replace(b"1.0.0", b"1.0.1"), b""):
        path.write_bytes(broken)
        with pytest.raises(EvidenceError, match="does not cover the index"):
            snapshot_of(root.path, PREFIX)
    path.write_bytes(whole)
    (root.path / "evidence/index.head.json").write_bytes(b"{}")
    with pytest.raises(EvidenceError, match=r"index\.head\.json"):
        snapshot_of(root.path, PREFIX)


# Parts


@given(st.integers(0, 5 * 1024**4), st.integers(5, 5000))
def test_parts_are_as_large_as_asked_and_never_too_many(size, multipart_mb):
    part = part_size(size, CONFIG.model_copy(update={"multipart_mb": multipart_mb}))
    if size <= multipart_mb * MIB:
        assert part is None
    else:
        assert part >= multipart_mb * MIB
        assert -(-size // part) <= MAX_PARTS


def test_the_checksum_of_parts_is_that_of_their_digests():
    data = bytes(range(256)) * 10
    digests = [hashlib.sha256(data[i : i + 1000]).digest() for i in (0, 1000, 2000)]
    expected = b64encode(hashlib.sha256(b"".join(digests)).digest()).decode() + "-3"
    assert s3.composite(data, 1000) == expected


# Answers


@pytest.mark.parametrize(
    ("code", "status", "state"),
    [
        ("NoSuchObjectLockConfiguration", 404, "none"),
        ("ObjectLockConfigurationNotFoundError", 404, "none"),
        ("InvalidRequest", 400, "none"),
        ("AccessDenied", 403, "denied"),
        ("NoSuchKey", 404, "missing"),
        ("NoSuchVersion", 404, "missing"),
        ("InvalidArgument", 400, "missing"),
        ("NoSuchBucket", 404, None),
        ("RequestTimeTooSkewed", 403, None),
        ("InvalidAccessKeyId", 403, None),
        ("SlowDown", 503, None),
    ],
)
def test_not_locked_and_not_allowed_to_see_are_two_things(client, stub, code, status, state):
    stub.add_client_error("get_object_retention", code, "words", status)
    if state is None:
        with pytest.raises(s3.S3Error, match=code):
            s3.read_lock(client, "bucket", "k", "v")
    else:
        assert s3.read_lock(client, "bucket", "k", "v") == s3.Lock(state)


@pytest.mark.parametrize("retention", [{}, {"Mode": "COMPLIANCE"}, {"RetainUntilDate": UNTIL}])
def test_half_a_lock_is_none(client, stub, retention):
    stub.add_response("get_object_retention", {"Retention": retention})
    assert s3.read_lock(client, "bucket", "k", "v").state == "none"


@pytest.mark.parametrize(
    ("mode", "until", "wanted", "holds"),
    [
        ("COMPLIANCE", 0, "COMPLIANCE", True),
        ("COMPLIANCE", 0, "GOVERNANCE", True),
        ("GOVERNANCE", 0, "COMPLIANCE", False),
        ("GOVERNANCE", 0, "GOVERNANCE", True),
        ("COMPLIANCE", -1, "COMPLIANCE", False),
    ],
)
def test_which_lock_is_enough(mode, until, wanted, holds):
    lock = s3.Lock("locked", mode, UNTIL + timedelta(seconds=until))
    assert lock.holds(wanted, UNTIL) is holds
    assert not s3.Lock("none").holds(wanted, UNTIL)


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        (s3.Lock("locked", "COMPLIANCE", UNTIL), []),
        (s3.Lock("locked", "GOVERNANCE", UNTIL), ["mode"]),
        (s3.Lock("locked", "GOVERNANCE", UNTIL - timedelta(days=1)), ["mode", "shortened"]),
        (s3.Lock("none"), ["not_locked"]),
        (s3.Lock("denied"), ["denied"]),
    ],
)
def test_a_lock_is_held_against_its_receipt(lock, expected):
    assert [finding.cause for finding in _of_lock(RECEIPT, lock)] == expected


DATA = b"0123456789"
SHA = hashlib.sha256(DATA).hexdigest()
ITEM = Item("p", "k", SHA, DATA)


def stored(client, **more):
    return s3.stored_fault(
        client, "bucket", "k", "v", sha256=SHA, size=len(DATA), **more
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "more", "fault"),
    [
        (s3.sha256_base64(DATA), {}, None),
        (s3.sha256_base64(b"x"), {}, "the server's SHA-256 of it is another"),
        (s3.composite(DATA, 4), {"data": DATA, "part_bytes": 4}, None),
        (
            s3.composite(DATA, 5),
            {"data": DATA, "part_bytes": 4},
            "the server's SHA-256 of its parts is another",
        ),
    ],
)
def test_the_servers_checksum_is_enough(client, stub, told, more, fault):
    asks = {"Bucket": "bucket", "Key": "k", "VersionId": "v", "ChecksumMode": "ENABLED"}
    answer = {"ContentLength": len(DATA), "ChecksumSHA256": told}
    stub.add_response("head_object", answer, asks)
    assert stored(client, **more) == fault


@pytest.mark.parametrize("told", [{}, {"ChecksumSHA256": s3.composite(DATA, 4)}])
@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (DATA, None),
        (b"x" * 10, "its bytes have another SHA-256"),
        (DATA + b"x" * 5_000_000, "its bytes have another SHA-256"),
    ],
)
def test_without_it_the_bytes_are_read(client, stub, told, body, fault):
    stub.add_response("head_object", {"ContentLength": len(DATA), **told})
    stream = io.BytesIO(body)
    stub.add_response("get_object", {"Body": stream}, {"Bucket": ANY, "Key": ANY, "VersionId": "v"})
    assert stored(client) == fault
    assert stream.closed


def test_another_size_is_another_object(client, stub):
    stub.add_response("head_object", {"ContentLength": 11})
    assert stored(client) == "has 11 bytes, and was uploaded with 10"


# The way to the server


class Server(http.server.BaseHTTPRequestHandler):
    """Answers everything with the same bytes."""

    status, body, headers_too = 200, b"", {}

    def do_GET(self):
        self.send_response(self.status)
        for name, value in {"Content-Length": len(self.body), **self.headers_too}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


@pytest.fixture
def answering():
    """A client of a server that answers with (status, body, headers)."""
    with contextlib.ExitStack() as stack:

        def serve(status, body, headers=()):
            handler = type(
                "Handler", (Server,), {"status": status, "body": body, "headers_too": dict(headers)}
            )
            server = http.server.HTTPServer(("127.0.0.1", 0), handler)
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            url = f"http://127.0.0.1:{server.server_port}"
            config = CONFIG.model_copy(update={"endpoint_url": url})
            return stack.enter_context(s3.open_s3(config, region=None))

        yield serve


LOCK_XML = "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{}</RetainUntilDate></Retention>"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"<html><body>a proxy's page</body>", {}),
        (b"not XML at all", {}),
        (b"\xff\xfe\x00", {}),
        (LOCK_XML.format("tomorrow").encode(), {}),
        (LOCK_XML.format("99999-01-01T00:00:00Z").encode(), {}),
        (LOCK_XML.format("0001-01-01T00:00:00+23:00").encode(), {}),
        (b"<Retention>", {"Content-Length": "1000"}),
    ],
)
def test_an_answer_that_is_none_of_s3_is_one_line(answering, monkeypatch, body, headers):
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    client = answering(200, body, headers)
    with pytest.raises(s3.S3Error) as caught:
        s3.read_lock(client, "bucket", "k", "v")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("s3://bucket/k: ")


@pytest.mark.parametrize("status", [500, 503, 404, 403, 400])
def test_an_error_without_a_body_is_one_line(answering, monkeypatch, status):
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    client = answering(status, b"<html>not S3's")
    with pytest.raises(s3.S3Error) as caught, s3.asked("bucket"):
        client.list_object_versions(Bucket="bucket")
    assert "\n" not in str(caught.value)


def test_a_hostile_message_stays_on_one_line(answering):
    text = "##[error]a\n::set-env\x1b[31m" + "x" * 10_000
    body = f"<Error><Code>Bad</Code><Message>{text.replace(chr(27), '')}</Message></Error>"
    client = answering(400, body.encode())
    with pytest.raises(s3.S3Error) as caught, s3.asked("bucket"):
        client.list_object_versions(Bucket="bucket")
    said = str(caught.value)
    assert "\n" not in said
    assert "##[" not in said
    assert len(said) < 400


def test_nobody_there_is_one_line(monkeypatch):
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    config = CONFIG.model_copy(update={"endpoint_url": "http://127.0.0.1:1"})
    with s3.open_s3(config, region=None) as client, pytest.raises(RemoteError) as caught:
        precheck(config, TARGET, client=client)
    assert "no whole answer (EndpointConnectionError)" in str(caught.value)
    assert caught.value.exit_code == 4


def test_no_credentials_is_one_line(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with s3.open_s3(CONFIG, region=None) as client, pytest.raises(s3.S3Error) as caught:
        s3.read_lock(client, "bucket", "k", "v")
    assert "boto3 finds no credentials" in str(caught.value)


def test_a_profile_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with (
        pytest.raises(s3.S3Error, match="ProfileNotFound"),
        s3.open_s3(CONFIG, region=None),
    ):
        pass


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "host:8000",
        "https://",
        "https://user:hunter2@host",
        "https://host/?key=hunter2",
        "https://host/#hunter2",
        "https://host:hunter2",
        "https://host:0",
        "https://[::1",
        "https://ho st",
    ],
)
def test_what_is_no_endpoint_is_said_without_telling_it(url):
    config = CONFIG.model_copy(update={"endpoint_url": url})
    with (
        pytest.raises(UsageError, match="not an endpoint") as caught,
        s3.open_s3(config, region=None),
    ):
        pass
    assert "hunter2" not in str(caught.value)


def as_bytes(value):
    return value if isinstance(value, bytes) else value.encode()


def test_what_goes_over_the_wire_is_plain_and_hashed():
    """No trailer, no chunks: a server that does not know them stores them with the object."""
    config = CONFIG.model_copy(
        update={"endpoint_url": "https://s3.example.test", "multipart_mb": 5}
    )
    requests = []

    def answer(request, **_):
        requests.append(request)
        body = b"<CreateMultipartUploadResult><UploadId>u</UploadId></CreateMultipartUploadResult>"
        if request.method == "GET":
            body = b"<List/>"
        headers = {"x-amz-version-id": "v", "ETag": '"e"'}
        raw = type("Raw", (io.BytesIO,), {"stream": lambda self, **_: iter([self.read()])})(body)
        return AWSResponse(request.url, 200, headers, raw)

    large = bytes(7 * MIB)
    with s3.open_s3(config, region=None) as client:
        client.meta.events.register("before-send.s3", answer)
        for data in (DATA, large):
            item = Item("p", "k", hashlib.sha256(data).hexdigest(), data)
            assert send(client, config, item, data, until=UNTIL, stopped=lambda: False) == "v"
    bodies = {"put": DATA, "1": large[: 5 * MIB], "2": large[5 * MIB :]}
    for request in requests:
        headers = {name.lower(): as_bytes(value) for name, value in request.headers.items()}
        assert "x-amz-trailer" not in headers
        assert "content-encoding" not in headers
        if request.method == "PUT":
            part = request.url.partition("partNumber=")[2].partition("&")[0]
            body = bodies.pop(part or "put")
            sent = request.body if isinstance(request.body, bytes) else request.body.read()
            assert sent == body
            assert headers["x-amz-checksum-sha256"] == b64encode(hashlib.sha256(body).digest())
            assert headers["content-md5"] == b64encode(hashlib.md5(body).digest())
        begins = request.method == "POST" and "?uploads" in request.url
        if begins or (request.method == "PUT" and "partNumber" not in request.url):
            assert headers["x-amz-object-lock-mode"] == b"COMPLIANCE"
            assert headers["x-amz-object-lock-retain-until-date"] == b"2030-01-02T03:04:05Z"
            assert len(headers["x-amz-meta-sha256"]) == 64
    assert not bodies


# A server with checksums (moto: it keeps locks, and enforces none)


@pytest.fixture
def aws(client):
    def retention(params, **_):
        """Moto cannot be asked for it alone, but tells it in HEAD."""
        query, key = params["query_string"], unquote(params["auth_path"]).removeprefix("/bucket/")
        head = aws.head_object(Bucket="bucket", Key=key, VersionId=query["versionId"])
        told = {
            "Mode": head["ObjectLockMode"],
            "RetainUntilDate": head["ObjectLockRetainUntilDate"],
        }
        return AWSResponse(None, 200, {}, None), {"Retention": told}

    with mock_aws():
        aws = boto3.client("s3", region_name="us-east-1")
        aws.create_bucket(Bucket="bucket", ObjectLockEnabledForBucket=True)
        client.meta.events.register("before-call.s3.GetObjectRetention", retention)
        yield aws
        aws.close()


def test_with_the_servers_checksum_nothing_is_read_back(aws, client, root):
    now = datetime.now(UTC)
    report = upload(
        root.path, CONFIG, TARGET, client=client, record=root.record, now=now
    )  # fmt: skip
    assert len(report.uploaded) == 4
    read = []
    client.meta.events.register(
        "before-call.s3.GetObject", lambda params, **_: read.append(params["url_path"])
    )
    found = verify(root.path, CONFIG, TARGET, client=client, now=now)
    assert (found.findings, found.versions, found.anchored) == ((), 4, 4)
    assert [path for path in read if not path.endswith(".head.json")] == []
    result = {row.name: row for row in precheck(CONFIG, TARGET, client=client)}
    assert result["read objects"].message.endswith("with SHA-256")


def test_where_no_md5_is_checked_nothing_is_put(aws, client):
    result = {row.name: row for row in precheck(CONFIG, TARGET, client=client)}
    assert result["put with lock"].result == "cannot tell"
    assert "does not check MD5" in result["put with lock"].message
    assert "Versions" not in aws.list_object_versions(Bucket="bucket")
    assert not aws.list_multipart_uploads(Bucket="bucket").get("Uploads")


# Upload against single answers


@pytest.mark.parametrize("version", [{}, {"VersionId": "null"}])
def test_a_bucket_that_keeps_no_versions_is_refused(client, stub, version):
    stub.add_response("list_object_versions", {"Versions": [{"Key": "k", "Size": 10, **version}]})
    if not version:  # not as S3 lists them
        with pytest.raises(s3.S3Error, match="not as S3 answers"):
            send(client, CONFIG, ITEM, DATA, until=UNTIL, stopped=lambda: False)
        stub.add_response("list_object_versions", {})
    stub.add_response("put_object", version)
    with pytest.raises(RefusedError, match="keeps no versions"):
        send(client, CONFIG, ITEM, DATA, until=UNTIL, stopped=lambda: False)


def test_a_server_that_forgets_to_lock_gives_no_receipt(client, stub, root):
    """And says that it did: then nothing more is sent."""
    config = CONFIG.model_copy(update={"workers": 1})
    stub.add_response("list_object_versions", {})
    stub.add_response("put_object", {"VersionId": "v"})
    stub.add_client_error("get_object_retention", "NoSuchObjectLockConfiguration", "", 404)
    stub.add_response("put_object_retention", {})
    stub.add_client_error("get_object_retention", "NoSuchObjectLockConfiguration", "", 404)
    recorded = []
    with pytest.raises(s3.S3Error, match="did not lock it as asked"):
        upload(
            root.path, config, TARGET, client=client, record=recorded.extend, now=datetime.now(UTC)
        )  # fmt: skip
    assert recorded == []
    stub.assert_no_pending_responses()


@pytest.mark.parametrize("step", ["head_object", "put_object_retention"])
def test_a_server_that_fails_midway_is_one_line(client, stub, root, step):
    config = CONFIG.model_copy(update={"workers": 1})
    item = item_of(root)
    key = key_of(prefix_of(config, TARGET), item.path)
    if step == "head_object":
        root.record([RECEIPT._replace(path=item.path, key=key, sha256=item.sha256).event()])
    else:
        stub.add_response("list_object_versions", {})
        stub.add_response("put_object", {"VersionId": "v"})
        stub.add_client_error("get_object_retention", "NoSuchObjectLockConfiguration", "", 404)
    stub.add_client_error(step, "InternalError", "", 500)
    with pytest.raises(s3.S3Error, match="InternalError"):
        upload(
            root.path, config, TARGET, client=client, record=root.record, now=datetime.now(UTC)
        )  # fmt: skip


def test_an_upload_that_went_away_is_begun_anew_and_the_version_is_looked_up(client, stub):
    """The answer to the completion was lost, and the second one has no VersionId."""
    config = CONFIG.model_copy(update={"multipart_mb": 5})
    data = bytes(6 * MIB)
    sha256 = hashlib.sha256(data).hexdigest()
    upload_of = {"Key": "k", "UploadId": "gone"}
    stub.add_response("list_object_versions", {"Versions": []})
    stub.add_response("list_multipart_uploads", {"Uploads": [upload_of]})
    stub.add_client_error("list_parts", "NoSuchUpload", "", 404)
    stub.add_response("create_multipart_upload", {"UploadId": "u"})
    for _ in range(2):
        stub.add_response("upload_part", {"ETag": "e"})
    stub.add_response("complete_multipart_upload", {})
    found = {"Key": "k", "VersionId": "v", "Size": len(data)}
    stub.add_response("list_object_versions", {"Versions": [{**found, "Key": "kk"}, found]})
    told = {"ContentLength": len(data), "ChecksumSHA256": s3.composite(data, 5 * MIB)}
    stub.add_response("head_object", told)
    item = Item("p", "k", sha256, data)
    assert send(client, config, item, data, until=UNTIL, stopped=lambda: False) == "v"


def test_parts_are_known_by_their_sha256_where_the_server_has_it(client, stub):
    config = CONFIG.model_copy(update={"multipart_mb": 5})
    data = bytes(6 * MIB)
    part = {"PartNumber": 1, "Size": 5 * MIB, "ETag": '"not an MD5"'}
    part["ChecksumSHA256"] = s3.sha256_base64(data[: 5 * MIB])
    stub.add_response("list_object_versions", {})
    uploads = [{"Key": "k", "UploadId": f"u{number}"} for number in (1, 2)]
    stub.add_response("list_multipart_uploads", {"Uploads": uploads})
    wrong = part | {"ChecksumSHA256": s3.sha256_base64(b"x")}
    stub.add_response("list_parts", {"Parts": [wrong]})
    stub.add_response("list_parts", {"Parts": [part]})
    asked = {"UploadId": "u2", "PartNumber": 2}
    stub.add_response("upload_part", {"ETag": "e"}, dict.fromkeys(
        ("Bucket", "Key", "Body", "ContentMD5", "ChecksumAlgorithm", "ChecksumSHA256"), ANY) | asked)  # fmt: skip
    stub.add_response("complete_multipart_upload", {"VersionId": "v"})
    item = Item("p", "k", hashlib.sha256(data).hexdigest(), data)
    assert send(client, config, item, data, until=UNTIL, stopped=lambda: False) == "v"
    stub.assert_no_pending_responses()


def test_parts_that_may_not_be_listed_are_one_line(client, stub):
    config = CONFIG.model_copy(update={"multipart_mb": 5})
    data = bytes(6 * MIB)
    stub.add_response("list_object_versions", {})
    stub.add_response("list_multipart_uploads", {"Uploads": [{"Key": "k", "UploadId": "u"}]})
    stub.add_client_error("list_parts", "AccessDenied", "", 403)
    item = Item("p", "k", hashlib.sha256(data).hexdigest(), data)
    with pytest.raises(s3.S3Error, match="AccessDenied"):
        send(client, config, item, data, until=UNTIL, stopped=lambda: False)


# Precheck against single answers


@pytest.mark.parametrize(
    ("offset", "result", "words"),
    [
        (0, "ok", "within 1 s"),
        (-30, "ok", "within 30 s"),
        (30, "ok", "within 31 s"),
        (-90, "no", "ahead of the server"),
        (90, "no", "behind the server"),
    ],
)
def test_the_clock_is_held_against_the_servers(offset, result, words):
    now = datetime.now(UTC).replace(microsecond=0)
    stated = format_datetime(now + timedelta(seconds=offset), usegmt=True)
    row = objectlock_precheck._clock(stated, now, now)
    assert (row.result, words in row.message) == (result, True), row
    assert "at most 60 s are allowed" in row.message


@pytest.mark.parametrize("stated", ["", "yesterday", "Tue, 99 Nov 2026 16:37:02 GMT"])
def test_a_server_without_a_clock_proves_nothing(stated):
    now = datetime.now(UTC)
    assert objectlock_precheck._clock(stated, now, now).result == "cannot tell"


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("404", 404, [("bucket", "no")]),
        ("301", 301, [("bucket", "no")]),
        ("SignatureDoesNotMatch", 403, None),
        ("500", 500, None),
    ],
)
def test_what_the_first_answer_ends(client, stub, code, status, expected):
    stub.add_client_error("head_bucket", code, "", status)
    if expected is None:
        with pytest.raises(s3.S3Error):
            precheck(CONFIG, TARGET, client=client)
    else:
        rows = precheck(CONFIG, TARGET, client=client)
        assert [(row.name, row.result) for row in rows] == expected


def put_answers(stub, *, md5="BadDigest", status=400):
    """The answers of a server up to the PUT of the probe."""
    stub.add_response("head_bucket", {"ResponseMetadata": {"HTTPStatusCode": 200}})
    stub.add_response("get_bucket_versioning", {"Status": "Enabled"})
    stub.add_response(
        "get_object_lock_configuration",
        {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}},
    )
    stub.add_client_error("abort_multipart_upload", "NoSuchUpload", "", 404)
    stub.add_response("create_multipart_upload", {"UploadId": "u"})
    stub.add_response("list_parts", {})
    stub.add_response("list_multipart_uploads", {})
    stub.add_client_error("upload_part", md5, "", status)
    stub.add_response("abort_multipart_upload", {})


def test_a_server_that_checks_the_md5_of_parts_alone_is_found_out(client, stub):
    put_answers(stub)
    stub.add_response("put_object", {"VersionId": "left-behind"})
    stub.add_response("list_object_versions", {})
    rows = {row.name: row for row in precheck(CONFIG, TARGET, client=client)}
    assert rows["put with lock"].result == "no"
    assert "left-behind" in rows["put with lock"].message


STEPS = ["upload_part", "put_object", "list_object_versions", "put_object_retention"]
FOUND = {"Versions": [{"Key": "k", "VersionId": "v"}]}


def locked_until(until):
    return {"Retention": {"Mode": "COMPLIANCE", "RetainUntilDate": until}}


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
@pytest.mark.parametrize("step", STEPS)
def test_a_server_in_trouble_is_no_verdict(client, stub, code, step):
    if step == "upload_part":
        put_answers(stub, md5=code, status=503)
    else:
        put_answers(stub)
        if step != "put_object":
            stub.add_client_error("put_object", "BadDigest", "", 400)
        if step == "put_object_retention":
            stub.add_response("list_object_versions", FOUND)
            stub.add_response("get_object_retention", locked_until(UNTIL))
        stub.add_client_error(step, code, "", 503)
    with pytest.raises(s3.S3Error, match=code):
        precheck(CONFIG, TARGET, client=client)


def test_a_part_refused_for_another_reason_proves_no_check(client, stub):
    put_answers(stub, md5="EntityTooSmall")
    stub.add_response("list_object_versions", {})
    rows = {row.name: row for row in precheck(CONFIG, TARGET, client=client)}
    assert rows["put with lock"].result == "cannot tell"


def test_a_lock_that_is_over_is_not_put_on_again(client, stub):
    put_answers(stub)
    stub.add_client_error("put_object", "BadDigest", "", 400)
    stub.add_response("list_object_versions", FOUND)
    stub.add_response("get_object_retention", locked_until(datetime(2020, 1, 1, tzinfo=UTC)))
    stub.add_response("head_object", {"ContentLength": 1, "ObjectLockMode": "COMPLIANCE"})
    stub.add_client_error("get_object_retention", "NoSuchObjectLockConfiguration", "", 404)
    rows = {row.name: row.result for row in precheck(CONFIG, TARGET, client=client)}
    assert (rows["read lock"], rows["add lock"], rows["read objects"]) == (
        "ok",
        "cannot tell",
        "ok",
    )


# Verify against single answers


@pytest.mark.parametrize(
    ("code", "expected"),
    [("404", "missing"), ("403", "denied"), ("500", None)],
)
def test_a_version_that_cannot_be_read_after_its_lock(client, stub, root, code, expected):
    stub.add_response("get_object_retention", locked_until(UNTIL))
    stub.add_client_error("head_object", code, "", int(code))
    check = functools.partial(_check, root.path, client, RECEIPT, datetime(2029, 1, 1, tzinfo=UTC))
    if expected is None:
        with pytest.raises(s3.S3Error):
            check()
    else:
        assert [(one.severity, one.cause) for one in check()] == [("error", expected)]


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("AccessDenied", 403, ("error", "denied")),
        ("NoSuchKey", 404, ("warning", "unknown")),
        ("NoSuchObjectLockConfiguration", 404, ("error", "not_locked")),
    ],
)
def test_what_a_version_without_receipt_is(client, stub, code, status, expected):
    stub.add_client_error("get_object_retention", code, "", status)
    found = stranger(client, "bucket", Stored("k", "v", latest=True, marker=False))
    assert (found.severity, found.cause) == expected


def test_more_versions_than_anybody_has_are_refused(client, stub, monkeypatch):
    monkeypatch.setattr("pytest_decisionos.evidence.objectlock_bucket.MAX_VERSIONS", 1)
    one = {"Key": "k", "VersionId": "v", "IsLatest": False}
    stub.add_response("list_object_versions", {"Versions": [one], "DeleteMarkers": [one]})
    with pytest.raises(DecisionOSError, match="too many versions"):
        listed(client, "bucket", "p/")


@pytest.mark.parametrize("step", ["get_object_retention", "list_object_versions", "get_object"])
def test_a_server_that_fails_while_verifying_is_one_line(client, stub, root, step):
    config = CONFIG.model_copy(update={"workers": 1})
    if step == "get_object_retention":
        root.record([RECEIPT.event()])
    if step == "get_object":
        (_, head) = snapshot_of(root.path, prefix_of(config, TARGET))
        version = {"Key": head.key, "VersionId": "v", "IsLatest": True}
        stub.add_response("list_object_versions", {"Versions": [version]})
        stub.add_response("get_object_retention", locked_until(UNTIL))
    stub.add_client_error(step, "InternalError", "", 500)
    with pytest.raises(s3.S3Error, match="InternalError"):
        verify(root.path, config, TARGET, client=client, now=datetime.now(UTC))


@pytest.mark.parametrize("data", [b"{}", b"x" * 100_000])
def test_a_head_of_another_content_is_none(client, stub, root, data):
    (_, head) = snapshot_of(root.path, PREFIX)
    stored_head = Stored(head.key, "v", latest=True, marker=False)
    stub.add_response("get_object", {"Body": io.BytesIO(data)})
    found, entries = anchors(root.path, client, "bucket", PREFIX, [stored_head])
    assert [one.cause for one in found] == ["rolled_back"]
    assert entries == head.entries


def test_a_fault_of_the_index_is_a_finding(aws, client, root):
    (root.path / "evidence/index.head.json").unlink()
    found = verify(root.path, CONFIG, TARGET, client=client, now=datetime.now(UTC))
    assert "evidence/index.head.json" in causes(found)["error", "index"]


def test_what_is_no_file_is_a_finding_too(aws, client, root):
    (root.path / "evidence/x.locked.json").mkdir()
    found = verify(root.path, CONFIG, TARGET, client=client, now=datetime.now(UTC))
    assert causes(found)["error", "not_a_file"] == ["evidence/x.locked.json"]
    assert isinstance(scan(root.path)[1][0], Fault)
