"""The numbers of the harvest against plain Python, and against themselves."""

from __future__ import annotations

import csv
import gzip
import json
import random
import subprocess
import sys
from collections import defaultdict
from fnmatch import fnmatchcase

import duckdb
import numpy as np
import pytest
from harvest_logs import START, csv_text, rows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_decisionos.harvest import source as source_module
from pytest_decisionos.harvest.blocks import combine, harvest
from pytest_decisionos.harvest.options import DEFAULT_FILTERS, Options
from pytest_decisionos.harvest.recompute import recompute
from pytest_decisionos.harvest.times import to_ms
from pytest_decisionos.stats.limits import LEVELS, quantile_ranks

T0 = to_ms(START)


def plain(rows):
    """What ``perf`` should say, from rows, by numpy."""
    latency = np.array([float(row["latency_ms"]) for row in rows])
    status = [int(row["status"]) for row in rows]
    errors = sum(s >= 500 or s == 429 for s in status)
    p50, p95, p99 = np.quantile(latency, [0.5, 0.95, 0.99])
    return {
        "latency_ms": {
            "p50": pytest.approx(p50, rel=1e-12),
            "p95": pytest.approx(p95, rel=1e-12),
            "p99": pytest.approx(p99, rel=1e-12),
        },
        "error_rate": errors / len(rows),
        "count": len(rows),
        "errors": errors,
    }


def part(block):
    return {key: block[key] for key in ("latency_ms", "error_rate", "count", "errors")}


def busy(seed=1, n=3000):
    """Traffic with everything in it: health checks, mirrors, errors, both variants, Korean."""
    draw = random.Random(seed)
    return rows_of(
        n,
        step_ms=500,
        status=lambda _: draw.choice([200] * 30 + [404, 429, 500, 503]),
        latency_ms=lambda _: round(draw.lognormvariate(4.5, 0.6), 3),
        route=lambda _: draw.choice(["/v1/pay", "/v1/cart", "/healthz", "/ping/deep", ""]),
        tenant=lambda _: draw.choice(["acme", "한빛", 'a "b", c']),
        variant=lambda i: (
            draw.choice(["control", "control", "mirror"])
            if i < n // 3
            else draw.choice(["control", "canary"])
        ),
    )


def kept(rows):
    probes = [f.partition("=")[2] for f in DEFAULT_FILTERS if f.startswith("route=")]
    return [
        row
        for row in rows
        if row["variant"] not in {"mirror", "shadow"}
        and not any(fnmatchcase(row["route"], glob) for glob in probes)
    ]


def test_all_numbers_agree_with_plain_python(write_log):
    rows = list(busy())
    log = write_log(rows)
    h = harvest([log], options=Options(guardband_minutes=2))
    good = kept(rows)
    assert part(h.perf) == plain(good)
    for group in h.perf["groups"]:
        assert part(group) == plain([r for r in good if r[group["by"]] == group["name"]])
    assert [(g["by"], g["name"]) for g in h.perf["groups"]] == sorted(
        {(by, r[by]) for r in good for by in ("route", "tenant") if r[by]}
    )
    blocks = combine(h, None)
    first_canary = next(r["ts"] for r in good if r["variant"] == "canary")
    assert blocks["canary"]["step_start"] == first_canary
    after = [r for r in good if _ms(r["ts"]) >= _ms(first_canary) + 120_000]
    sides = {v: [r for r in after if r["variant"] == v] for v in ("control", "canary")}
    for variant, side in sides.items():
        assert part(blocks["canary"][f"{variant}_perf"]) == plain(side)
    deltas = blocks["canary"]["deltas"]
    one, two = plain(sides["control"]), plain(sides["canary"])
    assert deltas["error_delta"] == two["error_rate"] - one["error_rate"]
    assert deltas["p95_rel"] == pytest.approx(
        two["latency_ms"]["p95"].expected / one["latency_ms"]["p95"].expected - 1
    )
    assert deltas["sig_error_delta"] is None
    assert sum(f["rows"] for f in h.sources[0]["filters"]) == len(rows) - len(good)
    assert h.sources[0]["rows"] == len(good)


def _ms(text):
    from datetime import datetime

    return to_ms(datetime.fromisoformat(text))


def test_windows_agree_with_plain_python(write_log):
    rows = list(busy())
    blocks = combine(harvest([write_log(rows)]), None)
    by_window = defaultdict(list)
    good = kept(rows)
    end = _ms(good[-1]["ts"]) + 1
    for row in good:
        start = _ms(row["ts"]) // 300_000 * 300_000
        if start >= _ms(good[0]["ts"]) and start + 305_000 <= end:
            by_window[start, row["variant"]].append(row)
    found = blocks["canary"]["windows"]
    assert {(_ms(w["start"]), w["variant"]) for w in found} == set(by_window)
    assert len(found) == 7
    for window in found:
        p = plain(by_window[_ms(window["start"]), window["variant"]])
        assert _ms(window["end"]) - _ms(window["start"]) == 300_000
        assert window["p95"] == p["latency_ms"]["p95"]
        assert window["p99"] == p["latency_ms"]["p99"]
        assert (window["count"], window["error_rate"]) == (p["count"], p["error_rate"])


def test_limits_are_the_order_statistics_of_the_ranks(write_log):
    draw = random.Random(3)
    rows = list(rows_of(3000, latency_ms=lambda _: round(draw.expovariate(0.01), 3)))
    perf = harvest([write_log(rows)]).perf
    values = sorted(r["latency_ms"] for r in rows)
    for name, p in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        entry = perf["limits"][f"latency_ms.{name}"]
        assert entry["n"] == 3000
        assert entry["effective"] == 3000 / entry["d"]
        for level in LEVELS:
            ranks = quantile_ranks(3000, p, level, entry["d"])
            for side, f in zip(("lower", "upper"), ranks, strict=True):
                expected = None if f is None else values[int(np.ceil(f * 3000)) - 1]
                assert entry[side][f"{level:.2f}"] == expected
        assert entry["lower"]["0.95"] <= perf["latency_ms"][name] <= entry["upper"]["0.95"]


def test_d_is_null_and_so_is_every_limit_when_the_log_is_too_short(write_log):
    perf = harvest([write_log(n=5)]).perf
    for entry in perf["limits"].values():
        assert (entry["n"], entry["d"], entry["effective"]) == (5, None, None)
        assert set(entry["lower"].values()) | set(entry["upper"].values()) == {None}


def test_d_sees_that_errors_cluster(write_log):
    spread = harvest([write_log(n=3000, status=lambda i: 500 if i % 50 == 0 else 200)]).perf
    lumped = harvest([write_log(n=3000, status=lambda i: 500 if 600 <= i < 660 else 200)]).perf
    assert spread["errors"] == lumped["errors"] == 60
    assert spread["limits"]["error_rate"]["d"] == 1.0
    assert lumped["limits"]["error_rate"]["d"] > 20
    assert lumped["limits"]["error_rate"]["upper"]["0.95"] > 0.03


def test_judgelog(write_log):
    log = write_log(
        n=2000,
        status=lambda i: {1: 503, 2: 429}.get(i % 400, 200),
        signature_error=lambda i: int(i % 500 == 0),
        variant=lambda i: "canary" if i > 500 and i % 3 == 0 else "control",
    )
    h = harvest([log], role="judgelog", options=Options(guardband_minutes=1))
    assert (h.perf["unavailable"], h.perf["errors"]) == (5, 10)
    assert h.perf["availability"] == 1 - 5 / 2000
    assert (h.perf["signature_errors"], h.perf["signature_error_rate"]) == (4, 4 / 2000)
    limits = h.perf["limits"]
    assert limits["availability"]["lower"]["0.95"] < h.perf["availability"]
    assert limits["availability"]["lower"]["0.95"] < limits["availability"]["lower"]["0.90"]
    assert limits["signature_error_rate"]["upper"]["0.95"] > 4 / 2000
    assert (h.windows, h.anomaly) == ([], None)
    request_log = write_log(
        name="r.csv", n=2000, variant=lambda i: "canary" if i > 500 and i % 3 == 0 else "control"
    )
    blocks = combine(harvest([request_log], options=Options(guardband_minutes=1)), h)
    assert list(blocks) == ["perf", "canary", "anomaly", "perf_judge"]
    signed = [(i, i % 500 == 0) for i in range(561, 2000)]
    canary, control = ([e for i, e in signed if (i % 3 == 0) == c] for c in (True, False))
    assert blocks["canary"]["deltas"]["sig_error_delta"] == pytest.approx(
        sum(canary) / len(canary) - sum(control) / len(control)
    )
    assert blocks["canary"]["limits"]["sig_error_delta"]["upper"]["0.95"] is not None


def test_a_judgelog_without_signature_error_says_null(write_log):
    perf = harvest([write_log()], role="judgelog").perf
    assert perf["signature_errors"] is perf["signature_error_rate"] is None
    assert "signature_error_rate" not in perf["limits"]
    assert perf["availability"] == 1


def test_a_side_without_rows_is_empty(write_log):
    everything = combine(harvest([write_log(variant="canary")]), None)["canary"]
    assert everything["control_perf"]["count"] == 0
    assert everything["control_perf"]["error_rate"] is None
    assert everything["control_perf"]["latency_ms"] == {"p50": None, "p95": None, "p99": None}
    assert set(everything["deltas"].values()) == {None}
    assert set(everything["limits"]["p95_rel"]["upper"].values()) == {None}
    none_yet = combine(harvest([write_log(variant="control")]), None)["canary"]
    assert none_yet["step_start"] is None
    assert none_yet["canary_perf"]["count"] == none_yet["control_perf"]["count"] == 0


def test_a_control_that_takes_no_time_has_no_ratio(write_log):
    log = write_log(
        variant=lambda i: "canary" if i % 2 else "control", latency_ms=lambda i: 5 * (i % 2)
    )
    canary = combine(harvest([log], options=Options(guardband_minutes=0)), None)["canary"]
    assert canary["deltas"]["p95_rel"] is None
    assert canary["deltas"]["error_delta"] == 0


def test_many_names_become_other(write_log):
    log = write_log(n=1500, route=lambda i: f"/{i % 130 if i < 1400 else 0}", tenant="t")
    groups = harvest([log], limits=False).perf["groups"]
    routes = {g["name"]: g["count"] for g in groups if g["by"] == "route"}
    assert len(routes) == 101
    assert routes["(other)"] == sum(routes.values()) - sum(
        n for name, n in routes.items() if name != "(other)"
    )
    assert sum(routes.values()) == 1500


def test_without_variants_there_is_no_canary(write_log):
    h = harvest([write_log(n=1800)])
    blocks = combine(h, None)
    assert "canary" not in blocks
    assert h.perf["groups"] == []
    assert blocks["anomaly"]["is_spike"] is False
    assert blocks["anomaly"]["ratio"] == pytest.approx(1, rel=0.1)


def test_formats_give_the_same_numbers(write_log, tmp_path):
    rows = list(busy(n=900))
    text = csv_text(rows)
    plain_csv = write_log(text)
    paths = {
        "gz": tmp_path / "a.csv.gz",
        "jsonl": tmp_path / "a.jsonl",
        "ndjson.gz": tmp_path / "a.ndjson.gz",
        "parquet": tmp_path / "a.parquet",
        "crlf": tmp_path / "crlf.csv",
        "bom": tmp_path / "bom.csv",
        "blank": tmp_path / "blank.csv",
    }
    paths["gz"].write_bytes(gzip.compress(text.encode()))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    paths["jsonl"].write_text(lines, "utf-8")
    paths["ndjson.gz"].write_bytes(gzip.compress(lines.encode()))
    paths["crlf"].write_bytes(text.replace("\n", "\r\n").encode())
    paths["bom"].write_bytes(b"\xef\xbb\xbf" + text.replace("ts,", " TS ,", 1).encode())
    paths["blank"].write_bytes(text.replace("\n", "\n\n", 5).encode())
    duckdb.connect().execute(
        f"COPY (SELECT * REPLACE (CAST(ts AS TIMESTAMPTZ) AS ts) FROM read_csv('{plain_csv}',"
        f" types = {{'ts': 'VARCHAR'}})) TO '{paths['parquet']}'"
    )
    expected = harvest([plain_csv])
    assert expected.perf["count"] == len(kept(rows))
    for name, path in paths.items():
        found = harvest([path])
        assert found.perf == expected.perf, name
        assert combine(found, None) == combine(expected, None), name


@pytest.mark.parametrize(
    "spell",
    [
        lambda ms: ms,
        lambda ms: ms / 1000,
        lambda ms: f"{ms / 1000:.3f}",
        lambda ms: np.datetime_as_string(np.datetime64(ms, "ms")) + "Z",
        lambda ms: np.datetime_as_string(np.datetime64(ms + 32_400_000, "ms")) + "+09:00",
        lambda ms: str(np.datetime64(ms - 12_600_000, "ms")).replace("T", " ") + "-0330",
    ],
)
def test_spellings_of_time(write_log, spell):
    log = write_log(n=20, ts=lambda i: spell(T0 + i * 1000 + 123))
    window = harvest([log]).perf["window"]
    assert window == {"start": "2026-01-05T09:00:00.123Z", "end": "2026-01-05T09:00:19.124Z"}


def test_times_in_a_zone(write_log):
    log = write_log(n=3, ts=lambda i: f"2026-07-01 12:00:0{i}")
    h = harvest([log], options=Options(assume_tz="America/New_York"))
    assert h.perf["window"]["start"] == "2026-07-01T16:00:00.000Z"
    mixed = write_log(n=2, ts=lambda i: ["2026-01-05T18:00:00", "2026-01-05T09:00:01Z"][i])
    h = harvest([mixed], options=Options(assume_tz="Asia/Seoul"))
    assert h.until - h.since == 1001
    utc = write_log(n=2, ts=lambda i: f"2026-01-05T09:00:0{i}")
    assert harvest([utc], options=Options(assume_tz="UTC")).since == T0
    zoned = write_log(n=2, ts=lambda i: f"2026-01-05T09:00:0{i}Z")
    assert harvest([zoned], options=Options(assume_tz="Asia/Seoul")).since == T0


def test_since_and_until_cut_but_never_stretch(write_log):
    log = write_log(n=100)
    h = harvest([log], options=Options(since=T0 + 10_000, until=T0 + 20_000))
    assert h.perf["count"] == h.sources[0]["rows"] == 10
    h = harvest([log], options=Options(since=0, until=T0 + 10**10))
    assert (h.since, h.until) == (T0, T0 + 99_001)


def test_a_burst_is_found_in_the_canary_only(write_log):
    def status(i):
        # 20 seconds of errors on the canary, in the last closed window.
        return 500 if i % 3 == 0 and 12_100 <= i < 12_300 else 200

    log = write_log(
        n=18_000,
        step_ms=100,
        status=status,
        variant=lambda i: "canary" if i % 3 == 0 else "control",
    )
    h = harvest([log])
    hit = [(w.v, w.burst) for w in h.windows if w.burst]
    assert hit == [(2, 2)]
    assert h.anomaly["is_spike"] is True
    assert combine(h, None)["canary"]["windows"][-1]["burst"] == 2


def test_constant_slowness_is_a_burst_of_every_bucket(write_log):
    log = write_log(
        n=18_000,
        step_ms=100,
        latency_ms=lambda i: (100 + i % 97) * (3 if i % 3 == 0 else 1),
        variant=lambda i: "canary" if i % 3 == 0 else "control",
    )
    bursts = {w.burst for w in harvest([log]).windows if w.v == 2}
    assert bursts == {30}


def test_a_burst_without_control_is_held_against_the_windows_before(write_log):
    log = write_log(
        n=18_000, step_ms=100, latency_ms=lambda i: 900 if 14_000 <= i < 14_200 else 100 + i % 97
    )
    h = harvest([log])
    assert [w.burst for w in h.windows] == [0, 0, 0, 0, 2]
    assert h.anomaly["is_spike"] is True
    only_canary = write_log(
        n=18_000,
        step_ms=100,
        variant=lambda i: "control" if i < 3000 else "canary",
        status=lambda i: 500 if 17_000 <= i < 17_200 else 200,
    )
    late = harvest([only_canary], options=Options(lag_sec=0))
    assert [w.burst for w in late.windows][:4] == [0, 0, 0, 0]


def test_the_anomaly_is_about_the_canary_after_the_guardband(write_log):
    def log(first, last):
        return write_log(
            n=18_000,
            step_ms=100,
            status=lambda i: 500 if i % 3 == 0 and first <= i < last else 200,
            variant=lambda i: "canary" if i % 3 == 0 else "control",
        )

    assert harvest([log(4000, 4200)]).anomaly["is_spike"] is False
    early = harvest([log(4000, 4200)], options=Options(guardband_minutes=5))
    assert early.anomaly["is_spike"] is True


def test_the_anomaly_needs_two_windows(write_log):
    assert harvest([write_log(n=400)]).anomaly == {
        "is_spike": False,
        "ewma": None,
        "ratio": None,
        "source": "log",
    }
    assert harvest([write_log(n=20)]).anomaly == {
        "is_spike": False,
        "ewma": None,
        "ratio": None,
        "source": "log",
    }
    h = harvest([write_log(n=2000, latency_ms=lambda i: 100 if i < 1500 else 200)])
    assert h.anomaly["ewma"] == 100
    assert h.anomaly["ratio"] == 2
    still = harvest([write_log(n=2000, latency_ms=0)])
    assert still.anomaly == {"is_spike": False, "ewma": 0, "ratio": None, "source": "log"}


def test_a_healthy_log_never_loads_scipy(write_log):
    """Judging without limits must start fast."""
    code = (
        "import sys; from pathlib import Path; from pytest_decisionos.harvest.blocks import harvest;"
        f"h = harvest([Path({str(write_log(n=2000))!r})], limits=False); assert h.windows;"
        "assert 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 2**32), st.integers(2, 5), st.data())
def test_how_a_log_is_cut_into_files_changes_nothing(tmp_path, seed, pieces, data):
    rows = list(busy(seed, n=300))
    cuts = sorted(data.draw(st.lists(st.integers(1, 299), min_size=pieces, max_size=pieces)))
    for old in tmp_path.glob("part-*"):
        old.unlink()
    edges = sorted({0, *cuts, 300})
    for i, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
        (tmp_path / f"part-{i}.csv").write_text(csv_text(rows[a:b]), "utf-8")
    (tmp_path / "whole.csv").write_text(csv_text(rows), "utf-8")
    cut = harvest([tmp_path / "part-*.csv"])
    whole = harvest([tmp_path / "whole.csv"])
    assert combine(cut, None) == combine(whole, None)
    assert sum(s["rows"] for s in cut.sources) == whole.sources[0]["rows"]
    assert [s["name"] for s in cut.sources] == sorted(s["name"] for s in cut.sources)


@pytest.mark.slow
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e6, allow_nan=False),
            st.sampled_from([200, 204, 404, 429, 499, 500, 503, 599]),
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8),
        ),
        min_size=1,
        max_size=60,
    ),
    st.randoms(use_true_random=False),
)
def test_any_rows_in_any_order(tmp_path, found, draw):
    rows = [
        row | {"latency_ms": latency, "status": status, "tenant": tenant}
        for row, (latency, status, tenant) in zip(rows_of(len(found)), found, strict=True)
    ]
    path = tmp_path / "log.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    first = harvest([path], limits=False)
    assert part(first.perf) == plain(rows)
    for group in first.perf["groups"]:
        assert part(group) == plain([r for r in rows if r["tenant"] == group["name"]])
    draw.shuffle(rows)
    path.write_text(csv_text(rows), "utf-8")
    again = harvest([path], limits=False)
    assert combine(again, None, limits=False) == combine(first, None, limits=False)


def test_recompute_is_the_same_to_the_last_bit(write_log, tmp_path):
    log = write_log(busy())
    h = harvest([log])
    evidence = combine(h, None) | {
        "meta": {"window": h.perf["window"]},
        "witness": {"sources": h.sources, "harvest": h.options.as_block()},
    }
    again = recompute(
        h.sources, tmp_path, json.loads(json.dumps(evidence)), limits=True, exact=True
    ).blocks
    # A log that does not see signatures says nothing of them.
    del evidence["canary"]["deltas"]["sig_error_delta"]
    del evidence["canary"]["limits"]["sig_error_delta"]
    assert json.dumps(again) == json.dumps({name: evidence[name] for name in again})
    light = recompute(h.sources, tmp_path, evidence, limits=False, exact=True).blocks
    assert light["canary"]["windows"] == again["canary"]["windows"]
    assert part(light["perf"]) == part(again["perf"])
    assert "limits" not in light["perf"]
    # A log that grew since verifies all the same.
    log.write_bytes(log.read_bytes() + b"2026-01-05T09:59:59Z,500,99999,/v1/pay,acme,control\n")
    assert recompute(h.sources, tmp_path, evidence, limits=True, exact=True).blocks == again


def test_a_given_anomaly_is_not_for_the_log_to_contradict(write_log, tmp_path):
    h = harvest([write_log(n=700)])
    evidence = combine(h, None) | {"anomaly": {"is_spike": True}}
    assert (
        "anomaly" not in recompute(h.sources, tmp_path, evidence, limits=False, exact=True).blocks
    )


def test_names_of_a_large_log_are_learnt_from_a_sample(write_log, monkeypatch):
    rows = list(busy(n=2000))
    log = write_log(rows)
    expected = combine(harvest([log]), None)
    # Pieces so small that the sample misses names: those are kept with their rows.
    monkeypatch.setattr(source_module, "MIN_PIECE", 300)
    monkeypatch.setattr(source_module, "PIECES", 8)
    assert combine(harvest([log]), None) == expected
    lines = write_log("".join(json.dumps(row) + "\n" for row in rows), name="a.jsonl")
    assert combine(harvest([lines]), None) == expected


@pytest.mark.parametrize("pieces", [2, 5])
def test_rotated_logs_that_are_sampled_count_every_row_once(tmp_path, monkeypatch, pieces):
    rows = list(busy(n=5000))
    (tmp_path / "whole.csv").write_text(csv_text(rows), "utf-8")
    expected = harvest([tmp_path / "whole.csv"])
    length = len(rows) // pieces
    for i in range(pieces):
        part_of = rows[i * length : (i + 1) * length]
        (tmp_path / f"part-{i}.csv").write_text(csv_text(part_of), "utf-8")
    # Small enough that each file gives a sample, and that samples of different files overlap.
    monkeypatch.setattr(source_module, "MIN_PIECE", 100)
    monkeypatch.setattr(source_module, "PIECES", 8)
    cut = harvest([tmp_path / "part-*.csv"])
    assert combine(cut, None) == combine(expected, None)
    assert sum(s["rows"] for s in cut.sources) == len(kept(rows))
    left_out = [sum(f["rows"] for f in s["filters"]) for s in cut.sources]
    assert sum(left_out) == len(rows) - len(kept(rows))
