"""``dosctl judge serve``: a judge for other hosts."""

from __future__ import annotations

import re
from pathlib import Path

import click

from pytest_decisionos.cli.output import even_unread
from pytest_decisionos.cli.trusted import must_keys
from pytest_decisionos.errors import KeysError, UsageError
from pytest_decisionos.judge.server.options import ServeOptions, Tls
from pytest_decisionos.judge.wire import MAX_BODY
from pytest_decisionos.settings import from_environment

_SERVE = """\b
Example:
  export DECISIONOS_JUDGE_KEYS=@/etc/decisionos/ring.json
  dosctl judge serve --judge judge-1 --keys /etc/decisionos/keys \\
    --witness-root var/log --host 10.0.0.5 --port 8443 \\
    --tls-cert judge-1.pem --tls-key judge-1.key
"""
_FILE = click.Path(path_type=Path)


@click.command(epilog=_SERVE)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8080,
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    metavar="N",
    default=1,
    show_default=True,
    help="Processes.",
)
@click.option("--witness-root", type=_FILE, help="Folder of its logs  [default: <root>/log]")
@click.option("--judge", metavar="ID", help="Its name  [default: that of the only judge-ID.key]")
@click.option("--keys", type=_FILE, help="Folder of its key  [default: DECISIONOS_KEYS_DIR]")
@click.option("--gate", type=_FILE, help="gate.yaml: it judges for its target only.")
@click.option("--root", type=_FILE, help="Folder of replay store and access log  [default: var]")
@click.option(
    "--public-url",
    metavar="URL",
    help="What clients ask, without /judge  [default: the address it listens on]",
)
@click.option(
    "--peer", metavar="NAME", help="Judge by this log of its own, not by those evidence names."
)
@click.option(
    "--max-body",
    type=click.IntRange(1024, MAX_BODY),
    metavar="BYTES",
    default=MAX_BODY,
    show_default=True,
    help="Largest body of a request.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1024),
    metavar="N",
    default=32,
    show_default=True,
    help="Questions in work at a time, of each worker.",
)
@click.option(
    "--timeout",
    "timeout_sec",
    type=click.FloatRange(0.1, 120),
    metavar="SEC",
    default=10.0,
    show_default=True,
    help="Seconds for a body to come, and for an answer.",
)
@click.option("--tls-cert", type=_FILE, help="Certificate and its chain, PEM.")
@click.option("--tls-key", type=_FILE, help="Its private key, PEM, mode 0600.")
@click.option("--tls-client-ca", type=_FILE, help="Clients must show a certificate of this CA.")
def serve(  # noqa: PLR0917 - click passes each option by name
    host: str,
    port: int,
    workers: int,
    witness_root: Path | None,
    judge: str | None,
    keys: Path | None,
    gate: Path | None,
    root: Path | None,
    public_url: str | None,
    peer: str | None,
    max_body: int,
    concurrency: int,
    timeout_sec: float,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
) -> None:
    """Answer signed questions with signed verdicts, computed from this host's own logs.

    POST /judge asks, GET /readyz says whether it may be asked, /healthz whether it runs; /metrics
    are for this host. SIGTERM answers what is in work and ends, SIGHUP reads keys, gate.yaml and
    certificate again. Exit status: 0 ended by a signal, 4 it cannot start.
    """
    settings = from_environment()
    folder = root or settings.root
    name, key = _key(must_keys(keys, settings), judge)
    options = ServeOptions(
        judge=name,
        key=key,
        gate=gate or settings.gate,
        root=folder,
        witness_root=witness_root or folder / "log",
        settings=settings,
        host=host,
        port=port,
        workers=workers,
        public_url=_public(public_url),
        peer=_plain(peer),
        max_body=max_body,
        concurrency=concurrency,
        timeout_sec=timeout_sec,
        tls=_tls(tls_cert, tls_key, tls_client_ca),
    )
    from pytest_decisionos.judge.server.run import serve as run  # noqa: PLC0415 - after the options

    run(options, _say)


def _say(line: str) -> None:
    with even_unread():  # a log that is full must not end a judge
        click.echo(line, err=True)


def _key(folder: Path, judge: str | None) -> tuple[str, Path]:
    """The judge's name, and its key."""
    from pytest_decisionos.trust.ed25519 import file_name  # noqa: PLC0415 - loads cryptography

    if judge is not None:
        return judge, folder / file_name("judge", judge)
    names = sorted(path.name[6:-4] for path in folder.glob("judge-*.key"))
    if not names:
        raise KeysError(
            "no judge's key is there",
            file=folder,
            next_step="make one with `dosctl keys gen --role judge --judge ID`",
        )
    if len(names) > 1:
        raise UsageError("which judge?", field="--judge", expected=f"one of {', '.join(names)}")
    return names[0], folder / file_name("judge", names[0])


def _public(url: str | None) -> str | None:
    if url is None:
        return None
    from urllib3.exceptions import LocationParseError  # noqa: PLC0415 - only with a proxy
    from urllib3.util import parse_url  # noqa: PLC0415 - the same

    try:
        parsed = parse_url(url.rstrip("/"))  # the spelling that clients sign
    except LocationParseError:
        parsed = None
    if not parsed or not re.fullmatch(
        r"https?://[a-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?", parsed.url
    ):
        expected = "http:// or https://, a host, and perhaps a path"
        raise UsageError("not a URL for this", field="--public-url", found=url, expected=expected)
    usual = {"http": 80, "https": 443}[parsed.scheme or ""]
    return parsed._replace(port=None if parsed.port == usual else parsed.port).url


def _plain(name: str | None) -> str | None:
    if name is not None and (name in {"", ".", ".."} or Path(name).name != name):
        expected = "a name in --witness-root, without folders"
        raise UsageError("not a plain file name", field="--peer", found=name, expected=expected)
    return name


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        raise UsageError(
            "TLS needs both", field="--tls-cert, --tls-key", expected="a certificate and its key"
        )
    return Tls(cert, key, client_ca)
