"""What dosctl prints: into a full disk, to nobody, in any encoding, and with hostile text in it."""

import io
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest

from pytest_decisionos.cli import decision, evidence_archive, evidence_objectlock, evidence_store
from pytest_decisionos.cli.main import cli, main, run
from pytest_decisionos.cli.output import echo_json, even_unread, say
from pytest_decisionos.evidence.index_files import Fault
from pytest_decisionos.report.text import below, cells, row

HOSTILE = f"{'x' * 60} ::warning::pwned\n::error::pwned ##[error]pwned \ud800"


def tame(text):
    """Whether a CI runner, which trims blanks, takes no line of it for a command, nor any part."""
    return not re.search(r"(?m)^\s*::", text) and "##[" not in text and "\ud800" not in text


# Output that cannot be written


def dosctl(*args, **how):
    # Unbuffered, Python would not try again at its end what could not be written.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, "-m", "pytest_decisionos.cli.main", *args]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    return subprocess.run(words, env=env, text=True, timeout=60, check=False, **how)


@pytest.mark.slow
@pytest.mark.parametrize("args", [("--help",), ("slo", "schema")])
def test_a_full_disk_is_one_line_and_exit_4(args):
    with open("/dev/full", "w") as full:
        done = dosctl(*args, stdout=full)
    assert done.returncode == 4
    assert done.stderr == ("error: No space left on device → see where standard output goes\n")


@pytest.mark.slow
@pytest.mark.parametrize("args", [("--help",), ("slo", "schema")])
def test_a_reader_that_went_away_is_exit_141_without_a_word(args):
    reader, writer = os.pipe()
    os.close(reader)
    done = dosctl(*args, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_an_error_that_nobody_can_read_keeps_its_exit_status():
    with open("/dev/full", "w") as full:
        assert dosctl("nonsense", stderr=full).returncode == 4
        assert dosctl("judge", "quorum", "--slo", "x", stderr=full).returncode == 3


class Broken(io.TextIOWrapper):
    def __init__(self, fault):
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.fault = fault

    def write(self, text):
        raise self.fault


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (
            OSError(28, "No space left"),
            4,
            "error: No space left → see where standard output goes\n",
        ),
        (OSError(5, "broken", "/a\nb"), 4, "error: /a\\nb: broken\n"),
        (OSError("odd"), 4, "error: odd → see where standard output goes\n"),
    ],
)
def test_faults_of_the_output(monkeypatch, capsys, fault, status, says):
    broken = Broken(fault)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", broken)
        assert run(cli, ["--version"]) == status
        assert sys.stdout is broken  # click puts another in its place
    assert capsys.readouterr().err == says


def test_what_was_done_is_done_even_if_nobody_reads_it(monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Broken(OSError(28, "No space left")))
        with even_unread():
            say("traffic", "back")
    assert capsys.readouterr().err == "note: what was done cannot be printed: No space left\n"
    monkeypatch.setattr(sys, "stderr", Broken(OSError(28, "No space left")))
    with even_unread():
        say("traffic", "back", err=True)


# Encodings


@pytest.fixture
def written(monkeypatch):
    """A function that sets the encoding of standard output, and gives what is written to it."""

    def to(encoding):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
        monkeypatch.setattr(sys, "stdout", stream)
        return lambda: stream.buffer.getvalue().decode(encoding)

    return to


@pytest.mark.parametrize("encoding", ["cp949", "latin-1"])
def test_a_locale_that_lacks_a_character_is_no_fault(tmp_path, monkeypatch, written, encoding):
    monkeypatch.chdir(tmp_path)
    read = written(encoding)
    with pytest.raises(SystemExit) as ended:
        main(["evidence", "verify", "없음é.json"])
    assert ended.value.code == 4
    assert "unreadable  refused" in read()


@pytest.mark.parametrize("encoding", ["ascii", "cp949", "utf-8"])
def test_json_is_json_in_any_encoding(written, encoding):
    told = {"결제": ["é", "\U0001f600", "\udcff", 1.5, None]}
    read = written(encoding)
    echo_json(told)
    assert json.loads(read()) == told


def test_json_keeps_korean_and_fits_one_line_if_asked(capsys):
    echo_json({"결제": 1}, indent=None)
    assert capsys.readouterr().out == '{"결제": 1}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        echo_json(float("nan"))


def test_an_slo_whose_name_is_not_utf8_is_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"\xff.json")
    with open(name, "w") as file:
        json.dump({"latency": {"max_p95_ms": 900}}, file)
    assert run(cli, ["slo", "explain", "--json", name]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == name


# Hostile text


def test_no_text_begins_a_line(capsys):
    say("reason", HOSTILE)
    say("warning", HOSTILE, err=True)
    evidence_objectlock._line(f"{'error':<9}{'missing':<15}", HOSTILE)
    seal = {"file": HOSTILE, "digest": "unreadable", "seal": "refused", "key_id": HOSTILE}
    fault = Fault("changed", "evidence/x.json", 1, HOSTILE)
    claims = SimpleNamespace(verdict="NO-GO", action="wait")
    signed = SimpleNamespace(claims=claims, signed=False, folder=HOSTILE)
    reason = SimpleNamespace(code=HOSTILE, message=HOSTILE, outvoted=False)
    decision._tell(signed, SimpleNamespace(reasons=[reason]), as_json=False)
    out, err = capsys.readouterr()
    more = evidence_store._verified([seal | {"message": HOSTILE}], unsigned=False)
    more += "\n".join(["", *evidence_archive._faults([fault]), *below(HOSTILE)])
    more += "\n".join(["", *row([HOSTILE, HOSTILE[:80]], [10, 10])])
    for text in (out, err):
        assert tame(text), text
        assert "pwned" in text
    assert not re.search(r"(?m)^\s*::", more), more
    assert max(cells(line) for line in err.splitlines()) <= 80


def test_a_duplicate_key_forges_no_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    key = f"{'x' * 30} ::warning::pwned"
    (tmp_path / "a.json").write_text(f'{{"{key}": 1, "{key}": 2}}')
    assert run(cli, ["evidence", "verify", "a.json"]) == 4
    out = capsys.readouterr().out
    assert "pwned" in out
    assert tame(out), out


def test_a_row_counts_the_columns_of_wide_characters():
    assert row(["결제", "x"], [6, 3]) == ["결제    x"]
    assert row(["a" * 6, "b"], [6, 3]) == ["aaaaaa  b"]
    assert row(["a" * 7, "b c d"], [6, 3]) == ["aaaaa   b c", "|aa     d"]


# Help and usage


def commands(command, *names):
    yield names, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), *names, name)


def test_every_help_is_whole():
    for names, command in commands(cli):
        context = click.Context(
            command, info_name=" ".join(("dosctl", *names)), max_content_width=88
        )
        text = command.get_help(context)
        for line in text.splitlines()[1:]:
            assert not line.endswith("..."), (names, line)
        assert not re.search(r" (INTEGER|FLOAT)( RANGE)?\b", text), (names, text)
        for line in (command.epilog or "").splitlines():
            assert len(line) <= 78, (names, line)  # click indents it


@pytest.mark.parametrize("args", [[], ["slo"], ["evidence"]])
def test_a_group_without_a_command_shows_its_help(capsys, args):
    assert run(cli, args) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: dosctl")
    assert "\nCommands:\n" in err
    assert len(err.splitlines()) > 8


def test_a_choice_that_is_missing_is_one_plain_line(capsys):
    assert run(cli, ["keys", "rotate"]) == 4
    assert capsys.readouterr().err == (
        "error: Missing option '--use'. Choose from: request, evidence, stage"
        " → dosctl keys rotate --help\n"
    )


def test_each_command_promises_only_its_own_defaults(capsys):
    assert run(cli, ["evidence", "build", "--help"]) == 0
    assert " ".join(capsys.readouterr().out.split()).count("as the stage says") == 2
    assert run(cli, ["evidence", "harvest", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "as the stage says" not in told
    assert "[default: the canary's first row]" in told
    assert "(variant shadow). [default: no]" in told


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--lag", "9999", "--lag: out of range; found 9999; expected 0 to 3,600"),
        ("--window", "15", "--window: a window is not a whole number of sub-buckets"),
        ("--filter", "x=y", "--filter: not a filter; found x=y"),
        ("--assume-tz", "Mars", "--assume-tz: unknown time zone; found Mars"),
    ],
)
def test_an_option_of_a_harvest_is_named_as_it_was_given(capsys, option, value, says):
    assert run(cli, ["evidence", "harvest", option, value]) == 4
    assert capsys.readouterr().err.startswith(f"error: {says}")
