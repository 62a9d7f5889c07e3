"""How large a burst is: against the control and against the windows before, as the options say."""

import pytest
from harvest_logs import csv_text, rows_of

from pytest_decisionos.errors import EvidenceError, UsageError
from pytest_decisionos.harvest.blocks import harvest
from pytest_decisionos.harvest.options import Options

# 100 requests a second, of which 30 in 100 fail; for ten seconds of the last minute 54.
RATE, MINUTE, HIT = 100, 6000, range(150 * 100, 160 * 100)


def log(tmp_path, variants):
    def status(i):
        share = 54 if i in HIT and variants[i % len(variants)] != "control" else 30
        return 500 if (i // len(variants)) * 7 % 100 < share else 200

    columns = {"latency_ms": 100, "status": status, "variant": lambda i: variants[i % len(variants)]}  # fmt: skip
    if variants == [""]:
        del columns["variant"]
    path = tmp_path / "reqlog.csv"
    path.write_text(csv_text(rows_of(MINUTE * 3 + RATE * 10, 1000 // RATE, **columns)), "utf-8")
    return path


def bursts(path, **sizes):
    options = Options(window_sec=60, guardband_minutes=0, **sizes)
    return [w.burst for w in harvest([path], options=options, limits=False).windows]


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ({}, 0),
        ({"burst_threshold": 0.6}, 1),
        ({"burst_threshold": 0.9}, 0),
        ({"ewma_tolerance": 0.35}, 0),
    ],
    ids=str,
)
def test_against_the_control(tmp_path, sizes, found):
    assert sum(bursts(log(tmp_path, ["control", "canary"]), **sizes)) == found


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ({}, 0),
        ({"ewma_tolerance": 0.35}, 1),
        ({"ewma_tolerance": 0.9}, 0),
        ({"burst_threshold": 0.6}, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("variants", [[""], ["canary"]], ids=["plain", "canary alone"])
def test_against_the_windows_before(tmp_path, variants, sizes, found):
    assert bursts(log(tmp_path, variants), **sizes) == [0, 0, found]


def test_evidence_says_how_large_and_older_evidence_means_twice():
    stated = Options(burst_threshold=0.6, ewma_tolerance=0.35)
    assert Options.from_block(stated.as_block()) == stated
    older = {k: v for k, v in Options().as_block().items() if k not in {"burst_threshold", "ewma_tolerance"}}  # fmt: skip
    read = Options.from_block(older)
    assert (read.burst_threshold, read.ewma_tolerance) == (1.0, 1.0)


@pytest.mark.parametrize("name", ["burst_threshold", "ewma_tolerance"])
@pytest.mark.parametrize("value", [-0.1, 101, float("nan"), float("inf"), 10**400, True, "1", None])
def test_sizes_that_are_none(name, value):
    with pytest.raises(UsageError, match=f"{name}: (out of range|wrong type)"):
        Options(**{name: value})
    with pytest.raises(EvidenceError, match=f"witness.harvest.{name}: (out of range|wrong type)"):
        Options.from_block({name: value})
