"""What may not be sealed: fields to mask are masked, and values that look like secrets are refused."""

from __future__ import annotations

import re
import unicodedata
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.errors import EvidenceError
from pytest_decisionos.evidence.config import SECRET_KEYS
from pytest_decisionos.model.strict_json import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_decisionos.evidence.config import Privacy

MASK: Final = "[masked]"
METRICS: Final = ("/quota/decisions/*", "/usage/buckets/*", "/usage/deltas_by_metric/*")
"""Where the format has names of metrics for keys: ``tokens`` is something to count there."""

_Path = tuple[str, ...]
_METRICS: Final = [tokens(pointer) for pointer in METRICS]


def masked(blocks: Mapping[str, Any], privacy: Privacy) -> dict[str, Any]:
    """``blocks`` with every value that a pointer of ``privacy.mask`` names replaced by ``MASK``.

    A step ``*`` stands for any one key or index. A pointer that names nothing masks nothing, null
    stays null, and ``integrity`` is left alone.
    """
    made: Any = {name: value for name, value in blocks.items() if name != "integrity"}
    for pointer in privacy.mask:
        made = _replaced(made, tokens(pointer))
    return {name: made.get(name, value) for name, value in blocks.items()}


def _replaced(value: Any, steps: _Path) -> Any:
    if not steps:
        return value if value is None else MASK
    first, rest = steps[0], steps[1:]
    if isinstance(value, dict):
        return {
            key: _replaced(item, rest) if first in {"*", key} else item
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            _replaced(item, rest) if first in {"*", str(index)} else item
            for index, item in enumerate(value)
        ]
    return value


def refuse_secrets(blocks: Mapping[str, Any], privacy: Privacy, file: object = None) -> None:
    """Refuse ``blocks`` if a value stands under a key that looks like the name of a secret.

    Names are compared as ``snake_case`` and without any separators (``X-API-Key``, ``apiKey`` and
    ``APIKEY`` are one), a number or version at the end left out. What stands anywhere below such a
    key is under it. A pointer of ``privacy.allow`` lifts that for the key or value that it names;
    ``METRICS`` are no such names; null, a masked value and ``integrity`` are no fault.

    Raises:
        EvidenceError: with the path of the first such value; the value itself is never told.
    """
    secret = _secrets(privacy.refuse_keys)
    allowed = [tokens(pointer) for pointer in privacy.allow]
    covered = {name: value for name, value in blocks.items() if name != "integrity"}
    path = next(_suspects(covered, (), secret, allowed, under=False), None)
    if path is not None:
        raise EvidenceError(
            "a value under the name of a secret is not sealed",
            file=file,
            field="".join("/" + step.replace("~", "~0").replace("/", "~1") for step in path),
            next_step="take it out; or in evidence.yaml mask it, or allow it if it is none",
        )


def _suspects(
    value: Any, path: _Path, secret: Callable[[str], bool], allowed: list[_Path], *, under: bool
) -> Iterator[_Path]:
    if isinstance(value, dict):
        steps = [(key, item, secret(key)) for key, item in value.items()]
    elif isinstance(value, list):
        steps = [(str(index), item, False) for index, item in enumerate(value)]
    else:
        if under and value is not None and value != MASK:
            yield path
        return
    for step, item, named in steps:
        here = (*path, step)
        marked = under or (named and not _any_names(_METRICS, here))
        marked = marked and not _any_names(allowed, here)
        yield from _suspects(item, here, secret, allowed, under=marked)


def _any_names(pointers: Sequence[_Path], path: _Path) -> bool:
    return any(
        len(pointer) == len(path)
        and all(named in {"*", step} for named, step in zip(pointer, path, strict=True))
        for pointer in pointers
    )


@lru_cache(maxsize=16)
def _secrets(more: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a key is the name of a secret; the few names of a document are looked at once."""
    patterns = {*SECRET_KEYS, *(_snake(name) for name in more)}
    matches = re.compile(
        "|".join(sorted(translate(p) for one in patterns for p in (one, one.replace("_", ""))))
    ).match

    @lru_cache(maxsize=4096)
    def secret(key: str) -> bool:
        name = _snake(key)
        bare = re.sub(r"(_v)?[0-9_]+$", "", name)
        return any(matches(form) for form in (name, bare, bare.replace("_", "")))

    return secret


def _snake(name: str) -> str:
    """``X-API-Key`` and ``xApiKey`` → ``x_api_key``; compatibility forms of letters are the letters."""
    text = unicodedata.normalize("NFKC", name)
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text)
    return re.sub(r"[\s./:_-]+", "_", text).strip("_").casefold()
