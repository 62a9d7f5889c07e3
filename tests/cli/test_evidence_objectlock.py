"""dosctl evidence objectlock: exit codes, tables, JSON; and every error as one line."""

import contextlib
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from services.archive import PREFIX, TARGET, Bucket, Clients, Root, now

from pytest_decisionos.cli.main import cli, run
from pytest_decisionos.evidence.config import Retention
from pytest_decisionos.evidence.index import update
from pytest_decisionos.evidence.index_head import parse_head
from pytest_decisionos.trust.ed25519 import generate, write_private
from pytest_decisionos.trust.trustfile import TrustFile, TrustKey

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with gate.yaml and a root; boto3 finds nothing of this machine."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("DECISIONOS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    phases = {"cutover": {"slos": ["x.json"]}}
    gate = {"version": 1, "target": TARGET.model_dump(), "phases": phases}
    (tmp_path / "configs/gate.yaml").write_text(json.dumps(gate))
    return tmp_path


def configure(**object_lock):
    text = json.dumps({"version": 1, "object_lock": {"bucket": "bucket", **object_lock}})
    Path("configs/evidence.yaml").write_text(text)


@pytest.mark.parametrize(
    ("args", "config", "says"),
    [
        ([], {}, "one of --precheck, --upload, --verify"),
        (["--precheck"], None, "configs/evidence.yaml: object_lock: does not say where to"),
        (["--precheck"], {"mode": "FOREVER"}, "object_lock.mode"),
        (["--precheck"], {"endpoint_url": "https://u:hunter2@h"}, "not an endpoint"),
        (["--precheck"], {"endpoint_url": "http://127.0.0.1:1"}, "no whole answer"),
        (["--upload", "--root", "none"], {}, "none: no such folder"),
        (["--verify", "--root", "none"], {}, "none: no such folder"),
        (["--upload", "--gate", "none.yaml"], {}, "object_lock"),
        (["--bucket", "x"], {}, "No such option"),
    ],
)
def test_unusable_is_one_line_and_exit_4(here, capsys, monkeypatch, args, config, says):
    monkeypatch.setattr("pytest_decisionos.evidence.s3.ATTEMPTS", 1)
    if config is not None:
        configure(**config)
    assert run(cli, ["evidence", "objectlock", *args]) == 4
    out, said = capsys.readouterr()
    assert (out, said.count("\n")) == ("", 1)
    assert said.startswith("error: ")
    assert says in said
    assert "hunter2" not in said
    assert not Path("none").exists()


def test_no_credentials_is_one_line(here, capsys, monkeypatch):
    configure()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert run(cli, ["evidence", "objectlock", "--precheck"]) == 4
    assert "boto3 finds no credentials" in capsys.readouterr().err


def test_help_has_an_example_and_fits(here, capsys):
    assert run(cli, ["evidence", "objectlock", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example" in text
    assert max(map(len, text.splitlines())) <= 90


@pytest.fixture
def bucket_of(here, ceph, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ceph.owner.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ceph.owner.secret_key)
    with contextlib.closing(Clients()) as clients:

        def make(**options):
            bucket = Bucket(ceph, clients, **options)
            configure(**bucket.config.model_dump())
            return bucket

        yield make


@pytest.fixture
def command(capsys):
    """Run it: exit status, and what it prints, which is readable and tells no secret."""

    def call(*args):
        status = run(cli, ["evidence", "objectlock", *args])
        out, said = capsys.readouterr()
        assert said == ""
        assert "secret" not in out
        if "--json" in args:
            return status, json.loads(out)
        assert max(map(len, out.splitlines())) <= 80
        return status, out

    return call


@pytest.fixture
def root(here):
    made = Root(here / "var")
    made.locked("1.0.0")
    made.locked("릴리스-" + "길" * 40)
    made.index()
    return made


@pytest.mark.slow
def test_precheck_upload_verify(bucket_of, root, command):
    bucket = bucket_of()
    status, table = command("--precheck")
    assert status == 0
    assert "put with lock     ok" in table
    assert "read lock         cannot tell nothing is there yet" in table
    assert table.splitlines()[-1] == f"s3://{bucket.name}: 0 in the way, 4 to look at"
    status, report = command("--precheck", "--json")
    assert (status, report["ok"], report["bucket"]) == (0, True, bucket.name)
    assert {"name": "versioning", "result": "ok", "message": "enabled"} in report["checks"]

    status, report = command("--verify", "--json")
    assert (status, report["ok"]) == (2, False)
    assert {finding["cause"] for finding in report["findings"]} == {"never_uploaded"}

    status, table = command("--upload")
    assert status == 0
    assert "index anchored with 4 entries" in table
    assert f"s3://{bucket.name}: 4 uploaded, 0 were there, 0 refused" in table
    status, report = command("--upload", "--json")
    assert (status, report["uploaded"], report["present"], report["refused"]) == (0, [], 2, [])

    status, table = command("--verify")
    assert (status, table) == (
        0,
        f"s3://{bucket.name}: 4 versions, index of 4 entries, 0 errors, 0 warnings\n",
    )


@pytest.mark.slow
def test_what_is_wrong_is_listed_and_exits_2(bucket_of, root, command):
    bucket = bucket_of()
    root.locked("9.9.9")  # not in the index
    status, table = command("--upload")
    assert status == 2
    assert table.startswith("refused   evidence/9.9.9.locked.json: is not in the index")
    bucket.put(f"{PREFIX}evidence/1.0.0.locked.json", b"forged")
    status, table = command("--verify")
    assert status == 2
    assert "error    never_uploaded  evidence/9.9.9.locked.json: was never uploaded" in table
    assert "error    not_locked" in table
    assert "warning  shadowed" in table
    assert "3 warnings" not in table
    assert table.splitlines()[-1].endswith("2 errors, 1 warnings")
    for number in range(120):
        bucket.put(f"{PREFIX}stranger-{number}")
    status, table = command("--verify")
    assert "… and 23 more: --json has all" in table
    status, report = command("--verify", "--json")
    assert (status, len(report["findings"])) == (2, 123)


@pytest.mark.slow
def test_a_bucket_without_lock_is_in_the_way(bucket_of, command):
    bucket_of(lock=False)
    status, table = command("--precheck")
    assert status == 2
    assert "object lock       no" in table
    status, report = command("--precheck", "--json")
    assert (status, report["ok"]) == (2, False)


@pytest.mark.slow
def test_the_index_key_signs_what_is_recorded(bucket_of, here, root, command, capsys, monkeypatch):
    """A signed index stays signed, and without its key nothing is uploaded behind its back."""
    for name in ("index.jsonl", "index.head.json"):
        (root.path / "evidence" / name).unlink()
    key = generate()
    (here / "keys").mkdir()
    write_private(here / "keys/index.key", key)
    update(root.path, now=now(), retention=Retention(), target=TARGET, key=key)
    bucket = bucket_of()
    assert run(cli, ["evidence", "objectlock", "--upload"]) == 2
    assert "is signed, and the key is not here" in capsys.readouterr().err
    assert bucket.versions() == []
    monkeypatch.setenv("DECISIONOS_KEYS_DIR", str(here / "keys"))
    entry = TrustKey(
        keyid=key.keyid, role="index", public_key=key.public.pem, targets=(str(TARGET),)
    )
    for number, role in enumerate(("gate", "index"), 1):
        made = TrustFile(
            version=number,
            expires=now() + timedelta(days=9),
            keys=(entry.model_copy(update={"role": role}),),
        )
        (here / "trust.json").write_text(made.model_dump_json(exclude_none=True))
        (here / "trust.json").chmod(0o600)
        if role == "gate":
            args = ["--upload", "--trust", str(here / "trust.json")]
            assert run(cli, ["evidence", "objectlock", *args]) == 2
            assert "has the role gate, not index" in capsys.readouterr().err
            assert bucket.versions() == []
    monkeypatch.setenv("DECISIONOS_TRUST", str(here / "trust.json"))
    assert command("--upload")[0] == 0
    head = parse_head((root.path / "evidence/index.head.json").read_bytes())
    assert head.keyid == key.keyid
    assert command("--verify")[0] == 0
    assert len(bucket.versions()) == 4


@pytest.mark.slow
def test_it_is_a_job_too(bucket_of, root):
    bucket = bucket_of()
    done = subprocess.run(
        [sys.executable, "-m", "jobs.evidence_objectlock", "--precheck"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert f"s3://{bucket.name}: 0 in the way" in done.stdout
