"""dosctl evidence seal, verify, merge, lock: what they say, and their exit statuses."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pytest_decisionos.cli.evidence import evidence as command
from pytest_decisionos.cli.main import run
from pytest_decisionos.evidence.digest import digest
from pytest_decisionos.evidence.document import write_evidence
from pytest_decisionos.evidence.seal import sealed, verify
from pytest_decisionos.harvest.sample import write_sample
from pytest_decisionos.model.evidence import read_evidence
from pytest_decisionos.testing import healthy
from pytest_decisionos.trust import ed25519
from pytest_decisionos.trust.keys import make_ring, ring_json

SECRET = "made-up for tests, of 32 bytes or more"
KEY = {"key_id": "k1", "secret": SECRET, "state": "active", "use": ["evidence"]}
RING = make_ring([KEY], "test ring")
SAMPLE = Path(__file__).parents[2] / "../shared/examples/evidence/sample_release_gate.json"
LATEST = Path("var/evidence/latest.json")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", json.dumps([KEY]))


@pytest.fixture
def dosctl(capsys):
    """Run a command; its status, output, and error line, none of which tells a secret."""

    def call(*args):
        status = run(command, [str(arg) for arg in args])
        said = capsys.readouterr()
        assert SECRET not in said.out + said.err
        assert said.err.count("\n") == (1 if said.err else 0)
        assert not said.err or said.err.startswith("error: ")
        return status, said.out, said.err

    return call


def put(path=LATEST, ring=None, **more):
    blocks = healthy(datetime.now(UTC)) | more
    write_evidence(path, sealed(blocks, ring, now=datetime.now(UTC)))
    return path


def cheat(path, *, digested=False):
    document = json.loads(path.read_bytes())
    document["perf"]["error_rate"] = 0.0
    if digested:
        document["integrity"]["signature_sha256"] = digest(document)
    path.write_text(json.dumps(document, ensure_ascii=False))
    return path


def state(path=LATEST):
    return verify(read_evidence(path).blocks, RING, now=datetime.now(UTC))


# seal


def test_seal(dosctl, keys):
    put()
    status, out, _ = dosctl("seal")
    assert status == 0
    assert out.startswith("→ var/evidence/latest.json\ndigest ")
    assert "MAC of key k1 of 20" in out
    assert state().state == "valid"
    status, out, _ = dosctl("seal", "--root", "var", "--json")
    told = json.loads(out)
    assert (status, told["key_id"]) == (0, "k1")
    assert told["sha256"] == read_evidence(LATEST).blocks["integrity"]["signature_sha256"]
    assert "perf" in told["blocks"]
    assert "integrity" not in told["blocks"]


def test_seal_without_keys_says_how_to_configure_them(dosctl):
    before = put().read_bytes()
    status, out, err = dosctl("seal")
    assert (status, out) == (4, "")
    assert "no keys are configured" in err
    assert "DECISIONOS_JUDGE_KEYS" in err
    assert LATEST.read_bytes() == before


def test_seal_refuses_what_was_changed(dosctl, keys):
    cheat(put())
    for args in ((), ("--new",)):
        status, _, err = dosctl("seal", *args)
        assert status == 2
        assert "it was changed" in err
    cheat(put(ring=RING), digested=True)
    status, _, err = dosctl("seal")
    assert status == 2
    assert "they were changed" in err


def test_seal_new(dosctl, keys):
    LATEST.parent.mkdir(parents=True)
    LATEST.write_text(json.dumps(healthy(datetime.now(UTC))))
    status, _, err = dosctl("seal")
    assert (status, "--new" in err) == (2, True)
    assert dosctl("seal", "--new")[0] == 0
    assert state().state == "valid"


def test_a_ring_without_an_active_key(dosctl, monkeypatch):
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", json.dumps([KEY | {"state": "grace"}]))
    before = put().read_bytes()
    status, _, err = dosctl("seal")
    assert status == 4
    assert "no key is active for evidence" in err
    assert LATEST.read_bytes() == before


def test_a_ring_that_is_none_is_told_without_its_secret(dosctl, monkeypatch):
    put()
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", json.dumps([KEY | {"state": SECRET}]))
    for args in (("seal",), ("verify",), ("merge", "--block", "a=b.json"), ("lock",)):
        Path("b.json").write_text("{}")
        assert dosctl(*args)[0] == 4


def test_evidence_yaml_lies_beside_the_gate(dosctl, keys, tmp_path):
    put(rating={"token": "hunter2", "who": "kim"})
    status, _, err = dosctl("seal")
    assert status == 4
    assert "/rating/token" in err
    assert "hunter2" not in err
    (tmp_path / "conf").mkdir()
    yaml = tmp_path / "conf/evidence.yaml"
    yaml.write_text("privacy: {mask: [/rating/who], allow: [/rating/token]}")
    assert dosctl("seal", "--gate", "conf/gate.yaml")[0] == 0
    assert read_evidence(LATEST).blocks["rating"] == {"token": "hunter2", "who": "[masked]"}
    yaml.write_text("privacy: {masks: []}")
    for args in (("seal",), ("lock",)):
        status, _, err = dosctl(*args, "--gate", "conf/gate.yaml")
        assert status == 4
        assert "conf/evidence.yaml:1: privacy.masks: unknown field" in err


# verify


def test_verify_with_keys(dosctl, keys):
    put(ring=RING)
    status, out, _ = dosctl("verify")
    assert status == 0
    assert re.search(r"^right +valid +k1 +var/evidence/latest.json$", out, re.MULTILINE)
    assert out.endswith("files: 1, wrong: 0\n")
    status, out, _ = dosctl("verify", "--json")
    told = json.loads(out)
    assert told["keys"] is True
    (row,) = told["files"]
    assert (row["digest"], row["seal"], row["key_id"]) == ("right", "valid", "k1")
    assert row["sha256"] == read_evidence(LATEST).sha256


def test_verify_without_keys_says_what_that_is_worth(dosctl):
    put(ring=RING)
    status, out, _ = dosctl("verify")
    assert status == 0
    assert re.search(r"^right +unchecked +– +var/evidence/latest.json$", out, re.MULTILINE)
    assert "unsigned: digest only" in out
    told = json.loads(dosctl("verify", "--json")[1])
    assert (told["keys"], told["files"][0]["seal"]) == (False, "unchecked")


def test_verify_many(dosctl, keys):
    fine = put(Path("var/fine.json"), RING)
    wrong = [
        cheat(put(Path("var/한글.json"), RING)),
        cheat(put(Path("var/d.json"), RING), digested=True),
    ]
    bare = put(Path("var/" + "long" * 30 + ".json"))
    Path("var/torn.json").write_text('{"meta":')
    status, out, _ = dosctl("verify", fine, *wrong, bare, "var/torn.json", "var/none.json")
    assert status == 2
    lines = out.splitlines()
    assert "tampered    refused     –                 var/한글.json" in lines
    assert "right       refused     –                 var/d.json" in lines
    assert f"right       refused     –                 {bare}" in lines
    assert "unreadable  refused     –                 var/torn.json" in lines
    assert lines[-1] == "files: 6, wrong: 5"
    assert all(len(line) <= 80 for line in lines if str(bare) not in line)
    flat = " ".join(out.split())
    for words in (
        "it was changed",
        "they were changed",
        "/integrity/mac is missing, and keys are configured",
        "not JSON",
        "no such file",
    ):
        assert words in flat
    told = json.loads(dosctl("verify", fine, *wrong, "var/none.json", "--json")[1])
    assert [row["cause"] for row in told["files"]] == ["", "tampered", "tampered", "unreadable"]


@pytest.mark.parametrize(
    ("files", "status"), [(["x"], 4), (["f", "x"], 4), (["w", "x"], 2), (["f"], 0)]
)
def test_statuses_of_verify(dosctl, files, status):
    put(Path("f"))
    cheat(put(Path("w")))
    assert dosctl("verify", *files)[0] == status


def test_the_published_example_was_changed(dosctl):
    if not SAMPLE.exists():
        pytest.skip("the examples of the design are not beside this checkout")
    before = SAMPLE.read_bytes()
    status, out, _ = dosctl("verify", SAMPLE)
    assert status == 2
    assert "tampered" in out
    assert "4c5038b4946d2dad" in out
    assert SAMPLE.read_bytes() == before


def test_the_documents_that_ship_are_right(dosctl):
    shipped = sorted((Path(__file__).parents[2] / "evidence").glob("*.json"))
    assert len(shipped) == 5
    status, out, _ = dosctl("verify", *shipped)
    assert (status, out.count("right ")) == (0, 5)


# merge


def test_merge(dosctl, keys):
    put(ring=RING)
    Path("b.json").write_text('{"level": "low"}')
    Path("q.json").write_text('{"quota": {"decisions": {}}}')
    status, out, _ = dosctl("merge", "--block", "budget=b.json", "--block", "quota=q.json")
    assert status == 0
    assert "MAC of key k1" in out
    found = read_evidence(LATEST).blocks
    assert (found["budget"], found["quota"]) == ({"level": "low"}, {"decisions": {}})
    assert state().state == "valid"


def test_merge_without_keys(dosctl):
    put()
    Path("b.json").write_text('{"level": "low"}')
    status, out, _ = dosctl("merge", LATEST, "--block", "budget=b.json")
    assert status == 0
    assert "unsigned: digest only" in out
    told = json.loads(dosctl("merge", "--block", "budget=b.json", "--json")[1])
    assert (told["key_id"], told["created"]) == (None, None)


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        ((), 4, "nothing to merge"),
        (("--block", "budget"), 4, "expected NAME=FILE"),
        (("--block", "a=b.json", "--block", "a=b.json"), 4, "a block twice"),
        (("--block", "perf=b.json"), 4, "made from the logs"),
        (("--block", "a=none.json"), 4, "no such file"),
        (("--block", "a=secret.json"), 4, "/a/apiKey"),
        (("none.json", "--block", "a=b.json"), 4, "dosctl evidence build"),
        (("x.locked.json", "--block", "a=b.json"), 2, "LOCKED"),
        (("wrong.json", "--block", "a=b.json"), 2, "it was changed"),
    ],
)
def test_what_is_not_merged(dosctl, args, status, says):
    before = put().read_bytes()
    cheat(put(Path("wrong.json")))
    put(Path("x.json"))
    dosctl("lock", "x.json")
    Path("b.json").write_text("{}")
    Path("secret.json").write_text('{"apiKey": "hunter2"}')
    told = dosctl("merge", *args)
    assert (told[0], told[1]) == (status, "")
    assert says in told[2]
    assert "hunter2" not in told[2]
    assert LATEST.read_bytes() == before
    assert not Path("none.json").exists()


# lock


def test_lock(dosctl, keys):
    put(ring=RING)
    status, out, _ = dosctl("lock")
    made = Path("var/evidence/2026.01.1.locked.json")
    assert status == 0
    assert out.startswith(f"LOCKED: {made}\ndigest ")
    assert "MAC of key k1 of 20" in out
    assert made.read_bytes() == LATEST.read_bytes()
    assert stat.S_IMODE(made.stat().st_mode) == 0o444
    status, out, _ = dosctl("lock")
    assert (status, out.splitlines()[0]) == (0, f"LOCKED already: {made}")
    assert "written" not in out
    made.chmod(0o600)
    status, out, _ = dosctl("lock")
    assert (status, "could be written to: now it is read-only again" in out) == (0, True)
    assert stat.S_IMODE(made.stat().st_mode) == 0o444
    status, out, _ = dosctl("lock", LATEST, "--name", "final", "--json")
    told = json.loads(out)
    assert (status, told["created"], told["path"]) == (0, True, "var/evidence/final.locked.json")
    assert told["sha256"] == read_evidence(made).sha256
    assert told["target"]["service"] == "checkout"
    assert (told["release"], told["seal"]["state"]) == ("2026.01.1", "valid")


def test_lock_refuses(dosctl, keys):
    put(ring=RING)
    dosctl("lock")
    put(ring=RING, budget={"level": "low"})
    status, _, err = dosctl("lock")
    assert status == 2
    assert len(re.findall(r"\b[0-9a-f]{64}\b", err)) == 2
    status, _, err = dosctl("lock", "var/evidence/2026.01.1.locked.json")
    assert (status, "LOCKED already" in err) == (2, True)
    put()
    status, _, err = dosctl("lock")
    assert (status, "dosctl evidence seal" in err) == (2, True)
    put(ring=RING)
    assert dosctl("lock", "--name", "../x")[0] == 4
    assert sorted(path.name for path in LATEST.parent.glob("[!.]*.json")) == [
        "2026.01.1.locked.json",
        "index.head.json",
        "latest.json",
    ]


def test_the_index_takes_up_what_is_locked(dosctl, keys, tmp_path):
    put(ring=RING)
    Path("configs").mkdir(exist_ok=True)
    Path("configs/evidence.yaml").write_text("retention: {locked_days: 400}\n")
    dosctl("lock")
    dosctl("lock")  # twice is once
    (entry,) = map(json.loads, Path("var/evidence/index.jsonl").read_text().splitlines())
    assert (entry["event"], entry["path"]) == ("locked", "evidence/2026.01.1.locked.json")
    kept = datetime.fromisoformat(entry["retain_until"]) - datetime.now(UTC)
    assert timedelta(days=399) < kept < timedelta(days=401)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(LATEST, elsewhere)
    status, out, _ = dosctl("lock", elsewhere / "latest.json", "--json")
    assert (status, json.loads(out)["indexed"]) == (0, False)
    assert "not in the index" in dosctl("lock", elsewhere / "latest.json")[1]


def test_a_retired_key_verifies_what_the_index_took_up_in_time(dosctl, keys, tmp_path, monkeypatch):
    put(ring=RING)
    folder = tmp_path / "keys"
    folder.mkdir()
    ed25519.write_private(folder / "index.key", ed25519.generate())
    public = ed25519.load_public(folder / "index.pub")
    listed = {
        "keyid": public.keyid,
        "public_key": public.pem,
        "role": "index",
        "targets": ["*/*/*/*"],
    }
    trust = {"version": 1, "expires": "2100-01-01T00:00:00Z", "keys": [listed]}
    (folder / "trust.json").write_text(json.dumps(trust))
    monkeypatch.setenv("DECISIONOS_STATE_DIR", str(tmp_path / "state"))
    dosctl("lock", "--keys", folder)
    locked = "var/evidence/2026.01.1.locked.json"
    retired = RING.keys[0].model_copy(
        update={"state": "retired", "not_after": datetime.now(UTC) + timedelta(seconds=1)}
    )
    ring = RING.model_copy(update={"keys": (retired, *RING.keys[1:])})
    in_time = ring_json(ring).decode()
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", in_time)
    status, out, _ = dosctl("verify", locked)
    assert (status, "the key is retired" in " ".join(out.split())) == (2, True)
    assert dosctl("verify", locked, "--trust", folder / "trust.json")[0] == 0
    # What it took up later proves nothing, and neither does an index that nobody vouches for.
    late = retired.model_copy(update={"not_after": datetime(2026, 1, 1, tzinfo=UTC)})
    ring = RING.model_copy(update={"keys": (late, *RING.keys[1:])})
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", ring_json(ring).decode())
    assert dosctl("verify", locked, "--trust", folder / "trust.json")[0] == 2
    (folder / "trust.json").write_text(json.dumps({**trust, "version": 2, "keys": []}))
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", in_time)
    assert dosctl("verify", locked, "--trust", folder / "trust.json")[0] == 2


def test_lock_without_keys_says_what_that_is_worth(dosctl, monkeypatch):
    put()
    status, out, _ = dosctl("lock")
    assert (status, "unsigned: digest only" in out) == (0, True)
    # Sealed later, it is the same document, and what is LOCKED has no MAC.
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", json.dumps([KEY]))
    assert dosctl("seal")[0] == 0
    status, out, _ = dosctl("lock")
    assert status == 0
    assert out.startswith("LOCKED already")
    assert "/integrity/mac is missing" in out


def test_the_job(monkeypatch, capsys):
    put()
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    monkeypatch.setattr(sys, "argv", ["evidence_lock", "--name", "r"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("jobs.evidence_lock", run_name="__main__")
    assert ended.value.code == 0
    assert "LOCKED: var/evidence/r.locked.json" in capsys.readouterr().out


# build


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thin")
    write_sample(folder, seed=7, scenario="thin-traffic", end=datetime.now(UTC).replace(microsecond=0))  # fmt: skip
    return folder


def build(dosctl, logs, *args):
    return dosctl(
        "build", "--reqlog", logs / "reqlog.csv", "--target", "checkout/production", *args
    )


def test_build_seals_with_the_keys_that_are_configured(dosctl, logs, keys):
    status, out, _ = build(dosctl, logs)
    assert (status, "seal: MAC of key k1\n" in out) == (0, True)
    assert state().state == "valid"
    told = json.loads(build(dosctl, logs, "--json")[1])
    assert told["key_id"] == "k1"
    assert dosctl("lock")[0] == 0


def test_build_without_keys(dosctl, logs):
    status, out, _ = build(dosctl, logs)
    assert (status, "seal: digest only, unsigned\n" in out) == (0, True)
    assert "mac" not in read_evidence(LATEST).blocks["integrity"]


@pytest.mark.parametrize("change", [{"state": "grace"}, {"use": ["request"]}])
def test_build_with_keys_and_none_to_seal_makes_no_file(dosctl, logs, monkeypatch, change):
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", json.dumps([KEY | change]))
    status, _, err = build(dosctl, logs)
    assert status == 4
    assert "no key is active for evidence" in err
    assert not LATEST.parent.exists()


def test_build_masks_refuses_secrets_and_leaves_locked_documents_alone(dosctl, logs, tmp_path):
    Path("u.json").write_text('{"apiKey": "hunter2", "who": ["kim"]}')
    status, _, err = build(dosctl, logs, "--block", "usage=u.json")
    assert status == 4
    assert "/usage/apiKey" in err
    assert "hunter2" not in err
    assert not LATEST.parent.exists()
    (tmp_path / "configs").mkdir()
    Path("configs/evidence.yaml").write_text("privacy: {mask: [/usage/apiKey, /usage/who/*]}")
    assert build(dosctl, logs, "--block", "usage=u.json")[0] == 0
    found = read_evidence(LATEST).blocks
    assert found["usage"] == {"apiKey": "[masked]", "who": ["[masked]"]}
    assert found["integrity"] == {"signature_sha256": digest(found)}
    dosctl("lock", "--name", "r")
    locked = LATEST.with_name("r.locked.json")
    before = locked.read_bytes()
    status, _, err = build(dosctl, logs, "--out", locked)
    assert (status, "LOCKED" in err) == (2, True)
    assert locked.read_bytes() == before


@pytest.mark.parametrize("name", ["seal", "verify", "merge", "lock"])
def test_help_has_an_example(dosctl, name):
    status, out, _ = dosctl(name, "--help")
    assert status == 0
    assert re.search(r"Examples?:\n", out)
    assert max(map(len, out.splitlines())) <= 88
    if name == "merge":
        assert "only logs can make" in " ".join(out.split())
