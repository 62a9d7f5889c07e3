"""The ring in SSM: read whole and decrypted, written under a lock; and every way that SSM fails."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import threading
from datetime import UTC, datetime, timedelta

import boto3
import botocore.endpoint
import botocore.loaders
import botocore.session
import pytest
from botocore.stub import Stubber
from moto import mock_aws
from moto.ssm.models import SimpleSystemManagerBackend

from pytest_decisionos.errors import DecisionOSError, KeysError, RefusedError, RemoteError
from pytest_decisionos.trust import ssm
from pytest_decisionos.trust.keys import USES, make_ring, parse_ring, ring_json
from pytest_decisionos.trust.rotate import Step, next_step, revoke

PATH, RING, LOCK = "/decisionos/judge", "/decisionos/judge/ring", "/decisionos/judge.lock"
REGION = "eu-north-1"
SECRET = "correct horse battery staple, and more"
NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
DAY = timedelta(days=1)


def entry(key_id="k", state="active", use=("request",), **more):
    return {"key_id": key_id, "secret": SECRET, "state": state, "use": list(use), **more}


SESSION = boto3.session.Session
LOADER = botocore.loaders.create_loader()


@pytest.fixture(autouse=True)
def _service_model_is_read_once(monkeypatch):
    """Parsing what botocore knows of SSM takes longer than a test."""

    def session():
        made = botocore.session.get_session()
        made.register_component("data_loader", LOADER)
        return SESSION(botocore_session=made)

    monkeypatch.setattr(boto3.session, "Session", session)


@pytest.fixture(autouse=True)
def _no_aws_of_this_machine(monkeypatch, tmp_path):
    for name in (
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_SSM",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def store():
    """A client of moto's SSM."""
    with mock_aws():
        client = boto3.session.Session().client("ssm", region_name=REGION)
        yield client
        client.close()


def put(store, name, value, kind="SecureString", **more):
    text = value if isinstance(value, str) else json.dumps(value)
    store.put_parameter(Name=name, Value=text, Type=kind, **more)


def names(store):
    return {one["Name"]: one["Version"] for one in store.describe_parameters()["Parameters"]}


def stored(store):
    return store.get_parameter(Name=RING, WithDecryption=True)["Parameter"]["Value"]


def read(path=PATH):
    return ssm.read_ring(path, region=REGION)


def update(change):
    return ssm.update_ring(PATH, change, region=REGION)


def assert_one_line(fault):
    assert "\n" not in str(fault)
    assert SECRET not in str(fault)
    assert SECRET not in repr(vars(fault))


# Reading


def test_a_ring_of_one_parameter(store):
    put(store, RING, [entry("a"), entry("b", "grace")])
    found = read()
    assert [key.key_id for key in found.keys] == ["a", "b"]
    assert found.origin == f"SSM {PATH}"
    assert found.keys[0].raw == SECRET.encode()
    assert read(PATH + "/").keys == found.keys


def test_entries_and_lists_below_the_path_are_one_ring(store):
    put(store, f"{PATH}/one", entry("a"))
    put(store, f"{PATH}/deep/er/two", [entry("b", "grace"), entry("c", use=("stage",))])
    put(store, "/decisionos/judges/other", entry("x"))
    put(store, "/decisionos/judge.lock", "not below the path", kind="String")
    assert {key.key_id for key in read().keys} == {"a", "b", "c"}


def test_all_pages(store):
    for i in range(35):
        put(store, f"{PATH}/{i}", entry(f"k{i}", "retired"))
    assert {key.key_id for key in read().keys} == {f"k{i}" for i in range(35)}


def parameter(value, name=RING, kind="SecureString", **more):
    text = value if isinstance(value, str) else json.dumps(value)
    return {"Name": name, "Type": kind, "Value": text, "Version": 1, **more}


@contextlib.contextmanager
def pages(monkeypatch, *answers):
    """The client of the module answers these pages, each asked for with the token of the one before."""
    client = boto3.session.Session().client("ssm", region_name=REGION)
    stubber = Stubber(client)
    token = None
    for answer in answers:
        asked = {"Path": PATH, "Recursive": True, "WithDecryption": True}
        stubber.add_response(
            "get_parameters_by_path", answer, {**asked, **({"NextToken": token} if token else {})}
        )
        token = answer.get("NextToken")
    monkeypatch.setattr(SESSION, "client", lambda *_, **__: client)
    with stubber:
        yield
    stubber.assert_no_pending_responses()


def test_empty_pages_that_have_a_next_one(monkeypatch):
    empty = {"Parameters": []}
    with pages(
        monkeypatch,
        {**empty, "NextToken": "1"},
        {"Parameters": [parameter(entry("a"), f"{PATH}/a")], "NextToken": "2"},
        {**empty, "NextToken": "3"},
        {"NextToken": "4"},
        {"Parameters": [parameter(entry("b", "grace"), f"{PATH}/b")], "NextToken": "5"},
        empty,
    ):
        assert [key.key_id for key in read().keys] == ["a", "b"]


def test_empty_pages_only(monkeypatch):
    with (
        pages(monkeypatch, {"Parameters": [], "NextToken": "1"}, {"Parameters": []}),
        pytest.raises(KeysError, match=f"^SSM {PATH}: no parameter is there"),
    ):
        read()


def test_pages_without_an_end(monkeypatch):
    asked = []

    class Endless:
        def get_parameters_by_path(self, **more):
            asked.append(more.get("NextToken"))
            return {"Parameters": [], "NextToken": f"t{len(asked)}"}

        def close(self):
            asked.append("closed")

    monkeypatch.setattr(SESSION, "client", lambda *_, **__: Endless())
    with pytest.raises(RemoteError, match="the pages have no end; found 200 pages"):
        read()
    assert asked == [None, *(f"t{i}" for i in range(1, ssm.MAX_PAGES)), "closed"]


def test_nothing_there_is_an_error_never_an_empty_ring(store):
    with pytest.raises(KeysError, match="no parameter is there.*dosctl keys gen"):
        read()


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        (entry(), "String", f"{RING}: the secret lies open; found String; expected SecureString"),
        (json.dumps(entry()), "StringList", f"{RING}: the secret lies open"),
        ("AQICAHhKg5zDp" + SECRET, "SecureString", f"{RING}: not JSON, or not decrypted"),
        ('{"secret": "' + SECRET, "SecureString", f"{RING}: not JSON"),
        ([], "SecureString", f"{RING}: not a key ring"),
        ({}, "SecureString", f"{RING}: keys[0].key_id: Field required"),
        ("null", "SecureString", f"{RING}: keys[0]: "),
        ([entry(), 1], "SecureString", f"{RING}: keys[1]: "),
        (entry(state="x"), "SecureString", f"{RING}: keys[0].state"),
        ({**entry(), "secret": "tiny"}, "SecureString", "shorter than 32 bytes"),
    ],
)
def test_what_is_no_key(store, value, kind, says):
    put(store, RING, value, kind)
    with pytest.raises(KeysError) as caught:
        read()
    assert says in str(caught.value)
    assert_one_line(caught.value)


def test_one_bad_parameter_among_good_ones_is_an_error(store):
    put(store, f"{PATH}/a", entry("a"))
    put(store, f"{PATH}/b", SECRET)
    with pytest.raises(KeysError, match=f"SSM {PATH}/b: not JSON") as caught:
        read()
    assert_one_line(caught.value)


@pytest.mark.parametrize("second", [entry("a", "grace"), entry("b")])
def test_parameters_that_contradict_each_other(store, second):
    put(store, f"{PATH}/a", entry("a"))
    put(store, f"{PATH}/b", second)
    with pytest.raises(KeysError, match=f"SSM {PATH}: .*(one key_id|all active)"):
        read()


def test_ciphertext_is_no_key(monkeypatch):
    """As SSM answers when nothing was decrypted."""
    with (
        pages(monkeypatch, {"Parameters": [parameter("AQICAHh+" * 20)]}),
        pytest.raises(KeysError, match="not JSON, or not decrypted") as caught,
    ):
        read()
    assert "AQIC" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["", "/", "a", "a/b", "/a//b", "/a b", "//a", "/한글", "/a\n", "/a" * 15]
)
def test_what_is_no_path(path):
    with pytest.raises(KeysError, match="not a path of SSM"):
        read(path)


# Faults of the service


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("AccessDeniedException", "found AccessDeniedException → allow ssm:GetParametersByPath"),
        ("ExpiredTokenException", "refuses GetParametersByPath; found ExpiredTokenException"),
        ("InternalServerError", "found InternalServerError"),
    ],
)
def test_refusals_are_told_by_code_alone(monkeypatch, code, says):
    client = boto3.session.Session().client("ssm", region_name=REGION)
    stubber = Stubber(client)
    stubber.add_client_error("get_parameters_by_path", code, f"at value '{SECRET}'")
    monkeypatch.setattr(SESSION, "client", lambda *_, **__: client)
    with stubber, pytest.raises(RemoteError) as caught:
        read()
    assert says in str(caught.value)
    assert_one_line(caught.value)


def test_without_region():
    with pytest.raises(RemoteError, match="found NoRegionError → set AWS_REGION"):
        ssm.read_ring(PATH, region=None)


def test_without_credentials(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(RemoteError, match="found NoCredentialsError → give this process cred"):
        read()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AWS_ENDPOINT_URL", "http://user:s3cret@bad host/", "AWS_ENDPOINT_URL"),
        ("AWS_PROFILE", "nobody", "ProfileNotFound"),
    ],
)
def test_configuration_that_is_none(monkeypatch, name, value, says):
    monkeypatch.setenv(name, value)
    with pytest.raises(RemoteError, match=says) as caught:
        read()
    assert "s3cret" not in str(caught.value)


def test_a_region_that_is_none():
    with pytest.raises(RemoteError) as caught:
        ssm.read_ring(PATH, region="eu north!")
    assert_one_line(caught.value)


@pytest.fixture
def waits(monkeypatch):
    """How long botocore would have waited between its attempts."""
    slept = []

    class Clock:
        sleep = staticmethod(slept.append)

    monkeypatch.setattr(botocore.endpoint, "time", Clock)
    return slept


@pytest.fixture
def service(monkeypatch):
    """A service on this host that answers what it is told, and what it was asked."""
    answers, asked = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.headers["X-Amz-Target"].partition(".")[2], json.loads(body)))
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer is None:  # hang up
                self.close_connection = True
                return
            status, data = answer
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield answers, asked
        server.shutdown()
        thread.join()


def answer(value, status=200):
    return status, json.dumps(value).encode()


THROTTLED = answer({"__type": "ThrottlingException", "message": SECRET}, 400)
BROKEN = (500, b"<html>" + SECRET.encode())
GOOD = answer({"Parameters": [parameter(entry("a"))]})


@pytest.mark.parametrize(
    "bad", [THROTTLED, BROKEN, (503, b""), None], ids=["slow", "500", "503", "cut"]
)
def test_a_service_that_comes_back(service, waits, bad):
    answers, asked = service
    answers += [bad, bad, bad, GOOD]
    assert read().keys[0].key_id == "a"
    assert [name for name, _ in asked] == ["GetParametersByPath"] * 4
    assert asked[0][1] == {"Path": PATH, "Recursive": True, "WithDecryption": True}
    assert len(waits) == 3
    assert all(0 <= wait <= 2**i for i, wait in enumerate(waits))
    assert len(set(waits)) == 3  # random shares: two hosts that failed together come apart


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (THROTTLED, "refuses GetParametersByPath; found ThrottlingException"),
        (BROKEN, "refuses GetParametersByPath; found 500"),
        (None, "cannot be asked; found ConnectionClosedError"),
    ],
    ids=["slow", "500", "cut"],
)
def test_a_service_that_stays_away_is_given_up(service, waits, bad, says):
    answers, asked = service
    answers.append(bad)
    with pytest.raises(RemoteError, match=says) as caught:
        read()
    assert len(asked) == 4
    assert len(waits) == 3
    assert_one_line(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"Parameters": null}', b'{"Parameters": [{}]}', SECRET.encode(), b"null", b'{"Parameters": 5}', b'{"Parameters": ["x"]}'],
)  # fmt: skip
def test_a_service_that_talks_nonsense(service, waits, body):
    answers, _ = service
    answers.append((200, body))
    with pytest.raises((KeysError, RemoteError)) as caught:
        read()
    assert_one_line(caught.value)


def test_nobody_there(monkeypatch, waits):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        port = server.server_port
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(RemoteError, match="found EndpointConnectionError"):
        read()
    assert len(waits) == 3


# Writing


def ring(*entries):
    return make_ring(list(entries), f"SSM {PATH}")


def becomes(made, *, changed=True):
    return lambda _there: Step(made, changed, "done", "then")


def test_first_and_next_version(store):
    seen = []

    def change(there):
        seen.append((there, names(store)))
        return Step(first, True, "done", "then")

    first, second = ring(entry("a")), ring(entry("a", "grace"), entry("b"))
    assert update(change).ring is first
    assert seen == [(None, {LOCK: 1})]
    assert names(store) == {RING: 1}
    assert read() == first
    update(becomes(second))
    assert read() == second
    assert names(store) == {RING: 2}
    listed = store.describe_parameters()["Parameters"][0]
    assert (listed["Type"], listed["Tier"]) == ("SecureString", "Intelligent-Tiering")
    assert parse_ring(stored(store).encode(), "x").keys == second.keys


def test_nothing_to_do_writes_nothing(store):
    put(store, RING, [entry()])
    update(becomes(ring(entry("other")), changed=False))
    assert names(store) == {RING: 1}


def test_the_kms_key_is_kept(store, monkeypatch):
    put(store, RING, [entry()], KeyId="alias/ours")
    given = []
    write = SimpleSystemManagerBackend.put_parameter

    def spy(self, *args, **more):
        given.append((args[0], args[5]))
        return write(self, *args, **more)

    monkeypatch.setattr(SimpleSystemManagerBackend, "put_parameter", spy)
    update(becomes(ring(entry("b"))))
    assert (RING, "alias/ours") in given


def test_no_kms_key_told_writes_nothing(store, monkeypatch):
    put(store, RING, [entry()])
    monkeypatch.setattr(SimpleSystemManagerBackend, "describe_parameters", lambda *_, **__: [])
    with pytest.raises(RemoteError, match="which KMS key"):
        update(becomes(ring(entry("b"))))
    assert read().keys[0].key_id == "k"


@pytest.mark.parametrize("other", ["one", "deep/ring", "ring/ring"])
def test_entries_elsewhere_are_not_changed(store, other):
    put(store, RING, [entry("a")])
    put(store, f"{PATH}/{other}", entry("b", "grace"))
    with pytest.raises(
        RefusedError, match=f"found {PATH}/{other} → move their entries into {RING}"
    ):
        update(lambda _: pytest.fail("called"))
    assert names(store) == {RING: 1, f"{PATH}/{other}": 1}


def test_what_cannot_be_read_is_not_overwritten(store):
    put(store, RING, SECRET)
    with pytest.raises(KeysError, match="not JSON"):
        update(lambda _: pytest.fail("called"))
    assert names(store) == {RING: 1}


def test_a_ring_that_became_too_large(store):
    put(store, RING, [entry()])
    large = ring(*(entry(f"k{i}", "retired") for i in range(100)))
    with pytest.raises(RefusedError, match="too large for a parameter.*at most 8,192") as caught:
        update(becomes(large))
    assert_one_line(caught.value)
    assert names(store) == {RING: 1}


def test_a_ring_of_thirty_keys_fits(store):
    keys = [
        entry(
            f"evidence-20260105-{i:06x}",
            "retired",
            ("evidence",),
            not_before=NOW,
            not_after=NOW + DAY,
        )
        for i in range(30)
    ]
    made = ring(*({**key, "secret": "b64:" + "A" * 43 + "="} for key in keys))
    update(becomes(made))
    assert read() == made


def test_a_change_that_fails_leaves_no_lock(store):
    put(store, RING, [entry()])

    def change(_there):
        raise KeysError("no")

    with pytest.raises(KeysError, match="no"):
        update(change)
    assert names(store) == {RING: 1}


def test_a_lock_that_stands(store):
    owner = {"who": "user 7 on host, process 8", "since": "2026-01-05T09:00:00+00:00", "id": "x"}
    put(store, LOCK, owner, "String")
    with pytest.raises(RefusedError) as caught:
        update(lambda _: pytest.fail("called"))
    said = str(caught.value)
    assert said.startswith(
        f"SSM {LOCK}: another run changes this ring; found user 7 on host, process 8"
    )
    assert "since 2026-01-05T09:00:00+00:00" in said
    assert f"aws ssm delete-parameter --name {LOCK}" in said
    assert names(store) == {LOCK: 1}


@pytest.mark.parametrize("value", ["x", "{}", "[]", "1", '{"who": 1}'])
def test_a_lock_of_somebody_else(store, value):
    put(store, LOCK, value, "String")
    with pytest.raises(RefusedError, match="another run changes this ring; found unknown"):
        update(lambda _: pytest.fail("called"))


def test_a_lock_that_is_gone_when_it_is_looked_at(store, monkeypatch):
    put(store, LOCK, "x", "String")
    monkeypatch.setattr(ssm, "_value", lambda *_: None)
    with pytest.raises(RefusedError, match="found just released"):
        update(lambda _: pytest.fail("called"))


def test_the_own_lock_whose_answer_was_lost(store, monkeypatch):
    """botocore repeats a call whose answer is lost; then the lock that stands is one's own."""
    write = SimpleSystemManagerBackend.put_parameter

    def twice(self, *args, **more):
        made = write(self, *args, **more)
        return write(self, *args, **more) if args[0] == LOCK else made

    monkeypatch.setattr(SimpleSystemManagerBackend, "put_parameter", twice)
    with pytest.raises(KeyError, match="mine"):  # so the change was reached
        update(lambda _: {}["mine"])
    assert names(store) == {}


def test_the_lock_of_the_next_one_is_left(store):
    """Somebody took our lock for dead, and works now."""

    def change(_there):
        store.delete_parameter(Name=LOCK)
        put(store, LOCK, "theirs", "String")
        return Step(ring(entry()), True, "done", "then")

    update(change)
    assert names(store) == {RING: 1, LOCK: 1}


def test_a_lock_that_cannot_be_removed_is_told(store, monkeypatch):
    def deny(*_, **__):
        from moto.ssm.exceptions import AccessDeniedException

        raise AccessDeniedException("no")

    monkeypatch.setattr(SimpleSystemManagerBackend, "delete_parameter", deny)
    with pytest.raises(RemoteError, match=f"refuses DeleteParameter.*--name {LOCK}"):
        update(becomes(ring(entry())))
    assert read().keys[0].key_id == "k"
    with pytest.raises(RefusedError, match="another run"):
        update(lambda _: pytest.fail("called"))


def test_a_fault_is_told_before_that_of_the_lock(store, monkeypatch):
    def change(_there):
        monkeypatch.setattr(ssm, "_release", refuse)
        raise KeysError("first")

    def refuse(*_):
        raise RemoteError("second")

    with pytest.raises(KeysError, match="first"):
        update(change)


@pytest.mark.parametrize("there", [True, False])
def test_a_writer_without_the_lock_is_found(store, there):
    if there:
        put(store, RING, [entry()])

    def change(_there):
        put(store, RING, [entry("rude")], Overwrite=there)
        return Step(ring(entry("b")), True, "done", "then")

    with pytest.raises(RemoteError) as caught:
        update(change)
    if there:
        assert "found version 3 after 1" in str(caught.value)
        assert "get-parameter-history" in str(caught.value)
    else:  # nothing was lost: what was made meanwhile stands
        assert "ParameterAlreadyExists" in str(caught.value)
        assert read().keys[0].key_id == "rude"
    assert LOCK not in names(store)


# Two runs at once


@pytest.fixture
def atomic(monkeypatch):
    """moto's store is written by one thread at a time, as SSM's is."""
    mutex = threading.RLock()
    for name in ("put_parameter", "delete_parameter", "get_parameter"):
        plain = getattr(SimpleSystemManagerBackend, name)

        def alone(self, *args, _plain=plain, **more):
            with mutex:
                return _plain(self, *args, **more)

        monkeypatch.setattr(SimpleSystemManagerBackend, name, alone)


def rotation(now):
    return lambda there: next_step(there, "request", now=now, overlap=DAY)


def together(count, work):
    barrier = threading.Barrier(count)
    outcomes = []

    def run():
        barrier.wait(30)
        try:
            outcomes.append(work())
        except DecisionOSError as fault:
            outcomes.append(fault)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_rotations_at_once_never_make_two_active_keys(store, atomic):
    put(store, RING, json.loads(ring_json(ring(entry("a")))))
    for now in (NOW, NOW + DAY, NOW + 2 * DAY + timedelta(seconds=1), NOW + 3 * DAY):
        outcomes = together(4, lambda now=now: update(rotation(now)))
        done = [one for one in outcomes if isinstance(one, Step)]
        refused = [one for one in outcomes if isinstance(one, RefusedError)]
        assert len(done) + len(refused) == 4, outcomes
        assert done
        found = read()
        assert [key.state for key in found.keys].count("active") == 1
        assert LOCK not in names(store)
    # Every version ever stored was a sound ring; `make_ring` refuses two active keys.
    history = store.get_parameter_history(Name=RING, WithDecryption=True)["Parameters"]
    assert len(history) >= 4
    for version in history:
        kept = parse_ring(version["Value"].encode(), "x")
        for use in USES:
            assert sum(key.state == "active" and key.serves(use) for key in kept.keys) <= 1


def test_a_second_run_in_the_middle_of_the_first(store, atomic):
    put(store, RING, json.loads(ring_json(ring(entry("a")))))

    def change(there):
        with pytest.raises(RefusedError, match="another run changes this ring; found user"):
            update(rotation(NOW))
        with pytest.raises(RefusedError, match="another run"):
            update(lambda there: revoke(there, "a"))
        return rotation(NOW)(there)

    assert update(change).changed
    assert [key.state for key in read().keys] == ["active", "grace"]


def test_the_whole_dance(store):
    put(store, RING, json.loads(ring_json(ring(entry("a")))))
    states = []
    for days in (0, 1, 2.001):
        update(rotation(NOW + days * DAY))
        states.append([key.state for key in read().keys])
    assert states == [["active", "grace"], ["grace", "active"], ["retired", "active"]]
    assert re.fullmatch(r"request-\d{8}-[0-9a-f]{6}", read().keys[1].key_id)
