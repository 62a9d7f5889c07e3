"""The Korean runbook's own commands, taken out of the page and run, from the keys to the roll-back."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.untraced
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/runbook.ko.md"
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STATEMENT = re.compile(r"^(?:for .*?^done|.+?)$", re.MULTILINE | re.DOTALL)

# What is not 0 when all is well: the clock of a machine without chrony, and what must be refused.
STATUS = {
    "jobs.clock_guard": {0, 2},
    "dosctl evidence index --verify": {0, 2},  # there is nothing to index before the first release
    "canary_step.sh --dry-run": {2},
    "release acknowledge": {2},  # in this run it was promoted, and never taken back
}

# A quarter of an hour passes: the stage stands since then, and traffic came meanwhile.
LATER = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pytest_decisionos.harvest.sample import write_sample
from pytest_decisionos.judge.gate import load_gate
from pytest_decisionos.release.stage import change_stage
from pytest_decisionos.settings import from_environment
from pytest_decisionos.trust.sources import ring_of

now, settings = datetime.now(UTC), from_environment()
target = load_gate(settings.gate).target
how = {"target": target, "ring": ring_of(settings), "state_dir": settings.state_dir, "now": now}
# Two whole windows of five minutes lie after the warm-up of ten: the sample's canary takes 22.
end = datetime.fromtimestamp((now.timestamp() - 7) // 300 * 300 + 6, UTC)
if sys.argv[1:] == ["step"]:
    with change_stage(settings.root, **how) as changer:
        changer.write(since=end - timedelta(minutes=22))
write_sample(settings.root / "log", seed=7, scenario="healthy", end=end)
"""


def statements(block):
    return [found[0] for found in STATEMENT.finditer(block.replace("\\\n", " "))]


class Desk:
    """An SRE's shell, in a project of his own, with a home of its own."""

    def __init__(self, path):
        self.path = path / "project"
        self.path.mkdir()
        for name in ("gates", "configs", "jobs", "pipeline"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, self.path / name, ignore=ignored)
        (self.path / "pytest.ini").write_text("[pytest]\n")
        (path / "later.py").write_text(LATER)
        # Two steps instead of five, and what the sample's 22 minutes of canary can show.
        policy = self.path / "configs/canary/policy.json"
        spec = json.loads(policy.read_text())
        spec["step_schedule"] = [step for step in spec["step_schedule"] if step["pct"] == 25]
        spec["consecutive_passes"] = 2
        policy.write_text(json.dumps(spec))
        home = path / "home"
        home.mkdir()
        kept = ("DECISIONOS_", "PYTEST", "GITHUB_")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(kept)}
        found = [str(Path(sys.executable).parent), self.env["PATH"], "/usr/sbin"]
        self.env |= {
            "HOME": str(home),
            "PATH": ":".join(found),
            "PYTEST_ADDOPTS": "-p no:schemathesis",
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])

    def run(self, blocks):
        """Run all in one shell: [(statement, exit status, what it said)]."""
        script, told = ["trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"], []
        for number, statement in enumerate(s for block in blocks for s in statements(block)):
            told.append(statement)
            shell = statement.replace("8080", self.port)
            end = "" if shell.endswith("&") else "; "
            script.append(
                f'exec >"$OUT/{number}" 2>&1\n{shell}\nprintf "%s" "$?" >"$OUT/{number}.status"{end}'
            )
        out = self.path.parent / "out"
        out.mkdir()
        file = self.path.parent / "runbook.sh"
        file.write_text("\n".join(script) + "\n")
        subprocess.run(
            ["bash", file],
            cwd=self.path,
            env={**self.env, "OUT": str(out)},
            timeout=500,
            check=False,
        )
        return [
            (one, int((out / f"{n}.status").read_text()), (out / str(n)).read_text())
            for n, one in enumerate(told)
        ]


def test_the_whole_cutover(tmp_path):
    missing = [name for name in ("jq", "curl") if shutil.which(name) is None]
    if missing:
        say = pytest.fail if os.environ.get("REQUIRE_SERVICES") == "1" else pytest.skip
        say(f"{', '.join(missing)} not installed: make services")
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    later = f"python {tmp_path / 'later.py'}"

    def block(text):
        (found,) = [one for one in blocks if text in one]
        return found

    start = block("canary_step.sh --release")
    step = [
        block(t)
        for t in ("jobs.evidence_harvest_reqlog", "dosctl decision sign\n", "canary_auto_promote\n")
    ]
    promote = block("promote.sh")
    post = block("--decisionos-phase post")
    rollback = block("release/abort.sh")
    order = [
        *blocks[: blocks.index(start)], later, start,
        later + " step", *step,
        later + " step", *step[:2], promote,
        later, post,
        *blocks[blocks.index(post) + 1 : blocks.index(rollback)],
        *blocks[blocks.index(rollback) :],
        block("canary_step.sh --dry-run"),
    ]  # fmt: skip
    assert set(blocks) <= set(order)
    done = Desk(tmp_path).run(order)
    for statement, status, said in done:
        expected = next((v for k, v in STATUS.items() if re.search(k, statement)), {0})
        assert status in expected, f"{statement}\n{said}"
        assert "Traceback" not in said, said
    indexed = [status for statement, status, _ in done if "index --verify" in statement]
    assert indexed == [2, 0]
    stage = [said for statement, _, said in done if statement.startswith("dosctl release finish")]
    assert "2026.01.1" in stage[0]
