"""Signing and verifying a request against the bare SHA-256 and HMAC that it cannot do without.

    python -m pytest benchmarks/test_http_sign.py -p no:cacheprovider -s

Nothing here fails for being slow: it states what it measured, and docs/performance.md what it
should be. They take turns, and the least of all rounds counts.
"""

from __future__ import annotations

import hashlib
import hmac
import time

import pytest

from pytest_decisionos.testing import NOW
from pytest_decisionos.trust.http_sign import sign_request, verify_request
from pytest_decisionos.trust.keys import make_ring

URL = "https://judge.example:8443/judge"
BODY = bytes(20_000)
ROUNDS = 2000


@pytest.mark.parametrize("use", [["request"], []], ids=["own key", "sub-key of a shared one"])
def test_sign_and_verify(use, benchmark):
    key = {"key_id": "bench", "secret": "b64:" + "A" * 44, "state": "active", "use": use}
    ring = make_ring([key], "benchmark")
    headers = list(sign_request("POST", URL, BODY, ring.keys[0], now=NOW).items())
    secret = ring.keys[0].mac_key("request")

    def sign():
        sign_request("POST", URL, BODY, ring.keys[0], now=NOW)

    def verify():
        verify_request(
            "POST", URL, headers, BODY, ring=ring, now=NOW, max_age_sec=300, max_skew_sec=0.5
        )

    def bare():
        hmac.digest(secret, hashlib.sha256(BODY).digest(), "sha256")

    def least():
        took = {sign: [], verify: [], bare: []}
        for _ in range(ROUNDS):
            for function, times in took.items():
                began = time.perf_counter()
                function()
                times.append(time.perf_counter() - began)
        return [min(times) * 1e6 for times in took.values()]

    signing, verifying, least_us = benchmark.pedantic(least, rounds=1)
    told = {"sign_us": signing, "verify_us": verifying, "verify_to_bare": verifying / least_us}
    benchmark.extra_info |= {name: round(value, 2) for name, value in told.items()}
    print(
        f"\n{len(BODY) / 1000:.0f} kB: sign {signing:.0f} µs, verify {verifying:.0f} µs"
        f" = {verifying / least_us:.1f}× SHA-256 + HMAC ({least_us:.1f} µs)"
    )
