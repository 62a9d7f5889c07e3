"""The demo's releases behave as told, and its users count what really happened."""

import asyncio
import time

import pytest

from demo.traffic import Account, Answer, Site

pytestmark = pytest.mark.slow


@pytest.fixture
def site():
    with Site() as running:
        yield running


def answers(load, count):
    """Let it run until so many requests have ended."""
    until = time.monotonic() + 60
    while load.account().sent < count:
        assert time.monotonic() < until
        time.sleep(0.01)
    account = load.stop()
    assert account.sent == account.answered + account.lost >= count
    return account


def test_a_healthy_release_answers_everybody(site):
    healthy = site.upstream("v1")
    account = answers(site.load(healthy.port, users=10, rate=400), 200)
    assert account.statuses == {200: account.sent}
    assert account.releases == {"v1": account.sent}
    assert (account.lost, account.retried) == (0, 0)
    assert healthy.users == account.sent
    assert sorted(healthy.paths) == ["/cart", "/items/42?page=2", "/pay/card"]
    assert len({answer.user for answer in account.answers}) == 10


@pytest.mark.parametrize(
    ("behaviour", "low", "high"), [("errors", 0.02, 0.10), ("burst", 0.4, 0.6)]
)
def test_a_faulty_release_fails_its_share(site, behaviour, low, high):
    faulty = site.upstream("v2", behaviour)
    account = answers(site.load(faulty.port, users=20, rate=800), 800)
    assert low < account.statuses[500] / account.sent < high
    assert set(account.statuses) == {200, 500}


def test_a_burst_ends(site):
    faulty = site.upstream("v2", "burst", burst_sec=0.0)
    assert answers(site.load(faulty.port, users=10, rate=400), 100).statuses[500] == 0


def test_a_slow_release_is_slow(site):
    slow = site.upstream("v2", "slow")
    assert answers(site.load(slow.port, users=10, rate=100), 50).quantile(0.0) > 60


def test_what_a_dead_release_does_not_answer_is_lost(site):
    mortal = site.upstream("v1")
    load = site.load(mortal.port, users=10, rate=400)
    until = time.monotonic() + 60
    while load.account().sent < 50:
        assert time.monotonic() < until
    died = site.become(mortal, "dead")
    time.sleep(0.2)
    site.become(mortal, "healthy")
    back = time.time()
    time.sleep(0.2)
    account = load.stop()
    assert account.lost > 0
    assert all(answer.why for answer in account.answers if answer.status is None)
    assert all(
        one.status == 200 for one in account.answers if one.started + one.latency_ms / 1000 < died
    )
    assert set(account.since(back).statuses) == {200}


def test_a_release_that_hangs_loses_requests_after_a_time(site):
    hanging = site.upstream("v1", "hang")
    account = answers(site.load(hanging.port, users=5, rate=100, timeout_sec=0.2), 10)
    assert account.lost == account.sent
    assert "TimeoutError" in account.answers[0].why


async def closing(reader, writer):
    """Answer once and keep the connection; then close it when the next request comes."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def half(reader, writer):
    """Answer half, and close."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    writer.close()


@pytest.mark.parametrize("how", [closing, half])
def test_only_what_nobody_began_to_answer_is_sent_again(site, how):
    server = site.begin(asyncio.start_server(how, "127.0.0.1", 0)).result(30)
    account = answers(site.load(server.sockets[0].getsockname()[1], users=3, rate=60), 12)
    if how is closing:
        assert account.lost == 0
        assert account.retried >= account.sent // 2 - 3
    else:
        assert account.lost == account.sent
        assert account.retried == 0
    site.call(server.close)


def test_quantiles():
    account = Account(tuple(Answer("u", 0.0, float(ms), 200, "v1", False) for ms in range(1, 101)))
    assert [account.quantile(share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert str(Account(()).quantile(0.5)) == "nan"
