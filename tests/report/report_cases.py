"""Real decisions of every kind, made by ``decide``, and the same with hostile text in them."""

import copy
import html
import re
from xml.etree import ElementTree as ET

from hypothesis import strategies as st

from pytest_decisionos.judge.decide import JudgeInput, decide
from pytest_decisionos.model.decision import Action, Verdict
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.model.policy import Rule, Slo, Waiver
from pytest_decisionos.testing import gate_inputs, healthy, sealed

LONG_ID = "rules." + "아주-긴-이름." * 20 + "p95"


def number(rule_id, metric, bound, **extra):
    extra = {"op": "<=", "unit": "ms", "counts": ("/perf_judge/count",), "min_samples": 100} | extra
    return Rule(
        id=rule_id, kind="number", metric=metric, bound=bound, text="it must be fast", **extra
    )


def slo(*, stem="결제-judge", waivers=(), on_inconclusive="no-go"):
    rules = (
        number("judge_infra.latency.p95", "/perf_judge/latency_ms/p95", 1200.0),
        number(LONG_ID, "/perf_judge/latency_ms/p99", 2500.0, severity="warn"),
        number("judge_infra.error", "/perf_judge/error_rate", 0.01, unit="rate"),
        number(
            "judge_infra.limit",
            "/perf_judge/error_rate",
            0.01,
            unit="rate",
            level=0.95,
            limits="/perf_judge/limits/error_rate",
        ),
    )
    return Slo(
        stem=stem,
        file=f"configs/slo/{stem}.json",
        sha256="1" * 64,
        version="1",
        rules=rules,
        on_inconclusive=on_inconclusive,
        waivers=waivers,
    )


def slow(blocks, *, p95=1260.0, p99=3260.0):
    blocks = copy.deepcopy(blocks)
    blocks["perf_judge"]["latency_ms"] |= {"p95": p95, "p99": p99}
    return blocks


def judges(own=None, *, exact=False, peer=None):
    blocks = {"perf_judge": (own or healthy())["perf_judge"]}
    peer = peer or JudgeInput(
        id="peer", source="log", state="absent", reason="no second log is configured"
    )
    return [
        JudgeInput(id="evidence", source="evidence"),
        JudgeInput(id="증인", source="log", exact=exact, blocks=blocks),
        peer,
    ]


def judged(blocks, *, slos=None, who=None, notes=()):
    inputs = gate_inputs(sealed(blocks), slos or [slo()], judges=who or judges(blocks), k=2)
    return decide(inputs.model_copy(update={"notes": notes}))


def dissenting_peer():
    return JudgeInput(id="peer", source="log", blocks={"perf_judge": slow(healthy())["perf_judge"]})


def thin():
    blocks = healthy()
    for name in ("perf", "perf_judge"):
        blocks[name]["count"] = 7
        blocks[name]["limits"] = {}
    return blocks


def waived_decision():
    waiver = Waiver(
        rule="judge_infra.latency.p95",
        owner="sre@example.com",
        reason="INC-7 | known",
        expires="2026-01-20",
    )
    return judged(slow(healthy(), p99=100.0), slos=[slo(waivers=(waiver,))])


def partial_decision():
    made = judged(healthy())
    return made.model_copy(
        update={
            "verdict": Verdict.NO_GO,
            "action": Action.WAIT,
            "partial": ("3 tests were deselected",),
        }
    )


def tampered_decision():
    """The quorum passes, and one judge sees that the evidence is not what its log says."""
    own = slow(healthy(), p95=300.0, p99=700.0)
    peer = JudgeInput(id="peer", source="log", blocks={"perf_judge": healthy()["perf_judge"]})
    return judged(healthy(), who=judges(own, exact=True, peer=peer))


def foreign_decision():
    blocks = healthy()
    blocks["meta"]["target"]["service"] = "somebody-else"
    blocks["meta"]["release"] = None
    return judged(blocks)


def inconclusive_decision(on_inconclusive):
    rule = number("rules.many", "/perf_judge/latency_ms/p95", 1200.0, min_samples=10**9)
    made = slo(on_inconclusive=on_inconclusive)
    return judged(healthy(), slos=[made.model_copy(update={"rules": (rule,)})])


def error_judge_decision():
    peer = JudgeInput(
        id="peer", source="log", state="error", reason="the log ends in the middle of a line"
    )
    return judged(slow(healthy()), who=judges(slow(healthy()), peer=peer))


def warned_check_decision():
    made = judged(healthy(), notes=("a waiver has expired",))
    warning = Outcome(
        id="clock.skew", status=Status.FAILED, cause="over", message="2 s", severity="warn"
    )
    return made.model_copy(update={"checks": (*made.checks, warning)})


DECISIONS = {
    "go": judged(healthy()),
    "go-dissent": judged(healthy(), who=judges(peer=dissenting_peer())),
    "go-waived": waived_decision(),
    "go-warned": warned_check_decision(),
    "slow": judged(slow(healthy()), slos=[slo(), slo(stem="둘째")]),
    "thin": judged(thin()),
    "foreign": foreign_decision(),
    "tampered": tampered_decision(),
    "hold": inconclusive_decision("hold"),
    "inconclusive": inconclusive_decision("no-go"),
    "error": error_judge_decision(),
    "partial": partial_decision(),
}
WANTED = {
    "go": "GO proceed",
    "go-dissent": "GO proceed",
    "go-waived": "GO proceed",
    "go-warned": "GO proceed",
    "slow": "NO-GO abort",
    "thin": "NO-GO wait",
    "foreign": "NO-GO wait",
    "tampered": "NO-GO abort",
    "hold": "HOLD wait",
    "inconclusive": "NO-GO wait",
    "error": "NO-GO abort",
    "partial": "NO-GO wait",
}


class Long(str):
    """A text repeated, with a short repr: Hypothesis refuses to show 100 kB."""

    def __new__(cls, unit, times):
        made = super().__new__(cls, unit * times)
        made.spelling = f"{unit!r} * {times}"
        return made

    def __repr__(self):
        return self.spelling


HOSTILE = [
    "::error::boo",
    "  ::set-output name=verdict::GO",
    "##[error]boo",
    "x ##[add-mask]GO",
    "%0A::error::x",
    "@everyone",
    "a@b.example",
    "[GO](https://evil.example)",
    "![x](https://evil.example/x.png)",
    "<img src=x onerror=y>",
    "<!-- x -->",
    "<!--DECISIONOS:PR:RELEASE_GATE-->",
    "-->",
    "</code>",
    "<script>",
    "| a | b |",
    "`` ` ```",
    "\n\n# GO\n",
    "\r\n::error::x",
    "---\n",
    "*GO* __GO__ ~~NO~~ $x$",
    "https://evil.example",
    "www.evil.example",
    "&lt;b&gt; &#60;b>",
    "]]>",
    "<![CDATA[",
    "\x00\x1b[2J\x07\x7f\x85",
    "\u202eOG-ON",
    "\ud800",
    "\udcff",
    "\ufffe\uffff\U0001fffe",
    "결제 서비스 지연",
    "👩‍💻❤️",
    "e\u0301" * 50,
    "END-0\nverdict<<X\nGO\nX",
    "\u2028\u2029\x0b\x0c",
    "",
    "   ",
    "\\",
    "\\|",
    "_a_ a_b",
    Long("한", 100_000),
    Long("<", 100_000),
    Long("\U000e0001", 100_000),
    Long("@", 100_000),
    Long("::", 50_000),
]


def hostile_text():
    return (
        st.sampled_from(HOSTILE)
        | st.text(st.characters(), max_size=60)
        | st.lists(st.sampled_from(HOSTILE[:40]), min_size=2, max_size=4).map("".join)
    )


def poisoned(decision, text):
    """``decision`` with ``text`` wherever text from outside stands."""

    def outcome(o):
        new = dict.fromkeys(("id", "message", "observed", "bound", "source", "label", "op"), text)
        new |= {
            "cause": o.cause and text,
            "waived": o.waived and text,
            "limit": float("nan"),
            "samples": 10**4000,
        }
        return o.model_copy(update=new)

    def ballot(b):
        return b.model_copy(
            update={"judge": text, "reason": text, "outcomes": tuple(map(outcome, b.outcomes))}
        )

    def one_slo(s):
        new = {
            "slo": text,
            "file": text,
            "ballots": tuple(map(ballot, s.ballots)),
            "dissent": tuple(text for _ in s.dissent),
        }
        return s.model_copy(update=new)

    def reason(r):
        return r.model_copy(
            update={"code": text, "label": text, "judges": (text,) * len(r.judges), "message": text}
        )

    parts = dict.fromkeys(("service", "environment", "region", "tenant"), text)
    file = decision.evidence.model_copy(update={"file": text, "sha256": text})
    return decision.model_copy(
        update={
            **dict.fromkeys(
                (
                    "decision_id",
                    "phase",
                    "release",
                    "baseline_release",
                    "decided_at",
                    "evidence_digest",
                ),
                text,
            ),
            "target": decision.target.model_copy(update=parts),
            "evidence": file,
            "gate": file,
            "evidence_window": (text, text),
            "partial": (text,) * len(decision.partial),
            "notes": (text, text),
            "slos": tuple(map(one_slo, decision.slos)),
            "checks": tuple(map(outcome, decision.checks)),
            "reasons": tuple(map(reason, decision.reasons)),
        }
    )


def large(decision, times):
    """``decision`` with everything in it many times over."""
    return decision.model_copy(
        update={
            name: getattr(decision, name) * times
            for name in ("slos", "checks", "reasons", "notes", "partial")
        }
    )


# What each format says, read back without the code that wrote it.


def verdict_in_terminal(lines):
    said = re.match(r"verdict   (GO|NO-GO|HOLD), action (\w+) ", lines[0])
    return f"{said[1]} {said[2]}"


def verdict_in_junit(data):
    root = ET.fromstring(data)
    (case,) = root.findall(
        "testsuite[@name='release-gate']/testcase[@classname='release-gate'][@name='decision']"
    )
    failure = case.find("failure")
    bad = root.findall(".//failure") + root.findall(".//error")
    if failure is None:
        assert bad == []
        return "GO proceed"
    said = re.match(r"(NO-GO|HOLD), action (\w+): ", failure.get("message"))
    return f"{said[1]} {said[2]}"


def verdict_in_comment(text):
    said = re.match(
        r"<!--DECISIONOS:PR:RELEASE_GATE-->\n## \S+ (GO|NO-GO|HOLD), action: (\w+)\n", text
    )
    return f"{said[1]} {said[2]}"


def runner_command(line):
    """``line`` as GitHub's runner reads it: kind, properties, data."""
    kind, rest = re.fullmatch(r"::(\w+) (.*)", line, re.DOTALL).groups()
    head, data = rest.split("::", 1)
    props = dict(pair.split("=", 1) for pair in head.split(","))
    undo = [("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")]
    for key, value in props.items():
        for code, char in undo:
            value = value.replace(code, char)
        props[key] = value
    for code, char in undo:
        if char not in ":,":
            data = data.replace(code, char)
    return kind, props, data


def outputs(text):
    """A GITHUB_OUTPUT file as the runner reads it."""
    found, lines = {}, iter(text.split("\n"))
    for line in lines:
        if not line:
            continue
        name, end = line.split("<<", 1)
        value = []
        for part in lines:
            if part == end:
                break
            value.append(part)
        assert name not in found
        found[name] = "\n".join(value)
    return found


def rendered_text(fragment):
    """What a reader sees of an HTML fragment, zero-width spaces apart."""
    return html.unescape(re.sub(r"<[^>]*>", "", fragment)).replace("\u200b", "")
