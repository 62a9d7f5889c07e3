"""Traffic → nginx.conf: templates of nginx's own text, with our values where ``%%{name}`` stands."""

from __future__ import annotations

import hashlib
import json
import re
import string
from importlib import resources
from typing import TYPE_CHECKING, Final

from pytest_decisionos.errors import RolloutError
from pytest_decisionos.release.nginx_config import variable

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_decisionos.release.nginx_config import NginxConfig
    from pytest_decisionos.release.traffic import Traffic

# Up to 256 bytes without a slash: printable ASCII, or characters of UTF-8 as RFC 3629 §4 has them.
_TEXT: Final = (
    r"(?=[^/]{1,256}(?:/|$))"
    r"(?:[\x20-\x2E\x30-\x7E]|[\xC2-\xDF][\x80-\xBF]|\xE0[\xA0-\xBF][\x80-\xBF]"
    r"|[\xE1-\xEC\xEE\xEF][\x80-\xBF]{2}|\xED[\x80-\x9F][\x80-\xBF]|\xF0[\x90-\xBF][\x80-\xBF]{2}"
    r"|[\xF1-\xF3][\x80-\xBF]{3}|\xF4[\x80-\x8F][\x80-\xBF]{2})++"
)
_TENANT: Final = (
    'map $%%{key} $decisionos_tenant { "" ""; "~^%%{text}$" $%%{key}; default "(other)"; }'
)


class _Template(string.Template):
    delimiter = "%%"


def render(
    config: NginxConfig, want: Traffic, *, folder: Path, log: Path, template: Path | None
) -> tuple[str, str]:
    """The whole nginx.conf, and its generation: what nginx says when it runs with it.

    The generation is a digest of all the rest, so equal wishes give equal files.

    Args:
        config: of rollout.yaml.
        want: whom which release serves; with a release that serves.
        folder: where nginx's own files are.
        log: folder of the logs.
        template: instead of our nginx.conf.

    Raises:
        RolloutError: a release runs nowhere, a path cannot be written into a configuration, or the
            template cannot be used.
    """
    values = _values(config, want)
    values |= {"folder": _path(folder), "log": _path(log)}
    whole = _ours("nginx.conf") if template is None else _read(template)

    def once(generation: str) -> str:
        said = {"generation": generation, **want.model_dump()}
        filled = values | {"says": json.dumps(said)}
        copies = want.shadow or want.keep_warm
        filled["mirror"] = _fill(_MIRROR, filled) if copies else ""
        filled["inbox"] = _fill(_ours("inbox.conf"), filled) if copies else ""
        server = _ours("server.conf") + (_ours("copy.conf") if copies else "")
        filled["server"] = _fill(server, filled).strip()
        filled["http"] = _fill(_ours("http.conf"), filled).strip()
        return _fill(whole, filled, template)

    generation = hashlib.sha256(once("").encode()).hexdigest()[:16]
    return once(generation), generation


_MIRROR: Final = "mirror /.decisionos/copy; mirror_request_body %%{copy_body};"


def _values(config: NginxConfig, want: Traffic) -> dict[str, str]:
    control, canary = want.served or "", "" if want.is_way_back else want.release or ""
    copied = canary if want.shadow else control if want.keep_warm else ""
    upstreams = {"control": control, "canary": canary, "copied": copied}
    body = "off" if set(config.shadow_methods) <= {"GET", "HEAD"} else "on"
    # Not even a key where there is nobody to tell apart: so the way back is the same whatever
    # the canary policy says.
    split = not want.is_way_back and 0 < want.pct < 100
    tenant = "" if config.tenant is None else variable(config.tenant)
    return {
        "user": f"user {config.user};" if config.user else "",
        "listen": " ".join(f"listen {one};" for one in config.listen),
        "control": config.control,
        "key": variable(config.sticky) if split else "remote_addr",
        "salt": canary,
        "split": f"{want.pct:.2f}% canary; * control;" if split
        else f"* {'canary' if want.pct == 100 else 'control'};",
        "control_release": control,
        "canary_release": canary or control,
        "upstreams": "\n".join(
            f"upstream decisionos_{name} {{ {_servers(config, release)} }}"
            for name, release in upstreams.items()
            if release
        ),
        "text": _TEXT,
        "segments": str(config.route_segments),
        "tenant": tenant and _TENANT.replace("%%{key}", tenant).replace("%%{text}", _TEXT),
        "tenant_field": tenant and '"tenant":"$decisionos_tenant",',
        "copy_variant": "shadow" if want.shadow else "mirror",
        "copy_release": copied,
        "copy_body": body,
        "copy_no_length": 'proxy_set_header Content-Length "";' if body == "off" else "",
        "methods": "|".join(config.shadow_methods),
    }  # fmt: skip


def _servers(config: NginxConfig, release: str) -> str:
    if release not in config.releases:
        raise RolloutError(
            "nobody says where this release runs",
            field="nginx.releases",
            found=release,
            expected=f"one of {', '.join(sorted(config.releases))}",
            next_step="add it to rollout.yaml when it is deployed",
        )
    return " ".join(f"server {one};" for one in config.releases[release])


def _path(path: Path) -> str:
    """A path that means itself between double quotes."""
    text = str(path)
    if re.search(r"""["'\\${};\x00-\x1f\x7f]""", text):
        raise RolloutError("a path that nginx would read as something else", found=text)
    return text


def _ours(name: str) -> str:
    folder = resources.files("pytest_decisionos.release") / "nginx"
    return (folder / name).read_text(encoding="utf-8")


def _read(template: Path) -> str:
    try:
        text = template.read_text(encoding="utf-8")
    except (OSError, ValueError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "not UTF-8"
        raise RolloutError(f"cannot be read: {why}", file=template) from None
    for needed in ("%%{http}", "%%{server}"):
        if needed not in text:
            raise RolloutError("a template without our part", file=template, expected=needed)
    return text


def _fill(text: str, values: dict[str, str], file: Path | None = None) -> str:
    try:
        return _Template(text).substitute(values)
    except (KeyError, ValueError) as fault:
        raise RolloutError(
            "not a template",
            file=file,
            found=str(fault),
            expected=f"%%{{name}} of {', '.join(sorted(values))}",
        ) from None
