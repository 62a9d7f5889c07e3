"""The documents do not say what is not so: commands, links, and who may import whom."""

import ast
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

import pytest_decisionos
from pytest_decisionos.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


# Commands

SHELL = {">", ">>", "<", "|", "&&", "||", ";", "&", "2>"}


def in_blocks(text):
    """Commands that start a line of a code block: whole ones, which dosctl must accept."""
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S* )*(dosctl(?: .*)?)$", line)
            if found:
                yield found[1]


def in_prose(text):
    """Commands between backticks: such a one may leave out what it requires."""
    return re.findall(r"`(dosctl [^`]*)`", FENCE.sub("", text))


def fault_of(line, *, whole):
    """What dosctl would say to this command line; None if it would begin to work."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    _, *args = itertools.takewhile(lambda word: word not in SHELL, lexer)
    command, ctx = cli, click.Context(cli, info_name="dosctl")
    while isinstance(command, click.Group) and args and not args[0].startswith("-"):
        name = args.pop(0)
        command = command.get_command(ctx, name)
        if command is None:
            return f"no command {name}"
        ctx = click.Context(command, info_name=name, parent=ctx)
    if isinstance(command, click.Group):
        return "no command" if whole and not args else None
    try:
        if whole:
            command.make_context(command.name, args, parent=ctx.parent)
        else:
            command.make_parser(ctx).parse_args(args)
    except click.exceptions.Exit:
        return None  # --help
    except click.UsageError as fault:
        return fault.format_message()
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_commands_exist(page):
    text = page.read_text(encoding="utf-8")
    faults = [
        f"{line}: {fault}"
        for lines, whole in ((in_blocks(text), True), (in_prose(text), False))
        for line in lines
        if (fault := fault_of(line, whole=whole))
    ]
    assert not faults, "\n".join(faults)


def test_commands_are_found_in_the_documents():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = {" ".join(line.split()[1:3]) for line in in_blocks(text)}
    assert {"evidence build", "judge quorum", "slo lint", "init --ci"} <= names
    assert list(in_prose(text))


@pytest.mark.parametrize(
    ("line", "whole", "said"),
    [
        ("dosctl judge quorum --slo x", True, None),
        ("dosctl judge quorum --slo x --help", True, None),
        ("dosctl judge quorum", True, "--slo"),
        ("dosctl slo schema --gate > x.json  # for editors", True, None),
        ("dosctl slo lint 'configs/slo/*' && echo fine", True, None),
        ("dosctl judge quorum", False, None),
        ("dosctl judge quorum --slow x", False, "--slow"),
        ("dosctl sample --scenario sunny", True, "sunny"),
        ("dosctl judge jury", False, "no command jury"),
        ("dosctl jury", True, "no command jury"),
        ("dosctl judge", True, "no command"),
        ("dosctl slo", False, None),
        ("dosctl --version", True, None),
    ],
)
def test_a_command_that_is_not_there_would_be_found(line, whole, said):
    fault = fault_of(line, whole=whole)
    assert fault == said or (said and fault and said in fault)


def test_commands_of_a_block_are_taken_whole():
    text = "```console\n$ A=b dosctl slo \\\n  lint x\nrun dosctl now\ndosctl sample # all\n```\n"
    assert [shlex.split(line, comments=True) for line in in_blocks(text)] == [
        ["dosctl", "slo", "lint", "x"],
        ["dosctl", "sample"],
    ]


@pytest.mark.parametrize("name", ["jq", "openssl", "sha256sum"])
def test_the_auditors_tools_are_there(name):
    assert shutil.which(name) or not os.environ.get("REQUIRE_SERVICES"), "make services"


needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("jq", "openssl", "sha256sum"))),
    reason="needs jq and OpenSSL: make services",
)
BUNDLES = ROOT / "tests/data/bundles"
# What only judging again, or who reads gate.yaml, can tell; docs/verify.md says so.
JUDGED_AGAIN = {
    "fail_blocks_that_it_did_not_compute",
    "fail_check_made_a_warning",
    "fail_check_of_gate_yaml_left_out",
    "fail_local_judge_says_it_is_elsewhere",
    "fail_outcome_that_the_numbers_do_not_give",
    "fail_outcome_told_twice",
    "fail_remote_judge_says_it_is_here",
}
# Good bundles, presented for what they are not about, or at another time.
PRESENTED = {
    "fail_acted_on_too_late",
    "fail_issued_in_the_future",
    "fail_presented_for_another_release",
    "fail_presented_for_staging",
}


def audited(folder, bundle, trust=None):
    """What an auditor does by docs/verify.md, in the bundle's folder."""
    (block,) = re.findall(
        r"^```bash\n(.*?)^```", (ROOT / "docs/verify.md").read_text(), re.MULTILINE | re.DOTALL
    )
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=bundle,
        env={
            "PATH": os.environ["PATH"],
            "TMPDIR": str(folder),
            "TRUST": str(trust or bundle.parent / "trust.json"),
            "LC_ALL": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@needs_tools
@pytest.mark.parametrize("change", [None, "evidence.json", "decision.json"])
def test_an_auditor_needs_only_jq_and_openssl(change, tmp_path):
    shutil.copytree(BUNDLES / "good/bundle", tmp_path / "bundle")
    if change:
        path = tmp_path / "bundle" / change
        path.write_bytes(path.read_bytes().replace(b"400.0", b"4.000").replace(b"MjUu", b"OTku"))
        assert path.read_bytes() != (BUNDLES / "good/bundle" / change).read_bytes()
    done = audited(tmp_path, tmp_path / "bundle", BUNDLES / "good/trust.json")
    assert (done.returncode == 0) is (change is None), done.stdout + done.stderr
    assert ('"verdict": "GO"' in done.stdout) is (change is None)


@needs_tools
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in BUNDLES.iterdir()))
def test_an_auditor_tells_every_fault_that_needs_no_judging_again(name, tmp_path):
    done = audited(tmp_path, BUNDLES / name / "bundle")
    good = name.startswith("good") or name in JUDGED_AGAIN | PRESENTED
    assert (done.returncode == 0) is good, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(PRESENTED))
def test_what_is_presented_wrongly_is_a_good_bundle(name):
    def files(folder):
        return {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name not in {"args.json", "expected.txt"}
        }

    assert files(BUNDLES / name) == files(BUNDLES / "good")


def test_what_only_judging_again_tells_is_there():
    assert {path.name for path in BUNDLES.iterdir()} >= JUDGED_AGAIN | PRESENTED


@pytest.mark.slow
@needs_tools
@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({"expires": "2026-01-16T00:00:00Z"}, False),
        ({"policy_sha256": ["9" * 64, "*"]}, True),
        ({"policy_sha256": ["9" * 64]}, False),
        ({"targets": ["checkout/prod*/eu-?/[a-c]ll"]}, True),
        ({"targets": ["a/b/c/d", "*/*/*/[!b]*"]}, True),
        ({"targets": ["*/*/*/[!a]*"]}, False),
        ({"targets": ["checkout/production/*"]}, False),
        ({"targets": ["checkout/pr.duction/eu-1/all"]}, False),
        ({"targets": ["check/*/*/*"]}, False),
        ({"targets": ["*/*/*/al"]}, False),
        ({"not_before": "2026-01-15T12:00:01Z"}, False),
        ({"not_before": "2026-01-15T21:00:00+09:00"}, True),
        ({"not_after": "2026-01-15T20:59:59+09:00"}, False),
        ({"not_after": "2026-01-15T21:00:00+09:00"}, True),
    ],
)
def test_an_auditor_holds_the_trust_file_to_its_word(change, good, tmp_path):
    trust = json.loads((BUNDLES / "good/trust.json").read_text())
    of_key = change.keys() & {"targets", "not_before", "not_after"}
    (trust["keys"][0] if of_key else trust).update(change)
    (tmp_path / "trust.json").write_text(json.dumps(trust))
    done = audited(tmp_path, BUNDLES / "good/bundle", tmp_path / "trust.json")
    assert (done.returncode == 0) is good, done.stdout + done.stderr


# Links


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def dead_links(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue  # another site: not ours to test
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    assert not list(dead_links(page))


def test_a_dead_link_would_be_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A head: twice\n[a](page.md) [b](none.md) [c](#a-head-twice) [d](#b) [e](https://x/y)\n"
        "```\n[f](g)\n```\n"
    )
    assert list(dead_links(page)) == ["none.md", "#b"]


# Rooms

PACKAGE = ROOT / "pytest_decisionos"
ORDER = (
    "model", "stats", "trust", "harvest", "evidence", "slo", "judge", "release", "history",
    "checks", "report", "ops", "drill", "testing", "cli",
)  # fmt: skip
FREE = {"settings", "errors", "hookspecs"}
FACES = {"plugin", "gate_run", "gate_reports", "gate_tests", "cli"}


def imports(source, *, typed=True):
    """What a module imports of this package, dotted, below the package's own name.

    Args:
        source: its text.
        typed: whether to count what only a type checker imports.
    """
    skipped = set()
    for node in ast.walk(ast.parse(source)):
        if not typed and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped |= {id(inner) for one in node.body for inner in ast.walk(one)}
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the package"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            head, _, rest = name.partition(".")
            if head == PACKAGE.name and rest not in {"", "__version__"}:
                # A public name stands for the module that it lives in.
                yield pytest_decisionos._HOMES.get(rest, rest)


def room_of(path):
    """The room, or the module at the top, that a file below the package belongs to."""
    return path.parts[0] if len(path.parts) > 1 else path.stem


def faults_of(path, source):
    """Imports that go down the order, or to a face."""
    room = room_of(path)
    if room not in {*ORDER, *FREE, *FACES, "__init__"}:
        return [f"{path} is in no room of the design"]
    if room in {*FREE, "__init__"}:
        allowed = FREE
    elif room in FACES:
        allowed = {*ORDER, *FREE, *FACES}
    else:
        allowed = {*ORDER[: ORDER.index(room) + 1], *FREE} - FACES
    # hookspecs and the lazy public names speak of everything, and load nothing.
    found = imports(source, typed=room not in {"hookspecs", "__init__"})
    return [f"{path} imports {name}" for name in found if name.partition(".")[0] not in allowed]


def test_imports_go_up_only():
    paths = sorted(PACKAGE.rglob("*.py"))
    assert len(paths) > 40
    faults = [
        fault
        for path in paths
        for fault in faults_of(path.relative_to(PACKAGE), path.read_text(encoding="utf-8"))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("path", "source", "faults"),
    [
        ("slo/x.py", "from pytest_decisionos.judge import gate", 1),
        ("slo/x.py", "def f():\n    import pytest_decisionos.release.stage", 1),
        ("slo/x.py", "if TYPE_CHECKING:\n    from pytest_decisionos.judge.gate import Gate", 1),
        ("slo/x.py", "from pytest_decisionos import decide", 1),
        ("slo/x.py", "from pytest_decisionos import judge", 1),
        ("judge/x.py", "from pytest_decisionos.gate_run import GateRun", 1),
        ("judge/x.py", "from pytest_decisionos.cli.main import cli", 1),
        ("errors.py", "from pytest_decisionos.model.base import Frozen", 1),
        ("hookspecs.py", "from pytest_decisionos.judge.gate import Gate", 1),
        ("attic/x.py", "", 1),
        ("hookspecs.py", "if TYPE_CHECKING:\n    from pytest_decisionos.judge.gate import G", 0),
        ("judge/x.py", "from pytest_decisionos import load_slo, __version__", 0),
        ("judge/x.py", "import os, pytest_decisionos\nfrom pytest_decisionos.judge import gate", 0),
        ("cli/x.py", "from pytest_decisionos.testing import healthy", 0),
        ("plugin.py", "from pytest_decisionos.cli.main import cli", 0),
    ],
)
def test_an_import_that_goes_down_would_be_found(path, source, faults):
    assert len(faults_of(Path(path), source)) == faults
