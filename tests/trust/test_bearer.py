"""Scopes by bearer: for this host alone, asked for and granted."""

import pytest

from pytest_decisionos.trust.bearer import local_fault, scope_fault

HOSTS = {"127.0.0.1:8080", "localhost:8080", "[::1]:8080"}
HOST = ("Host", "127.0.0.1:8080")
ASKS = ("Authorization", "Bearer scope=ops:read")


def fault(*headers, granted="ops:read", loopback=True):
    return scope_fault(headers, "ops:read", granted=granted, loopback=loopback, hosts=HOSTS)


@pytest.mark.parametrize(
    ("bearer", "granted"),
    [
        ("Bearer scope=ops:read", "ops:read"),
        ("bearer scope=ops:read", "*"),
        ("Bearer scope=deploy:abort,ops:read", "judge:run, ops:*"),
        ("Bearer scope=ops:*", "ops:read"),
        ("  Bearer scope=ops:read  ", "ops:read"),
    ],
)
def test_what_is_asked_for_and_granted(bearer, granted):
    assert fault(HOST, ("authorization", bearer), granted=granted) is None


@pytest.mark.parametrize(
    ("headers", "granted", "says"),
    [
        ((HOST, ASKS), "", "not granted"),
        ((HOST, ASKS), "ops:readers judge:run", "not granted"),
        ((HOST,), "*", "asks for no scope"),
        ((HOST, ASKS, ASKS), "*", "asks for no scope"),
        ((HOST, ("Authorization", "Basic scope=ops:read")), "*", "asks for no scope"),
        ((HOST, ("Authorization", "Bearer ops:read")), "*", "asks for no scope"),
        ((HOST, ("Authorization", "Bearer scope=")), "*", "does not ask"),
        ((HOST, ("Authorization", "Bearer scope=ops:reader")), "*", "does not ask"),
        ((HOST, ("Authorization", "Bearer scope=judge:*")), "*", "does not ask"),
        ((HOST, ("Authorization", "Bearer scope=ops:read" + " " * 5000 + "x")), "*", "no scope"),
    ],
)
def test_what_is_not(headers, granted, says):
    assert says in fault(*headers, granted=granted)


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "X-Forwarded-For", "x-forwarded-host", "X-FORWARDED-Proto", "X-Real-IP", "Via"],
)
def test_never_through_a_proxy(header):
    assert "a proxy" in fault(HOST, ASKS, (header, ""))
    assert "a proxy" in local_fault([HOST, (header, "x")], loopback=True, hosts=HOSTS)


@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.example"],
        ["evil.example:8080"],
        ["127.0.0.1"],
        ["127.0.0.1:8081"],
        [""],
        [],
        ["127.0.0.1:8080", "127.0.0.1:8080"],
        ["127.0.0.1:8080", "evil.example"],
        ["127.0.0.1:8080.evil.example"],
    ],
)
def test_never_by_a_foreign_name(hosts):
    headers = [("host", host) for host in hosts]
    assert fault(ASKS, *headers) == "it names another host"


@pytest.mark.parametrize("host", ["LOCALHOST:8080", " localhost:8080 ", "[::1]:8080"])
def test_by_every_name_of_its_own(host):
    assert local_fault([("Host", host)], loopback=True, hosts=HOSTS) is None


def test_never_on_another_listener():
    assert "loopback" in fault(HOST, ASKS, granted="*", loopback=False)
    assert "loopback" in local_fault([HOST], loopback=False, hosts=HOSTS)
