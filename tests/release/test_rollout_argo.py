"""The adapter argo against a kubectl that records what it was asked and behaves like a controller."""

import json
import sys

import pytest

from pytest_decisionos.errors import RolloutError
from pytest_decisionos.model.target import Target
from pytest_decisionos.release.rollout import load_rollout
from pytest_decisionos.release.traffic import Traffic

pytestmark = pytest.mark.slow

# A Rollout that is at its next pause as soon as it is asked; what the controller would do.
KUBECTL = '''
import json, sys
FILE = {file!r}
with open(FILE) as f: world = json.load(f)
words = sys.argv[1:]
world["asked"].append(words)
broken = world.get("broken", [])
def end(status=0, out="", err=""):
    with open(FILE, "w") as f: json.dump(world, f)
    sys.stdout.write(out); sys.stderr.write(err); sys.exit(status)
if any(word in broken for word in words):
    end(1, err="Error from server: " + " ".join(words))
assert words[-2:] == ["-n", "shop"], words
rollout = world["rollout"]; spec, status = rollout["spec"], rollout["status"]
steps = spec["strategy"]["canary"]["steps"]
container = spec["template"]["spec"]["containers"][-1]
def settle():
    """On to the next pause."""
    index = status["currentStepIndex"]
    while index < len(steps) and "pause" not in steps[index]: index += 1
    status["currentStepIndex"] = index
    status["pauseConditions"] = [{{"reason": "CanaryPauseStep"}}] if index < len(steps) else None
    if index == len(steps): status["stableRS"] = status["currentPodHash"]
stuck = world.get("stuck")
match words[:-2]:
    case ["get", "rollouts.argoproj.io", "checkout", "-o", "json"]:
        end(out=world.get("says") or json.dumps(rollout))
    case ["get", "replicaset", name, "-o", "json"]:
        image = world["images"][name.removeprefix("checkout-")]
        end(out=json.dumps({{"spec": {{"template": {{"spec": {{"containers": [{{"name": "app", "image": image}}]}}}}}}}}))
    case ["argo", "rollouts", *rest] if stuck:
        end()
    case ["argo", "rollouts", "set", "image", "checkout", change]:
        container["image"] = change.removeprefix("app=")
        hash = next((h for h, i in world["images"].items() if i == container["image"]), None)
        if hash is None:
            hash = f"h{{len(world['images'])}}"; world["images"][hash] = container["image"]
        rollout["metadata"]["generation"] += 1
        status.update(currentPodHash=hash, abort=False, currentStepIndex=0,
                      observedGeneration=str(rollout["metadata"]["generation"]))
        if hash == status["stableRS"]: status.update(currentStepIndex=len(steps), pauseConditions=None)
        else: settle()
    case ["argo", "rollouts", "promote", "checkout"]:
        status["currentStepIndex"] += 1; settle()
        if world.get("slips"): status["currentStepIndex"] += 1; settle()
    case ["argo", "rollouts", "promote", "checkout", "--full"]:
        status["currentStepIndex"] = len(steps); settle()
    case ["argo", "rollouts", "abort", "checkout"]:
        status.update(abort=True, currentStepIndex=0, pauseConditions=None)
    case ["argo", "rollouts", "retry", "rollout", "checkout"]:
        status.update(abort=False, currentStepIndex=0); settle()
    case other:
        end(1, err=f"unknown command {{other}}")
end()
'''
STEPS = [
    {"pause": {}},
    *(part for weight in (5, 25, 50, 100) for part in ({"setWeight": weight}, {"pause": {}})),
]
REPO = "r.example/shop/app"


class Cluster:
    def __init__(self, folder):
        self.folder, self.file = folder, folder / "world.json"
        self.kubectl = folder / "kubectl"
        self.kubectl.write_text(f"#!{sys.executable}\n" + KUBECTL.format(file=str(self.file)))
        self.kubectl.chmod(0o755)
        containers = [{"name": "mesh", "image": "m:1"}, {"name": "app", "image": f"{REPO}:v1"}]
        rollout = {
            "metadata": {"name": "checkout", "generation": 4},
            "spec": {
                "strategy": {"canary": {"steps": STEPS}},
                "template": {"spec": {"containers": containers}},
            },
            "status": {
                "stableRS": "h0", "currentPodHash": "h0", "currentStepIndex": len(STEPS),
                "observedGeneration": "4",
            },
        }  # fmt: skip
        self.write({"asked": [], "rollout": rollout, "images": {"h0": f"{REPO}:v1"}})

    def read(self):
        return json.loads(self.file.read_text())

    def write(self, world):
        self.file.write_text(json.dumps(world))

    def change(self, **more):
        self.write({**self.read(), **more})

    def rollout(self, **more):
        argo = {
            "rollout": "checkout", "namespace": "shop", "container": "app", "image": REPO,
            "kubectl": [str(self.kubectl)], "timeout_sec": 20, "poll_sec": 0.01, **more,
        }  # fmt: skip
        path = self.folder / "rollout.yaml"
        path.write_text(json.dumps({"adapter": "argo", "argo": argo}))
        target = Target(service="checkout", environment="production")
        return load_rollout(path, root=self.folder, target=target)

    @property
    def commands(self):
        """What was changed, in words."""
        asked = [" ".join(words[:-2]) for words in self.read()["asked"]]
        return [words.removeprefix("argo rollouts ") for words in asked if "get " not in words]


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def at(pct, release="v2"):
    return Traffic(
        pct=float(pct),
        shadow=pct == 0,
        release=release,
        baseline_release="v1",
        keep_warm=pct == 100,
    )


def test_a_whole_rollout(cluster):
    rollout = cluster.rollout()
    assert rollout.running() == Traffic(release="v1")
    expected = []
    for pct, commands in (
        (0, ["set image checkout app=r.example/shop/app:v2"]),
        (5, ["promote checkout"]),
        (5, []),  # twice is the same as once
        (50, ["promote checkout"] * 2),
        (100, ["promote checkout"]),
    ):
        rollout.apply(at(pct))
        expected += commands
        assert cluster.commands == expected
        assert rollout.running() == at(pct)
    rollout.apply(Traffic(release="v2"))
    assert cluster.commands[len(expected) :] == ["promote checkout --full"]
    assert rollout.running() == Traffic(release="v2")
    rollout.apply(Traffic(release="v2"))
    assert cluster.commands[-1] == "promote checkout --full"


def test_a_digest_is_a_release_too(cluster):
    digest = "sha256:" + "a" * 64
    cluster.rollout().apply(at(5, digest))
    assert cluster.commands[0] == f"set image checkout app={REPO}@{digest}"
    assert cluster.rollout().running() == at(5, digest)


@pytest.mark.parametrize("pct", [0, 25, 100])
@pytest.mark.parametrize("known", [True, False])
def test_abort_from_anywhere(cluster, pct, known):
    rollout = cluster.rollout()
    rollout.apply(at(pct))
    before = len(cluster.commands)
    rollout.apply(Traffic(release="v1") if known else Traffic())
    said = cluster.commands[before:]
    assert said == ["abort checkout"] + ["set image checkout app=r.example/shop/app:v1"] * known
    assert rollout.running() == Traffic(release="v1")


def test_abort_of_what_is_promoted_already(cluster):
    rollout = cluster.rollout()
    rollout.apply(at(100))
    rollout.apply(Traffic(release="v2"))
    rollout.apply(Traffic(release="v1"))
    assert cluster.commands[-2:] == [f"set image checkout app={REPO}:v1", "promote checkout --full"]
    assert rollout.running() == Traffic(release="v1")


def test_an_aborted_release_can_come_back(cluster):
    rollout = cluster.rollout()
    rollout.apply(at(5))
    rollout.apply(Traffic())
    rollout.apply(at(5))
    assert cluster.commands[-2:] == ["retry rollout checkout", "promote checkout"]
    assert rollout.running() == at(5)


def test_the_router_knows_the_weight_better_than_the_steps(cluster):
    cluster.rollout().apply(at(25))
    world = cluster.read()
    world["rollout"]["status"]["canary"] = {"weights": {"canary": {"weight": 17}}}
    cluster.write(world)
    assert cluster.rollout().running().pct == 17
    with pytest.raises(RolloutError, match="not where it was sent; found 17 %; expected 25 %"):
        cluster.rollout().apply(at(25))


def test_weights_that_the_rollout_does_not_have(cluster):
    with pytest.raises(RolloutError) as told:
        cluster.rollout().apply(at(10))
    assert "no endless pause at this weight; found 0, 5, 25, 50, 100" in str(told.value)
    assert "setWeight 10" in str(told.value)
    assert not cluster.commands


@pytest.mark.parametrize(
    "steps", [[], [{"setWeight": 5}], [{"setWeight": 5}, {"pause": {"duration": "10m"}}]]
)
def test_a_pause_that_ends_by_itself_is_none(cluster, steps):
    world = cluster.read()
    world["rollout"]["spec"]["strategy"]["canary"]["steps"] = steps
    cluster.write(world)
    with pytest.raises(RolloutError, match="no endless pause"):
        cluster.rollout().apply(at(5))


def test_only_forward(cluster):
    rollout = cluster.rollout()
    rollout.apply(at(50))
    with pytest.raises(RolloutError, match="only forward; found 50 %; expected at most 5 %"):
        rollout.apply(at(5))


def test_another_canary_is_not_thrown_over(cluster):
    rollout = cluster.rollout()
    rollout.apply(at(5))
    with pytest.raises(RolloutError, match="another canary is under way"):
        rollout.apply(at(5, "v3"))


def test_a_canary_of_what_everybody_runs(cluster):
    with pytest.raises(RolloutError, match="everybody runs it already"):
        cluster.rollout().apply(at(5, "v1"))


def test_a_rollout_that_slips_past_its_pause_is_noticed(cluster):
    cluster.rollout().apply(at(0))
    cluster.change(slips=True)
    with pytest.raises(RolloutError, match="not where it was sent; found 25 %"):
        cluster.rollout().apply(at(5))


@pytest.mark.parametrize("word", ["get", "image", "promote", "abort"])
def test_kubectl_fails(cluster, word):
    rollout = cluster.rollout()
    rollout.apply(at(0))
    cluster.change(broken=[word])
    wants = {"image": [Traffic(release="v1")], "abort": [Traffic()]}.get(word, [at(5)])
    with pytest.raises(RolloutError, match="Error from server"):
        rollout.apply(*wants)
    if word == "get":
        with pytest.raises(RolloutError, match="Error from server"):
            rollout.running()


@pytest.mark.parametrize("want", [at(5), Traffic(), Traffic(release="v2")])
def test_a_cluster_that_does_not_get_there(cluster, want):
    cluster.rollout().apply(at(0))
    cluster.change(stuck=True)
    with pytest.raises(RolloutError, match=r"did not .* within 0.1 s; found step 0, weight 0 %"):
        cluster.rollout(timeout_sec=0.1).apply(want)


@pytest.mark.parametrize(
    "says", ["{", "[]", "{}", '{"spec": {"template": {"spec": {"containers": []}}}}', "null"]
)
def test_what_kubectl_says_is_not_a_rollout(cluster, says):
    cluster.change(says=says)
    with pytest.raises(RolloutError, match="not a rollouts.argoproj.io that can be read"):
        cluster.rollout().running()


def test_an_image_of_somebody_else_is_no_release(cluster):
    world = cluster.read()
    world["rollout"]["spec"]["template"]["spec"]["containers"][-1]["image"] = "other:v1"
    cluster.write(world)
    assert cluster.rollout().running() == Traffic()
