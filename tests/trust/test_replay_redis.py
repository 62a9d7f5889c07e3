"""The Redis store: whatever a server forgets, and whoever answers, no nonce is accepted twice."""

import contextlib
import shutil
import signal
import socket
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import redis
from replay_cases import (
    LIFE_SEC,
    SKEW_SEC,
    START,
    Clock,
    all_claim,
    await_fault,
    await_ready,
    outcome,
    refused,
)

from pytest_decisionos.errors import ReplayStoreError, UsageError
from pytest_decisionos.trust import replay_redis
from pytest_decisionos.trust.replay_redis import KEY, LEASE_SEC, RedisStore, dishonest

pytestmark = pytest.mark.slow
MADE = int(START) + 10
AHEAD = 2 * SKEW_SEC + LEASE_SEC
SECRET = "correct/horse?battery#staple@한"
QUOTED = "correct%2Fhorse%3Fbattery%23staple%40%ED%95%9C"


@pytest.fixture
def opened():
    """A function that opens a store at a URL; its clock says when requests are verified."""
    clock, stores = Clock(), []

    def open_it(url):
        stores.append(RedisStore(url, life_sec=LIFE_SEC, skew_sec=SKEW_SEC, clock=clock))
        return stores[-1]

    open_it.clock = clock
    yield open_it
    for store in stores:
        store.close()


@pytest.fixture
def believing(monkeypatch):
    """The store that takes every configuration for a good one: what is left must do alone."""
    monkeypatch.setattr(replay_redis, "dishonest", lambda info, config: None)


@pytest.fixture
def looking(monkeypatch):
    """The store that connects anew, and looks at the server, before each claim."""
    monkeypatch.setattr(replay_redis, "LEASE_SEC", 0.0)


def await_outcome(store, nonce, made, wanted):
    """Until a server that was started answers; an error on the way is none of its business."""
    until = time.monotonic() + 20
    while (said := outcome(store, nonce, made)) == "error":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert said == wanted


def accepted_at(store, clock, nonce, made):
    """A request that is verified at the second that it was made in, and accepted."""
    clock.now = made
    assert outcome(store, nonce, made) == "accepted"


def never_again(store, clock, nonce, made):
    """It is sent again and again, as long as it would be taken for young enough."""
    for age in (0, 1, 5, 60, 300):
        clock.now = made + age
        assert outcome(store, nonce, made) in {"error", "older_than_store", "replayed"}


# What the server must be


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"appendonly": "no"}, "aof_enabled is 0, and must be 1"),
        ({"appendfsync": "no"}, "appendfsync is no, and must be everysec or always"),
        ({"maxmemory": "100mb", "maxmemory_policy": "volatile-lru"}, "maxmemory_policy is volatile-lru"),
        ({"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"}, "maxmemory_policy is allkeys-lru"),
        ({"maxmemory_policy": "volatile-ttl"}, "maxmemory_policy is volatile-ttl"),
        ({"cluster-enabled": "yes"}, "redis_mode is cluster, and must be standalone"),
        ({"replicaof": "127.0.0.1 1"}, "role is slave, and must be master"),
    ],
)  # fmt: skip
def test_a_server_that_may_forget_is_refused(redis_server, opened, config, words):
    assert words in refused(lambda: opened(redis_server(**config).url))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("CONFIG", "SET", "appendonly", "no"), "aof_enabled is 0"),
        (("CONFIG", "SET", "appendfsync", "no"), "appendfsync is no"),
        (("CONFIG", "SET", "maxmemory-policy", "allkeys-random"), "maxmemory_policy is allkeys-random"),
        (("REPLICAOF", "127.0.0.1", "1"), "role is slave"),
        (("ACL", "SETUSER", "default", "-config"), "NoPermissionError"),
        (("ACL", "SETUSER", "default", "-info"), "NoPermissionError"),
        (("ACL", "SETUSER", "default", "-zadd"), "ResponseError"),
        (("ACL", "SETUSER", "default", "resetkeys"), "NoPermissionError"),
        (("CONFIG", "SET", "maxmemory", "1"), "OutOfMemoryError"),
    ],
)  # fmt: skip
def test_one_that_begins_to_is_refused_at_the_next_look(
    redis_server, opened, looking, command, words
):
    server = redis_server()
    store = opened(server.url)
    accepted_at(store, opened.clock, "n", MADE)
    await_ready(store)
    server(*command)
    assert [outcome(store, name, MADE) for name in ("n", "m")] == ["error", "error"]
    await_fault(store, words)


def test_it_looks_again_when_the_lease_is_over(redis_server, opened, monkeypatch):
    server = redis_server()
    store = opened(server.url)
    server("CONFIG", "SET", "appendonly", "no")
    assert outcome(store, "n", MADE) == "accepted"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + LEASE_SEC)
    assert outcome(store, "m", MADE) == "error"


GOOD = {
    "redis_mode": "standalone", "role": "master", "loading": 0, "aof_enabled": 1,
    "aof_last_write_status": "ok", "maxmemory_policy": "noeviction", "run_id": "1f",
    "master_replid": "2e",
}  # fmt: skip


@pytest.mark.parametrize("field", GOOD)
def test_what_is_not_told_is_not_believed(field):
    assert dishonest(GOOD, {b"appendfsync": b"everysec"}) is None
    assert dishonest(GOOD, {"appendfsync": "always"}) is None
    less = {name: value for name, value in GOOD.items() if name != field}
    assert "not told" in dishonest(less, {"appendfsync": "always"})
    assert dishonest({**GOOD, field: ""}, {"appendfsync": "always"}) is not None


def test_an_aof_that_cannot_be_written_or_synced_is_not_believed():
    assert "aof_last_write_status is err" in dishonest(
        GOOD | {"aof_last_write_status": "err"}, {"appendfsync": "always"}
    )
    assert "loading is 1" in dishonest(GOOD | {"loading": 1}, {"appendfsync": "always"})
    assert "appendfsync is not told" in dishonest(GOOD, {})


def test_a_key_of_somebody_else_is_an_error(redis_server, opened):
    server = redis_server()
    server("SET", KEY, "mine")
    assert "ResponseError" in refused(lambda: opened(server.url))


# What it forgets


@pytest.mark.parametrize(
    "command", [("FLUSHALL",), ("FLUSHDB",), ("DEL", KEY), ("UNLINK", KEY), ("EXPIRE", KEY, "0")]
)
def test_flushed(redis_server, opened, command):
    server = redis_server()
    store, other = opened(server.url), opened(server.url)
    accepted_at(store, opened.clock, "n", MADE)
    assert outcome(other, "n", MADE) == "replayed"
    server(*command)
    never_again(store, opened.clock, "n", MADE)
    never_again(other, opened.clock, "n", MADE)
    assert outcome(other, "m", MADE + 301) == "accepted"  # life goes on


@pytest.mark.parametrize("keeps", ["aof", "no aof", "no aof, believed", "aof lost"])
def test_killed_and_restarted(request, redis_server, opened, keeps):
    if keeps == "no aof, believed":
        request.getfixturevalue("believing")
    server = redis_server()
    store = opened(server.url)
    accepted_at(store, opened.clock, "n", MADE)
    server.kill()
    assert outcome(store, "m", MADE) == "error"
    await_fault(store, "Connection refused")
    if keeps.startswith("no aof"):
        server.config["appendonly"] = "no"
    if keeps == "aof lost":
        shutil.rmtree(server.folder / "appendonlydir")
    server.start()
    if keeps == "no aof":
        never_again(store, opened.clock, "n", MADE)
        assert outcome(store, "n", MADE) == "error"
        await_fault(store, "aof_enabled is 0")
        assert "aof_enabled" in refused(lambda: opened(server.url))
        return
    assert bool(server("EXISTS", KEY)) == (keeps == "aof")
    opened.clock.now = MADE
    await_outcome(store, "n", MADE, "older_than_store")
    never_again(store, opened.clock, "n", MADE)
    never_again(opened(server.url), opened.clock, "n", MADE)
    assert outcome(store, "m", MADE + 400) == "accepted"


def test_crashed_before_the_last_second_was_synced(redis_server, opened):
    """The birth is in the file, and the last nonces are not."""
    server = redis_server()
    store = opened(server.url)
    until = time.monotonic() + 20
    while not (logs := list((server.folder / "appendonlydir").glob("*.incr.aof"))) or (
        KEY.encode() not in logs[0].read_bytes()
    ):
        assert time.monotonic() < until
        time.sleep(0.05)
    shutil.copytree(server.folder / "appendonlydir", server.folder / "then")
    accepted_at(store, opened.clock, "n", MADE)
    server.kill()
    shutil.rmtree(server.folder / "appendonlydir")
    (server.folder / "then").rename(server.folder / "appendonlydir")
    server.start()
    assert server("ZCARD", KEY) == 1
    opened.clock.now = MADE
    await_outcome(store, "n", MADE, "older_than_store")
    never_again(opened(server.url), opened.clock, "n", MADE)


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-random", "allkeys-lru", "noeviction"])
def test_evicted_by_a_server_that_was_believed(redis_server, opened, believing, policy):
    server = redis_server(maxmemory_policy=policy, maxmemory="3mb")
    store = opened(server.url)
    accepted_at(store, opened.clock, "n", MADE)
    with redis.Redis(port=server.port) as client, client.pipeline(transaction=False) as pipe:
        for number in range(3000):
            pipe.set(f"other-{number}", "x" * 4000)
        pipe.execute(raise_on_error=False)  # what does not evict says no at some time
    assert server.info("evicted_keys") > 0 or policy != "allkeys-lru"
    assert bool(server("EXISTS", KEY)) == (policy != "allkeys-lru")
    never_again(store, opened.clock, "n", MADE)


# Who answers


def await_link(replica, key_there=True):
    until = time.monotonic() + 30
    while replica.info("master_link_status") != "up" or replica("EXISTS", KEY) != key_there:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def failed_over(redis_server, forwarder, opened):
    """A store on a master; ``n`` is claimed; its replica, promoted, has the birth and not ``n``."""
    master, replica = redis_server(), redis_server()
    replica("REPLICAOF", "127.0.0.1", str(master.port))
    await_link(replica, key_there=False)
    forwarder.lead(master.port)
    store = opened(forwarder.url)
    await_link(replica)
    replica("REPLICAOF", "127.0.0.1", "1")  # it lags: from here on it hears nothing
    accepted_at(store, opened.clock, "n", MADE)
    assert (master("ZCARD", KEY), replica("ZCARD", KEY)) == (2, 1)
    births = [server("ZRANGE", KEY, "0", "-1")[0] for server in (master, replica)]
    assert births[0] == births[1]
    return store, master, replica


def test_failed_over_to_a_lagging_replica(failed_over, forwarder, opened):
    store, master, replica = failed_over
    master.kill()
    assert outcome(store, "m", MADE) == "error"
    forwarder.lead(replica.port)
    assert outcome(store, "n", MADE) == "error"
    await_fault(store, "role is slave")
    replica("REPLICAOF", "NO", "ONE")
    opened.clock.now = MADE
    await_outcome(store, "n", MADE, "older_than_store")
    never_again(store, opened.clock, "n", MADE)
    never_again(opened(forwarder.url), opened.clock, "n", MADE)
    assert outcome(store, "m", MADE + 400) == "accepted"


def test_switched_while_connected(failed_over, forwarder, opened):
    """The connection is silently another one, to a server that was not looked at."""
    store, _, replica = failed_over
    replica("REPLICAOF", "NO", "ONE")
    accepted_at(store, opened.clock, "l", MADE)  # the lease is young
    forwarder.lead(replica.port)
    store._checked = time.monotonic()
    assert outcome(store, "n", MADE) == "error"
    assert replica("ZCARD", KEY) == 1
    await_outcome(store, "n", MADE, "older_than_store")


def test_the_script_itself_sees_that_another_answers(failed_over, opened, monkeypatch):
    store, _, replica = failed_over
    replica("REPLICAOF", "NO", "ONE")
    pool = redis.ConnectionPool.from_url(replica.url, protocol=2)
    monkeypatch.setattr(store._client, "connection_pool", pool)
    store._checked = time.monotonic()
    text = refused(lambda: store.claim("k1", "m", created=datetime.fromtimestamp(MADE, UTC)))
    assert "another server answers than the one that was checked" in text
    assert replica("ZCARD", KEY) == 1
    pool.disconnect()


def test_the_script_itself_sees_that_it_runs_on_a_replica(failed_over):
    _, _, replica = failed_over
    with redis.Redis(port=replica.port, protocol=2) as client:
        info = client.info()
        server = f"{info['run_id']}:{info['master_replid']}"
        client.config_set("replica-read-only", "no")
        said = client.eval(replay_redis.SCRIPT, 1, KEY, server, 0, 0, "n", MADE, 0)
    assert said[0] == b"moved"


def test_who_still_claims_on_the_old_server_is_refused_on_the_new(failed_over, forwarder, opened):
    store, master, replica = failed_over
    replica("REPLICAOF", "NO", "ONE")
    forwarder.lead(replica.port, cut=False)
    store._checked = time.monotonic()  # its lease has just begun
    opened.clock.now = MADE + 5
    other = opened(forwarder.url)
    # For up to a lease it goes on there, with requests from clocks that may be ahead.
    latest = MADE + 5 + LEASE_SEC + SKEW_SEC
    store._checked = time.monotonic()
    assert outcome(store, "late", latest) == "accepted"
    assert master("ZCARD", KEY) == 3
    never_again(other, opened.clock, "late", int(latest))


def test_back_on_the_first_server_it_does_not_know_what_came_meanwhile(
    failed_over, forwarder, opened, looking
):
    store, master, replica = failed_over
    replica("REPLICAOF", "NO", "ONE")
    forwarder.lead(replica.port)
    await_outcome(store, "n", MADE, "older_than_store")
    accepted_at(store, opened.clock, "m", MADE + 10)
    forwarder.lead(master.port)  # which was there all the time, and is a master
    await_outcome(store, "m", MADE + 10, "older_than_store")
    never_again(store, opened.clock, "m", MADE + 10)
    never_again(opened(forwarder.url), opened.clock, "m", MADE + 10)


def test_the_same_process_with_the_data_of_another(failed_over, forwarder, opened, looking):
    """It becomes a replica of the one that lagged, takes its data over, and is promoted again."""
    store, master, replica = failed_over
    before = master.info("run_id")
    replica("REPLICAOF", "NO", "ONE")
    master("REPLICAOF", "127.0.0.1", str(replica.port))
    await_link(master)
    assert master("ZCARD", KEY) == 1  # `n` is gone, the birth of before is not
    assert outcome(store, "n", MADE) == "error"
    master("REPLICAOF", "NO", "ONE")
    assert master.info("run_id") == before
    opened.clock.now = MADE
    await_outcome(store, "n", MADE, "older_than_store")
    never_again(store, opened.clock, "n", MADE)
    never_again(opened(forwarder.url), opened.clock, "n", MADE)


# What gets lost on the way


def test_a_claim_whose_answer_is_lost_is_not_accepted_nor_sent_again(
    redis_server, forwarder, opened, monkeypatch
):
    monkeypatch.setattr(replay_redis, "TIMEOUT_SEC", 0.2)
    server = redis_server()
    forwarder.lead(server.port)
    store = opened(forwarder.url)
    calls = calls_of(server)
    forwarder.drop_answers = 1  # so that sending it again would work
    store._checked = time.monotonic()
    assert outcome(store, "n", MADE) == "error"
    assert calls_of(server) == calls + 1
    assert forwarder.drop_answers == 0
    assert outcome(store, "n", MADE) == "replayed"
    assert outcome(store, "m", MADE) == "accepted"


def calls_of(server):
    stats = server("INFO", "commandstats")
    return stats.get("cmdstat_evalsha", {"calls": 0})["calls"]


def test_a_server_that_hangs_is_an_error(redis_server, opened, monkeypatch):
    monkeypatch.setattr(replay_redis, "TIMEOUT_SEC", 0.2)
    server = redis_server()
    store = opened(server.url)
    accepted_at(store, opened.clock, "n", MADE)
    server.signal(signal.SIGSTOP)
    assert outcome(store, "m", MADE) == "error"
    await_fault(store, "TimeoutError")
    server.signal(signal.SIGCONT)
    # The answer that comes late is not taken for the next one's.
    await_outcome(store, "n", MADE, "replayed")
    assert outcome(store, "m", MADE) == "replayed"
    await_ready(store)


def test_a_thread_that_hangs_holds_up_the_others_only_so_long(redis_server, opened, monkeypatch):
    store = opened(redis_server().url)
    monkeypatch.setattr(replay_redis, "BUSY_SEC", 0.1)
    with store._lock:
        assert outcome(store, "n", MADE) == "error"
        await_fault(store, "busy for more than 0.1 s")
        store.close()
    assert outcome(store, "n", MADE) == "error"


def test_an_answer_to_another_claim_is_not_taken(redis_server, opened, monkeypatch):
    store = opened(redis_server().url)
    script = store._client.register_script("return {'accepted', '0', 'another'}")
    monkeypatch.setattr(store, "_script", script)
    text = refused(lambda: store.claim("k1", "m", created=datetime.fromtimestamp(MADE, UTC)))
    assert "answers what was not asked" in text


def test_an_answer_of_another_form_is_an_error(redis_server, opened, monkeypatch):
    store = opened(redis_server().url)
    for answer in ("1", "{}", "{'accepted', 'x', ARGV[4]}", "nil"):
        script = store._client.register_script(f"return {answer}")
        monkeypatch.setattr(store, "_script", script)
        assert outcome(store, "n", MADE) == "error"


# Others who use it


@pytest.mark.untraced
def test_of_eight_processes_one_is_accepted(redis_server):
    server = redis_server()
    assert all_claim(server.url, processes=8, claims=5000, nonces=1000) == {
        "accepted": 1000, "replayed": 39_000
    }  # fmt: skip
    assert server("ZCARD", KEY) == 1001


def test_it_forgets_a_few_at_a_time_and_keeps_its_birth(redis_server, opened):
    server = redis_server()
    store = opened(server.url)
    for number in range(100):
        assert outcome(store, f"old-{number}", MADE) == "accepted"
    left, later = [server("ZCARD", KEY)], MADE + int(LIFE_SEC)
    for number in range(20):
        assert outcome(store, f"new-{number}", later) == "accepted"
        left.append(server("ZCARD", KEY))
    gone = [one - other + 1 for one, other in zip(left, left[1:], strict=False)]
    assert 1 < max(gone) <= 16
    assert left[-1] == 1 + 20
    assert outcome(store, "old-0", MADE) == "older_than_store"
    assert outcome(store, "new-0", later) == "replayed"


def test_births_of_servers_before_are_forgotten_with_their_nonces(redis_server, opened):
    server = redis_server()
    opened(server.url)
    server.kill()
    server.start()
    store = opened(server.url)
    assert server("ZCARD", KEY) == 2
    assert outcome(store, "n", MADE + int(LIFE_SEC)) == "accepted"
    assert server("ZCARD", KEY) == 2


def test_nothing_of_a_request_is_in_its_names(redis_server, opened):
    server = redis_server()
    store = opened(server.url)
    assert outcome(store, "a\r\nFLUSHALL\r\n", MADE, key_id="k *") == "accepted"
    with redis.Redis(port=server.port) as client:
        assert client.keys() == [KEY.encode()]
        names = {len(name) for name in client.zrange(KEY, 0, -1)}
    assert names == {32, len("birth:") + 40 + 1 + 40}


# The address, and the password in it


def test_a_unix_socket_will_do(redis_server, opened):
    with tempfile.TemporaryDirectory(prefix="r-") as folder:  # its name must be short
        redis_server(unixsocket=f"{folder}/s")
        store = opened(f"unix://{folder}/s?db=3")
        assert outcome(store, "n", MADE) == "accepted"
        assert "the replay store cannot be used" in refused(lambda: opened(f"unix://{folder}/t"))


@pytest.mark.parametrize("user", ["", "default"])
def test_a_password_is_used_and_not_told(redis_server, opened, user):
    server = redis_server(requirepass=SECRET)
    address = f"127.0.0.1:{server.port}/1"
    store = opened(f"redis://{user}:{QUOTED}@{address}")
    assert outcome(store, "n", MADE) == "accepted"
    assert SECRET not in repr(store)
    wrong = refused(lambda: opened(f"redis://{user}:{QUOTED}x@{address}"))
    assert "AuthenticationError" in wrong
    without = refused(lambda: opened(f"redis://{address}"))
    server.kill()
    gone = refused(lambda: store.claim("k", "n", created=datetime.fromtimestamp(MADE, UTC)))
    for text in (wrong, without, gone, str(store._error("x"))):
        assert f"redis://{address}" in text
        assert SECRET not in text
        assert QUOTED not in text


@pytest.mark.parametrize(
    "answer",
    [
        b"-ERR unknown command `AUTH`, with args beginning with: `%s`\r\n",
        b"-%s\r\n",
        b"$5\r\n%s\r\n",
        b"HTTP/1.1 400 %s\r\n\r\n",
        b"",
    ],
)
def test_a_stranger_who_repeats_the_password_is_not_quoted(opened, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answers():
            with listener.accept()[0] as one:
                one.recv(4096)
                with contextlib.suppress(OSError):
                    one.sendall(answer.replace(b"%s", b"hunter2"))

        thread = threading.Thread(target=answers)
        thread.start()
        text = refused(lambda: opened(f"redis://:hunter2@127.0.0.1:{port}"))
        thread.join()
    assert "hunter2" not in text
    assert f"127.0.0.1:{port}" in text


@pytest.mark.parametrize(
    "url",
    [
        "redis://", "redis:///0", "redis://h:port", "redis://h:70000", "redis://h/zero", "redis://h/-1",
        "redis://h?db=x", "redis://h?db", "redis://h#1", "redis://[::1", "unix://", "unix://host/path",
        "redis://u:hunter2/3@h", "redis://u:1/hunter2@h", "redis://u:1#hunter2@h", "redis://u:1?hunter2@h",
        "redis://:1/2?hunter2=@h", "unix://u:hunter2/x@/s",
        "redis://h?socket_timeout=3600", "redis://h?retry_on_timeout=yes", "redis://h?protocol=3",
        "rediss://h?ssl_cert_reqs=none", "rediss://h?ssl_check_hostname=no", "redis://h?health_check_interval=1",
        "redis://h/²",
    ],
)  # fmt: skip
def test_what_is_no_address_is_not_tried_nor_told(url):
    text = refused(lambda: RedisStore(url, life_sec=LIFE_SEC, skew_sec=SKEW_SEC), UsageError)
    assert "percent-encoded" in text
    assert "hunter2" not in text


def test_a_name_that_nobody_knows_is_an_error():
    text = refused(
        lambda: RedisStore("redis://nowhere.invalid", life_sec=LIFE_SEC, skew_sec=SKEW_SEC)
    )
    assert "redis://nowhere.invalid:6379/0" in text


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """One that signs itself, for localhost and not for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_tls_is_verified(redis_server, opened, certificates):
    port, cert = free_port(), certificates / "crt"
    redis_server(
        tls_port=str(port), tls_cert_file=f"{cert}", tls_key_file=f"{certificates / 'key'}",
        tls_auth_clients="no",
    )  # fmt: skip
    store = opened(f"rediss://localhost:{port}?ssl_ca_certs={cert}")
    assert outcome(store, "n", MADE) == "accepted"
    for url in (
        f"rediss://localhost:{port}",
        f"rediss://127.0.0.1:{port}?ssl_ca_certs={cert}",
        f"rediss://localhost:{port}?ssl_ca_certs={certificates / 'missing'}",
    ):
        with pytest.raises(ReplayStoreError):
            opened(url)
