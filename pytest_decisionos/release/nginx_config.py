"""``nginx`` of rollout.yaml: strict, because all of it is written into a configuration."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from pytest_decisionos.model.base import Frozen
from pytest_decisionos.release.rollout_command import Argv, Seconds
from pytest_decisionos.release.traffic import ReleaseName

Word = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256)]
_VARIABLES = {"cookie": "cookie", "header": "http"}
# nginx's variables have no hyphen: it writes a header's as an underscore, and a cookie's not at all.
_NAMES = {"cookie": r"[A-Za-z0-9_]{1,64}", "header": r"[A-Za-z0-9-]{1,64}"}


def _endpoint(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    parts = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([1-9][0-9]{0,4})", text)
    with contextlib.suppress(ValueError):
        if parts is not None and int(parts[3]) < 65_536:
            return ipaddress.ip_address(parts[1] or parts[2]), int(parts[3])
    raise ValueError(f"{text!r} is not an address and port such as 10.0.0.1:80 or [::1]:80")


def _server(text: str) -> str:
    _endpoint(text)
    return text


def _listen(text: str) -> str:
    _endpoint(text if ":" in text else f"0.0.0.0:{text}")
    return text


def _loopback(text: str) -> str:
    if not _endpoint(text)[0].is_loopback:
        raise ValueError(f"{text!r} is not a loopback address: others could reach it")
    return text


def _key(text: str) -> str:
    kind, _, name = text.partition(":")
    if text == "ip" or (kind in _NAMES and re.fullmatch(_NAMES[kind], name)):
        return text
    raise ValueError(f"{text!r} is not ip, cookie:NAME or header:NAME")


Listen = Annotated[Word, AfterValidator(_listen)]
Loopback = Annotated[Word, AfterValidator(_loopback)]
Server = Annotated[Word, AfterValidator(_server)]
Key = Annotated[Word, AfterValidator(_key)]
Servers = Annotated[tuple[Server, ...], Field(min_length=1, max_length=256)]
Method = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
User = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]


class NginxConfig(Frozen):
    """``nginx`` of rollout.yaml.

    Attributes:
        listen: where users come in, ``PORT`` or ``ADDRESS:PORT``.
        control: loopback address and port where nginx says what it does, and takes in copies.
        releases: where which release runs. Addresses and no names, so that an abort needs no DNS.
        sticky: what users are told apart by: ``ip``, ``cookie:NAME`` or ``header:NAME``.
        tenant: what holds a request's tenant, spelled like ``sticky``; None logs none.
        route_segments: how many segments of the path name a route in the log.
        shadow_methods: whose requests are copied. A copy is a second request: who adds POST must be
            sure that the canary knows copies by their header ``X-DecisionOS-Shadow``.
        template: a file beside rollout.yaml to make nginx.conf from; None is ours.
        program: nginx, or what runs it, such as ``[sudo, -n, nginx]``.
        user: whom nginx's workers run as, if it is started by root.
        timeout_sec: how long a reload may take.
    """

    listen: Annotated[tuple[Listen, ...], Field(min_length=1, max_length=16)]
    control: Loopback
    releases: Annotated[dict[ReleaseName, Servers], Field(min_length=1, max_length=100)]
    sticky: Key = "ip"
    tenant: Key | None = None
    route_segments: Annotated[int, Field(strict=True, ge=1, le=6)] = 1
    shadow_methods: Annotated[tuple[Method, ...], Field(min_length=1, max_length=7)] = ("GET", "HEAD")  # fmt: skip
    template: Word | None = None
    program: Argv = ("nginx",)
    user: User | None = None
    timeout_sec: Seconds = 10.0

    @model_validator(mode="after")
    def _one_release_an_address(self) -> NginxConfig:
        seen: dict[object, str] = {}
        for release, servers in self.releases.items():
            for server in servers:
                other = seen.setdefault(_endpoint(server), release)
                if other != release:
                    raise ValueError(f"releases: {server} cannot run {other} and {release}")
        return self


def variable(key: str) -> str:
    """The nginx variable of a ``sticky`` or ``tenant``."""
    kind, _, name = key.partition(":")
    if kind == "ip":
        return "remote_addr"
    return f"{_VARIABLES[kind]}_{name.lower().replace('-', '_') if kind == 'header' else name}"
