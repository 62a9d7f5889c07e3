"""dosctl keys: the whole life of a ring and of key pairs, in words and in JSON; no secret shown."""

from __future__ import annotations

import json
import os
import re
import stat
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from moto import mock_aws

from pytest_decisionos.cli.keys import _ROLES
from pytest_decisionos.cli.main import cli, run
from pytest_decisionos.trust import ed25519
from pytest_decisionos.trust.keys import USES, make_ring, ring_json
from pytest_decisionos.trust.sources import read_ring_file
from pytest_decisionos.trust.trustfile import ROLES

SECRET = "correct horse battery staple, and more"
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def entry(key_id="a", state="active", use=("request",), **more):
    return {"key_id": key_id, "secret": SECRET, "state": state, "use": list(use), **more}


SOUND = [
    *(entry(use, use=(use,)) for use in USES),
    *(entry(f"{use}-next", "grace", (use,), not_before=NOW + DAY) for use in USES),
]


@pytest.fixture
def dosctl(capsys):
    """Runs a command: status, standard output, standard error. Neither may ever show a secret."""

    def call(*args):
        status = run(cli, ["keys", *map(str, args)])
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        assert not re.search(r"\bb64:", out + err)  # a key id may end in it
        assert "Traceback" not in err
        assert len(err.splitlines()) <= 1
        return status, out, err

    return call


@pytest.fixture
def ring(tmp_path):
    """A function that writes a ring's file."""

    def write(*entries):
        path = tmp_path / "링.json"
        path.write_bytes(ring_json(make_ring(list(entries), "x")))
        path.chmod(0o600)
        return path

    return write


def unfolded(text):
    return " ".join(re.sub(r"\n {8}\| ", " ", text).split())


def narrow(text):
    return max(len(line) for line in text.splitlines()) <= 80


def changed(path, name, **values):
    entries = json.loads(path.read_bytes())
    next(one for one in entries if one["key_id"] == name).update(values)
    path.write_text(json.dumps(entries, default=str))


# The life of a ring


def test_the_life_of_a_ring(dosctl, tmp_path):
    path = tmp_path / "keys" / "ring.json"
    uses = [word for use in USES for word in ("--use", use)]
    status, out, _ = dosctl("gen", *uses, "--ring", path)
    assert status == 0
    assert out.startswith(f"ring      {str(path)[:40]}")
    assert out.count("request-20") == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [key.use for key in read_ring_file(path).keys] == [
        ("request",),
        ("evidence",),
        ("stage",),
    ]

    status, out, _ = dosctl("rotate", "--use", "stage", "--ring", path, "--overlap", "90m")
    assert status == 0
    assert "joined, verifies only" in out
    until = re.search(r"from (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", unfolded(out))[1]
    waiting = read_ring_file(path).keys[3]
    assert f"{waiting.not_before:%Y-%m-%d %H:%M:%S}" == until
    assert narrow(out.replace(str(path), ""))

    status, out, _ = dosctl("rotate", "--use", "stage", "--ring", path, "--json")
    told = json.loads(out)
    assert (status, told["changed"], told["origin"]) == (0, False, str(path))
    assert told["done"] == "too early: nothing is changed"
    assert told["next"] == f"`dosctl keys rotate --use stage` makes {waiting.key_id} sign"
    assert datetime.fromisoformat(told["at"]) == waiting.not_before

    changed(path, waiting.key_id, not_before=NOW - DAY)
    status, out, _ = dosctl("rotate", "--use", "stage", "--ring", path)
    assert status == 0
    assert f"{waiting.key_id}: signs now for stage" in unfolded(out)

    status, out, _ = dosctl("revoke", waiting.key_id, "--ring", path)
    assert status == 0
    words = unfolded(out)
    assert "revoked; verifies nothing, and nothing signs for stage now" in words
    assert "`dosctl keys rotate --use stage` makes a key sign at once" in words
    assert dosctl("check", "--ring", path)[0] == 2
    assert dosctl("rotate", "--use", "stage", "--ring", path)[0] == 0
    assert dosctl("check", "--ring", path)[0] == 0
    assert read_ring_file(path).signing("stage", datetime.now(UTC)).use == ("stage",)


def test_rotating_and_revoking_what_is_not_there(dosctl, tmp_path):
    for args in (("rotate", "--use", "request"), ("revoke", "a")):
        status, _, err = dosctl(*args, "--ring", tmp_path / "none")
        assert status == 4
        assert f"{tmp_path}/none: no ring is there → make one with `dosctl keys gen`" in err
        assert not (tmp_path / "none").exists()


def test_gen_refuses_a_second_active_key(dosctl, ring):
    path = ring(entry())
    before = path.read_bytes()
    status, _, err = dosctl("gen", "--use", "request", "--ring", path)
    assert status == 2
    assert "a key is active for request already; found a → replace it" in err
    assert path.read_bytes() == before


def test_revoke_twice_and_unknown(dosctl, ring):
    path = ring(entry(), entry("b", "grace"))
    assert dosctl("revoke", "b", "--ring", path)[0] == 0
    status, out, _ = dosctl("revoke", "b", "--ring", path, "--json")
    assert (status, json.loads(out)["changed"]) == (0, False)
    status, _, err = dosctl("revoke", "c", "--ring", path)
    assert (status, "no such key; found c" in err) == (4, True)


@pytest.mark.parametrize(
    ("text", "minutes"), [("1200s", 20), ("16m", 16), ("90m", 90), ("24h", 1440), ("7d", 10080)]
)
def test_durations(dosctl, ring, text, minutes):
    path = ring(entry())
    earliest = datetime.now(UTC) + timedelta(minutes=minutes)
    assert dosctl("rotate", "--use", "request", "--ring", path, "--overlap", text)[0] == 0
    made = read_ring_file(path).keys[1].not_before
    assert earliest <= made <= datetime.now(UTC) + timedelta(minutes=minutes, seconds=1)


@pytest.mark.parametrize(
    "text", ["", "24", "h", "1.5h", "-1h", "1 h", "24H", "1w", "１h", "1h ", "15m", "0s", "367d", "999999d", "9999999s"]
)  # fmt: skip
def test_durations_that_are_none(dosctl, ring, text):
    path = ring(entry())
    before = path.read_bytes()
    status, _, err = dosctl("rotate", "--use", "request", "--ring", path, "--overlap", text)
    assert status == 4
    assert "overlap: not a" in err
    assert path.read_bytes() == before


# Where the ring lies


def test_the_environment_names_the_ring(dosctl, ring, monkeypatch):
    path = ring(entry())
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", f"@{path}")
    assert dosctl("rotate", "--use", "request")[0] == 0
    assert len(read_ring_file(path).keys) == 2
    assert str(path) in dosctl("list")[1]
    assert dosctl("revoke", "a")[0] == 0
    assert dosctl("gen", "--use", "stage")[0] == 0
    assert [key.state for key in read_ring_file(path).keys] == ["revoked", "grace", "active"]


@pytest.mark.parametrize("name", ["DECISIONOS_JUDGE_KEYS", "DECISIONOS_JUDGE_HMAC_KEY"])
@pytest.mark.parametrize(
    "args", [("rotate", "--use", "request"), ("revoke", "a"), ("gen", "--use", "stage")]
)
def test_a_ring_in_a_variable_cannot_be_changed(dosctl, monkeypatch, name, args):
    value = SECRET if "HMAC" in name else json.dumps([entry()])
    monkeypatch.setenv(name, value)
    status, _, err = dosctl(*args)
    assert status == 4
    assert err.startswith(
        f"error: {name}: a ring in a variable cannot be changed from here → put it into"
    )
    assert os.environ[name] == value


@pytest.mark.parametrize(
    "args",
    [
        ("list",),
        ("check",),
        ("rotate", "--use", "stage"),
        ("revoke", "a"),
        ("gen", "--use", "stage"),
    ],
)
def test_no_ring_or_two(dosctl, args):
    status, out, err = dosctl(*args)
    assert (status, out) == (4, "")
    assert "no ring is configured → name it with --ring or --ssm" in err
    status, out, err = dosctl(*args, "--ring", "x", "--ssm", "/x")
    assert (status, out) == (4, "")
    assert "--ssm: two rings" in err


@pytest.mark.parametrize(
    "args",
    [
        ("list",),
        ("check",),
        ("rotate", "--use", "request"),
        ("revoke", "a"),
        ("gen", "--use", "stage"),
    ],
)
def test_a_ring_of_no_name(dosctl, tmp_path, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", "@")
    for where in ((), ("--ring", ""), ("--ring", "/")):
        status, out, _ = dosctl(*args, *where)
        assert (status, out) == (4, "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "args",
    [
        ("list",),
        ("check",),
        ("rotate", "--use", "request"),
        ("revoke", "a"),
        ("gen", "--use", "stage"),
    ],
)
def test_a_ring_that_cannot_be_used(dosctl, ring, args):
    path = ring(entry())
    path.chmod(0o644)
    status, out, err = dosctl(*args, "--ring", path)
    assert (status, out) == (4, "")
    assert "others may use this secret" in err
    path.write_text(f'[{{"secret": "{SECRET}"')
    path.chmod(0o600)
    status, out, err = dosctl(*args, "--ring", path)
    assert (status, out) == (4, "")
    assert "not JSON" in err


def test_on_ssm(dosctl, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SSM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    path = "/decisionos/judge"
    with mock_aws():
        status, out, _ = dosctl("gen", "--use", "request", "--ssm", path)
        assert (status, f"SSM {path}" in out) == (0, True)
        monkeypatch.setenv("DECISIONOS_KMS_PARAM_PATH", path)
        status, out, _ = dosctl("rotate", "--use", "request", "--json")
        assert (status, json.loads(out)["origin"]) == (0, f"SSM {path}")
        status, out, _ = dosctl("list", "--json")
        assert [one["state"] for one in json.loads(out)["keys"]] == ["active", "grace"]
        status, out, _ = dosctl("check", "--json")
        assert (status, json.loads(out)["source"]) == (2, "ssm")
        client = boto3.session.Session().client("ssm", region_name="eu-north-1")
        client.put_parameter(Name=f"{path}.lock", Value="x", Type="String")
        status, _, err = dosctl("rotate", "--use", "request")
        assert status == 2
        assert "another run changes this ring" in err
        assert f"aws ssm delete-parameter --name {path}.lock" in err
        client.close()


# Listing


def test_list(dosctl, ring):
    times = {
        "not_before": datetime(2026, 1, 5, 9, tzinfo=UTC),
        "not_after": datetime(2026, 2, 5, 9, 30, tzinfo=UTC),
    }
    path = ring(
        entry("evidence-20260105-1a2b3c", use=("evidence",), **times),
        entry("x" * 64, "grace", ()),
        entry("all", "revoked", USES),
    )
    status, out, _ = dosctl("list", "--ring", path)
    assert status == 0
    assert out.splitlines()[:-1] == [
        "key_id                    state    use       not_before UTC    not_after UTC",
        "evidence-20260105-1a2b3c  active   evidence  2026-01-05 09:00  2026-02-05 09:30",
        "xxxxxxxxxxxxxxxxxxxxxxx   grace    every     –                 –",
        "|xxxxxxxxxxxxxxxxxxxxxxx",
        "|xxxxxxxxxxxxxxxxxx",
        "all                       revoked  request   –                 –",
        "|                                  evidence",
        "|                                  stage",
    ]
    assert out.splitlines()[-1] == f"→ {path}"
    assert max(map(len, out.splitlines()[:-1])) <= 80


EDGES = [
    ("not_after", "9999-12-31T23:59:59-14:00"),
    ("not_before", "0001-01-01T00:00:00+14:00"),
]


@pytest.mark.parametrize(("name", "time"), EDGES)
def test_a_time_of_a_year_that_utc_has_not(dosctl, ring, name, time):
    path = ring(entry(), entry("b", "grace", **{name: datetime.fromisoformat(time)}))
    status, out, _ = dosctl("list", "--ring", path)
    assert (status, time[:16] in out) == (0, True)
    for command in (["check"], ["rotate", "--use", "request"], ["list", "--json"]):
        assert dosctl(*command, "--ring", path)[0] in {0, 2}
    if name == "not_after":
        status, out, _ = dosctl("rotate", "--use", "request", "--ring", path)
        assert time in out


def test_list_as_json(dosctl, ring):
    path = ring(entry(not_before=datetime(2026, 1, 5, 9, tzinfo=UTC)))
    status, out, _ = dosctl("list", "--ring", path, "--json")
    assert status == 0
    assert json.loads(out) == {
        "origin": str(path),
        "keys": [
            {"key_id": "a", "state": "active", "use": ["request"], "not_before": "2026-01-05T09:00:00Z", "not_after": None}
        ],
    }  # fmt: skip


# Checking


def test_check_of_a_sound_ring(dosctl, ring):
    path = ring(*SOUND)
    for more in ((), ("--strict",)):
        status, out, _ = dosctl("check", "--ring", path, *more)
        assert status == 0
        assert out.splitlines() == [
            f"ring      {path} (file)",
            "request   request signs",
            "evidence  evidence signs",
            "stage     stage signs",
        ]


def test_check_warns_and_strict_fails(dosctl, monkeypatch):
    monkeypatch.setenv("DECISIONOS_JUDGE_HMAC_KEY", SECRET)
    status, out, _ = dosctl("check")
    assert status == 0
    assert out.startswith("ring      DECISIONOS_JUDGE_HMAC_KEY (variable)\n")
    assert out.count("warning   ") == 5
    assert narrow(out)
    assert "every child process" in out
    assert "default serves every use" in out
    assert dosctl("check", "--strict")[0] == 2


def test_check_finds_a_use_without_key(dosctl, ring):
    path = ring(*SOUND)
    changed(path, "stage", not_after=NOW - DAY)
    changed(path, "evidence", state="revoked")
    status, out, _ = dosctl("check", "--ring", path)
    assert status == 2
    assert "evidence  FAULT: no key is active for evidence\n" in out
    assert "stage     FAULT: the active key of stage was valid only until" in out
    assert narrow(out.replace(str(path), ""))
    status, out, _ = dosctl("check", "--ring", path, "--json")
    told = json.loads(out)
    assert status == 2
    assert told["signing"] == {"request": "request"}
    assert list(told["faults"]) == ["evidence", "stage"]
    assert (told["origin"], told["source"], told["warnings"]) == (str(path), "file", [])


# Ed25519


@pytest.mark.parametrize(
    ("args", "name"),
    [(("--role", role), role) for role in ROLES if role != "judge"] + [(("--role", "judge", "--judge", "w-1"), "judge-w-1")],
)  # fmt: skip
def test_gen_of_a_pair(dosctl, tmp_path, args, name):
    folder = tmp_path / "열쇠"
    status, out, _ = dosctl("gen", *args, "--keys", folder)
    assert status == 0
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    assert sorted(os.listdir(folder)) == [private.name, public.name]
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    keyid = ed25519.load_private(private).keyid
    assert ed25519.load_public(public).keyid == keyid
    assert out.splitlines()[:3] == [f"keyid {keyid}", f"→ {private}", f"→ {public}"]
    assert "PRIVATE" not in out
    before = private.read_bytes()
    status, _, err = dosctl("gen", *args, "--keys", folder)
    assert (status, "never overwritten" in err) == (4, True)
    assert private.read_bytes() == before


def test_gen_of_a_pair_elsewhere(dosctl, tmp_path, monkeypatch):
    monkeypatch.setenv("DECISIONOS_KEYS_DIR", str(tmp_path / "dir"))
    assert dosctl("gen", "--role", "gate")[0] == 0
    assert (tmp_path / "dir" / "gate.key").exists()
    status, out, _ = dosctl("gen", "--role", "index", "--out", tmp_path / "x.key", "--json")
    told = json.loads(out)
    assert (status, told["role"]) == (0, "index")
    assert told["private"] == str(tmp_path / "x.key")
    assert told["keyid"] == ed25519.load_public(tmp_path / "x.pub").keyid
    assert told["public"] == str(tmp_path / "x.pub")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "say which key: --use for an HMAC key, or --role"),
        (("--use", "stage", "--role", "gate"), "say which key"),
        (("--role", "gate"), "no place for the key → name a folder with --keys"),
        (("--role", "gate", "--ring", "x"), "an Ed25519 key is in no ring"),
        (("--role", "gate", "--ssm", "/x"), "an Ed25519 key is in no ring"),
        (("--role", "root", "--keys", "."), "no such role"),
        (("--role", "judge", "--keys", "."), "a judge is named for the role judge"),
        (("--role", "gate", "--judge", "w", "--keys", "."), "a judge is named for the role judge"),
        (("--role", "judge", "--judge", "../w", "--keys", "."), "no name of a judge"),
        (("--role", "gate", "--out", ""), "--out: not a file name"),
        (("--role", "gate", "--out", "/"), "--out: not a file name"),
        (("--use", "stage", "--ring", ""), "not a file name"),
        (("--use", "stage", "--ring", "."), "not a file name"),
        (("--use", "stage", "--ring", "/"), "not a file name"),
        (("--use", "stage", "--judge", "w"), "are for --role"),
        (("--use", "stage", "--out", "x"), "are for --role"),
        (("--use", "stage", "--keys", "x"), "are for --role"),
        (("--use", "sign", "--ring", "x"), "'sign' is not one of"),
    ],
)
def test_gen_of_nothing(dosctl, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    status, out, err = dosctl("gen", *args)
    assert (status, out) == (4, "")
    assert says in err
    assert os.listdir(tmp_path) == []


def test_the_help_names_every_role():
    assert _ROLES.split("|") == list(ROLES)


@pytest.mark.parametrize("command", [(), ("list",), ("check",), ("gen",), ("rotate",), ("revoke",)])
def test_help_has_an_example(dosctl, command):
    status, out, _ = dosctl(*command, "--help")
    assert status == 0
    assert "Example:\n" in out
    assert "dosctl keys" in out.partition("Example:")[2]
