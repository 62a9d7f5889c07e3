"""What SNTP servers say of this host's clock: RFC 5905 §14, with the sanity checks of RFC 4330 §5.

All are asked at once, in a thread each, with one deadline: a name server that hangs keeps nobody
waiting. The transmit timestamp of a request is random: who cannot read it cannot answer.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import secrets
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import UsageError, shown
from pytest_decisionos.trust.clock import MIN_SERVERS, RESOLUTION_SEC, Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_SEC: Final = 3.0
ATTEMPTS: Final = 2
"""A packet may get lost."""
MAX_SERVERS: Final = 16
MAX_DISTANCE_SEC: Final = 1.0
"""From the server to a clock that it can rely on: MAXDIST, RFC 5905 §11.1; "infinity", RFC 4330."""

# Leap, version, mode | stratum | poll | precision | root delay | root dispersion | reference id |
# reference, origin, receive and transmit timestamp: RFC 5905 §7.3.
_HEADER: Final = struct.Struct("!BBbbII4sQ8sQQ")
_VERSION, _CLIENT, _SERVER = 4, 3, 4
_REQUEST: Final = bytes([_VERSION << 3 | _CLIENT]).ljust(40, b"\0")
_1900_TO_1970: Final = 2_208_988_800
_SHORT: Final = 2**16
_LONG: Final = 2**32
_GRACE_SEC: Final = 0.5
_FIELD: Final = "NTP servers"
_NAME: Final = re.compile(
    r"\[(?P<six>[0-9A-Fa-f:.]{2,45}(?:%\w{1,15})?)\](?::(?P<port6>[0-9]{1,5}))?"
    r"|(?P<bare>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%\w{1,15})?)"
    r"|(?P<host>[\w.-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
)


class _Server(NamedTuple):
    host: str
    port: int
    name: str


class _Answer(NamedTuple):
    reading: Reading
    address: object = None


def ask_servers(names: Sequence[str], *, timeout_sec: float = TIMEOUT_SEC) -> list[Reading]:
    """What each server says of this host's clock, in the order of ``names``.

    A server without a usable answer gives a reading with a fault. So does one at the same address
    as another before it: it has no second vote.

    Args:
        names: ``host``, ``host:port``, an IPv6 address, or ``[address]:port``; port 123 if none
            is told.
        timeout_sec: for all of them together.

    Raises:
        UsageError: a name is no server, or they are too few, too many or one twice.
    """
    servers = _servers(names)
    until = time.monotonic() + timeout_sec
    answers: queue.SimpleQueue[tuple[int, _Answer]] = queue.SimpleQueue()

    def run(number: int, server: _Server) -> None:
        answers.put((number, _ask(server, until)))

    for number, server in enumerate(servers):
        threading.Thread(target=run, args=(number, server), name="sntp", daemon=True).start()
    found: dict[int, _Answer] = {}
    while len(found) < len(servers):
        try:
            # They keep the deadline themselves, and know better why there is no answer.
            left = until + _GRACE_SEC - time.monotonic()
            number, answer = answers.get(timeout=max(0.0, left))
        except queue.Empty:
            break
        found[number] = answer
    readings: list[Reading] = []
    seen: dict[object, str] = {}
    for number, server in enumerate(servers):
        answer = found.get(number) or _no(server, "its name cannot be resolved in time")
        if answer.address in seen:
            answer = _no(server, f"it is the same server as {seen[answer.address]}")
        if answer.address is not None:
            seen[answer.address] = server.name
        readings.append(answer.reading)
    return readings


def read_reply(
    source: str, data: bytes, cookie: bytes, *, sent: float, took: float
) -> Reading | None:
    """What a packet says of this host's clock; None if it does not answer this request.

    With T2 and T3, the server's times of the request's arrival and of its answer, the offset is
    (T2 + T3) / 2 - (T1 + T4) / 2. Its error is half of what the packets were under way, and what
    the server says of its own. A server that claims to have held the request for longer than the
    answer took, or less than no time, adds by how much to the error.

    Args:
        source: who was asked.
        data: the packet.
        cookie: the transmit timestamp of the request, which its answer repeats.
        sent: when the request was sent, by this host's clock, seconds since 1970.
        took: how long the answer took, seconds.
    """
    if len(data) < _HEADER.size:
        return None
    (
        first, stratum, _, precision, delay, dispersion, reference_id,
        reference, origin, received, transmitted,
    ) = _HEADER.unpack_from(data)  # fmt: skip
    if origin != cookie:
        return None
    distance = (delay / 2 + dispersion) / _SHORT
    fault = _fault(first, stratum, reference_id, distance)
    if not fault and not (received and transmitted and reference):
        fault = "a time is missing in its answer"
    if not fault and _apart(transmitted, reference) < 0:
        fault = "it says that it was set after its answer"
    if fault:
        return Reading(source=source, fault=fault)
    # In whole units, and taken modulo 2^64, nothing is lost and the era does not matter
    # (RFC 5905 §6): only a clock that is 68 years off would be believed another one's.
    ours = int((sent + _1900_TO_1970) * _LONG) % 2**64
    held = _apart(transmitted, received)
    return Reading(
        source=source,
        offset_sec=(_apart(received, ours) + _apart(transmitted, ours)) / 2 - took / 2,
        error_sec=abs(took - held) / 2 + distance + 2.0**precision + RESOLUTION_SEC,
    )


def _fault(first: int, stratum: int, reference_id: bytes, distance: float) -> str:
    """Why a server's answer says nothing, by what it says of itself; empty if it does."""
    if first & 7 != _SERVER or first >> 3 & 7 != _VERSION:
        return f"answers in mode {first & 7} of version {first >> 3 & 7}, not as a server of 4"
    code = reference_id.rstrip(b"\0").decode("ascii", "replace")
    if stratum == 0 and code:
        return f"gives no time (kiss-o'-death {shown(code)})"
    if first >> 6 == 3 or not 1 <= stratum <= 15:
        return "is not synchronised itself"
    if distance >= MAX_DISTANCE_SEC:
        return f"is up to {distance:.3g} s off itself"
    return ""


def _apart(later: int, earlier: int) -> float:
    """``later - earlier`` of two NTP timestamps, seconds, whichever era each is of."""
    return ((later - earlier + 2**63) % 2**64 - 2**63) / _LONG


def _ask(server: _Server, until: float) -> _Answer:
    why = "its name has no address"
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return _no(server, "its name cannot be resolved")
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as link:
                # Connected, so that the kernel lets no other address answer.
                link.connect(address)
                return _Answer(_exchange(server, link, until), link.getpeername())
        except OSError as fault:  # no way to this address: perhaps to the next
            why = f"no way to it: {fault.strerror}"
    return _no(server, why)


def _exchange(server: _Server, link: socket.socket, until: float) -> Reading:
    try:
        return _asked(server, link, until)
    except OSError as fault:
        return Reading(source=server.name, fault=f"no answer: {fault.strerror}")


def _asked(server: _Server, link: socket.socket, until: float) -> Reading:
    begun, ignored = time.monotonic(), 0
    for attempt in range(1, ATTEMPTS + 1):
        end = begun + (until - begun) * attempt / ATTEMPTS
        cookie = secrets.token_bytes(8)
        # In this order: what lies between the two can only make the error look larger.
        started, sent = time.monotonic(), time.time()
        link.send(_REQUEST + cookie)
        while (left := end - time.monotonic()) > 0:
            link.settimeout(left)
            try:
                data = link.recv(1024)
            except TimeoutError:
                break
            took = time.monotonic() - started
            reading = read_reply(server.name, data, cookie, sent=sent, took=took)
            if reading is not None:
                return reading
            ignored += 1
    aside = f"; {ignored} packets answered something else" if ignored else ""
    return Reading(source=server.name, fault=f"no answer within the time{aside}")


def _no(server: _Server, why: str) -> _Answer:
    return _Answer(Reading(source=server.name, fault=why))


def _servers(names: Sequence[str]) -> list[_Server]:
    servers = [_server(name) for name in names]
    if not MIN_SERVERS <= len(servers) <= MAX_SERVERS:
        raise UsageError(
            "too few SNTP servers" if len(servers) < MIN_SERVERS else "too many SNTP servers",
            field=_FIELD,
            found=len(servers),
            expected=f"{MIN_SERVERS} to {MAX_SERVERS}: of two that differ nobody knows which is wrong",
        )
    asked: set[tuple[str, int]] = set()
    for server in servers:
        if (server.host.lower(), server.port) in asked:
            raise UsageError("an SNTP server is named twice", field=_FIELD, found=server.name)
        asked.add((server.host.lower(), server.port))
    return servers


def _server(text: str) -> _Server:
    found = _NAME.fullmatch(text)
    if found is not None:
        host = found["host"] or found["six"] or found["bare"]
        port = int(found["port"] or found["port6"] or 123)
        if 1 <= port <= 65_535 and (found["host"] or _is_ipv6(host)):
            return _Server(host, port, shown(text))
    raise UsageError(
        "not a server", field=_FIELD, found=text, expected="host, host:port or [IPv6]:port"
    )


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
