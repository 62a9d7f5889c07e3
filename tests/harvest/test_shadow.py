"""A canary in shadow is measured by mirrored requests, and the service is not."""

from __future__ import annotations

import json

import pytest
from harvest_logs import START, rows_of

from pytest_decisionos.errors import DecisionOSError, EvidenceError, LogError
from pytest_decisionos.harvest.blocks import combine, harvest
from pytest_decisionos.harvest.options import DEFAULT_FILTERS, Options
from pytest_decisionos.harvest.recompute import recompute
from pytest_decisionos.harvest.times import to_ms

SHADOW = Options(window_sec=60, guardband_minutes=0, shadow=True)
PLAIN = Options(window_sec=60, guardband_minutes=0)


def traffic(copy="shadow", n=1200, **canary):
    """Users on the control; every request copied, answered more slowly and one in 50 badly."""
    for i, row in enumerate(
        rows_of(n, route="/v1/pay", tenant="김", variant="control", release="v1")
    ):
        yield row
        worse = {"variant": copy, "release": "v2", "latency_ms": 300 + i % 50}
        yield row | worse | {"status": 500 if i % 50 == 7 else 200} | canary


def without(rows, variant):
    return [row for row in rows if row["variant"] != variant]


def test_copies_are_the_canary_of_the_comparison_only(write_log):
    rows = list(traffic())
    log = write_log(rows)
    found = harvest([log], options=SHADOW)
    blocks = combine(found, None)
    canary = blocks["canary"]
    assert canary["canary_perf"]["count"] == canary["control_perf"]["count"] == 1200
    assert canary["canary_perf"]["errors"] == 24
    assert canary["deltas"]["error_delta"] == pytest.approx(0.02)
    assert canary["deltas"]["p95_rel"] > 1
    assert found.releases == {"control": "v1", "canary": "v2"}
    windows = [w for w in canary["windows"] if w["variant"] == "canary"]
    assert sum(w["count"] for w in windows) == 60 * len(windows)
    assert windows[0]["error_rate"] == pytest.approx(1 / 50, abs=0.02)
    assert blocks["anomaly"]["ewma"] > 300
    # The users' numbers, their groups and their limits are what they are without any copy.
    users = combine(
        harvest([write_log(without(rows, "shadow"), name="users.csv")], options=PLAIN), None
    )
    assert blocks["perf"] == users["perf"]
    [entry] = found.sources
    assert entry["rows"] == 1200
    assert {f["text"]: f["rows"] for f in entry["filters"]}["variant=shadow"] == 1200


def test_what_calls_itself_canary_gives_the_same_comparison(write_log):
    copies = combine(harvest([write_log(traffic())], options=SHADOW), None)
    canary = combine(
        harvest([write_log(traffic("canary"), name="canary.csv")], options=PLAIN), None
    )
    assert copies["canary"] == canary["canary"]
    assert copies["perf"] != canary["perf"]


def test_without_asking_they_are_nobodys(write_log):
    blocks = combine(harvest([write_log(traffic())], options=PLAIN), None)
    assert blocks["canary"]["canary_perf"]["count"] == 0
    assert blocks["perf"]["count"] == 1200


def test_copies_of_probes_and_of_what_is_filtered_are_left_out(write_log):
    route = {"route": lambda i: ["/healthz", "/v1/pay", "/admin/x"][i % 3]}
    users = list(rows_of(900, variant="control", release="v1", **route))
    copied = [row | {"variant": "shadow", "release": "v2"} for row in users]
    options = Options(
        guardband_minutes=0, shadow=True, filters=(*DEFAULT_FILTERS, "route=/admin/*", "variant=x*")
    )
    found = harvest([write_log([*users, *copied])], options=options)
    assert found.perf["count"] == 300
    assert combine(found, None)["canary"]["canary_perf"]["count"] == 300


def test_a_filter_on_variants_need_not_be_there(write_log):
    rows = list(traffic())
    found = harvest(
        [write_log(rows)], options=Options(guardband_minutes=0, shadow=True, filters=())
    )
    assert found.perf["count"] == 1200
    assert combine(found, None)["canary"]["canary_perf"]["count"] == 1200
    with pytest.raises(LogError, match="neither control nor canary"):
        harvest([write_log(rows)], options=Options(filters=()))


def test_copies_of_two_releases_are_refused(write_log):
    rows = list(traffic())
    rows[-1] |= {"release": "v3"}
    with pytest.raises(LogError, match="two releases in one variant.*canary"):
        harvest([write_log(rows)], options=SHADOW)
    rows[-1] |= {"variant": "canary"}
    with pytest.raises(LogError, match="two releases in one variant.*canary"):
        harvest([write_log(rows)], options=SHADOW)


def test_copies_to_the_baseline_are_nobodys(write_log):
    blocks = combine(harvest([write_log(traffic("mirror"))], options=SHADOW), None)
    assert blocks["canary"]["canary_perf"]["count"] == 0
    assert blocks["perf"]["count"] == 1200


def test_copies_do_not_speak_for_a_canary_that_has_users(write_log):
    rows = list(traffic())
    rows[-1] |= {"variant": "canary"}
    log, start = write_log(rows), to_ms(START)
    for since in (None, start, start + 1_000_000):
        with pytest.raises(LogError, match="users and copies at once"):
            harvest([log], options=SHADOW, step_start=since)
    # Users of an earlier step are cut off by this one's start.
    rows[-1], rows[5] = rows[-1] | {"variant": "shadow"}, rows[5] | {"variant": "canary"}
    found = harvest([write_log(rows)], options=SHADOW, step_start=start + 60_000)
    assert found.sides[2].count == 1140
    # And users alone are a canary in shadow of whoever counts copies as canary.
    alone = harvest([write_log(traffic("canary"))], options=SHADOW)
    assert alone.sides[2].count == 1200


def test_copies_alone_are_nothing_to_measure(write_log):
    rows = [row for row in traffic() if row["variant"] == "shadow"]
    with pytest.raises(LogError, match="no row is left to measure"):
        harvest([write_log(rows)], options=SHADOW)


def test_users_of_no_named_variant_are_no_control(write_log):
    rows = [row | {"variant": row["variant"].replace("control", "")} for row in traffic()]
    blocks = combine(harvest([write_log(rows)], options=SHADOW), None)
    assert blocks["perf"]["count"] == 1200
    assert "canary" not in blocks


@pytest.mark.parametrize("value", [1, 0, "true", None, [True]])
def test_only_true_and_false(value):
    with pytest.raises(DecisionOSError, match="shadow"):
        Options(shadow=value)
    with pytest.raises(EvidenceError, match=r"witness\.harvest\.shadow"):
        Options.from_block(Options().as_block() | {"shadow": value})


def evidence_of(found):
    blocks = combine(found, None) | {
        "meta": {"window": found.perf["window"]},
        "witness": {"sources": found.sources, "harvest": found.options.as_block()},
    }
    return json.loads(json.dumps(blocks))


def test_a_judge_computes_the_same_from_the_log(write_log, tmp_path):
    found = harvest([write_log(traffic())], options=SHADOW)
    evidence = evidence_of(found)
    again = recompute(found.sources, tmp_path, evidence, limits=True, exact=True).blocks
    assert again["canary"]["canary_perf"] == evidence["canary"]["canary_perf"]
    assert again["canary"]["windows"] == evidence["canary"]["windows"]
    assert again["perf"] == evidence["perf"]


def test_a_load_balancer_that_sees_no_copy_says_nothing_of_the_canary(write_log, tmp_path):
    rows = list(traffic())
    evidence = evidence_of(harvest([write_log(rows)], options=SHADOW))
    write_log(without(rows, "shadow"), name="lb.csv")
    sources = [{"role": "peer", "name": "lb.csv"}]
    peer = recompute(sources, tmp_path, evidence, limits=False, exact=False).blocks
    assert peer["perf"]["count"] == 1200
    assert "canary" not in peer
    # The log that the evidence names has no such excuse.
    sources = [{"role": "reqlog", "name": "lb.csv"}]
    witness = recompute(sources, tmp_path, evidence, limits=False, exact=False).blocks
    assert witness["canary"]["canary_perf"]["count"] == 0
    # And one that does see them tells.
    write_log(rows, name="lb.csv")
    sources = [{"role": "peer", "name": "lb.csv"}]
    told = recompute(sources, tmp_path, evidence, limits=False, exact=False).blocks
    assert told["canary"]["canary_perf"]["count"] == 1200
