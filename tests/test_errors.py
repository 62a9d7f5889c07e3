"""Every error is one line that says where, what was found, what was expected, and what to do."""

import pytest

from pytest_decisionos import errors
from pytest_decisionos.errors import DecisionOSError, ExitCode, shown


def test_one_line_with_everything():
    fault = errors.PolicyError(
        "unknown field",
        file="slo.json",
        line=3,
        field="latency.max_p96_ms",
        found=1,
        expected="a number",
        next_step="look",
    )
    assert (
        str(fault)
        == "slo.json:3: latency.max_p96_ms: unknown field; found 1; expected a number → look"
    )


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[31m", "a\rb", "\u202eabc", "\ud800", "##[command]x", "x" * 1000]
)
def test_hostile_text_stays_in_its_line(text):
    line = str(
        DecisionOSError(text, file=text, field=text, found=text, expected=text, next_step=text)
    )
    assert line.isprintable()
    assert "##[" not in line
    assert line.encode()
    assert len(shown(text)) < 800


def test_exit_codes():
    codes = {
        errors.UnusableInputError: 4,
        errors.UsageError: 4,
        errors.DeniedError: 3,
        errors.LogError: 4,
    }
    assert {cls: int(cls.exit_code) for cls in codes} == codes
    assert [int(code) for code in ExitCode] == [0, 2, 3, 4, 10]
