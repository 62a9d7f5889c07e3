"""chrony: real daemons that follow, that do not, that are gone; and a chronyc that misbehaves."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from services.chrony import follow
from services.ntp import Server, reply

from pytest_decisionos.trust import clock_chrony
from pytest_decisionos.trust.clock import clock_fault, skew_fault
from pytest_decisionos.trust.clock_chrony import ask_chrony, read_tracking
from pytest_decisionos.trust.clock_sntp import ask_servers

NOW = 1_795_548_833.0
FIELDS = [
    "C0000201", "192.0.2.1", "3", f"{NOW - 60:.9f}", "0.000123000", "0.000000040", "0.000000241",
    "-0.592", "0.043", "7.670", "0.020000000", "0.002000000", "64.2", "Normal",
]  # fmt: skip


def tracking(**changed):
    places = {"reference": 0, "name": 1, "stratum": 2, "updated": 3, "offset": 4, "delay": 10,
              "dispersion": 11, "leap": 13}  # fmt: skip
    fields = [*FIELDS]
    for name, value in changed.items():
        fields[places[name]] = value
    return ",".join(fields) + "\n"


# Real daemons


@pytest.fixture
def host(monkeypatch):
    """A function that makes a chronyd this host's own."""

    def use(daemon):
        monkeypatch.setenv("PATH", str(daemon.bin), prepend=os.pathsep)
        return daemon

    return use


@pytest.mark.slow
def test_a_daemon_that_follows_a_server(follower, host):
    host(follower)
    reading = ask_chrony()
    assert reading.source == "chrony via 127.0.0.1"
    assert not reading.fault
    assert skew_fault([reading], 0.5) is None
    assert clock_fault([], 0.5) is None
    # A bound was told: it is not just any number below the SLA.
    assert skew_fault([reading], reading.error_sec / 2) is not None


@pytest.mark.slow
def test_a_daemon_whose_server_is_ahead_says_so_as_the_server_does(chronyd, host):
    with Server(lambda request: [reply(request, ahead=3)]) as ahead:
        reading = host(chronyd(follow(ahead.port)).synchronised()) and ask_chrony()
        (theirs,) = ask_servers([ahead.name, "127.0.0.1:1", "127.0.0.1:2"])[:1]
    for one in (reading, theirs):
        assert abs(one.offset_sec - 3) <= one.error_sec + 0.01
        assert "s slow, at most 500 ms" in skew_fault([one], 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ((), "chronyd is not synchronised; `chronyc sources`"),
        (("server 192.0.2.1",), "chronyd is not synchronised; `chronyc sources`"),
        (("local stratum 1",), "follows its own clock"),
        (("local stratum 10",), "follows its own clock"),
    ],
)
def test_a_daemon_that_is_not_synchronised(chronyd, host, lines, says):
    host(chronyd(*lines))
    assert says in clock_fault([], 60)


@pytest.mark.slow
def test_a_daemon_that_is_gone(chronyd, host):
    host(chronyd()).stop()
    assert "cannot tell: chronyc ended with status 1: " in clock_fault([], 60)


# Any chronyc

SCRIPTS = {
    "gone": ("exit 1", "ended with status 1"),
    "complains": ("echo '501 Not authorised'; echo '\033[31m한국어' >&2; exit 1", "501 Not"),
    "says nothing": (":", "chronyc says nothing"),
    "says something else": ("echo 506 Cannot talk to daemon", "506 Cannot talk"),
    "says too much": ("while :; do echo 0123456789012345678901234567890123456789; done", "more than 4,096"),
    "hangs": ("exec /bin/sleep 60", "took longer than 0.3 s"),
    "hangs and says so": ("echo; exec /bin/sleep 60", "took longer than 0.3 s"),
    "hangs in silence": ("exec >&- 2>&-; exec /bin/sleep 60", "took longer than 0.3 s"),
    "dies": ("kill -9 $$", "status -9"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_chronyc_that_misbehaves(name, tmp_path, monkeypatch):
    script, says = SCRIPTS[name]
    if "hangs" in name:
        monkeypatch.setattr(clock_chrony, "TIMEOUT_SEC", 0.3)
    fake = tmp_path / "chronyc"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    fault = clock_fault([], 60)
    assert fault.startswith("chrony: cannot tell: ")
    assert says in fault
    assert fault.isprintable()


def test_its_words_are_those_of_the_c_locale_and_its_arguments_fixed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    monkeypatch.setenv("LC_ALL", "ko_KR.UTF-8")
    monkeypatch.setenv("SECRET", "x")
    fake = tmp_path / "chronyc"
    fake.write_text('#!/bin/sh\necho "$LC_ALL|$SECRET|$*"\n')
    fake.chmod(0o700)
    assert ask_chrony().fault == "cannot tell: chronyc says C||-n -c tracking"


@pytest.mark.parametrize(("mode", "says"), [(0o600, "does not start"), (None, "install chrony")])
def test_no_chronyc(mode, says, tmp_path, monkeypatch):
    if mode:
        (tmp_path / "chronyc").write_text("")
        (tmp_path / "chronyc").chmod(mode)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert says in ask_chrony().fault


# Its output


def test_offset_and_bound_are_what_the_manual_says():
    reading = read_tracking(tracking(), now=NOW)
    assert reading.offset_sec == pytest.approx(0.000123)
    assert reading.error_sec == pytest.approx(0.002 + 0.02 / 2, abs=2e-6)
    assert read_tracking(tracking(offset="-1.500000000"), now=NOW).offset_sec == -1.5


@pytest.mark.parametrize("leap", ["Insert second", "Delete second"])
def test_a_leap_second_ahead_is_no_fault(leap):
    assert not read_tracking(tracking(leap=leap), now=NOW).fault


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"leap": "Not synchronised"}, "not synchronised"),
        ({"leap": "Unknown"}, "leap status Unknown"),
        ({"leap": ""}, "leap status"),
        ({"stratum": "0"}, "not synchronised"),
        ({"stratum": "16"}, "not synchronised"),
        ({"stratum": "999"}, "not synchronised"),
        ({"stratum": "1٣"}, "chronyc says"),
        ({"stratum": "-1"}, "chronyc says"),
        ({"reference": "7F7F0101", "name": ""}, "its own clock"),
        ({"reference": "7F7F0101"}, "its own clock"),
        ({"name": ""}, "its own clock"),
        ({"reference": "192.0.2.1"}, "chronyc says"),
        ({"updated": f"{NOW - 8000:.9f}"}, None),
        ({"updated": f"{NOW - 8200:.9f}"}, "heard from its source 8,200 s ago"),
        ({"updated": "0.000000000"}, "heard from its source"),
        ({"updated": f"{NOW + 59:.9f}"}, None),
        ({"updated": f"{NOW + 61:.9f}"}, "was the clock set"),
        # A daemon that may not set the clock counts its updates by the time that it follows.
        ({"updated": f"{NOW + 99:.9f}", "offset": "100.000000000"}, None),
        ({"offset": "nan"}, "chronyc says"),
        ({"offset": "inf"}, "chronyc says"),
        ({"offset": "1e9"}, "chronyc says"),
        ({"offset": ""}, "chronyc says"),
        ({"delay": "-0.100000000"}, "negative"),
        ({"dispersion": "-0.100000000"}, "negative"),
    ],
)
def test_what_it_may_say(changed, says):
    fault = read_tracking(tracking(**changed), now=NOW).fault
    assert says in fault if says else not fault


@pytest.mark.parametrize(
    "text",
    ["", "\n", ",".join(FIELDS[:-1]), tracking()[:-1] + ",\n", tracking() * 2, "x" + tracking(),
     tracking().replace(",", ";"), " " + tracking()],
)  # fmt: skip
def test_what_is_no_tracking(text):
    assert "cannot tell: chronyc says" in read_tracking(text, now=NOW).fault


@given(st.text() | st.lists(st.text(max_size=12), min_size=14, max_size=14).map(",".join))
def test_no_text_raises(text):
    assert read_tracking(text, now=NOW).fault.isprintable()


@given(st.integers(0, 13), st.text(max_size=8))
def test_one_field_of_anything_never_raises(place, text):
    fields = [*FIELDS]
    fields[place] = text
    reading = read_tracking(",".join(fields), now=NOW)
    assert reading.fault or reading.error_sec > 0
    assert reading.source.isprintable()
