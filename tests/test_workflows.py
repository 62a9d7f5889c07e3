"""The workflows of .github: what each may do, and what the comment job posts."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pytest_decisionos.report.comment import MARKER

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
CI = ROOT / ".github/workflows/ci.yml"
COMMENTING = [
    ROOT / ".github/workflows/release-gate.yml",
    ROOT / "pytest_decisionos/cli/templates/github.yml",
]


def load(path):
    # YAML 1.1 reads the key `on` as true.
    return {
        "on" if key is True else key: value
        for key, value in yaml.safe_load(path.read_text()).items()
    }


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_each_follows_its_schema(path):
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
    ]
    done = subprocess.run([*command, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_each_job_may_do_little_and_not_for_ever(path):
    workflow = load(path)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 90
        checkouts = [s for s in job["steps"] if s.get("uses", "").startswith("actions/checkout@")]
        assert all(s["with"] == {"persist-credentials": False} for s in checkouts)
        runs = any("run" in step for step in job["steps"])
        allowed = {"contents": "read"} if runs or checkouts else {"pull-requests": "write"}
        assert job["permissions"] == allowed
        used = [step["uses"] for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", use) for use in used)


def test_the_whole_check_runs_on_pull_requests_and_main():
    workflow = load(CI)
    assert "pull_request" in workflow["on"]
    assert workflow["on"]["push"] == {"branches": ["main"]}
    (job,) = workflow["jobs"].values()
    assert "needs" not in job
    assert "if" not in job
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    assert re.search(r"^runuser -u ci -- \.ci/run$", commands, re.MULTILINE)
    assert not any("continue-on-error" in step for step in job["steps"])


# The comment

# GitHub as github-script shows it, with a comment of somebody else and perhaps one of ours.
STAGE = """
const posted = [];
const comments = [{id: 1, user: {login: 'mallory'}, body: MARKER}];
if (MINE) comments.push({id: 2, user: {login: 'github-actions[bot]'}, body: MARKER + ' old'});
const post = (kind) => async (what) => { posted.push([kind, what.comment_id ?? null, what.body]); };
const github = {
  paginate: async () => comments,
  rest: {
    pulls: {get: async () => ({data: {head: {sha: HEAD}}})},
    issues: {listComments: null, updateComment: post('update'), createComment: post('create')},
  },
};
const context = {
  repo: {owner: 'o', repo: 'r'}, runId: 7, serverUrl: 'https://github.example',
  payload: {pull_request: {number: 3, head: {sha: 'judged'}}},
};
const core = {notice: () => {}};
(async () => {
SCRIPT
})().then(() => console.log(JSON.stringify(posted)));
"""


def posted(path, folder, *, mine=False, head="judged"):
    """What the comment job of ``path`` posts from ``folder``: [kind, id, body] each."""
    steps = load(path)["jobs"]["comment"]["steps"]
    (script,) = [s["with"]["script"] for s in steps if "script" in s.get("with", {})]
    text = STAGE.replace("MARKER", json.dumps(MARKER)).replace("MINE", json.dumps(mine))
    text = text.replace("HEAD", json.dumps(head)).replace("SCRIPT", script)
    done = subprocess.run(
        ["node", "-"], input=text, cwd=folder, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js, which runs such a script")
@pytest.mark.parametrize("path", COMMENTING, ids=lambda path: path.name)
class TestComment:
    @pytest.fixture
    def comment(self, tmp_path):
        file = tmp_path / "release-gate/gate/comment.md"
        file.parent.mkdir(parents=True)
        return file

    def test_a_comment_of_the_gate_is_posted(self, path, comment, tmp_path):
        body = f"{MARKER}\n# GO\n"
        comment.write_text(body)
        assert posted(path, tmp_path) == [["create", None, body]]
        assert posted(path, tmp_path, mine=True) == [["update", 2, body]]

    @pytest.mark.parametrize("said", [None, "", "# GO\n", f"\n{MARKER}\n# GO\n"])
    def test_another_or_none_is_no_decision(self, path, comment, tmp_path, said):
        if said is not None:
            comment.write_text(said)
        for mine, kind, number in ((False, "create", None), (True, "update", 2)):
            ((how, which, body),) = posted(path, tmp_path, mine=mine)
            assert (how, which) == (kind, number)
            assert body.startswith(f"{MARKER}\n**No decision** for judged: ")
            assert "# GO" not in body

    def test_an_older_commit_says_nothing(self, path, comment, tmp_path):
        comment.write_text(f"{MARKER}\n# GO\n")
        assert posted(path, tmp_path, head="newer") == []
