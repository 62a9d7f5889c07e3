"""A trust file is believed if it is the pinned one, or no older than what was seen; else it says why."""

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from seeded import from_seed

from pytest_decisionos.errors import RefusedError, TrustError, UsageError
from pytest_decisionos.trust import trust_load
from pytest_decisionos.trust.trust_change import (
    doubts,
    first,
    new_key,
    with_key,
    with_policy,
    without_key,
    without_policy,
    write_first,
    write_next,
)
from pytest_decisionos.trust.trust_load import load_trust, read_trust, verify_trust
from pytest_decisionos.trust.trustfile import TrustFile

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
KEYS = [from_seed(bytes([seed]) * 32).public for seed in range(1, 12)]
ANYWHERE = ("checkout/production/*/*",)


def entry(key, role="gate", **more):
    fields = {"keyid": key.keyid, "role": role, "public_key": key.pem, "targets": list(ANYWHERE)}
    return {**fields, **more}


class Place:
    """A trust file at /etc, so to speak, a checkout, and what the host remembers."""

    def __init__(self, root):
        self.etc, self.checkout, self.state = (root / name for name in ("etc", "repo", "state"))
        for folder in (self.etc, self.checkout / ".git"):
            folder.mkdir(parents=True)
        self.path = self.etc / "trust.json"
        self.write()

    def write(self, path=None, version=5, mode=0o644, **more):
        path = path or self.path
        fields = {"version": version, "expires": "2031-01-01T00:00:00Z"}
        fields |= {"keys": [entry(KEYS[0])], **more}
        path.write_text(json.dumps(fields))
        path.chmod(mode)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def load(self, path=None, now=NOW, **more):
        more = {"state_dir": self.state, "checkout": self.checkout, **more}
        return load_trust(path or self.path, now=now, **more)

    def refusal(self, *args, **more):
        with pytest.raises(TrustError) as caught:
            self.load(*args, **more)
        assert str(caught.value).isprintable()
        return caught.value


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_it_loads(place):
    trust = place.load()
    assert (trust.version, trust.keys[0].keyid) == (5, KEYS[0].keyid)
    assert place.load() == trust
    place.write(version=6)
    assert place.load().version == 6
    loaded = verify_trust(place.path, now=NOW, state_dir=place.state, checkout=place.checkout)
    assert loaded.sha256 == hashlib.sha256(place.path.read_bytes()).hexdigest()


# Rollback


def test_an_older_one_is_rolled_back(place):
    place.load()
    place.write(version=4)
    fault = place.refusal()
    assert fault.what == "rolled back: this host has seen a later version"
    assert fault.found == "version 4"
    assert fault.expected == "version 5 or later"
    (memory,) = place.state.glob("*.json")
    assert f"remove {memory}" in fault.next_step
    memory.unlink()  # as it says
    assert place.load().version == 4


def test_other_bytes_under_the_same_version_are_refused(place):
    place.load()
    place.path.write_bytes(place.path.read_bytes() + b"\n")
    fault = place.refusal()
    assert fault.what.startswith("changed without a new version")
    assert fault.expected == "version 6 or later"
    place.write(version=6)
    assert place.load().version == 6


def test_another_name_of_the_file_remembers_too(place):
    place.load()
    place.write(version=4)
    (place.etc / "link").symlink_to("trust.json")
    (place.etc / "folder").symlink_to(place.etc)
    for other in (
        place.etc / "link",
        place.etc / "folder/trust.json",
        place.etc / "../etc/trust.json",
    ):
        assert place.refusal(other).what.startswith("rolled back")


def test_a_link_that_is_turned_to_an_older_file_is_rolled_back(place):
    for version in (4, 5):
        place.write(place.etc / f"v{version}.json", version=version)
    link = place.etc / "current"
    link.symlink_to("v5.json")
    assert place.load(link).version == 5
    link.unlink()
    link.symlink_to("v4.json")
    assert place.refusal(link).what.startswith("rolled back")
    assert place.load(place.etc / "v4.json").version == 4  # nobody saw more of this one


def test_what_is_refused_is_not_remembered(place):
    place.write(version=9, expires="2029-01-01T00:00:00Z")
    place.refusal()
    place.write(version=5)
    assert place.load().version == 5


def spoilt_memory(place):
    (file,) = place.state.glob("*.json")
    file.write_text("{}")


MEMORIES = {
    "broken": spoilt_memory,
    "others may write it": lambda place: place.state.chmod(0o777),
    "a file in its place": lambda place: (
        place.state.rename(place.etc / "x") and place.state.touch()
    ),
}


@pytest.mark.parametrize("spoil", MEMORIES.values(), ids=MEMORIES)
def test_without_a_memory_nothing_is_believed(place, spoil):
    place.load()
    spoil(place)
    place.write(version=6)
    fault = place.refusal()
    assert fault.what.startswith("no telling whether it was rolled back: ")
    assert "DECISIONOS_TRUST_SHA256" in fault.next_step


def test_a_memory_that_another_process_holds(place, monkeypatch):
    def busy(*_):
        raise RefusedError("another writer has it since more than 30 s")

    monkeypatch.setattr(trust_load, "remember", busy)
    assert "another writer has it" in place.refusal().what


def test_the_default_memory(place, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(place.state))
    place.load(state_dir=None)
    assert len(list((place.state / "decisionos").glob("*.json"))) == 1
    place.write(version=1)
    assert place.refusal(state_dir=None).what.startswith("rolled back")


# Expiry


def test_expired(place):
    at = datetime(2031, 1, 1, tzinfo=UTC)
    place.load(now=at)
    fault = place.refusal(now=at + timedelta(microseconds=1))
    assert (fault.what, fault.field) == ("expired", "expires")
    assert fault.found == "2031-01-01T00:00:00+00:00"
    assert "renew" in fault.next_step
    pin = place.write()
    assert place.refusal(now=at + DAY, sha256_pin=pin).what == "expired"


# Who may write it, and where it lies


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o620])
def test_a_file_that_others_may_write(place, mode):
    pin = place.write(mode=mode)
    fault = place.refusal()
    assert fault.what == "others may write this file"
    assert f"mode {mode:04o}" in fault.found
    # Of a pinned one the bytes are believed: a checkout's files are often like this.
    assert place.load(sha256_pin=pin).version == 5


def test_a_file_of_somebody_else(place, monkeypatch):
    if os.geteuid() == 0:
        os.chown(place.path, 12_345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    assert place.refusal().what == "others may write this file"


def inside(place):
    place.write(place.checkout / "trust.json")
    return place.checkout / "trust.json"


def link_into_the_checkout(place):
    link = place.etc / "link"
    link.symlink_to(inside(place))
    return link


def link_in_the_checkout(place):
    link = place.checkout / "link"
    link.symlink_to(place.path)
    return link


def through_the_checkout(place):
    (place.checkout / "folder").symlink_to(place.etc)
    (place.etc / "first").symlink_to(place.checkout / "folder")
    return place.etc / "first/trust.json"


def by_another_name_of_the_checkout(place):
    (place.etc / "same").symlink_to("../repo")
    inside(place)
    return place.etc / "same/trust.json"


INSIDE = {
    "inside": inside,
    "deep inside": lambda place: inside(place).parent / ".git/../trust.json",
    "a link to it": link_into_the_checkout,
    "a link in it": link_in_the_checkout,
    "a way through it": through_the_checkout,
    "another name of it": by_another_name_of_the_checkout,
}


@pytest.mark.parametrize("at", INSIDE.values(), ids=INSIDE)
def test_what_a_checkout_could_change_must_be_pinned(place, at):
    path = at(place)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    fault = place.refusal(path)
    assert fault.what == "lies inside the checkout, whose code could change it"
    assert fault.next_step.endswith(f"export DECISIONOS_TRUST_SHA256={digest}")
    assert not place.state.exists()
    assert place.load(path, sha256_pin=digest).version == 5
    assert not place.state.exists()  # a pin needs no memory


def test_the_checkout_is_the_nearest_folder_with_git(place, monkeypatch):
    (place.checkout / "a/b").mkdir(parents=True)
    for here, found in (("a/b", True), (".", True), (".git", True), ("../etc", False)):
        monkeypatch.chdir(place.checkout / here)
        path = inside(place)
        if found:
            assert place.refusal(path, checkout=None).what.startswith("lies inside the checkout")
        else:
            assert place.load(path, checkout=None).version == 5
    (place.checkout / "a/.git").write_text("gitdir: elsewhere")  # a worktree, or a submodule
    monkeypatch.chdir(place.checkout / "a/b")
    assert place.load(inside(place), checkout=None).version == 5
    monkeypatch.chdir(place.checkout)
    assert place.refusal(Path("trust.json"), checkout=None).what.startswith("lies inside")


def test_a_checkout_that_is_gone(place, monkeypatch):
    assert place.refusal(checkout=place.etc / "none").what.startswith("no telling where it lies")
    (place.etc / "gone").mkdir()
    monkeypatch.chdir(place.etc / "gone")
    os.rmdir(place.etc / "gone")
    assert place.refusal(checkout=None).what.startswith("no telling where it lies")
    assert place.refusal(Path("trust.json")).what.startswith("cannot be read")


# What is no trust file at all


def loop(place):
    place.path.unlink()
    place.path.symlink_to("trust.json")


def fifo(place):
    place.path.unlink()
    os.mkfifo(place.path)


def folder(place):
    place.path.unlink()
    place.path.mkdir()


NONE = {
    "missing": (lambda place: place.path.unlink(), "No such file|no such file"),
    "a folder": (folder, "not a regular file"),
    "a pipe": (fifo, "not a regular file"),
    "a loop": (loop, "too many links|cannot be read|no such file"),
    "large": (lambda place: place.path.write_bytes(b" " * 2**20 + b"{}"), "too large"),
    "empty": (lambda place: place.path.write_bytes(b""), "empty file"),
    "no JSON": (lambda place: place.path.write_bytes(b"{"), "not JSON"),
    "a list": (lambda place: place.path.write_bytes(b"[]"), "not an object"),
    "null": (lambda place: place.path.write_bytes(b"null"), "nothing in it"),
    "not UTF-8": (lambda place: place.path.write_bytes(b'{"\xff": 1}'), "not UTF-8"),
    "a key twice": (
        lambda place: place.path.write_bytes(b'{"version": 1, "version": 2}'),
        "duplicate key 'version'",
    ),
    "NaN": (lambda place: place.path.write_bytes(b'{"version": NaN}'), "not finite"),
    "deep": (lambda place: place.path.write_bytes(b"[" * 9999), "nested deeper|not JSON"),
    "no version": (
        lambda place: place.path.write_text('{"expires": "2031-01-01T00:00:00Z"}'),
        "missing",
    ),
    "an unknown field": (lambda place: place.write(min_m=1), "unknown field"),
    "a key twice over": (lambda place: place.write(keys=[entry(KEYS[0])] * 2), "stands twice"),
    "a judge without name": (
        lambda place: place.write(keys=[entry(KEYS[0], "judge")]),
        "name of the judge",
    ),
}


@pytest.mark.parametrize(("change", "says"), NONE.values(), ids=NONE)
@pytest.mark.parametrize("pinned", [False, True])
def test_no_trust_file(place, change, says, pinned):
    change(place)
    pin = ""
    if pinned:
        pin = hashlib.sha256(place.path.read_bytes() if place.path.is_file() else b"").hexdigest()
    with pytest.raises(TrustError, match=says):
        place.load(sha256_pin=pin)


def test_a_name_that_is_none(place):
    assert place.refusal(Path("a\0b")).what == "cannot be read: not a file name"


def test_faults_are_named_with_file_line_and_nearest_name(place):
    document = {"version": 1, "expires": "2031-01-01T00:00:00Z", "min_m": 1}
    place.path.write_text(json.dumps(document, indent=1))
    fault = place.refusal()
    assert (fault.file, fault.line, fault.field) == (str(place.path), 4, "min_m")
    assert fault.next_step in {"did you mean min_k?", "did you mean min_n?"}


# The pin


def test_only_the_pinned_bytes_are_believed(place):
    pin = place.write()
    for spelling in (pin, pin.upper()):
        assert place.load(sha256_pin=spelling, state_dir=place.etc / "trust.json").version == 5
    for other in (pin[:-1] + ("0" if pin[-1] != "0" else "1"), "0" * 64):
        fault = place.refusal(sha256_pin=other)
        assert fault.what == "not the trust file that is pinned"
        assert (fault.found, fault.expected) == (pin, other)
    for wrong in (" ", pin[:-1], pin + "\n", pin + "0", "x" * 64, "*", f"sha256:{pin}"):
        fault = place.refusal(sha256_pin=wrong)
        assert (fault.what, fault.file) == ("not a SHA-256", "DECISIONOS_TRUST_SHA256")


def test_the_order_of_what_is_refused(place):
    # Everything is wrong; each mend uncovers the next refusal.
    path = inside(place)
    place.load()
    for version in (4, 5):
        place.write(version=version)
    path.write_text("{")
    path.chmod(0o666)
    late = datetime(2032, 1, 1, tzinfo=UTC)
    assert place.refusal(path, late, sha256_pin="0" * 64).what.startswith("not the trust file")
    assert place.refusal(path, late).what.startswith("others may write")
    path.chmod(0o644)
    assert place.refusal(path, late).what.startswith("not JSON")
    place.write(path, version=4)
    assert place.refusal(path, late).what.startswith("lies inside")
    place.write(version=4)
    assert place.refusal(None, late).what == "expired"
    assert place.refusal().what.startswith("rolled back")


# Every bit


def flipped(path):
    """Flip each bit of the file in turn, in place: to write it anew each time takes minutes."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        for offset, byte in enumerate(path.read_bytes()):
            for bit in range(8):
                os.pwrite(descriptor, bytes([byte ^ 1 << bit]), offset)
                yield
            os.pwrite(descriptor, bytes([byte]), offset)
    finally:
        os.close(descriptor)


@pytest.fixture
def sample(place, monkeypatch):
    # Its line in the file is told with an error; to find it costs most of the time, 32,000 times.
    monkeypatch.setattr("pytest_decisionos.model.validate.line_of", lambda data, location: None)
    trust = first(datetime(2031, 1, 1, tzinfo=UTC), min_k=2, min_n=3)
    # Of all digits 9 is the only one that no flipped bit makes a later version of.
    trust = with_policy(trust.model_copy(update={"version": 9}), "a" * 64)
    for number, key in enumerate(KEYS[:10]):
        judge = {"judge": f"j{number}"} if number % 2 else {}
        more = {"not_before": NOW - DAY} if number % 3 else {"not_after": NOW + DAY}
        role = "judge" if judge else "gate"
        trust = with_key(trust, new_key(key, role, ANYWHERE, **judge, **more))
    place.path.unlink()
    write_first(place.path, trust)
    data = place.path.read_bytes()
    assert 3500 < len(data) < 4500
    return place, data


@pytest.mark.untraced
def test_every_bit_of_a_pinned_file_counts(sample):
    place, data = sample
    pin = hashlib.sha256(data).hexdigest()
    place.load(sha256_pin=pin)
    for _ in flipped(place.path):
        assert place.refusal(sha256_pin=pin).what == "not the trust file that is pinned"


@pytest.mark.untraced
def test_every_bit_of_a_file_that_was_seen_counts(sample):
    place, data = sample
    place.load()
    causes = set()
    for _ in flipped(place.path):
        causes.add(place.refusal().what)
    # What still reads as a trust file of other values is found by the memory alone.
    assert any(cause.startswith("rolled back") for cause in causes)
    assert any(cause.startswith("changed without a new version") for cause in causes)
    assert place.path.read_bytes() == data
    place.load()


def test_a_change_that_raises_the_version_is_caught_by_a_pin_alone(place):
    pin = place.write(version=5)
    place.load()
    place.write(version=6, keys=[entry(KEYS[1])])
    assert place.load().keys[0].keyid == KEYS[1].keyid
    assert place.refusal(sha256_pin=pin).what == "not the trust file that is pinned"


# Changes


def test_changes_are_new_versions(place):
    loaded = read_trust(place.path)
    for version, change in enumerate(
        (
            lambda t: with_key(t, new_key(KEYS[1], "judge", ANYWHERE, judge="peer")),
            lambda t: with_policy(t, "a" * 64),
            lambda t: with_policy(t, "*"),
            lambda t: without_policy(t, "*"),
            lambda t: without_key(t, KEYS[0].keyid[:8]),
            lambda t: t.model_copy(update={"min_n": 3, "expires": NOW + 9 * DAY}),
        ),
        6,
    ):
        place.load()
        loaded = write_next(place.path, change(loaded.trust), replaces=loaded.sha256)
        assert loaded.trust.version == version
        assert read_trust(place.path) == loaded
        assert place.load() == loaded.trust
    assert [key.revoked for key in loaded.trust.keys] == [True, False]
    assert loaded.trust.policy_sha256 == ("a" * 64,)
    assert (loaded.trust.min_n, loaded.trust.expires) == (3, NOW + 9 * DAY)
    assert sorted(os.listdir(place.etc)) == [".trust.json.lock", "trust.json"]


def test_a_first_one_is_never_written_over_another(place):
    made = first(NOW + DAY, min_k=2, min_n=3)
    path = place.etc / "new" / "trust.json"
    assert write_first(path, made).trust == place.load(path) == made
    assert made == TrustFile(version=1, expires=NOW + DAY, min_k=2, min_n=3)
    for there in (path, place.path):
        before = there.read_bytes()
        with pytest.raises(UsageError, match="never overwritten"):
            write_first(there, made)
        assert there.read_bytes() == before
    with pytest.raises(TrustError, match="min_k is more than min_n"):
        write_first(place.etc / "none", first(NOW, min_k=2))
    assert not (place.etc / "none").exists()


def test_what_was_changed_meanwhile_is_not_overwritten(place):
    was = read_trust(place.path)
    ours = with_policy(was.trust, "*")
    place.write(version=6)
    theirs = place.path.read_bytes()
    with pytest.raises(RefusedError, match="changed meanwhile → run it again"):
        write_next(place.path, ours, replaces=was.sha256)
    assert place.path.read_bytes() == theirs
    place.path.unlink()
    with pytest.raises(TrustError, match="no such file"):
        write_next(place.path, ours, replaces=was.sha256)
    assert not place.path.exists()


def test_what_would_be_no_trust_file_is_not_written(place):
    was = read_trust(place.path)
    before = place.path.read_bytes()
    many = was.trust.model_copy(update={"keys": was.trust.keys * 2})
    last = was.trust.model_copy(update={"version": 2**53 - 1})
    for wrong, says in ((many, "stands twice"), (last, "less than or equal")):
        with pytest.raises(TrustError, match=says):
            write_next(place.path, wrong, replaces=was.sha256)
    assert place.path.read_bytes() == before


def test_a_link_is_not_written_through(place):
    link = place.etc / "link"
    link.symlink_to("trust.json")
    was = read_trust(link)
    with pytest.raises(UsageError, match="is a link → name the file"):
        write_next(link, was.trust, replaces=was.sha256)
    assert link.is_symlink()


CHANGES = {
    "a key again": (
        lambda t: with_key(t, new_key(KEYS[0], "gate", ANYWHERE)),
        "already; found role gate",
    ),
    "a key in another role": (
        lambda t: with_key(t, new_key(KEYS[0], "index", ANYWHERE)),
        "one key is one voice",
    ),
    "a judge's key again": (
        lambda t: with_key(t, new_key(KEYS[2], "gate", ANYWHERE)),
        "already, revoked; found role judge peer",
    ),
    "a wrong role": (
        lambda t: new_key(KEYS[1], "root", ANYWHERE),
        "--role: no such role; found root; expected gate, judge, index, operator, deploy-owner",
    ),
    "a judge without name": (lambda t: new_key(KEYS[1], "judge", ANYWHERE), "name of the judge"),
    "a wrong name of a judge": (
        lambda t: new_key(KEYS[1], "judge", ANYWHERE, judge="A"),
        "--judge: no name of a judge; found A; expected small letters, digits, _ and -, at most 63",
    ),
    "a wrong target": (
        lambda t: new_key(KEYS[1], "gate", ["a/b"]),
        "--target: not globs of service/",
    ),
    "no target": (lambda t: new_key(KEYS[1], "gate", []), "--target: not globs of service/"),
    "a policy again": (
        lambda t: with_policy(t, "a" * 64),
        "--policy: is in the trust file already",
    ),
    "a policy that is not there": (lambda t: without_policy(t, "b" * 64), "--policy: is not in"),
    "no such key": (lambda t: without_key(t, "0" * 8), "--key: no such key"),
    "too short": (lambda t: without_key(t, KEYS[0].keyid[:7]), "too short"),
    "nothing": (lambda t: without_key(t, ""), "several keys"),
    "revoked already": (lambda t: without_key(t, KEYS[2].keyid), "is revoked already"),
}


@pytest.mark.parametrize(("change", "says"), CHANGES.values(), ids=CHANGES)
def test_changes_that_are_refused(place, change, says):
    place.write(
        keys=[entry(KEYS[0]), entry(KEYS[2], "judge", judge="peer", revoked=True)],
        policy_sha256=["a" * 64],
    )
    with pytest.raises(UsageError, match=says):
        change(read_trust(place.path).trust)


ADDER = """
import sys
from pathlib import Path
from pytest_decisionos.errors import RefusedError
from pytest_decisionos.trust.trust_change import with_policy, write_next
from pytest_decisionos.trust.trust_load import read_trust
path, name = Path(sys.argv[1]), sys.argv[2]
done = 0
while done < 5:
    was = read_trust(path)
    try:
        write_next(path, with_policy(was.trust, name * 63 + str(done)), replaces=was.sha256)
        done += 1
    except RefusedError:
        pass
"""


@pytest.mark.slow
def test_processes_that_change_it_at_once_lose_nothing(place):
    adders = [
        subprocess.Popen([sys.executable, "-c", ADDER, place.path, name]) for name in "abcdef01"
    ]
    while any(adder.poll() is None for adder in adders):
        place.load()  # a reader sees whole versions only, and never an older one
    assert [adder.returncode for adder in adders] == [0] * 8
    trust = place.load()
    assert trust.version == 5 + 40
    assert set(trust.policy_sha256) == {n * 63 + str(i) for n in "abcdef01" for i in range(5)}


# Doubts


def said(**more):
    fields = {"version": 1, "expires": "2031-01-01T00:00:00Z", "policy_sha256": ["a" * 64]}
    return list(doubts(TrustFile.model_validate_json(json.dumps({**fields, **more})), NOW))


def keys_of(*roles):
    return [entry(key, role) for key, role in zip(KEYS, roles, strict=False)]


ALL = ("gate", "index", "operator", "deploy-owner")


def test_no_doubt():
    judges = [entry(key, "judge", judge=f"j{n}") for n, key in enumerate(KEYS[4:7])]
    assert said(keys=[*keys_of(*ALL), *judges], min_n=3) == []


def test_doubts():
    judges = [entry(key, "judge", judge=f"j{n}") for n, key in enumerate(KEYS[4:7])]
    sound = {"keys": [*keys_of(*ALL), *judges], "min_n": 3}
    one = judges[2]
    for more, words in (
        ({"expires": "2030-01-30T23:59:59Z"}, ["expires in 29 days: renew it"]),
        ({"expires": "2030-01-31T00:00:00Z"}, []),
        ({"expires": "2029-01-31T00:00:00Z"}, ["expires in 0 days: renew it"]),
        ({"keys": sound["keys"][1:]}, ["no key that counts now has the role gate"]),
        ({"policy_sha256": []}, ["no policy is allowed: nothing can be decided"]),
        ({"policy_sha256": ["*"]}, ["any policy is allowed: whoever writes SLO files decides"]),
        ({"min_n": 4}, ["judges with a key: 3, and min_n asks for 4"]),
        (
            {"keys": [*sound["keys"][:-1], {**one, "judge": "j1"}]},
            ["judges with a key: 2, and min_n asks for 3"],
        ),
        *(
            (
                {"keys": [*sound["keys"][:-1], {**one, **fault}]},
                ["judges with a key: 2, and min_n asks for 3"],
            )
            for fault in (
                {"revoked": True},
                {"not_before": "2030-01-02T00:00:00Z"},
                {"not_after": "2029-12-31T00:00:00Z"},
            )
        ),
        (
            {"keys": [*sound["keys"][:-1], {**one, "targets": ["a/b/c/d", "*/*/*/*"]}]},
            [f"key {one['keyid'][:12]}… (j2) counts for every target"],
        ),
    ):
        assert said(**{**sound, **more}) == words
