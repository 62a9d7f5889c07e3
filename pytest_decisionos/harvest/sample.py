"""Sample logs: 40 minutes of a service under canary, seen by itself, its judge and its balancer.

Traffic is made so that it has what makes real logs hard to judge: log-normal latencies with a
Pareto tail, a common load that lets slow requests and errors come in clusters, a rate that follows
the day, health checks among the requests, and a second log of the same requests that agrees with
the first only within milliseconds. Every scenario of one seed is the same traffic, changed only in
what its name says.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import numpy as np

from pytest_decisionos.errors import UsageError
from pytest_decisionos.model import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

SPAN_SEC: Final = 40 * 60
CANARY_SEC: Final = 22 * 60
CANARY_SHARE: Final = 0.3
CONTROL_RELEASE: Final = "2026.01.0"
CANARY_RELEASE: Final = "2026.01.1"
MAX_SEED: Final = 2**32 - 1

_HEADER = "ts,status,latency_ms,route,tenant,variant,release"
_JUDGE_HEADER = "ts,status,latency_ms,signature_error,route,tenant,variant,release"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z, the last that ISO-8601 writes in four digits
_TENANTS = {"acme": 0.4, "globex": 0.3, "initech": 0.2, "한빛": 0.1}
_HEALTH_ROUTE = "/healthz"
_PROBES = 3
_PROBE_SEC = 5
_TIMEOUT_MS = 30_000.0  # no latency is longer: the service gives up there

# The load's share of a latency's spread and its memory from second to second. They set how much
# more the counts of slow requests and of errors vary than independent ones would: measured D, on
# 30 sub-buckets of the 40 minutes, is about 1.1 to 1.5.
_LOAD_SHARE = 0.075
_LOAD_MEMORY = 0.8
_ERROR_SWING = 0.45

_BURST_STARTS = (700, 520, 325)  # seconds before the end; each in a window that has closed by then
_BURST_SEC = 20
_BURST_RATE = 0.6


@dataclass(frozen=True)
class _Service:
    """What answers the requests.

    Attributes:
        routes: route → (share of the requests, median latency in ms).
        sigma: spread of the log-latency within a route.
        error_rate: mean share of errors.
        errors: error status → share of the errors.
        answers: other status → share of the other answers.
    """

    routes: Mapping[str, tuple[float, float]]
    sigma: float
    error_rate: float
    errors: Mapping[int, float]
    answers: Mapping[int, float]


@dataclass(frozen=True)
class _Scenario:
    """What a scenario changes: requests per second, canary latencies, bursts of canary errors."""

    rate: float = 60.0
    slowdown: float = 1.0
    bursts: bool = False


@dataclass(frozen=True)
class _Log:
    """Requests, one per index.

    Attributes:
        at: when it was answered, in ms since the start.
        status: HTTP status.
        latency: ms.
        rest: text of the columns that follow.
    """

    at: Integers
    status: Integers
    latency: Floats
    rest: NDArray[np.object_]

    def sorted(self) -> _Log:
        order = np.argsort(self.at, kind="stable")
        return _Log(self.at[order], self.status[order], self.latency[order], self.rest[order])


_SCENARIOS: Final[Mapping[str, _Scenario]] = {
    "healthy": _Scenario(),
    "slow-canary": _Scenario(slowdown=1.6),
    "error-burst": _Scenario(bursts=True),
    "thin-traffic": _Scenario(rate=2.0),
    # One row in six is canary: at ×8 they alone push p95 and p99 of all traffic past any bound.
    "evil-evidence": _Scenario(slowdown=8.0),
}
SCENARIOS: Final = tuple(_SCENARIOS)

_SHOP = _Service(
    routes={
        "/v1/pay": (0.2, 120.0),
        "/v1/cart": (0.3, 80.0),
        "/v1/search": (0.25, 150.0),
        "/v1/users": (0.15, 55.0),
        "/v1/orders": (0.1, 110.0),
    },
    sigma=0.68,
    error_rate=0.003,
    errors={429: 0.4, 500: 0.2, 502: 0.15, 503: 0.25},
    answers={200: 0.86, 201: 0.07, 204: 0.05, 404: 0.02},
)
_JUDGE = _Service(
    routes={"/judge": (1.0, 90.0)},
    sigma=0.6,
    error_rate=0.001,
    errors={429: 0.6, 500: 0.1, 503: 0.3},
    answers={200: 1.0},
)
_SIGNATURE_ERROR_RATE = 1e-5  # of the control; a canary with one would fail at the sample's size


def write_sample(out: Path, *, seed: int, scenario: str, end: datetime) -> list[Path]:
    """Write reqlog.csv, judgelog.csv, lb.csv, budget.json, quota.json and usage.json.

    The logs cover the 40 minutes before ``end``; a canary takes 30 % of the requests in the last
    22. ``ts`` is when a request was answered. The bytes depend on the arguments only, and on
    ``end`` only through ``ts``. All files are made before the first is put in place.

    Args:
        out: folder to write into; made if it is not there.
        seed: 0 … 2³² − 1.
        scenario: one of ``SCENARIOS``.
        end: a whole second with an offset; every row is earlier.

    Returns:
        The files written.

    Raises:
        UsageError: an argument is not as above, a file's place is taken by something that is not
            a regular file (a symbolic link too), or the folder cannot be written.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UsageError("no such seed", field="seed", found=seed, expected=f"0 … {MAX_SEED}")
    if scenario not in _SCENARIOS:
        raise UsageError(
            "no such scenario", field="scenario", found=scenario, expected=", ".join(SCENARIOS)
        )
    start_ms = _end_ms(end) - SPAN_SEC * 1000
    return _publish(out, _make(seed, _SCENARIOS[scenario], start_ms))


def _end_ms(end: datetime) -> int:
    """``end`` in ms since the epoch, if it is a time at which a sample can end."""
    expected = "a whole second with an offset, such as 2026-01-05T09:00:00+09:00"
    if end.tzinfo is None or end.utcoffset() is None:
        raise UsageError("a time without offset", field="end", found=str(end), expected=expected)
    second, rest = divmod(end - _EPOCH, timedelta(seconds=1))
    if rest:
        raise UsageError("a fraction of a second", field="end", found=str(end), expected=expected)
    if not SPAN_SEC <= second <= _LAST_SECOND:
        raise UsageError(
            "out of range", field="end", found=str(end), expected="a time from 1970 to 9999"
        )
    return second * 1000


def _make(seed: int, scenario: _Scenario, start_ms: int) -> dict[str, bytes]:
    """The sample: file name → content."""
    # One stream each, so that a change to one log leaves the others as they were.
    shop, judge, balancer, other = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(4))
    requests = _requests(shop, _SHOP, scenario)
    qps = round(len(requests.at) / SPAN_SEC, 2)
    requests = _with_probes(shop, requests)
    judged = _requests(judge, _JUDGE, _Scenario(rate=scenario.rate))
    judged = _with_signatures(judge, judged)
    blocks = {
        "budget": {"level": "ok", "spent": round(float(other.uniform(0.15, 0.3)), 3), "limit": 1.0},
        "quota": {"decisions": {"tokens": {"action": "allow"}, "requests": {"action": "allow"}}},
        "usage": {
            "cpu_percent": round(float(other.uniform(35, 50)), 1),
            "mem_percent": round(float(other.uniform(50, 60)), 1),
            "qps": qps,
        },
    }
    return {
        "reqlog.csv": _csv(_HEADER, requests, start_ms),
        "judgelog.csv": _csv(_JUDGE_HEADER, judged, start_ms),
        "lb.csv": _csv(_HEADER, _balanced(balancer, requests), start_ms),
        **{f"{name}.json": strict_json.dumps(block).encode() for name, block in blocks.items()},
    }


def _requests(rng: np.random.Generator, service: _Service, scenario: _Scenario) -> _Log:
    """What ``service`` answered. Draws the same numbers whatever ``scenario`` does to them."""
    seconds = np.arange(SPAN_SEC + 1)
    # A morning: the day's curve crosses its mean 20 minutes before the end, rising.
    curve = 1 + 0.35 * np.sin(2 * np.pi * (seconds - SPAN_SEC / 2) / 86_400)
    total = np.concatenate(([0.0], np.cumsum(curve[1:])))
    n = int(rng.poisson(scenario.rate * SPAN_SEC))
    at_sec = np.sort(np.interp(rng.random(n) * total[-1], total, seconds))
    at = np.minimum((at_sec * 1000).astype(np.int64), SPAN_SEC * 1000 - 1)
    second = at // 1000

    load = _ar1(rng)
    strain = 0.5 * load + np.sqrt(0.75) * _ar1(rng)
    route = _pick(rng, n, [share for share, _ in service.routes.values()])
    medians = np.array([median for _, median in service.routes.values()])
    spread = _LOAD_SHARE * load[second] + np.sqrt(1 - _LOAD_SHARE**2) * rng.standard_normal(n)
    latency = medians[route] * np.exp(service.sigma * spread)
    # A few requests in a hundred meet a pause, a retry or a cold cache: Pareto with index 2.2.
    stalled = rng.random(n) < 0.04
    latency = np.where(stalled, latency * (1 - rng.random(n)) ** (-1 / 2.2) * 2, latency)

    canary = (second >= SPAN_SEC - CANARY_SEC) & (rng.random(n) < CANARY_SHARE)
    latency = np.where(canary, latency * scenario.slowdown, latency)
    chance = service.error_rate * np.exp(_ERROR_SWING * strain - _ERROR_SWING**2 / 2)[second]
    bursting = canary & scenario.bursts & _in_burst(second)
    failed = rng.random(n) < np.where(bursting, _BURST_RATE, chance)
    error = np.array(list(service.errors))[_pick(rng, n, list(service.errors.values()))]
    error = np.where(bursting & (error == 429), 503, error)
    answer = np.array(list(service.answers))[_pick(rng, n, list(service.answers.values()))]
    tenant = _pick(rng, n, list(_TENANTS.values()))
    rest = np.array(
        [_rest(r, t, c) for r in service.routes for t in _TENANTS for c in (False, True)],
        dtype=object,
    )
    return _Log(
        at,
        np.where(failed, error, answer),
        np.clip(latency, 0.1, _TIMEOUT_MS),
        rest[(route * len(_TENANTS) + tenant) * 2 + canary],
    )


def _ar1(rng: np.random.Generator) -> Floats:
    """A stationary AR(1) process of unit variance, a value a second."""
    noise = rng.standard_normal(SPAN_SEC).tolist()
    fresh = (1 - _LOAD_MEMORY**2) ** 0.5
    return np.array(list(accumulate(noise, lambda last, e: _LOAD_MEMORY * last + fresh * e)))


def _pick(rng: np.random.Generator, n: int, shares: list[float]) -> Integers:
    """``n`` indices into ``shares``, each as often as its share."""
    inner = np.cumsum(shares)[:-1]  # without the last edge, which rounding may leave below 1
    return np.searchsorted(inner, rng.random(n), side="right").astype(np.int64)


def _in_burst(second: Integers) -> NDArray[np.bool_]:
    starts = SPAN_SEC - np.array(_BURST_STARTS)[:, None]
    inside = (second >= starts) & (second < starts + _BURST_SEC)
    hit: NDArray[np.bool_] = np.any(inside, axis=0)
    return hit


def _rest(route: str, tenant: str, canary: bool) -> str:
    """The columns after the numbers."""
    variant, release = ("canary", CANARY_RELEASE) if canary else ("control", CONTROL_RELEASE)
    return f"{route},{tenant},{variant},{release}"


def _with_probes(rng: np.random.Generator, log: _Log) -> _Log:
    """``log`` and the health checks: of no tenant; the last probe moves to the canary."""
    phase = rng.random(_PROBES) * _PROBE_SEC
    at_sec = (np.arange(0, SPAN_SEC, _PROBE_SEC) + phase[:, None]).ravel()
    at = np.minimum((at_sec * 1000).astype(np.int64), SPAN_SEC * 1000 - 1)
    n = len(at)
    last = np.arange(n) >= n - n // _PROBES
    canary = last & (at >= (SPAN_SEC - CANARY_SEC) * 1000)
    names = np.array([_rest(_HEALTH_ROUTE, "", c) for c in (False, True)], dtype=object)
    return _Log(
        np.concatenate((log.at, at)),
        np.concatenate((log.status, np.full(n, 200))),
        np.concatenate((log.latency, 0.6 + rng.exponential(0.4, n))),
        np.concatenate((log.rest, names[canary.astype(np.int64)])),
    ).sorted()


def _with_signatures(rng: np.random.Generator, log: _Log) -> _Log:
    """``log`` with the column ``signature_error``; a request with one is answered 401."""
    control = np.array([f",control,{CONTROL_RELEASE}" in text for text in log.rest])
    wrong = control & (rng.random(len(log.at)) < _SIGNATURE_ERROR_RATE)
    rest = np.where(wrong, "1,", "0,").astype(object) + log.rest
    return _Log(log.at, np.where(wrong, 401, log.status), log.latency, rest)


def _balanced(rng: np.random.Generator, log: _Log) -> _Log:
    """``log`` as the load balancer saw it: a few ms later and longer, in its own order."""
    n = len(log.at)
    longer = 0.3 + rng.exponential(1.2, n)
    later = np.ceil(longer + rng.exponential(0.8, n)).astype(np.int64)
    at = np.minimum(log.at + later, SPAN_SEC * 1000 - 1)
    return _Log(at, log.status, log.latency + longer, log.rest).sorted()


def _csv(header: str, log: _Log, start_ms: int) -> bytes:
    times = np.datetime_as_string((log.at + start_ms).astype("datetime64[ms]"))
    columns = (column.tolist() for column in (times, log.status, log.latency, log.rest))
    rows = [f"{t}Z,{s},{ms:.3f},{rest}" for t, s, ms, rest in zip(*columns, strict=True)]
    return "\n".join([header, *rows, ""]).encode()


def _publish(out: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Put ``files`` into ``out``: all are written and synced before the first takes its name."""
    temps: dict[Path, Path] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in files:
            path = out / name
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise UsageError(
                    "will not write here",
                    file=path,
                    found="a symbolic link" if path.is_symlink() else "not a regular file",
                    next_step="remove it, or choose another folder",
                )
        for name, content in files.items():
            temp = out / f".{name}.{secrets.token_hex(8)}.tmp"
            with os.fdopen(
                os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb"
            ) as file:
                temps[out / name] = temp
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, temp in temps.items():
            temp.replace(path)
    except OSError as fault:
        raise UsageError(f"cannot be written: {fault.strerror}", file=out) from None
    except ValueError:  # an embedded null character in the name
        raise UsageError("not a folder name", file=out) from None
    finally:
        for temp in temps.values():
            with suppress(OSError):
                temp.unlink(missing_ok=True)
    return list(temps)
