"""dosctl trust: every change is a new version with a digest to pin; every fault is one line."""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from seeded import from_seed

from pytest_decisionos.cli.main import cli, run
from pytest_decisionos.trust.trust_load import read_trust

KEYS = [from_seed(bytes([seed]) * 32).public for seed in range(1, 9)]
GATE = ("--key", "0.pub", "--role", "gate", "--target", "checkout/production/*/*")
JUDGE = ("--key", "1.pub", "--role", "judge", "--judge", "peer", "--target", "*/*/*/*")


@pytest.fixture
def dosctl(tmp_path, monkeypatch, capsys):
    """A function that runs ``dosctl trust …`` in a folder with public keys; gives status, out, err."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECISIONOS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "80")
    for number, key in enumerate(KEYS):
        (tmp_path / f"{number}.pub").write_text(key.pem)

    def call(*args):
        status = run(cli, ["trust", *map(str, args)])
        told = capsys.readouterr()
        if status:
            assert told.out == ""
            assert told.err.startswith("error: ")
            assert len(told.err.splitlines()) == 1
        return status, told.out, told.err

    call.path = tmp_path / "trust.json"
    return call


@pytest.fixture
def ready(dosctl):
    """The same, with a trust file of version 3."""
    assert (
        dosctl("init", "--out", "trust.json", "--expires", "365d", "--min-k", 2, "--min-n", 3)[0]
        == 0
    )
    assert dosctl("add", "trust.json", *GATE)[0] == 0
    assert dosctl("add", "trust.json", *JUDGE, "--not-after", "2099-01-01T09:00:00+09:00")[0] == 0
    return dosctl


def test_init(dosctl):
    status, out, _ = dosctl("init", "--out", "trust.json", "--expires", "365d", "--min-remote", 0)
    assert status == 0
    trust, digest = read_trust(dosctl.path)
    assert (trust.version, trust.keys, trust.policy_sha256) == (1, (), ())
    assert timedelta(days=364) < trust.expires - datetime.now(UTC) <= timedelta(days=365)
    expires = trust.expires.isoformat().replace("+00:00", "Z")
    assert out == f"trust.json: version 1, expires {expires}\nDECISIONOS_TRUST_SHA256={digest}\n"
    assert digest == hashlib.sha256(dosctl.path.read_bytes()).hexdigest()
    before = dosctl.path.read_bytes()
    status, _, err = dosctl("init", "--out", "trust.json", "--expires", "9d")
    assert (status, dosctl.path.read_bytes()) == (4, before)
    assert "never overwritten" in err


def test_changes_tell_version_and_digest(ready):
    version = 3
    digest = "a" * 64
    seen = {read_trust(ready.path).sha256}
    for args in (
        ("add", "--policy", digest),
        ("add", "--policy", "any"),
        ("revoke", "--policy", "any"),
        ("revoke", "--key", KEYS[0].keyid[:8]),
        ("renew", "--expires", "2099-01-01T00:00:00+09:00"),
        ("renew", "--expires", "30d", "--min-k", 3, "--min-n", 4, "--min-remote", 1),
        (
            "add",
            "--key",
            "2.pub",
            "--role",
            "index",
            "--target",
            "a/b/c/d",
            "--target",
            "결제/*/*/*",
        ),
    ):
        version += 1
        status, out, _ = ready(args[0], "trust.json", *args[1:])
        assert status == 0
        trust, pin = read_trust(ready.path)
        assert trust.version == version
        assert f"trust.json: version {version}, expires " in out
        assert out.endswith(f"\nDECISIONOS_TRUST_SHA256={pin}\n")
        assert pin not in seen
        seen.add(pin)
        # What was written is what every verifier loads, and it is no rollback.
        assert ready("verify", "trust.json")[0] == 0
    assert trust.policy_sha256 == (digest,)
    assert (trust.min_k, trust.min_n, trust.min_remote) == (3, 4, 1)
    assert [(key.role, key.judge, key.revoked) for key in trust.keys] == [
        ("gate", None, True),
        ("judge", "peer", False),
        ("index", None, False),
    ]
    assert trust.keys[2].targets == ("a/b/c/d", "결제/*/*/*")
    assert trust.keys[2].public_key == KEYS[2].pem


def test_every_change_as_json(ready):
    for args in (
        ("add", "--policy", "any"),
        ("revoke", "--policy", "any"),
        ("renew", "--expires", "9d"),
    ):
        _, out, _ = ready(args[0], "trust.json", *args[1:], "--json")
        trust, digest = read_trust(ready.path)
        expires = trust.expires.isoformat()
        told = {
            "file": "trust.json",
            "version": trust.version,
            "expires": expires,
            "sha256": digest,
        }
        assert json.loads(out) == told
    _, out, _ = ready("init", "--out", "other.json", "--expires", "9d", "--json")
    assert json.loads(out)["version"] == 1


def test_the_file_is_the_one_of_the_environment(ready, monkeypatch):
    monkeypatch.setenv("DECISIONOS_TRUST", str(ready.path))
    for args in (("show",), ("verify",), ("renew", "--expires", "9d"), ("add", "--policy", "any"),
                 ("revoke", "--policy", "any")):  # fmt: skip
        assert ready(*args)[0] == 0, args
    assert read_trust(ready.path).trust.version == 6
    monkeypatch.delenv("DECISIONOS_TRUST")
    assert (
        ready("show")[2]
        == "error: FILE: no trust file is known → name it, or export DECISIONOS_TRUST\n"
    )


# What is refused


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("add", *GATE), "is in the trust file already; found role gate"),
        (("add", *GATE[:-4], "--role", "index", "--target", "a/b/c/d"), "one key is one voice"),
        (("add", "--key", "2.pub", "--role", "root", "--target", "a/b/c/d"), "--role: no such role; found root; expected gate, judge"),
        (("add", "--key", "2.pub", "--role", "judge", "--target", "a/b/c/d"), "the name of the judge"),
        (("add", "--key", "2.pub", "--role", "gate", "--judge", "x", "--target", "a/b/c/d"), "the name of the judge"),
        (("add", "--key", "2.pub", "--role", "judge", "--judge", "X", "--target", "a/b/c/d"), "judge: "),
        (("add", "--key", "2.pub", "--target", "a/b/c/d"), "--role: missing"),
        (("add", "--key", "2.pub", "--role", "gate"), "--target: missing"),
        (("add", "--key", "2.pub", "--role", "gate", "--target", "a/b"), "not globs of service/environment"),
        (("add", "--key", "2.pub", "--role", "gate", "--target", ""), "not globs of service/environment"),
        (("add", "--key", "none.pub", "--role", "gate", "--target", "a/b/c/d"), "none.pub: no such file"),
        (("add", "--key", "trust.json", "--role", "gate", "--target", "a/b/c/d"), "not an Ed25519 public key"),
        (("add", *JUDGE[:1], "2.pub", *JUDGE[2:], "--not-before", "today"), "--not-before: not a time"),
        (("add", *JUDGE[:1], "2.pub", *JUDGE[2:], "--not-after", "2030-01-01"), "--not-after: not a time"),
        (
            ("add", "--key", "2.pub", *GATE[2:], "--not-before", "2030-01-02T00:00:00Z", "--not-after",
             "2030-01-01T00:00:00Z"),
            "not_before is not before not_after",
        ),
        (("add",), "one thing at a time; expected either --key or --policy"),
        (("add", *GATE, "--policy", "any"), "one thing at a time"),
        (("add", "--policy", "any", "--role", "gate"), "--role: is about a key, not about a policy"),
        (("add", "--policy", "any", "--target", "a/b/c/d"), "--target: is about a key"),
        (("add", "--policy", "*"), "not a SHA-256; found *; expected 64 digits 0-9a-f, or any"),
        (("add", "--policy", "A" * 64), "not a SHA-256"),
        (("revoke",), "one thing at a time"),
        (("revoke", "--key", KEYS[0].keyid, "--policy", "any"), "one thing at a time"),
        (("revoke", "--key", KEYS[5].keyid), "no such key"),
        (("revoke", "--key", KEYS[0].keyid[:7]), "too short"),
        (("revoke", "--key", ""), "several keys"),
        (("revoke", "--policy", "any"), "policy: is not in the trust file"),
        (("revoke", "--policy", ""), "not a SHA-256"),
        (("renew",), "nothing to renew"),
        (("renew", "--expires", "365"), "--expires: not a time to come; found 365"),
        (("renew", "--expires", "0d"), "--expires: is not to come"),
        (("renew", "--expires", "-1d"), "--expires: not a time to come"),
        (("renew", "--expires", "99999d"), "--expires: not a time to come"),
        (("renew", "--expires", "2020-01-01T00:00:00Z"), "--expires: is not to come"),
        (("renew", "--expires", "2099-01-01"), "--expires: not a time to come"),
        (("renew", "--min-k", "4"), "min_k is more than min_n"),
        (("renew", "--min-n", "0"), "0 is not in the range"),
        (("renew", "--min-n", "many"), "not a valid integer"),
    ],
)  # fmt: skip
def test_refused_in_one_line(ready, args, says):
    before = ready.path.read_bytes()
    status, _, err = ready(args[0], "trust.json", *args[1:])
    assert status == 4
    assert says in err
    assert ready.path.read_bytes() == before


def test_a_key_is_revoked_once_and_stays_revoked(ready):
    assert ready("revoke", "trust.json", "--key", KEYS[0].keyid)[0] == 0
    assert "is revoked already" in ready("revoke", "trust.json", "--key", KEYS[0].keyid)[2]
    assert "is in the trust file already, revoked" in ready("add", "trust.json", *GATE)[2]


@pytest.mark.parametrize("command", ["show", "verify", "add", "revoke", "renew"])
@pytest.mark.parametrize(
    ("text", "says"), [(None, "no such file|No such file"), ("{}", "missing"), ("[", "not JSON")]
)
def test_what_is_no_trust_file(dosctl, command, text, says):
    if text is not None:
        dosctl.path.write_text(text)
    more = {"show": (), "verify": (), "renew": ("--expires", "9d")}.get(
        command, ("--policy", "any")
    )
    status, _, err = dosctl(command, "trust.json", *more)
    assert status == 4
    assert re.search(says, err)


def test_what_another_writer_holds_is_exit_2(ready, monkeypatch):
    from pytest_decisionos.trust import trust_change

    was = trust_change.read_trust(ready.path)
    assert ready("renew", "trust.json", "--expires", "9d")[0] == 0
    monkeypatch.setattr("pytest_decisionos.trust.trust_load.read_trust", lambda _: was)
    status, _, err = ready("add", "trust.json", "--policy", "any")
    assert status == 2
    assert "was changed meanwhile → run it again" in err


# show


def test_show(ready):
    ready("add", "trust.json", "--policy", "a" * 64)
    ready("revoke", "trust.json", "--key", KEYS[0].keyid)
    long = ("--target", f"{'서비스' * 30}/*/*/*", "--not-before", "2029-01-01T00:00:00Z")
    odd = ("--target", "[red]x/b/\u202e31m/d")
    assert (
        ready("add", "trust.json", "--key", "2.pub", "--role", "deploy-owner", *long, *odd)[0] == 0
    )
    _, out, _ = ready("show", "trust.json")
    lines = out.splitlines()
    assert lines[0].startswith("trust.json: version 6, expires 20")
    assert lines[1:4] == [
        f"DECISIONOS_TRUST_SHA256={read_trust(ready.path).sha256}",
        "quorum: at least 2/3, 0 remote",
        "policy: " + "a" * 64,
    ]
    assert lines[4].split() == ["key", "role", "targets", "valid"]
    assert lines[5].split() == [KEYS[0].keyid[:12], "gate", "checkout/production/*/*", "revoked"]
    assert lines[6].split()[:4] == [KEYS[1].keyid[:12], "judge", "peer", "*/*/*/*"]
    assert "until" in out and "2099-01-01T09:00:00+09:00" in out  # noqa: PT018 - one cell
    assert "\u202e" not in out
    assert "[red]x/b/\\u202e31m/d" in out
    assert lines[-1] == "keys: 3"
    wide = [line for line in lines[2:] if sum(2 if "가" <= c <= "힣" else 1 for c in line) > 80]
    assert wide == []


def test_show_of_an_empty_one(dosctl):
    dosctl("init", "--out", "trust.json", "--expires", "9d")
    assert dosctl("show", "trust.json")[1].endswith("policy: none\nkeys: 0\n")


def test_show_as_json(ready):
    _, out, _ = ready("show", "trust.json", "--json")
    told = json.loads(out)
    assert told["sha256"] == read_trust(ready.path).sha256
    assert {name: told[name] for name in ("version", "min_k", "min_n")} == {
        "version": 3,
        "min_k": 2,
        "min_n": 3,
    }
    assert [key["keyid"] for key in told["keys"]] == [KEYS[0].keyid, KEYS[1].keyid]
    assert told["keys"][1]["judge"] == "peer"


def test_show_believes_nothing(ready):
    assert ready("verify", "trust.json")[0] == 0
    document = json.loads(ready.path.read_text()) | {
        "version": 1,
        "expires": "2020-01-01T00:00:00Z",
    }
    ready.path.write_text(json.dumps(document))
    ready.path.chmod(0o666)
    assert "version 1, expires 2020-01-01T00:00:00Z" in ready("show", "trust.json")[1]
    assert ready("verify", "trust.json")[0] == 4


# verify


def test_verify_warns(ready):
    ready("add", "trust.json", "--policy", "any")
    ready("renew", "trust.json", "--expires", "9d")
    status, out, _ = ready("verify", "trust.json")
    assert status == 0
    assert out.splitlines()[0].startswith("trust.json: version 5, expires ")
    assert out.splitlines()[2:] == [
        "warning   expires in 8 days: renew it",
        "warning   no key that counts now has the role index",
        "warning   no key that counts now has the role operator",
        "warning   no key that counts now has the role deploy-owner",
        "warning   judges with a key: 1, and min_n asks for 3",
        "warning   any policy is allowed: whoever writes SLO files decides",
        f"warning   key {KEYS[1].keyid[:12]}… (peer) counts for every target",
        "may be believed, unpinned; warnings: 7",
    ]
    told = json.loads(ready("verify", "trust.json", "--json")[1])
    assert told["pinned"] is False
    assert len(told["warnings"]) == 7
    assert (told["version"], told["sha256"]) == (5, read_trust(ready.path).sha256)


def test_verify_without_a_warning(dosctl):
    dosctl("init", "--out", "trust.json", "--expires", "90d")
    for number, role in enumerate(("gate", "index", "operator", "deploy-owner")):
        dosctl("add", "trust.json", "--key", f"{number}.pub", "--role", role, "--target", "a/b/*/*")
    dosctl("add", "trust.json", "--key", "4.pub", *JUDGE[2:6], "--target", "a/b/*/*")
    dosctl("add", "trust.json", "--policy", "a" * 64)
    assert dosctl("verify", "trust.json")[1].endswith("\nmay be believed, unpinned; warnings: 0\n")


def test_verify_of_a_pinned_one(ready, tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    digest = read_trust(ready.path).sha256
    status, _, err = ready("verify", "trust.json")
    assert status == 4
    assert "lies inside the checkout" in err
    assert err.endswith(f"export DECISIONOS_TRUST_SHA256={digest}\n")
    monkeypatch.setenv("DECISIONOS_TRUST_SHA256", digest)
    assert "may be believed, by its pin" in ready("verify", "trust.json")[1]
    assert json.loads(ready("verify", "trust.json", "--json")[1])["pinned"] is True
    ready("renew", "trust.json", "--expires", "9d")
    assert "not the trust file that is pinned" in ready("verify", "trust.json")[2]


def test_verify_notices_an_older_one(ready):
    before = ready.path.read_bytes()
    ready("renew", "trust.json", "--expires", "9d")
    assert ready("verify", "trust.json")[0] == 0
    ready.path.write_bytes(before)
    status, _, err = ready("verify", "trust.json")
    assert status == 4
    assert "rolled back: this host has seen a later version; found version 3" in err


# help


@pytest.mark.parametrize(
    "command", [(), ("init",), ("add",), ("revoke",), ("renew",), ("show",), ("verify",)]
)
def test_help_has_an_example(dosctl, command):
    status, out, _ = dosctl(*command, "--help")
    assert status == 0
    assert "Example" in out
    assert "dosctl trust" in out.split("Example")[1]
    assert max(map(len, out.splitlines())) <= 90


def test_as_a_process(project):
    result = project.dosctl(
        "trust", "init", "--out", "trust.json", "--expires", "1d", "--min-k", "2"
    )
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr == "error: trust.json: min_k is more than min_n\n"
    assert project.dosctl("trust", "init", "--out", "trust.json", "--expires", "1d").returncode == 0
