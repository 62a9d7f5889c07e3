"""The configuration as text: what it depends on, and what is refused before nginx sees it."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_decisionos.errors import RolloutError
from pytest_decisionos.release.nginx_config import NginxConfig
from pytest_decisionos.release.nginx_render import _TEXT, render
from pytest_decisionos.release.traffic import Traffic

SETTINGS = {
    "listen": ["8080", "[::1]:8443"],
    "control": "127.0.0.1:18080",
    "releases": {"v1": ["10.0.0.1:80", "10.0.0.3:80"], "v2": ["10.0.0.2:80"]},
}
STABLE = Traffic(release="v1")
SHADOW = Traffic(shadow=True, release="v2", baseline_release="v1")


def rendered(want, *, folder="/srv/var/rollout", template=None, **more):
    config = NginxConfig.model_validate({**SETTINGS, **more})
    log = Path(folder).parent / "log"
    return render(config, want, folder=Path(folder), log=log, template=template)


def canary(pct):
    return Traffic(pct=pct, release="v2", baseline_release="v1", keep_warm=pct == 100)


@pytest.mark.parametrize(
    ("want", "split"),
    [
        (STABLE, "* control;"),
        (SHADOW, "* control;"),
        (canary(0.01), "0.01% canary; * control;"),
        (canary(5.0), "5.00% canary; * control;"),
        (canary(99.99), "99.99% canary; * control;"),
        (canary(100.0), "* canary;"),
    ],
)
def test_the_split(want, split):
    text, _ = rendered(want)
    assert re.search(r"split_clients [^{]*\{\s*(.*?)\s*\}", text)[1] == split


@given(st.integers(1, 9999))
def test_any_percentage_is_written_exactly(hundredths):
    text, _ = rendered(canary(hundredths / 100))
    written = re.search(r"([0-9.]+)% canary;", text)[1]
    assert written == f"{hundredths // 100}.{hundredths % 100:02d}"


def test_nothing_is_left_to_fill_in():
    for want in (STABLE, SHADOW, canary(5.0), canary(100.0)):
        text, generation = rendered(want, tenant="header:X-Tenant", user="www-data")
        assert "%%" not in text.replace("# %%{http} inside", "").replace(
            "and %%{server} inside", ""
        )
        assert f'"generation": "{generation}"' in text
        assert "listen 8080; listen [::1]:8443;" in text
        assert "server 10.0.0.1:80; server 10.0.0.3:80;" in text


def test_equal_wishes_give_equal_files_and_different_ones_do_not():
    wants = [STABLE, SHADOW, canary(5.0), canary(5.01), canary(100.0), Traffic(release="v2")]
    assert [rendered(want) for want in wants] == [rendered(want) for want in wants]
    assert len({rendered(want)[1] for want in wants}) == len(wants)


def test_the_way_back_depends_on_no_canary_policy():
    assert rendered(STABLE, sticky="cookie:user") == rendered(STABLE, sticky="ip")
    assert rendered(canary(5.0), sticky="cookie:user") != rendered(canary(5.0), sticky="ip")


@pytest.mark.parametrize(
    ("sticky", "name"),
    [
        ("ip", "$remote_addr"),
        ("cookie:User_1", "$cookie_User_1"),
        ("header:X-User-ID", "$http_x_user_id"),
    ],
)
def test_the_key(sticky, name):
    text, _ = rendered(canary(5.0), sticky=sticky)
    assert f'map "{name}" $decisionos_key' in text


def test_bodies_are_copied_only_where_methods_have_some():
    assert "mirror_request_body off" in rendered(SHADOW)[0]
    text, _ = rendered(SHADOW, shadow_methods=["GET", "POST"])
    assert "mirror_request_body on" in text
    assert '"^(?:GET|POST)$"' in text
    assert "mirror" not in re.sub(r"#.*|copy_variant|decisionos_copies .*", "", rendered(STABLE)[0])


@pytest.mark.parametrize(
    "want", [Traffic(release="v3"), canary(5.0).model_copy(update={"release": "v3"})]
)
def test_a_release_that_runs_nowhere(want):
    with pytest.raises(RolloutError) as told:
        rendered(want)
    assert "nobody says where this release runs; found v3; expected one of v1, v2" in str(
        told.value
    )


@pytest.mark.parametrize("sign", ['"', "'", "\\", "$", "{", "}", ";", "\n", "\x7f"])
def test_a_path_that_nginx_would_misread(sign):
    with pytest.raises(RolloutError, match="a path that nginx would read as something else"):
        rendered(STABLE, folder=f"/srv/a{sign}b/rollout")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff", "cannot be read: not UTF-8"),
        (b"http { }", r"a template without our part; expected %%\{http\}"),
        (b"http { %%{http} }", r"a template without our part; expected %%\{server\}"),
        (b"%%{http} %%{server} %%{secret}", "not a template; found 'secret'"),
        (b"%%{http} %%{server} %%", "not a template"),
    ],
)
def test_a_template_that_cannot_be_used(tmp_path, text, says):
    template = tmp_path / "nginx.conf.template"
    if text is not None:
        template.write_bytes(text)
    with pytest.raises(RolloutError, match=says):
        rendered(STABLE, template=template)


def test_a_template_of_ones_own(tmp_path):
    template = tmp_path / "mine"
    template.write_text(
        "events {}\nhttp {\n%%{http}\nserver {\n listen 443 ssl;\n%%{server}\n}\n}\n"
    )
    text, _ = rendered(STABLE, template=template)
    assert text.startswith("events {}\nhttp {\n# Who is on the canary")
    assert "listen 443 ssl;" in text


# What of a client's words gets into the log: a pattern of nginx's, which reads bytes as PCRE does.
PATTERN = re.compile(rb"^" + _TEXT.encode("latin-1") + rb"$")


@given(
    st.text(
        st.characters(exclude_characters="/", exclude_categories=["Cc", "Cs"]),
        min_size=1,
        max_size=64,
    )
)
def test_all_text_is_text(text):
    assert PATTERN.match(text.encode())


@given(st.binary(min_size=1, max_size=8))
def test_what_is_taken_for_text_is_utf_8(data):
    if PATTERN.match(data):
        data.decode()


@pytest.mark.parametrize(
    "data",
    [b"", b"a/b", b"\x00", b"\x1f", b"\x7f", b"\x80", b"\xc0\xaf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf5", b"a" * 257],
)  # fmt: skip
def test_what_is_no_text(data):
    assert not PATTERN.match(data)
