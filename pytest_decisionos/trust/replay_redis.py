"""The replay store that hosts share: one sorted set on a Redis that does not forget in silence.

Everything is in **one** key: the nonces, each scored with the second in which its request was made,
and the birth record, scored with ``since``. So whatever takes the nonces away (a flush, an eviction,
a restart without persistence) takes the birth away too. The birth is that of one server process
(``run_id``) and one history of its data (``master_replid``, which is new after each promotion):
where another process answers, or the same one with another's data, there is no birth, and a new one
refuses all that is older.

A claim is one Lua script. It asks the server itself who it is, in the same step (INFO is allowed in
scripts, CONFIG is not): so it does not matter whom a connection leads to. What CONFIG says is asked
on each new connection, and no connection is older than ``LEASE_SEC``: so after a failover nobody
claims on the old server for longer than that, and a birth is that much later.

Not covered: two servers that both are master for longer, each for some of the judges of one
address (split brain); and a machine that is set back to a snapshot of its memory.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pytest_decisionos.errors import ReplayStoreError, UsageError
from pytest_decisionos.trust.replay import Probe, name_of, refusal, too_young

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

KEY: Final = "decisionos:replay:nonces"
LEASE_SEC: Final = 1.0
"""How long a connection is used before its address is looked up, and its server checked, again."""
TIMEOUT_SEC: Final = 1.0
"""How long a connection is waited for, and each answer."""
BUSY_SEC: Final = 3.0
"""How long a claim waits for the other threads of this process."""
OPTIONS: Final = {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
"""What may stand behind the ``?``: nothing that loosens time limits, retries or TLS."""

# ARGV: who was checked; the birth if there is none; "1" to be born again; and for a claim its name,
# its second, and until when nonces may be forgotten. Numbers are passed on as the text that they
# came as: Lua would round them. The answer repeats the name, so that it is no other claim's.
SCRIPT: Final = """
local server, links = redis.call('INFO', 'server'), redis.call('INFO', 'replication')
local here = server:match('run_id:(%w+)') .. ':' .. links:match('master_replid:(%w+)')
local name, made, done = ARGV[4] or '', ARGV[5], ARGV[6]
if here ~= ARGV[1] or links:match('role:(%w+)') ~= 'master' then return {'moved', '0', name} end
local birth = 'birth:' .. here
local since = redis.call('ZSCORE', KEYS[1], birth)
if not since or (ARGV[3] == '1' and tonumber(since) < tonumber(ARGV[2])) then since = ARGV[2] end
local old = {}
if done then
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', done, 'LIMIT', 0, 16)) do
    if member ~= birth then old[#old + 1] = member end
  end
  if #old > 0 and tonumber(since) < tonumber(done) then since = done end
end
redis.call('ZADD', KEYS[1], since, birth)
if #old > 0 then redis.call('ZREM', KEYS[1], unpack(old)) end
if not made then return {'here', since, name} end
if tonumber(made) <= tonumber(since) then return {'refused', since, name} end
if redis.call('ZADD', KEYS[1], 'NX', made, name) == 0 then return {'refused', since, name} end
return {'accepted', since, name}
"""


class RedisStore:
    """A replay store on a Redis server that keeps what it was told, and says so.

    The server writes an append-only file and syncs it, evicts nothing, and is no replica and no
    cluster. Claims of one process go one by one over one connection.
    """

    def __init__(
        self, url: str, *, life_sec: float, skew_sec: float, clock: Callable[[], float] = time.time
    ) -> None:
        """Connect, check the server, and be born there if that is to be.

        Args:
            url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://…`` (TLS, verified) or
                ``unix://[[user]:password@]/path[?db=…]``; may name files of TLS by ``OPTIONS``.
            life_sec: as ``replay.open_store``.
            skew_sec: as ``replay.open_store``.
            clock: seconds since 1970.

        Raises:
            UsageError: it is no such URL. Never told: it may hold a password.
            ReplayStoreError: no answer, or from a server that may forget.
        """
        self._where = _checked(url)
        tls = {"ssl_check_hostname": True} if url.startswith("rediss:") else {}
        self._client = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_SEC, socket_connect_timeout=TIMEOUT_SEC, protocol=2,
            retry=Retry(NoBackoff(), 0), **tls,
        )  # fmt: skip
        self._script = self._client.register_script(SCRIPT)
        self._life = math.ceil(life_sec)
        # The host whose clock is behind may set the birth, and the one ahead have accepted before.
        self._ahead = 2 * skew_sec + LEASE_SEC
        self._skew = skew_sec
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = False
        self._checked = -math.inf
        self._server = ""
        self._known = ""
        try:
            self._call()
        except BaseException:
            self.close()
            raise
        self._probe = Probe(self._ask)

    def claim(self, key_id: str, nonce: str, *, created: datetime) -> None:
        """As ``ReplayStore.claim``. A claim whose answer is lost is not accepted."""
        made = math.floor(created.timestamp())
        accepted, since = self._call(name_of(key_id, nonce), made, made - self._life)
        if not accepted:
            raise refusal(key_id, nonce, made, since)

    def fault(self) -> str | None:
        """As ``ReplayStore.fault``."""
        return self._probe()

    def close(self) -> None:
        """As ``ReplayStore.close``; the nonces stay."""
        self._closed = True
        # A probe that hangs keeps the lock; a connection may be closed meanwhile.
        held = self._lock.acquire(timeout=BUSY_SEC)
        self._client.connection_pool.disconnect()
        if held:
            self._lock.release()

    def _ask(self) -> str | None:
        """The fault that a check and a write show."""
        _, since = self._call()
        return too_young(since, self._clock(), self._skew)

    def _call(self, *claim: bytes | int) -> tuple[bool, int]:
        """Run the script; whether the claim was accepted, and since when the server remembers."""
        if not self._lock.acquire(timeout=BUSY_SEC):
            raise self._error(f"busy for more than {BUSY_SEC:g} s")
        done = False
        try:
            if self._closed:
                raise self._error("it was closed")
            if time.monotonic() - self._checked >= LEASE_SEC:
                self._check()
            answer = self._run(*claim)
            done = True
        except redis.RedisError as fault:
            raise self._error(_words(fault)) from None
        except (OSError, ValueError, TypeError, LookupError) as fault:
            # A certificate that cannot be read; an answer that is not Redis's.
            raise self._error(_words(fault)) from None
        else:
            return answer
        finally:
            if not done:  # an answer that comes late is not the next one's
                self._checked = -math.inf
                self._client.connection_pool.disconnect()
            self._lock.release()

    def _check(self) -> None:
        """Connect anew, and see whether this is a server to rely on."""
        self._client.connection_pool.disconnect()
        asked = time.monotonic()
        pipe = self._client.pipeline(transaction=True)
        pipe.info()
        pipe.config_get("appendfsync")
        info, config = pipe.execute()
        fault = dishonest(info, config)
        if fault is not None:
            raise self._error(fault)
        self._server = f"{info['run_id']}:{info['master_replid']}"
        self._checked = asked

    def _run(self, *claim: bytes | int) -> tuple[bool, int]:
        # Whoever comes back to a server does not know what was claimed elsewhere meanwhile.
        again = self._known not in {"", self._server}
        born = math.floor(self._clock() + self._ahead)
        said, since, name = self._script(keys=[KEY], args=[self._server, born, int(again), *claim])
        if said == b"moved":
            raise self._error("another server answers than the one that was checked")
        if name != (claim[0] if claim else b""):
            raise self._error("it answers what was not asked")
        self._known = self._server
        return said == b"accepted", int(since)

    def _error(self, what: str) -> ReplayStoreError:
        return ReplayStoreError(f"the replay store cannot be used: {what}", file=self._where)


def dishonest(info: Mapping[str, Any], config: Mapping[Any, Any]) -> str | None:
    """Why a Redis server may forget a nonce in silence; None if it does not.

    Args:
        info: its INFO.
        config: its CONFIG GET appendfsync.
    """
    wanted = {
        "redis_mode": ("standalone",),
        "role": ("master",),
        "loading": (0,),
        "aof_enabled": (1,),
        "aof_last_write_status": ("ok",),
        "maxmemory_policy": ("noeviction",),
    }
    for field, good in wanted.items():
        if info.get(field) not in good:
            return f"{field} is {info.get(field, 'not told')}, and must be {good[0]}"
    said = {_text(name): _text(value) for name, value in config.items()}
    if said.get("appendfsync") not in {"always", "everysec"}:
        found = said.get("appendfsync", "not told")
        return f"appendfsync is {found}, and must be everysec or always"
    for field in ("run_id", "master_replid"):
        if not info.get(field):
            return f"{field} is not told"
    return None


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _checked(url: str) -> str:
    """Where the URL leads to, without what is secret.

    Raises:
        UsageError: it is no URL of Redis. A password with ``/ ? # @`` in it that is not percent-
            encoded would else be taken for a host or a path, and shown.
    """
    try:
        parts = urlsplit(url)
        host, port, path = parts.hostname or "", parts.port or 6379, parts.path
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise _no_url() from None
    db = options.get("db", [path.removeprefix("/") or "0"])[0]
    if parts.scheme == "unix":
        db, good = options.get("db", ["0"])[0], bool(path) and not host
    else:
        good = bool(host) and (path in {"", "/"} or path.removeprefix("/").isdecimal())
    if (
        not good or not db.isdecimal() or not set(options) <= OPTIONS or parts.fragment
        or "@" in path + parts.query
    ):  # fmt: skip
        raise _no_url()
    return f"unix:{path}" if parts.scheme == "unix" else f"{parts.scheme}://{host}:{port}/{db}"


def _no_url() -> UsageError:
    return UsageError(
        "not the URL of a Redis server",
        expected="redis://user:password@host:port/db with the password percent-encoded,"
        f" and no options but {', '.join(sorted(OPTIONS))}",
    )


def _words(fault: Exception) -> str:
    """What happened, without what the other side wrote: a stranger may repeat the password."""
    under = fault if isinstance(fault, OSError) else fault.__cause__ or fault.__context__
    if isinstance(under, OSError) and under.strerror:
        return under.strerror
    code = str(fault).partition(" ")[0]
    known = len(code) < 20 and code.isalpha() and code.isupper()
    return f"{type(fault).__name__} {code}" if known else type(fault).__name__
