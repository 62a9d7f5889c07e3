"""The comment: one marker, one verdict, and nothing that Markdown, HTML or GitHub makes more of."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_cases import (
    DECISIONS,
    HOSTILE,
    WANTED,
    hostile_text,
    large,
    poisoned,
    rendered_text,
    verdict_in_comment,
)

from pytest_decisionos.report.comment import MARKER, MAX_BYTES, code, comment_markdown
from pytest_decisionos.report.text import plain

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def tame(text):
    """Assert that only our own Markdown is in ``text``; its rendered HTML."""
    assert len(text.encode()) <= MAX_BYTES
    assert text.startswith(MARKER + "\n")
    assert text.count("<!--") == 1
    assert re.search(r"@|www\.", text, re.IGNORECASE) is None
    tokens = MARKDOWN.parse(text)
    blocks = {token.type.removesuffix("_open").removesuffix("_close") for token in tokens}
    assert blocks <= {
        "html_block",
        "heading",
        "paragraph",
        "inline",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "bullet_list",
        "list_item",
    }
    assert [token.content for token in tokens if token.type == "html_block"] == [MARKER + "\n"]
    headings = [
        tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"
    ]
    assert set(headings[1:]) <= {
        "Gates",
        "Checks that did not pass",
        "Reasons",
        "Dissent",
        "Waivers and notes",
        "Evidence",
    }
    for token in tokens:
        depth = 0
        for child in token.children or []:
            assert child.type in {
                "text",
                "text_special",
                "html_inline",
                "strong_open",
                "strong_close",
                "link_open",
                "link_close",
            }
            if child.type == "html_inline":
                assert child.content in {"<code>", "</code>"}
                depth += 1 if child.content == "<code>" else -1
                assert depth in {0, 1}
            if child.type == "strong_open":
                assert depth == 0
        assert depth == 0
    return MARKDOWN.render(text)


@pytest.mark.parametrize("name", DECISIONS)
def test_same_verdict(name):
    text = comment_markdown(DECISIONS[name])
    tame(text)
    assert verdict_in_comment(text) == WANTED[name]


def test_tells_gates_reasons_dissent_and_evidence():
    seen = rendered_text(tame(comment_markdown(DECISIONS["go-dissent"])))
    assert "2 pass, needs 2/3" in seen
    assert "evidence pass, 증인 pass, peer fail" in seen
    assert (
        "1× judge_infra.latency.p95:over reason:gate (peer, outvoted): 1,260 ms is not <= 1,200 ms"
        in seen
    )
    assert "peer fail, outvoted in 결제-judge" in seen
    assert DECISIONS["go-dissent"].evidence_digest in seen
    assert DECISIONS["go-dissent"].decision_id in seen
    assert "latest.json" in seen


def test_tells_checks_notes_and_partial_runs():
    foreign = rendered_text(comment_markdown(DECISIONS["foreign"]))
    assert "evidence.target:foreign_target (error): latest.json is about somebody-else" in foreign
    assert "Release no release named (baseline 2026.01.0)" in foreign
    assert "(a check)" in foreign
    assert "a waiver has expired" in rendered_text(comment_markdown(DECISIONS["go-warned"]))
    assert "Partial run, which cannot decide: 3 tests were deselected" in rendered_text(
        tame(comment_markdown(DECISIONS["partial"]))
    )
    bare = DECISIONS["go"].model_copy(update={"baseline_release": None, "evidence_window": None})
    assert "window: unknown" in comment_markdown(bare)
    assert "baseline" not in comment_markdown(bare)


@pytest.mark.parametrize(
    "url",
    [
        "https://ci.example/runs/7?x=1&y=2#a",
        "http://[::1]:8080/e_v_i/latest.json",
        "https://한빛.example/증거 |(1).json",
    ],
)
def test_links_web_addresses(url):
    html = tame(comment_markdown(DECISIONS["go"], evidence_url=url))
    assert html.count("<a href=") == 1
    assert '<a href="http' in html


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "//evil.example",
        "https://",
        "https://[",
        "var/evidence/latest.json",
        "https://x/" + "a" * 1000,
        *(t for t in HOSTILE[:30] if not t.startswith("https:")),
    ],
)
def test_shows_anything_else(url):
    assert "<a href=" not in tame(comment_markdown(DECISIONS["go"], evidence_url=url))


@pytest.mark.slow
@given(
    name=st.sampled_from(sorted(DECISIONS)), text=hostile_text(), times=st.sampled_from([1, 1, 30])
)
@settings(max_examples=80, deadline=None)
def test_hostile_text_stays_text(name, text, times):
    made = comment_markdown(large(poisoned(DECISIONS[name], text), times))
    html = tame(made)
    assert verdict_in_comment(made) == WANTED[name]
    assert "<a " not in html
    assert "<img" not in html
    assert "://" not in made


@given(text=hostile_text())
@settings(max_examples=80)
def test_code_shows_the_text_itself(text):
    shown = rendered_text(MARKDOWN.renderInline(code(text, 300)))
    assert shown == plain(text, 300)
    row = MARKDOWN.render(f"| a | b |\n|---|---|\n| {code(text)} | end |\n")
    assert row.count("<td>") == 2
    assert "<td>end</td>" in row


@pytest.mark.parametrize("filler", ["a", "한", "<", "\U000e0001", "@", "\ud800", "😀"])
def test_never_longer_than_github_takes_and_never_a_torn_row(filler):
    decision = large(poisoned(DECISIONS["slow"], filler * 100_000), 2000)
    decision = decision.model_copy(
        update={"partial": decision.notes[:9], "checks": DECISIONS["foreign"].checks * 900}
    )
    decision = decision.model_copy(
        update={
            "slos": (*decision.slos, *poisoned(DECISIONS["go-dissent"], filler * 999).slos * 99)
        }
    )
    text = comment_markdown(decision)
    html = tame(text)
    assert len(text.encode()) <= MAX_BYTES
    assert [
        line for line in text.split("\n") if line.startswith("|") and line.count("|") != 5
    ] == []
    assert re.search(r"<p>… and [\d,]+ more</p>", html)


def test_says_how_many_are_left_out():
    decision = large(DECISIONS["slow"], 500)
    text = comment_markdown(decision)
    rows = len(re.findall(r"^\| <code>", text, re.MULTILINE))
    (left,) = re.findall(r"\n\n… and ([\d,]+) more\n\n### Reasons", text)
    assert rows + int(left.replace(",", "")) == 1000
    assert rows > 50
