"""dosctl slo: what it prints, and its exit status."""

import io
import json
import unicodedata
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime

import jsonschema
import pytest

from pytest_decisionos.cli.main import cli, run
from pytest_decisionos.judge.gate import GateFile
from pytest_decisionos.report.explain import explain
from pytest_decisionos.slo.compile import compile_slo
from pytest_decisionos.slo.schema import SloFile

GOOD = {"error": {"max_error_rate": 0.01, "min_samples": 1000}}
THIN = {"error": {"max_error_rate": 0.01}}
BAD = {"error": {"max_error_rat": 0.01}}


@pytest.fixture
def dosctl(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*args):
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = run(cli, ["slo", *args])
        return status, out.getvalue(), err.getvalue()

    return call


@pytest.fixture
def files(tmp_path):
    for name, document in (("good", GOOD), ("thin", THIN), ("bad", BAD)):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    return tmp_path


class TestLint:
    def test_clean(self, dosctl, files):
        assert dosctl("lint", "good.json") == (0, "files: 1, errors: 0, warnings: 0\n", "")

    def test_warnings_pass_unless_strict(self, dosctl, files):
        status, out, _ = dosctl("lint", "thin.json", "--rps", "2")
        assert status == 0
        assert out.splitlines()[0] == (
            "thin.json:1: error.max_error_rate: warning: no min_samples: to prove <= 1 % at 95% "
            "takes at least 299 samples, about 3 min at 2 requests/s → state min_samples: 299, "
            "or confidence"
        )
        assert dosctl("lint", "--strict", "thin.json")[0] == 4
        assert dosctl("lint", "--strict", "good.json")[0] == 0

    def test_errors(self, dosctl, files):
        status, out, _ = dosctl("lint", "*.json")
        assert status == 4
        assert out.splitlines()[0] == (
            "bad.json:1: error.max_error_rat: unknown field; expected one of max_error_rate, "
            "min_samples → did you mean max_error_rate?"
        )
        assert out.splitlines()[-1] == "files: 3, errors: 1, warnings: 1"

    def test_json(self, dosctl, files):
        status, out, _ = dosctl("lint", "--json", "good.json", "bad.json")
        report = json.loads(out)
        assert status == 4
        assert report["files"] == ["good.json", "bad.json"]
        assert (report["errors"], report["warnings"]) == (1, 0)
        (finding,) = report["findings"]
        assert (finding["severity"], finding["file"], finding["line"]) == ("error", "bad.json", 1)
        assert (finding["field"], finding["hint"]) == (
            "error.max_error_rat",
            "did you mean max_error_rate?",
        )

    def test_traffic_from_the_roots_evidence(self, dosctl, files, monkeypatch):
        evidence = {
            "meta": {"window": {"start": "2026-01-05T08:00:00Z", "end": "2026-01-05T08:01:00Z"}},
            "perf": {"count": 60},
        }
        for root in ("var", "other"):
            (files / root / "evidence").mkdir(parents=True)
            (files / root / "evidence" / "latest.json").write_text(json.dumps(evidence))
            evidence["perf"]["count"] = 30
        assert "about 5 min at 1 requests/s" in dosctl("lint", "thin.json")[1]
        assert "about 10 min at 0.5 requests/s" in dosctl("lint", "thin.json", "--root", "other")[1]
        monkeypatch.setenv("DECISIONOS_ROOT", "other")
        assert "at 0.5 requests/s" in dosctl("lint", "thin.json")[1]
        assert "at 9 requests/s" in dosctl("lint", "thin.json", "--rps", "9")[1]

    def test_broken_evidence_is_said_and_stops_nothing(self, dosctl, files):
        (files / "var" / "evidence").mkdir(parents=True)
        (files / "var" / "evidence" / "latest.json").write_text("{")
        status, out, err = dosctl("lint", "thin.json")
        assert status == 0
        assert "requests/s" not in out
        assert err.startswith("note: traffic is not known: var/evidence/latest.json:1: not JSON")
        assert err.count("\n") == 1

    @pytest.mark.parametrize("rps", ["0", "-1", "nan", "inf", "1e10"])
    def test_impossible_traffic(self, dosctl, files, rps):
        status, out, err = dosctl("lint", "good.json", "--rps", rps)
        assert (status, out) == (4, "")
        assert err.startswith("error: --rps: not a rate of requests; found")

    def test_nothing_to_lint(self, dosctl, files):
        status, out, err = dosctl("lint", "*.yaml")
        assert (status, out) == (4, "")
        assert err == "error: no SLO file matches; found *.yaml\n"
        assert dosctl("lint")[0] == 4

    def test_a_missing_file_is_a_finding(self, dosctl, files):
        status, out, _ = dosctl("lint", "none.json")
        assert status == 4
        assert out.startswith("none.json: no such file\n")


class TestExplain:
    def test_in_words(self, dosctl, files):
        status, out, _ = dosctl("explain", "good.json")
        assert status == 0
        assert out.splitlines() == [
            "SLO good (v1), 1 rules",
            "in good.json",
            "",
            "RULE              MUST HOLD",
            "error.error_rate  error rate must be at most 1 % over at least 1,000 samples",
            "",
            "Quorum: as gate.yaml says.",
            "Too little evidence: NO-GO; wait at most 1,800 s in a step, then abort.",
        ]

    def test_json(self, dosctl, files):
        status, out, _ = dosctl("explain", "--json", "good.json")
        assert status == 0
        assert json.loads(out)["rules"][0]["id"] == "error.error_rate"

    def test_a_file_that_does_not_compile(self, dosctl, files):
        status, out, err = dosctl("explain", "bad.json")
        assert (status, out) == (4, "")
        assert err.startswith("error: bad.json:1: error.max_error_rat: unknown field")
        assert err.count("\n") == 1

    DOCUMENT = {
        "version": "버전-2",
        "rules": [
            {
                "id": "a-rule-with-a-long-name-that-fills-its-column",
                "metric": "/perf/error_rate",
                "op": "<",
                "bound": 0.01,
                "min_samples": 300,
                "for_each": "route",
                "severity": "warn",
                "label": "reason:아주-긴-한국어-라벨-이름이-여기에-있습니다-정말로-깁니다",
            },
            {"id": "b", "metric": "/x\n\x1b[31m/[red]y", "op": "==", "bound": "[bold]"},
        ],
        "witness": {"min_rows": 5},
        "saturation": {"max_qps": 100, "fail_closed": False},
        "quorum": {"k": 2, "n": 3, "fail_closed_on_degrade": True},
        "on_inconclusive": "hold",
        "max_wait_sec": 60,
        "waivers": [
            {"rule": "rules.b", "owner": "김철수", "reason": "이전 중", "expires": "2026-01-08"},
            {"rule": "saturation.qps", "owner": "lee", "reason": "old", "expires": "2026-01-01"},
        ],
    }

    def test_everything_at_80_columns(self):
        from pathlib import Path

        slo = compile_slo(self.DOCUMENT, b"", Path("정책.json"))
        text = explain(slo, now=datetime(2026, 1, 5, tzinfo=UTC))
        cells = [
            sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)
            for line in text.splitlines()
        ]
        assert max(cells) <= 80
        assert not any(line.endswith(" ") for line in text.splitlines())
        assert "\x1b" not in text
        told = " ".join(text.replace("|", " ").split())
        for words in (
            "정책 (버전-2), 4 rules",
            "/x\\n\\x1b[31m/[red]y must be one of [bold]",
            "rows in the log must be at least 5 [cannot be waived]",
            "load must be at most 100 /s; not measured is inconclusive",
            "at least 300 samples [warns only]",
            "Quorum: at least 2 of 3 judges must vote pass; a judge in error makes it NO-GO.",
            "Too little evidence: HOLD; wait at most 60 s in a step, then abort.",
            "Waiver of rules.b, by 김철수, until 2026-01-08: 이전 중",
            "Waiver of saturation.qps, by lee, IGNORED, it has expired: old",
        ):
            assert words in told

    def test_no_line_begins_with_what_the_file_says(self):
        from pathlib import Path

        document = self.DOCUMENT | {
            "waivers": [{
                "rule": "rules.b", "owner": "x", "expires": "2026-01-08",
                "reason": f"{'y' * 60} ::warning::pwned {'z' * 60}",
            }],
        }  # fmt: skip
        text = explain(
            compile_slo(document, b"", Path("a.json")), now=datetime(2026, 1, 5, tzinfo=UTC)
        )
        assert "::warning::pwned" in text
        assert not any(line.lstrip().startswith("::") for line in text.splitlines())

    def test_a_quorum_without_degradation(self):
        from pathlib import Path

        slo = compile_slo(GOOD | {"quorum": {"k": 1, "n": 1}}, b"", Path("slo.json"))
        text = explain(slo, now=datetime(2026, 1, 5, tzinfo=UTC))
        assert "Quorum: at least 1 of 1 judges must vote pass.\n" in text


class TestSchema:
    @pytest.fixture
    def schema_of(self, dosctl):
        def call(*args):
            status, out, _ = dosctl("schema", *args)
            assert status == 0
            return json.loads(out)

        return call

    @pytest.mark.parametrize("args", [(), ("--gate",)])
    def test_it_is_a_schema_of_its_draft(self, schema_of, args):
        schema = schema_of(*args)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        jsonschema.Draft202012Validator.check_schema(schema)

    def test_it_names_every_block(self, schema_of):
        assert set(schema_of()["properties"]) == set(SloFile.model_fields)
        assert set(schema_of("--gate")["properties"]) == set(GateFile.model_fields)

    @pytest.mark.parametrize(
        "document",
        [
            BAD,
            {"latency": {"max_p95_ms": "900"}},
            {"latency": {"max_p95_ms": True}},
            {"error": {"max_error_rate": 2}},
            {"confidence": {"level": 0.97}},
            {"on_inconclusive": "go"},
            {"rules": [{"id": "a", "metric": "perf", "op": "<=", "bound": 1}]},
            {"rules": [{"id": "a", "metric": "/perf/count", "op": "!=", "bound": 1}]},
            {"waivers": [{"rule": "a", "owner": "b", "reason": "c"}]},
        ],
    )
    def test_it_refuses_what_the_compiler_refuses(self, schema_of, document):
        validator = jsonschema.Draft202012Validator(schema_of())
        assert validator.is_valid(GOOD)
        assert not validator.is_valid(document)


@pytest.mark.parametrize("command", [(), ("lint",), ("explain",), ("schema",)])
def test_every_help_has_an_example(dosctl, command):
    status, out, _ = dosctl(*command, "--help")
    assert status == 0
    assert "Example:\n    dosctl slo " in out
