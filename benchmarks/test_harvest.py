"""The harvest against DuckDB alone and against Python's csv reader, in one run.

    DECISIONOS_BENCH_ROWS=10000000 python -m pytest benchmarks/test_harvest.py -s

The log is made with DuckDB: random latencies, five routes (one of them health checks), three
tenants, both variants. "Bare" is one DuckDB statement that parses the same file once and computes
the same quantiles for the same groups, without checks, digest, dispersion or bursts; "bare with
limits" also has it read the 18 order statistics a group that are the limits of its quantiles.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

ROWS = int(os.environ.get("DECISIONOS_BENCH_ROWS", "1000000"))

GENERATE = """COPY (
    SELECT strftime(make_timestamp(1767225600000000 + (i * (3600000000 / {rows}))::BIGINT),
            '%Y-%m-%dT%H:%M:%S.%g') || 'Z' AS ts,
        CASE WHEN random() < 0.003 THEN 500 WHEN random() < 0.001 THEN 429 ELSE 200 END AS status,
        round(exp(5 + 0.5 * sqrt(-2 * ln(1 - random())) * cos(6.283185 * random())), 3)
            AS latency_ms,
        ['/v1/pay', '/v1/cart', '/v1/users', '/healthz', '/v1/search'][1 + (random() * 5)::INT % 5]
            AS route,
        ['acme', 'globex', 'initech'][1 + (random() * 3)::INT % 3] AS tenant,
        CASE WHEN random() < 0.3 THEN 'canary' ELSE 'control' END AS variant, 'r42' AS release
    FROM range({rows}) t(i)) TO '{path}' (HEADER)"""

BARE = """
import sys, time, duckdb
con = duckdb.connect()
con.execute("SET enable_progress_bar = false")
began = time.perf_counter()
source = (
    f"read_csv('{sys.argv[1]}', header = true, auto_detect = false, delim = ',', quote = '\\"',"
    " columns = {'ts': 'VARCHAR', 'status': 'INTEGER', 'latency_ms': 'DOUBLE', 'route': 'VARCHAR',"
    " 'tenant': 'VARCHAR', 'variant': 'VARCHAR', 'release': 'VARCHAR'})"
)
three = "count(*), quantile_cont(latency_ms, [0.5, 0.95, 0.99])"
null = ""
if sys.argv[2] == "limits":
    null = ", NULL"
    # Around each, as far apart as limits of ten million rows are: 3 levels on either side.
    near = [p + sign * step for p in (0.5, 0.95, 0.99) for step in (2e-4, 3e-4, 4e-4) for sign in (-1, 1)]
    three += f", quantile_disc(latency_ms, {near})"
con.execute(f'''
WITH log AS MATERIALIZED (SELECT epoch_ms(ts::TIMESTAMPTZ) t, status, latency_ms, route, tenant,
    variant, release FROM {source})
SELECT 'all', null, {three} FROM log
UNION ALL SELECT 'route', route, {three} FROM log GROUP BY ALL
UNION ALL SELECT 'tenant', tenant, {three} FROM log GROUP BY ALL
UNION ALL SELECT 'variant', variant, {three} FROM log GROUP BY ALL
UNION ALL SELECT variant, (t // 300000)::VARCHAR, count(*), quantile_cont(latency_ms, [0.95, 0.99]){null}
    FROM log GROUP BY variant, t // 300000
''').fetchall()
print(time.perf_counter() - began)
"""

HARVEST = """
import sys, time
from pathlib import Path
import scipy.special
from pytest_decisionos.harvest.blocks import combine, harvest
began = time.perf_counter()
combine(harvest([Path(sys.argv[1])]), None)
print(time.perf_counter() - began)
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("harvest") / "reqlog.csv"
    duckdb.connect().execute(GENERATE.format(rows=ROWS, path=path))
    yield path
    path.unlink()


def measured(code: str, log: Path, *args: str) -> tuple[float, float]:
    """(seconds, peak MB) of a fresh process: neither profits from the other's warm memory."""
    child = subprocess.Popen([sys.executable, "-c", code, str(log), *args], stdout=subprocess.PIPE)
    assert child.stdout is not None
    seconds = float(child.stdout.read())
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = status
    child.stdout.close()
    assert status == 0
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return seconds, usage.ru_maxrss / unit


def plain_python(log: Path) -> float:
    """Counts, errors and sums by group with the csv reader: fewer numbers than the harvest."""
    began = time.perf_counter()
    totals: dict[tuple[str, str], list[float]] = {}
    with log.open(newline="") as stream:
        for row in csv.DictReader(stream):
            status, latency = int(row["status"]), float(row["latency_ms"])
            for by in ("route", "tenant", "variant"):
                total = totals.setdefault((by, row[by]), [0, 0, 0.0])
                total[0] += 1
                total[1] += status >= 500 or status == 429
                total[2] += latency
    assert sum(total[0] for (by, _), total in totals.items() if by == "route") == ROWS
    return time.perf_counter() - began


def test_harvest(log, benchmark):
    found: dict[str, list[tuple[float, float]]] = {"bare": [], "bare_limits": [], "harvest": []}

    def one_round():
        found["bare"].append(measured(BARE, log, "quantiles"))
        found["bare_limits"].append(measured(BARE, log, "limits"))
        found["harvest"].append(measured(HARVEST, log))

    benchmark.pedantic(one_round, rounds=3, iterations=1)
    bare, bare_limits, harvest = (min(seconds for seconds, _ in runs) for runs in found.values())
    memory = max(megabytes for _, megabytes in found["harvest"])
    python = plain_python(log)
    benchmark.extra_info |= {
        "rows": ROWS,
        "harvest_s": harvest,
        "to_bare": harvest / bare,
        "to_bare_with_limits": harvest / bare_limits,
        "faster_than_python": python / harvest,
        "peak_mb": memory,
    }
    print(
        f"\n{ROWS:,} rows: harvest {harvest:.2f} s = {harvest / bare:.2f}× bare DuckDB ({bare:.2f} s),"
        f" {harvest / bare_limits:.2f}× bare with limits ({bare_limits:.2f} s),"
        f" {python / harvest:.1f}× faster than Python's csv ({python:.2f} s), {memory:.0f} MB"
    )
