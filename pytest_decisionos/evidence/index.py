"""The index of evidence: takes up every document, in a journal whose head is signed."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_decisionos.errors import EvidenceError, RefusedError, UsageError
from pytest_decisionos.evidence import index_files
from pytest_decisionos.evidence.index_files import BUNDLES, EVIDENCE, Fault, is_evidence_of_bundle
from pytest_decisionos.evidence.index_head import time_text, told
from pytest_decisionos.evidence.index_open import BrokenIndexError, Index, opened
from pytest_decisionos.evidence.index_verify import Report
from pytest_decisionos.evidence.seal import target_of
from pytest_decisionos.model import strict_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pytest_decisionos.evidence.config import Retention
    from pytest_decisionos.evidence.index_files import File
    from pytest_decisionos.model.target import Target
    from pytest_decisionos.trust.ed25519 import PrivateKey
    from pytest_decisionos.trust.trustfile import TrustFile

MAX_RELEASE_CHARS: Final = 1024


class Facts(NamedTuple):
    """What the index and retention tell of a document beside its bytes.

    Attributes:
        target: what it is about; None if it names no whole target.
        tenant: ``meta.target.tenant``; empty if it names none.
        release: ``meta.release``; None if it names none.
        fault: why it cannot be read as a document; empty if it can.
    """

    target: dict[str, str] | None = None
    tenant: str = ""
    release: str | None = None
    fault: str = ""


def facts_of(data: bytes) -> Facts:
    """The facts of the document in ``data``."""
    try:
        blocks = strict_json.loads(data, error=EvidenceError)
    except EvidenceError as fault:
        return Facts(fault=fault.what)
    if not isinstance(blocks, dict):
        return Facts(fault="not an object of blocks")
    meta = blocks.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    target, release, named = target_of(blocks), meta.get("release"), meta.get("target")
    tenant = named.get("tenant") if isinstance(named, dict) else None
    return Facts(
        None if target is None else target.model_dump(),
        tenant if isinstance(tenant, str) else "" if target is None else target.tenant,
        release if isinstance(release, str) and len(release) <= MAX_RELEASE_CHARS else None,
    )


def update(
    root: Path,
    *,
    now: datetime,
    retention: Retention,
    key: PrivateKey | None = None,
    trust: TrustFile | None = None,
    target: Target | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Report:
    """Take up new documents, and what changed of those in work.

    A LOCKED document or a bundle that changed or vanished is never taken up again: it is a fault,
    and so is a document about another target, a link, and whatever is wrong with the index.

    Args:
        root: root folder of the target.
        now: the time here.
        retention: how long LOCKED documents stay that nobody has given a date.
        key: the index key; None leaves the head unsigned, if it is.
        trust: whose signature may stand under the head that is there.
        target: what a new index is about; None takes the first target that a document names.
        progress: told the share of the files that are done (0 to 1), and the last of them.

    Raises:
        EvidenceError: a folder cannot be used.
        RefusedError: the head may not be replaced here, or another writer has it for too long.
        UsageError: the index cannot be written.
    """
    try:
        with opened(root, now=now, key=key, trust=trust, target=target) as index:

            def look(path: str, sha256: str, data: bytes) -> Facts | None:
                known = index.state.get(path)
                is_new = known is None or not known.live or known.sha256 != sha256
                return facts_of(data) if is_new and _tells(path) else None

            files, faults = index_files.scan(root, look, progress)
            payloads = _news(index, files, faults, now, retention)
            index.append(payloads, now)
            events = [payload["event"] for payload in payloads]
            return Report(
                faults=tuple(faults),
                documents=len(files),
                entries=index.entries,
                signature="signed" if key else "unsigned",
                keyid=index.keyid,
                added=events.count("indexed"),
                changed=events.count("changed"),
                removed=events.count("removed"),
                redone=index.redone,
            )
    except BrokenIndexError as broken:
        return Report(broken.faults, 0, 0, "refused", "")


def _tells(path: str) -> bool:
    """Whether the file is a document: in a bundle that is its evidence alone."""
    return not path.startswith(BUNDLES) or is_evidence_of_bundle(path)


def _bundle_of(path: str) -> str:
    return path.split("/")[2] if path.startswith(f"{BUNDLES}/") else ""


def _news(
    index: Index,
    files: Mapping[str, File],
    faults: list[Fault],
    now: datetime,
    retention: Retention,
) -> list[dict[str, Any]]:
    """The entries that the index lacks; what may not be one is added to ``faults``."""
    faulty = {fault.path for fault in faults}
    bundles = {_bundle_of(path) for path in index.state} - {""}
    made = []
    for path, file in files.items():
        known = index.state.get(path)
        live = known is not None and known.live
        if known is not None and live and known.sha256 == file.sha256:
            continue
        if live and file.tier != "wip":
            faults.append(Fault("changed", path, None, "was changed since it was indexed"))
            continue
        if file.tier == "bundle" and _bundle_of(path) in bundles:
            faults.append(Fault("added", path, None, "was put into a bundle that is indexed"))
            continue
        facts: Facts = file.seen or Facts()
        index.target = index.target or facts.target
        if facts.target is not None and facts.target != index.target:
            words = f"is about {'/'.join(facts.target.values())}, and the index is not"
            faults.append(Fault("wrong_target", path, None, words))
            continue
        made.append(_entry("changed" if live else "indexed", file, facts))
        if file.tier == "locked":
            # One that gc did not get to delete after saying so has its date already.
            old = known.retain_until if known and known.sha256 == file.sha256 else None
            date = old or index.date_of(path, file.sha256, now, retention)
            made[-1]["retain_until"] = date
    for path, known in index.state.items():
        if not known.live or path in files or path in faulty:
            continue
        if known.tier == "wip":
            made.append(
                {"event": "removed", "path": path, "sha256": known.sha256, "tier": known.tier}
            )
        else:
            faults.append(Fault("removed", path, None, "is in the index, and not there"))
    return made


def _entry(event: str, file: File, facts: Facts) -> dict[str, Any]:
    modified: str | None = None
    with contextlib.suppress(ValueError, OverflowError, OSError):  # a time that no calendar has
        modified = time_text(datetime.fromtimestamp(file.stat.st_mtime, UTC))
    return {
        "event": event,
        "path": file.path,
        "sha256": file.sha256,
        "size": file.stat.st_size,
        "tier": file.tier,
        "target": facts.target,
        "release": facts.release,
        "modified": modified,
    }


def record_locked(
    root: Path,
    path: Path,
    *,
    now: datetime,
    retention: Retention,
    key: PrivateKey | None = None,
    trust: TrustFile | None = None,
) -> bool:
    """Take up a document that was LOCKED just now, with the date until which it stays.

    A document that the index has keeps the date that it has, so a later evidence.yaml cannot
    shorten it.

    Returns:
        Whether the index has it; False for one that is not in the root's evidence folder.

    Raises:
        RefusedError: the index has other bytes for it, was changed, or may not be written here.
        EvidenceError: the document cannot be read.
        UsageError: the index cannot be written.
    """
    name = f"{EVIDENCE}/{path.name}"
    if path.parent.resolve() != (root / EVIDENCE).resolve():
        return False
    if index_files.tier_of(name) != "locked" or path.name.startswith("."):
        raise UsageError("not the name of a LOCKED document", file=path)
    with opened(root, now=now, key=key, trust=trust) as index:
        faults: list[Fault] = []
        file = index_files.hash_files(root, [name], faults, lambda *seen: facts_of(seen[2])).get(
            name
        )
        if file is None:
            raise EvidenceError(faults[0].message if faults else "no such file", file=path)
        known = index.state.get(name)
        if known is not None and known.live:
            if known.sha256 != file.sha256:
                raise RefusedError(
                    "a LOCKED document was changed since it was indexed",
                    file=path,
                    found=file.sha256,
                    expected=known.sha256,
                )
            return True
        facts: Facts = file.seen
        index.target = index.target or facts.target
        if facts.target is not None and facts.target != index.target:
            raise RefusedError(
                "is about another target than the index",
                file=path,
                found=told(facts.target),
                expected=told(index.target),
            )
        date = index.date_of(name, file.sha256, now, retention)
        index.append([_entry("locked", file, facts) | {"retain_until": date}], now)
    return True
