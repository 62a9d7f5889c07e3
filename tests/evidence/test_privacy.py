"""What may not be sealed: masked, or refused by name."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_decisionos.errors import EvidenceError
from pytest_decisionos.evidence.config import Privacy
from pytest_decisionos.evidence.privacy import MASK, masked, refuse_secrets
from pytest_decisionos.testing import healthy

VALUE = "hunter2-한글"


def fault(blocks, **privacy):
    try:
        refuse_secrets(blocks, Privacy(**privacy), "e.json")
    except EvidenceError as caught:
        assert VALUE not in str(caught) + repr(caught.__dict__)
        assert caught.file == "e.json"
        return caught.field
    return None


@pytest.mark.parametrize(
    "key",
    "token access_token accessToken AccessToken ACCESS_TOKEN token2 api-token tokens password PassWord passwd "
    "passphrase db.password client_secret clientSecret secrets X-API-Key apiKey api_key APIKEY Api.Key api_key_2 "
    "x_amz_access_key accesskey private_key privateKey credential awsCredentials Authorization "
    "Proxy-Authorization cookie Cookie Set-Cookie session_id sessionId SESSIONID ｐａｓｓｗｏｒｄ "
    "secret_key secretKey SECRET-KEY client_secret_key passwords db_passwords signing_key signingKey "
    "judge_hmac_key bearer Bearer auth_bearer jwt id_jwt JWT pwd db_pwd dbPwd cookies Cookies auth Auth "
    "auth2 basic_auth basicAuth token_v2 tokenV2 api_key_v12 password_v1_2 jwt_v2".split()
    + ["api key", " token ", "비밀_token", "password:"],
)
def test_names_of_secrets(key):
    assert fault({"usage": {"a": 1, key: VALUE}}) == f"/usage/{key}"
    assert fault({key: {"x": [VALUE]}}) == f"/{key}/x/0"


@pytest.mark.parametrize(
    "key",
    "tokenizer tokens_per_s secretary cookies_seen session authorized keys key author passwordless "
    "api access private p95 비밀 authors authority authentic auth_errors authn signature_errors "
    "signature_error_rate sig_error_delta key_id key_ids signing_keys_loaded secret_keys_missing "
    "bearer_errors jwt_errors pwd_changes passwords_reset cookies_set cookie_v oauth v2 _v2 p_v2 "
    "token_v token_version monkey hmac".split(),
)
def test_names_that_are_none(key):
    assert fault({"usage": {key: VALUE}}) is None


def test_the_first_value_is_named_by_its_pointer():
    blocks = {
        "a": {"token": None, "password": {}, "secret": [None, []]},
        "b/c": [{"ok": 1}, {"x~y": {"token": {"deep": [{"er": VALUE}]}}}],
        "d": {"token": VALUE},
    }
    assert fault(blocks) == "/b~1c/1/x~0y/token/deep/0/er"


@pytest.mark.parametrize("value", [VALUE, "", 0, 1.5, False, True])
def test_any_value_but_null(value):
    assert fault({"a": {"token": value}}) == "/a/token"
    assert fault({"a": {"token": None}}) is None


def test_the_seal_itself_and_names_of_metrics_are_none():
    assert fault({"integrity": {"token": VALUE}}) is None
    assert fault(healthy()) is None  # it has /quota/decisions/tokens
    assert fault({"usage": {"buckets": {"tokens": 1}, "deltas_by_metric": {"tokens": 2}}}) is None
    assert fault({"quota": {"decisions": {"tokens": {"password": 1}}}}) == (
        "/quota/decisions/tokens/password"
    )
    assert fault({"quota": {"decisions": {"tokens": {}}, "tokens": 5}}) == "/quota/tokens"
    # Whoever refuses all of usage means its metrics too.
    assert fault({"usage": {"buckets": {"a": 1}}}, refuse_keys=["usage"]) == "/usage/buckets/a"


@pytest.mark.parametrize(
    ("allow", "found"),
    [
        ("/a/tokens", None),
        ("/a/*", None),
        ("/*/tokens", None),
        ("/a/tokens/*", None),
        ("/a/tokens/in", "/a/tokens/out"),
        ("/a/tokens/out", "/a/tokens/in"),
        ("/a", "/a/tokens/in"),
        ("/*", "/a/tokens/in"),
        ("/b/tokens", "/a/tokens/in"),
        ("/a/tokens/in/x", "/a/tokens/in"),
    ],
)
def test_allow_lifts_what_it_names(allow, found):
    assert fault({"a": {"tokens": {"in": 5, "out": 6}}}, allow=[allow]) == found


def test_what_is_allowed_may_still_hold_a_secret():
    blocks = {"a": {"tokens": {"in": 5, "password": VALUE}}}
    assert fault(blocks, allow=["/a/tokens"]) == "/a/tokens/password"


@pytest.mark.parametrize(
    ("glob", "key", "refused"),
    [
        ("*_pin", "card_pin", True),
        ("*-PIN", "cardPin", True),
        ("*_pin", "cardpin", True),
        ("주민번호", "주민번호", True),
        ("주민*", "주민_번호", True),
        ("oauth2", "oauth2", True),
        ("card_[ab]", "card_a", True),
        ("card_[ab]", "card_c", False),
        ("*_pin", "spinning", False),
    ],
)
def test_names_of_ones_own(glob, key, refused):
    assert (fault({"a": {key: 1}}, refuse_keys=[glob]) is not None) is refused
    assert fault({"a": {"token": 1}}, refuse_keys=[glob]) == "/a/token"


def mask(blocks, *pointers):
    before = copy.deepcopy(blocks)
    made = masked(blocks, Privacy(mask=pointers))
    assert blocks == before
    assert list(made) == list(blocks)
    return made


@pytest.mark.parametrize(
    ("pointer", "made"),
    [
        ("/a/b", {"a": {"b": MASK, "c": [1, {"b": 2}, None]}, "d~/": 3}),
        ("/a/c", {"a": {"b": {"x": 1}, "c": MASK}, "d~/": 3}),
        ("/a/c/0", {"a": {"b": {"x": 1}, "c": [MASK, {"b": 2}, None]}, "d~/": 3}),
        ("/a/c/*", {"a": {"b": {"x": 1}, "c": [MASK, MASK, None]}, "d~/": 3}),
        ("/a/c/*/b", {"a": {"b": {"x": 1}, "c": [1, {"b": MASK}, None]}, "d~/": 3}),
        ("/*/b/x", {"a": {"b": {"x": MASK}, "c": [1, {"b": 2}, None]}, "d~/": 3}),
        ("/d~0~1", {"a": {"b": {"x": 1}, "c": [1, {"b": 2}, None]}, "d~/": MASK}),
        ("/*", {"a": MASK, "d~/": MASK}),
        ("/none/b", {"a": {"b": {"x": 1}, "c": [1, {"b": 2}, None]}, "d~/": 3}),
        ("/a/c/9", {"a": {"b": {"x": 1}, "c": [1, {"b": 2}, None]}, "d~/": 3}),
        ("/a/b/x/y", {"a": {"b": {"x": 1}, "c": [1, {"b": 2}, None]}, "d~/": 3}),
    ],
)
def test_masks(pointer, made):
    blocks = {"a": {"b": {"x": 1}, "c": [1, {"b": 2}, None]}, "d~/": 3}
    assert mask(blocks, pointer) == made
    assert mask(made, pointer) == made


@pytest.mark.parametrize("pointer", ["/integrity", "/integrity/mac", "/*", "/*/mac"])
def test_the_seal_is_not_masked(pointer):
    assert mask({"integrity": {"mac": 1}, "a": None}, pointer)["integrity"] == {"mac": 1}


def test_a_masked_secret_is_none():
    blocks = mask({"a": [{"token": VALUE}, {"token": None}]}, "/a/*/token")
    assert blocks == {"a": [{"token": MASK}, {"token": None}]}
    assert fault(blocks) is None


names = st.text(st.characters(codec="utf-8"), max_size=8)
documents = st.dictionaries(
    names,
    st.recursive(
        st.none() | st.booleans() | st.integers() | names,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)


@given(documents, st.data())
def test_a_secret_anywhere_is_found(document, data):
    document.pop("integrity", None)
    place = document
    path = ""
    while True:
        inner = sorted(k for k, v in place.items() if isinstance(v, dict) and v)
        if not inner or not data.draw(st.booleans()):
            break
        key = data.draw(st.sampled_from(inner))
        path += "/" + key.replace("~", "~0").replace("/", "~1")
        place = place[key]
    clean = fault(document) is None
    place["apiKey"] = VALUE
    assert fault(document) is not None
    if clean:
        assert fault(document) == f"{path}/apiKey"
        assert fault(json.loads(json.dumps(document))) == f"{path}/apiKey"
