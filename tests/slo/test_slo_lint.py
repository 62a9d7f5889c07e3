"""Warnings of lint: what an SLO file cannot do although it compiles."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from pytest_decisionos.errors import EvidenceError
from pytest_decisionos.slo.compile import compile_slo
from pytest_decisionos.slo.lint import Finding, lint, traffic_seen
from pytest_decisionos.stats.samples import smallest_n

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


@pytest.fixture
def linted(tmp_path):
    def run(document, **options):
        path = tmp_path / "slo.json"
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")
        return lint(path, now=NOW, **options)

    return run


def custom(**fields):
    return {"rules": [{"id": "mine", "metric": "/perf/error_rate", "op": "<=", **fields}]}


FLOORS = [
    # document with a floor of None to fill in, where its bound stands, and the fewest samples
    (lambda n: {"latency": {"max_p95_ms": 900, "min_samples": n}}, "latency.max_p95_ms", 59),
    (lambda n: {"latency": {"max_p99_ms": 900, "min_samples": n}}, "latency.max_p99_ms", 299),
    (lambda n: {"error": {"max_error_rate": 0.01, "min_samples": n}}, "error.max_error_rate", 299),
    (lambda n: {"error": {"max_error_rate": 0.005, "min_samples": n}}, "error.max_error_rate", 598),
    (lambda n: {"error": {"max_error_rate": 0.001, "min_samples": n}}, "error.max_error_rate", 2995),
    (lambda n: {"judge_infra": {"latency": {"max_p95_ms": 9, "min_samples": n}}}, "judge_infra.latency.max_p95_ms", 59),
    (lambda n: {"judge_infra": {"sig": {"max_sig_error_rate": 0.001, "min_samples": n}}}, "judge_infra.sig.max_sig_error_rate", 2995),
    (lambda n: {"canary": {"thresholds": {"max_p95_rel_increase": 0.1}, "min_sample_count": n}}, "canary.thresholds.max_p95_rel_increase", 59),
    (lambda n: {"canary": {"thresholds": {"max_error_abs_delta": 0.01}, "min_sample_count": n}}, "canary.thresholds.max_error_abs_delta", 299),
    (lambda n: {"canary": {"thresholds": {"max_sig_error_delta": 0.0005}, "min_sample_count": n}}, "canary.thresholds.max_sig_error_delta", 5990),
    (lambda n: custom(bound=0.02, min_samples=n), "rules[0].bound", 149),
    (lambda n: custom(metric="/perf/availability", op=">=", bound=0.98, min_samples=n), "rules[0].bound", 149),
    (lambda n: custom(metric="/perf_judge/latency_ms/p50", bound=9, min_samples=n), "rules[0].bound", 5),
    (lambda n: custom(metric="/perf/latency_ms/p99", bound=9, min_samples=n, for_each="route"), "rules[0].bound", 299),
]  # fmt: skip


@pytest.mark.parametrize(("made", "field", "fewest"), FLOORS)
def test_a_floor_that_cannot_prove_its_bound(linted, made, field, fewest):
    (finding,) = linted(made(fewest - 1))
    assert (finding.severity, finding.field) == ("warning", field)
    assert f"at least {fewest:,} samples" in finding.message
    assert f"{fewest - 1:,}: to prove" in finding.message
    assert f"raise it to {fewest:,}" in finding.hint
    assert finding.line is not None
    assert linted(made(fewest)) == []


def test_no_floor_at_all(linted):
    (finding,) = linted({"error": {"max_error_rate": 0.01}})
    assert finding.message.startswith("no min_samples: to prove <= 1 % at 95% takes at least 299")
    assert finding.hint == "state min_samples: 299, or confidence"
    assert finding.line == 3
    (finding,) = linted({"canary": {"thresholds": {"max_p95_rel_increase": 0.1}}})
    assert finding.hint == "state min_sample_count: 59, or confidence"


def test_availability_has_no_floor_of_its_own(linted):
    document = {"judge_infra": {"availability": {"min_availability": 0.995}}}
    (finding,) = linted(document)
    assert "at least 598 samples" in finding.message
    assert finding.hint == "state confidence"
    assert linted(document | {"confidence": {"level": 0.95}}) == []


def test_with_confidence_its_own_level_counts_and_only_a_stated_floor_misleads(linted):
    def document(n):
        return {
            "confidence": {"level": 0.99},
            "error": {"max_error_rate": 0.01, "min_samples": n},
        }

    assert smallest_n(0.01, 0.99) == 459
    assert linted(document(0)) == []
    (finding,) = linted(document(300))
    assert "at 99% takes at least 459 samples" in finding.message
    assert finding.hint == "raise it to 459"
    assert linted(document(459)) == []


def test_with_confidence_newcombe_decides_differences(linted):
    thresholds = {"max_error_abs_delta": 0.01, "max_sig_error_delta": 0.0005}
    document = {"canary": {"thresholds": thresholds, "min_sample_count": 100}}
    assert len(linted(document)) == 2
    assert linted(document | {"confidence": {"level": 0.95}}) == []


@pytest.mark.parametrize(
    "document",
    [
        {"budget": {"max_spent": 0.5}},
        custom(metric="/perf/count", op=">=", bound=5000),
        custom(metric="/usage/qps", bound=5),
        custom(metric="/budget/level", op="in", bound=["ok"]),
        custom(metric="/anomaly/is_spike", op="==", bound=False),
        {"error": {"max_error_rate": 0}},
        {"error": {"max_error_rate": 1}},
        {"canary": {"guardband_minutes": 10}},
    ],
)
def test_what_needs_no_floor(linted, document):
    assert linted(document) == []


@pytest.mark.parametrize(
    ("rps", "told"),
    [
        (None, "at least 299 samples"),
        (1, "about 5 min at 1 requests/s"),
        (60, "under 1 min at 60 requests/s"),
        (0.01, "about 499 min at 0.01 requests/s"),
        (1234.5678, "under 1 min at 1,235 requests/s"),
    ],
)
def test_the_time_that_a_floor_takes(linted, rps, told):
    (finding,) = linted({"error": {"max_error_rate": 0.01}}, requests_per_second=rps)
    assert finding.message.endswith(told)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"error": {"max_error_rate": 0}}, "no number of samples proves 0 %"),
        (custom(metric="/perf_judge/availability", op=">=", bound=1), "proves 100 %"),
        (custom(metric="/perf/latency_ms/p95", op="<", bound=0), "proves 0 ms"),
        ({"canary": {"thresholds": {"max_error_abs_delta": 0}}}, "proven to be better than"),
        ({"canary": {"thresholds": {"max_p95_rel_increase": 0}}}, "proven to be better than"),
    ],
)
def test_confidence_on_a_bound_of_nothing(linted, document, message):
    (finding,) = linted(document | {"confidence": {"level": 0.95}})
    assert finding.severity == "warning"
    assert message in finding.message
    assert not any(message in finding.message for finding in linted(document))


def test_rules_that_all_only_warn(linted):
    (finding,) = linted(custom(bound=0.02, min_samples=149, severity="warn"))
    assert (finding.severity, finding.field) == ("warning", "rules")
    assert "can stop no release" in finding.message
    both = custom(bound=0.02, min_samples=149, severity="warn") | {"budget": {"max_spent": 1}}
    assert linted(both) == []


class TestWaivers:
    @pytest.fixture
    def waived(self, linted):
        def run(expires):
            waiver = {"rule": "budget.spent", "owner": "김", "reason": "x", "expires": expires}
            return linted({"budget": {"max_spent": 1}, "waivers": [waiver]})

        return run

    @pytest.mark.parametrize(
        "expires", ["2026-01-19", "2026-01-08", "2026-01-19T08:59:59Z", "2026-01-19T09:00:00Z"]
    )
    def test_one_that_counts(self, waived, expires):
        if expires == "2026-01-19":  # the end of that day is more than 14 days away
            assert len(waived(expires)) == 1
        else:
            assert waived(expires) == []

    @pytest.mark.parametrize(
        ("expires", "severity", "message"),
        [
            ("2026-01-04", "warning", "it has expired; found 2026-01-04"),
            ("2026-01-05T09:00:00Z", "warning", "it has expired"),
            ("2026-01-19T09:00:01Z", "error", "it runs for more than 14 days"),
            ("2027-01-01", "error", "it runs for more than 14 days"),
            ("tomorrow", "error", "its date cannot be read"),
            ("2026-01-08T00:00:00", "error", "its date cannot be read"),
            ("2026-13-01", "error", "its date cannot be read"),
            ("2026-01-06T10:00:00Z", "warning", "the waiver of budget.spent by 김 ends in 25 h"),
            ("2026-01-05T18:30:00+09:00", "warning", "ends within the hour"),
        ],
    )
    def test_one_that_does_not_count_or_soon_will_not(self, waived, expires, severity, message):
        (finding,) = waived(expires)
        assert (finding.severity, finding.field) == (severity, "waivers[0].expires")
        assert message in finding.message
        assert finding.line == 10

    def test_this_clock_is_the_default(self, tmp_path):
        expires = (datetime.now(UTC) + timedelta(days=5)).isoformat()
        waiver = {"rule": "budget.spent", "owner": "k", "reason": "x", "expires": expires}
        path = tmp_path / "slo.json"
        path.write_text(json.dumps({"budget": {"max_spent": 1}, "waivers": [waiver]}))
        assert lint(path) == []


def test_findings_come_in_the_order_of_the_file(linted):
    found = linted({"latency": {"max_p99_ms": 9}, "error": {"max_error_rate": 0.1}})
    assert [finding.line for finding in found] == [3, 6]


def test_a_file_with_warnings_compiles(linted, tmp_path):
    linted({"error": {"max_error_rate": 0.01}})
    data = (tmp_path / "slo.json").read_bytes()
    assert compile_slo(json.loads(data), data, tmp_path / "slo.json").rules


def test_a_finding_is_one_safe_line():
    finding = Finding("warning", "a\nb.json", 3, "x\x1b[1m", "say\nthis", "do\nthat")
    assert str(finding) == "a\\nb.json:3: x\\x1b[1m: warning: say\\nthis → do\\nthat"
    assert str(Finding("error", "slo.json", None, None, "bad")) == "slo.json: bad"


class TestTraffic:
    WINDOW = {"start": "2026-01-05T08:00:00Z", "end": "2026-01-05T08:10:00Z"}

    @pytest.fixture
    def seen(self, tmp_path):
        def run(document):
            path = tmp_path / "latest.json"
            path.write_text(json.dumps(document), encoding="utf-8")
            return traffic_seen(path)

        return run

    def test_count_over_window(self, seen):
        assert seen({"perf": {"count": 36_000}, "meta": {"window": self.WINDOW}}) == 60

    @pytest.mark.parametrize("count", [None, True, "5", -1, 0, 1.5, 10**400, [], {}])
    def test_a_count_that_is_none(self, seen, count):
        assert seen({"perf": {"count": count}, "meta": {"window": self.WINDOW}}) is None

    @pytest.mark.parametrize(
        "window",
        [
            None,
            {},
            {"start": "2026-01-05T08:00:00Z"},
            {"start": 1, "end": 2},
            {"start": "2026-01-05T08:00:00Z", "end": "2026-01-05T08:00:00Z"},
            {"start": "2026-01-05T08:00:00Z", "end": "2026-01-05T07:00:00Z"},
        ],
    )
    def test_a_window_that_is_none(self, seen, window):
        assert seen({"perf": {"count": 5}, "meta": {"window": window}}) is None

    def test_no_evidence(self, tmp_path):
        assert traffic_seen(tmp_path / "latest.json") is None

    def test_unreadable_evidence(self, tmp_path):
        (tmp_path / "latest.json").write_text("{")
        with pytest.raises(EvidenceError, match="not JSON"):
            traffic_seen(tmp_path / "latest.json")
