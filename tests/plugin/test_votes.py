"""The quorum across real pytest runs, plain and under xdist, against the design's sentence."""

import itertools
import json

import pytest

LETTERS = "pfiea"
MODES = [(), ("-n", "2")]


def told(votes, k, closed, mode):
    if closed and "e" in votes:
        return "NO-GO"
    if votes.count("p") >= k:
        return "GO"
    return "HOLD" if mode == "hold" and votes.count("p") + votes.count("i") >= k else "NO-GO"


@pytest.mark.slow
@pytest.mark.parametrize("how", MODES, ids=["plain", "xdist"])
@pytest.mark.parametrize(
    "n", [1, 2, 3, *(pytest.param(n, marks=pytest.mark.untraced) for n in (4, 5))]
)
def test_truth_table(scripted, n, how):
    slos = {}
    flags = itertools.cycle(itertools.product((True, False), ("hold", "no-go")))
    for votes in itertools.combinations_with_replacement(LETTERS, n):
        for k in range(1, n + 1):
            for closed, mode in (
                itertools.product((True, False), ("hold", "no-go")) if n < 3 else [next(flags)]
            ):
                slos[f"s{len(slos)}"] = {"votes": votes, "k": k, "closed": closed, "mode": mode}
    run = scripted(slos)
    result = run.pytest("gates/", "-q", *how)
    assert result.returncode == 1, result.stdout[-3000:] + result.stderr[-3000:]
    decided = {slo["slo"]: slo for slo in run.decision["slos"]}
    assert len(decided) == len(slos)
    for name, spec in slos.items():
        assert decided[name]["verdict"] == told(
            spec["votes"], spec["k"], spec["closed"], spec["mode"]
        ), spec
        names = [ballot["vote"][0] for ballot in decided[name]["ballots"]]
        assert names == list(spec["votes"])


@pytest.mark.parametrize("how", MODES, ids=["plain", "xdist"])
@pytest.mark.parametrize(
    ("votes", "mode", "code", "verdict"),
    [
        ("ppp", "no-go", 0, "GO"),
        ("ppf", "no-go", 0, "GO"),
        ("pea", "no-go", 1, "NO-GO"),
        ("pia", "hold", 10, "HOLD"),
        ("pff", "hold", 1, "NO-GO"),
    ],
)
def test_every_report_tells_the_same_story(scripted, how, votes, mode, code, verdict):
    run = scripted({"s": {"votes": votes, "k": 2, "mode": mode}})
    result = run.pytest("gates/", "--junitxml=own.xml", *how)
    assert result.returncode == code, result.stdout + result.stderr
    assert run.decision["verdict"] == verdict
    assert f"release gate: {verdict}" in result.stdout
    from xml.etree import ElementTree

    for name in ("own.xml", "var/gate/junit.xml"):
        tree = ElementTree.parse(run.path / name)
        cases = [
            c
            for c in tree.iter("testcase")
            if (c.get("classname"), c.get("name")) == ("release-gate", "decision")
        ]
        assert len(cases) == 1, name
        assert (cases[0].find("failure") is not None) is (verdict != "GO"), name
        if verdict == "GO":
            assert not list(tree.iter("failure")), name
    if votes == "ppf":
        assert "dissent" in (run.path / "own.xml").read_text()
        assert run.decision["slos"][0]["dissent"] == ["j2"]
        assert "dissent" in result.stdout


@pytest.mark.parametrize("how", MODES, ids=["plain", "xdist"])
def test_a_failing_vote_shows_its_numbers_and_no_traceback(scripted, how):
    run = scripted({"s": {"votes": "ff", "k": 1}})
    result = run.pytest("gates/", *how)
    for text in ("observed", "bound", "margin", "samples", "rules.r:over"):
        assert text in result.stdout, result.stdout
    for text in ("Traceback", "test_slo.py:5", "def test_rule", "INTERNALERROR"):
        assert text not in result.stdout


@pytest.mark.parametrize("how", MODES, ids=["plain", "xdist"])
@pytest.mark.parametrize("n", range(1, 6))
def test_a_missing_vote_is_never_go(scripted, n, how):
    run = scripted({"s": {"votes": "p" * n, "k": 1}})
    run.write(
        "gates/conftest.py",
        f"def pytest_collection_modifyitems(items):\n    items[:] = [i for i in items if '@j{n - 1}' not in i.nodeid]\n",
    )
    result = run.pytest("gates/", *how)
    assert result.returncode == 1, result.stdout
    assert run.decision is None
    assert "partial" in result.stdout
    assert json.dumps("x")


def test_source_that_raises_or_has_nothing(project, scripted):
    run = scripted({"s": {"votes": "ppp", "k": 1}})
    votes = {"s_rate": "p"}
    run.gate(
        judges=[
            ("a", "scripted", {"votes": votes}),
            ("b", "scripted", {"votes": "raise"}),
            ("c", "scripted", {"votes": "absent"}),
        ],
        slos=["s"],
    )
    result = run.pytest("gates/")
    assert result.returncode == 0, result.stdout
    ballots = {b["judge"]: b for b in run.decision["slos"][0]["ballots"]}
    assert {j: b["vote"] for j, b in ballots.items()} == {"a": "pass", "b": "error", "c": "abstain"}
    assert "the network is down" in ballots["b"]["reason"]
