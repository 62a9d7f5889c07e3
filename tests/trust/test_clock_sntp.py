"""SNTP: a real chronyd as server, and servers that lie, refuse, mumble, and keep silent."""

import secrets
import socket
import struct
import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from services.ntp import HEADER, Server, reply, servers, stamp

from pytest_decisionos.errors import UsageError
from pytest_decisionos.trust import clock_sntp
from pytest_decisionos.trust.clock import skew_fault, weigh
from pytest_decisionos.trust.clock_sntp import ask_servers, read_reply

SLA = 0.5
ERA_1 = 2_085_978_496.0  # 2036-02-07T06:28:16Z, when the 32 bits of NTP's seconds are used up
COOKIE = b"\x01\x02\x03\x04\x05\x06\x07\x08"


def ask(*kinds, **options):
    """What servers say; those that a kind needs to be three answer as they should."""
    with servers(*kinds, *[{}] * (3 - len(kinds))) as running:
        return ask_servers([one.name for one in running], **options), running


def ask_in_vain(kind):
    """The same, where the wait for the first server is in vain."""
    return ask(kind, timeout_sec=1.0)[0]


# Real servers


@pytest.mark.slow
def test_a_real_server(time_server, follower):
    (reading,) = ask_servers([f"127.0.0.1:{time_server.port}", "127.0.0.1:1", "127.0.0.1:2"])[:1]
    assert not reading.fault
    assert abs(reading.offset_sec) <= reading.error_sec + 0.001
    assert skew_fault([reading], SLA) is None


@pytest.mark.slow
def test_a_real_server_that_is_not_synchronised(chronyd):
    idle = chronyd("allow 127.0.0.1", serves=True)
    (reading,) = ask_servers([f"127.0.0.1:{idle.port}", "127.0.0.1:1", "127.0.0.1:2"])[:1]
    assert reading.fault == "is not synchronised itself"


@pytest.mark.slow
def test_three_real_servers(chronyd):
    three = [chronyd("allow 127.0.0.1", "local stratum 1", serves=True) for _ in range(3)]
    readings = ask_servers([f"localhost:{one.port}" for one in three])
    assert weigh(readings, SLA).fault is None


# What a request looks like


def test_each_request_is_random_and_tells_nothing():
    readings, running = ask({}, {}, {})
    assert [one.fault for one in readings] == ["", "", ""]
    requests = [request for server in running for request in server.requests]
    assert {len(request) for request in requests} == {48}
    assert {request[:40] for request in requests} == {b"\x23" + b"\0" * 39}
    assert len({request[40:] for request in requests}) == 3


# Servers that answer something else


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ({"leap": 3}, "is not synchronised itself"),
        ({"stratum": 0, "reference_id": bytes(4)}, "is not synchronised itself"),
        ({"stratum": 16}, "is not synchronised itself"),
        ({"stratum": 255}, "is not synchronised itself"),
        ({"stratum": 0, "reference_id": b"RATE"}, "gives no time (kiss-o'-death RATE)"),
        ({"stratum": 0, "reference_id": b"\x1b[2J"}, r"kiss-o'-death \x1b[2J"),
        ({"stratum": 0, "reference_id": b"\xff\xfe\0\0"}, "kiss-o'-death"),
        ({"mode": 3}, "mode 3"),
        ({"mode": 5}, "mode 5"),
        ({"mode": 7}, "mode 7"),
        ({"version": 3}, "version 3"),
        ({"dispersion": 1.0}, "is up to 1 s off itself"),
        ({"dispersion": 65535}, "is up to 6.55e+04 s off itself"),
        ({"delay": 2.0}, "is up to 1 s off itself"),
        ({"transmitted": 0}, "a time is missing"),
        ({"received": 0}, "a time is missing"),
        ({"reference": 0}, "a time is missing"),
        ({"reference": stamp(3e9)}, "set after its answer"),
    ],
)
def test_an_answer_that_may_not_be_believed(kind, says):
    readings, _ = ask(kind)
    assert says in readings[0].fault
    assert readings[0].fault.isprintable()
    assert not readings[1].fault
    assert "cannot tell: 2 of 3" in skew_fault(readings, SLA)


def cut(request):
    return [reply(request)[:47]]


def wrong_origin(request):
    return [reply(request, origin=bytes(8)), reply(request, origin=request[40:47] + b"\0")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "says"),
    [
        (lambda: Server(lambda request: []), "no answer within the time"),
        (lambda: Server(other_address=True), "no answer within the time"),
        (lambda: Server(cut), "no answer within the time; 2 packets answered something else"),
        (lambda: Server(lambda request: [b"x"]), "2 packets answered something else"),
        (lambda: Server(lambda request: [request]), "2 packets answered something else"),
        (lambda: Server(wrong_origin), "4 packets answered something else"),
    ],
    ids=["silent", "other address", "cut", "short", "echo", "wrong origin"],
)
def test_what_is_no_answer(server, says):
    readings = ask_in_vain(server())
    assert readings[0].fault == says or says in readings[0].fault
    assert [one.fault for one in readings[1:]] == ["", ""]
    assert skew_fault(readings, SLA) is not None


def test_a_forger_does_not_keep_the_true_answer_away():
    def both(request):
        return [*wrong_origin(request), *cut(request), reply(request, ahead=2)]

    readings, _ = ask(Server(both))
    assert abs(readings[0].offset_sec - 2) <= readings[0].error_sec


def test_of_two_answers_the_first_counts():
    readings, _ = ask(Server(lambda request: [reply(request), reply(request, ahead=9)]))
    assert abs(readings[0].offset_sec) <= readings[0].error_sec


def test_what_follows_the_header_does_not_matter():
    readings, _ = ask(Server(lambda request: [reply(request) + secrets.token_bytes(20)]))
    assert not readings[0].fault


@pytest.mark.slow
def test_a_lost_packet_is_asked_for_again_with_another_cookie():
    asked = []

    def second(request):
        asked.append(request)
        return [reply(request)] if len(asked) == 2 else []

    readings = ask_in_vain(Server(second))
    assert not readings[0].fault
    assert asked[0] != asked[1]


@pytest.mark.slow
def test_the_answer_to_an_earlier_request_is_none():
    asked = []

    def late(request):
        asked.append(request)
        return [reply(asked[0])] if len(asked) == 2 else []

    readings = ask_in_vain(Server(late))
    assert "1 packets answered something else" in readings[0].fault


def test_nobody_there():
    readings = ask_servers(["127.0.0.1:1", "[::1]:1", "127.0.0.1:2"])
    assert all(one.fault.startswith(("no answer: ", "no way to it: ")) for one in readings)


# The median


@pytest.mark.parametrize(
    ("ahead", "ok", "dissent", "says"),
    [
        ((0, 0, 0), True, 0, None),
        ((0, 0, 9), True, 1, None),
        ((-9, 0, 0), True, 1, None),
        ((9, 0, 9), False, 1, "s slow, at most"),
        ((-9, -9, -9), False, 0, "s fast, at most"),
        ((9, 0, -9), False, 2, "only 1 of 3"),
        ((0, 0, 0, 9, 9), True, 2, None),
    ],
)
def test_liars(ahead, ok, dissent, says):
    readings, _ = ask(*({"ahead": one} for one in ahead))
    skew = weigh(readings, SLA)
    assert (skew.fault is None) is ok, skew
    assert skew.dissent == dissent
    assert ok or says in skew.fault


def test_a_server_that_is_not_sure_cannot_tell():
    readings, _ = ask(*[{"dispersion": 0.6}] * 3)
    assert "cannot tell" in skew_fault(readings, SLA)
    assert skew_fault(readings, 0.9) is None


def test_a_server_whose_clock_was_set_while_it_answered_cannot_tell():
    for kind in ({"received": stamp(3e9)}, {"transmitted": stamp(3e9)}):
        readings, _ = ask(*[kind] * 3)
        assert "cannot tell" in skew_fault(readings, SLA)


def test_one_server_has_one_vote():
    with servers({}, {}) as (one, other):
        names = [one.name, other.name, f"localhost:{one.port}"]
        readings = ask_servers(names)
    assert [read.fault for read in readings] == ["", "", f"it is the same server as {one.name}"]
    assert "cannot tell: 2 of 3" in skew_fault(readings, SLA)


# Names


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("ntp.example", "ntp.example", 123),
        ("ntp.example:1123", "ntp.example", 1123),
        ("시계.example", "시계.example", 123),
        ("192.0.2.1:5", "192.0.2.1", 5),
        ("2001:db8::1", "2001:db8::1", 123),
        ("::1", "::1", 123),
        ("[::1]", "::1", 123),
        ("[::1]:5", "::1", 5),
        ("[fe80::1%eth0]:5", "fe80::1%eth0", 5),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1", 123),
    ],
)
def test_names_of_servers(text, host, port):
    assert clock_sntp._servers([text, "b", "c"])[0][:2] == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b", "a:", ":1", "a:0", "a:65536", "a:123456", "a:b", "a:-1", "a:1:2", "[::1", "[::1]x",
     "[a]:1", "[1.2.3.4]", ":::", "1::2::3", "a/b", "a@b", "a\n", "a\0", "-" * 254, "ntp://a", "٣:٣"],
)  # fmt: skip
def test_what_is_no_server(text):
    with pytest.raises(UsageError, match="not a server"):
        clock_sntp._servers([text, "b", "c"])


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "too few SNTP servers; found 0; expected 3 to 16"),
        (["a", "b"], "too few"),
        ([f"a{n}" for n in range(17)], "too many"),
        (["a", "b", "A:123"], "named twice; found A:123"),
        (["a", "::1", "[::1]:123"], "named twice"),
    ],
)
def test_too_few_too_many_or_twice(names, says):
    with pytest.raises(UsageError, match=says):
        ask_servers(names)


@pytest.mark.slow
def test_names_that_do_not_resolve(monkeypatch):
    release = threading.Event()
    really = socket.getaddrinfo

    def resolve(host, *rest, **more):
        if host == "hangs":
            release.wait(30)
        if host in {"hangs", "unknown"}:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        if host == "nowhere":
            return []
        return really(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(clock_sntp, "_GRACE_SEC", 0.0)
    with servers({}) as (one,):
        readings = ask_servers(["hangs", "unknown", "nowhere", "." * 70, one.name], timeout_sec=1.0)
    release.set()
    assert [read.fault for read in readings] == [
        "its name cannot be resolved in time",
        "its name cannot be resolved",
        "its name has no address",
        "its name cannot be resolved",
        "",
    ]


def test_an_address_that_cannot_be_reached_is_not_the_last(monkeypatch):
    with servers({}, {}, {}) as three:

        def resolve(host, port, **more):
            # Broadcast is refused at once to who did not ask for it.
            tried = (
                ["255.255.255.255", "127.0.0.1"] if port != three[2].port else ["255.255.255.255"]
            )
            return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (one, port)) for one in tried]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        readings = ask_servers([one.name for one in three])
    assert [one.fault for one in readings] == ["", "", "no way to it: Permission denied"]


# The arithmetic

moments = st.floats(0, ERA_1 + 3e9)
spans = st.floats(0, 30)


@given(
    sent=moments,
    ahead=st.floats(-1e8, 1e8),
    there=spans,
    held=spans,
    back=spans,
    dispersion=st.floats(0, 0.4),
    delay=st.floats(0, 0.4),
)
@example(sent=ERA_1 - 1, ahead=0.25, there=0.5, held=1, back=0.5, dispersion=0, delay=0)
@example(sent=ERA_1 - 1, ahead=100, there=0, held=0, back=0, dispersion=0, delay=0)
@example(sent=ERA_1 + 1, ahead=-100, there=0, held=0, back=0, dispersion=0, delay=0)
def test_the_truth_lies_within_the_error_in_every_era(
    sent, ahead, there, held, back, dispersion, delay
):
    received = sent + there + ahead
    request = bytes(40) + COOKIE
    data = reply(
        request, received=stamp(received) or 1, transmitted=stamp(received + held) or 1,
        reference=stamp(received - 8) or 1, dispersion=dispersion, delay=delay,
    )  # fmt: skip
    reading = read_reply("x", data, COOKIE, sent=sent, took=there + held + back)
    assert not reading.fault
    assert abs(reading.offset_sec - ahead) <= reading.error_sec
    told = (there + back) / 2 + dispersion + delay / 2
    assert reading.error_sec == pytest.approx(told, abs=1e-4)


@given(st.binary(max_size=100), moments, spans)
def test_no_packet_raises(data, sent, took):
    reading = read_reply("x", data, COOKIE, sent=sent, took=took)
    assert reading is None or data[24:32] == COOKIE


@given(st.binary(min_size=48, max_size=48), moments, spans)
def test_no_packet_with_the_right_cookie_raises(data, sent, took):
    data = data[:24] + COOKIE + data[32:]
    reading = read_reply("x", data, COOKIE, sent=sent, took=took)
    assert reading.fault or reading.error_sec > 0
    assert reading.fault.isprintable()


bits = st.integers(0, 2**64 - 1)


@given(st.integers(1, 15), st.integers(-128, 127), bits, bits, bits, moments, spans)
def test_whatever_a_server_says_it_never_makes_the_clock_right(
    stratum, precision, reference, received, transmitted, sent, took
):
    """Times that differ from ours by more than the error never count as within the SLA."""
    data = HEADER.pack(0x24, stratum, 6, precision, 0, 0, b"GPS\0", reference,
                       COOKIE, received, transmitted)  # fmt: skip
    reading = read_reply("x", data, COOKIE, sent=sent, took=took)
    if skew_fault([reading], SLA) is None:
        ours = stamp(sent + took / 2)
        for theirs in (received, transmitted):
            apart = (theirs - ours + 2**63) % 2**64 - 2**63
            assert abs(apart) / 2**32 <= SLA + took / 2 + 1e-5


def test_the_header_is_the_standard_s():
    assert HEADER.size == 48
    sent = 1_795_548_833.0
    (first,) = struct.unpack("!Q", bytes.fromhex("eea94c3140000000"))
    assert first == stamp(1_795_548_833.25 + (0xEEA94C31 - 2_208_988_800 - 1_795_548_833))
    # Leap 0, version 4, server, stratum 2, poll 6, precision 2^-20; delay and dispersion 1/16 s.
    head = bytes.fromhex("240206ec 00001000 00001000 c0000201".replace(" ", ""))
    times = struct.pack("!Q8sQQ", stamp(sent - 9), COOKIE, stamp(sent + 0.3), stamp(sent + 0.5))
    reading = read_reply("x", head + times, COOKIE, sent=sent, took=0.4)
    assert reading.offset_sec == pytest.approx(0.2, abs=1e-6)
    assert reading.error_sec == pytest.approx(0.1 + 3 / 32, abs=1e-5)
