"""``dosctl init``: gates, policy and a CI workflow for somebody's own repository."""

from __future__ import annotations

import difflib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import click
from click.core import ParameterSource
from pydantic import ValidationError

from pytest_decisionos import __version__
from pytest_decisionos.errors import PolicyError, UnusableInputError, UsageError
from pytest_decisionos.model.strict_json import read_bytes
from pytest_decisionos.model.target import Target
from pytest_decisionos.model.validate import first_fault
from pytest_decisionos.trust.files import write_atomic

_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = ("gates/*.py", "configs/**/*.json", "configs/**/*.yaml")
_WORKFLOWS = {
    "github": (".github/workflows/release-gate.yml", "github.yml"),
    "gitlab": (".gitlab-ci-decisionos.yml", "gitlab.yml"),
}
_GATE = "configs/gate.yaml"
_IGNORE = "var/\n"
_MAX_BYTES = 1024 * 1024
# The SLOs that we ship ask for the three blocks that no log holds.
_TRY = """\
       dosctl sample
       dosctl evidence build --block budget=var/log/budget.json \\
         --block quota=var/log/quota.json --block usage=var/log/usage.json
       pytest gates/"""

_EXAMPLES = """\b
Examples:
  dosctl init --service checkout
  dosctl init --ci gitlab --diff
"""


@dataclass(frozen=True)
class _File:
    """A file to write: its path in the repository, our content, and whether its place is taken."""

    name: str
    path: Path
    content: str
    taken: bool


@click.command(epilog=_EXAMPLES)
@click.option(
    "--ci",
    type=click.Choice(tuple(_WORKFLOWS)),
    default="github",
    show_default=True,
    help="Whose workflow to write.",
)
@click.option("--service", metavar="NAME", help="What is released.  [default: the folder's name]")
@click.option("--environment", metavar="NAME", default="production", show_default=True)
@click.option("--region", metavar="NAME", default="all", show_default=True)
@click.option("--tenant", metavar="NAME", default="all", show_default=True)
@click.option("--diff", is_flag=True, help="Write nothing; show what is not as we would write it.")
@click.pass_context
def init(  # noqa: PLR0917 - click passes each option by name
    context: click.Context,
    ci: str,
    service: str | None,
    environment: str,
    region: str,
    tenant: str,
    *,
    diff: bool,
) -> None:
    """Write gates/, configs/ and a CI workflow into the repository in this folder.

    A file that is there is kept as it is, whatever it holds.
    """
    root = _repository()
    target = _target(root.name if service is None else service, environment, region, tenant)
    files = [_placed(root, name, content) for name, content in _contents(ci, target).items()]
    if diff:
        for file in files:
            _show_difference(root, file)
        return
    for file in files:
        if not file.taken:
            write_atomic(file.path, file.content.encode())
        click.echo(f"{'kept ' if file.taken else 'wrote'}  {file.name}")
    kept = [file.name for file in files if file.taken]
    stated = [name for name in Target.model_fields if _was_stated(context, name)]
    if stated and _GATE in kept:
        options = ", ".join(f"--{name}" for name in stated)
        click.echo(f"note: {options} not used: {_GATE} is kept", err=True)
    click.echo(_next_steps(ci, kept))


def _was_stated(context: click.Context, option: str) -> bool:
    return context.get_parameter_source(option) is ParameterSource.COMMANDLINE


def _repository() -> Path:
    """This folder, unless a workflow in it would be read by nobody: CI reads the top folder's.

    Raises:
        UsageError: it lies inside a repository, or is there no more.
    """
    try:
        root = Path.cwd()
    except OSError as fault:
        raise UsageError(f"no current folder: {fault.strerror}") from None
    if not (root / ".git").exists():
        top = next((folder for folder in root.parents if (folder / ".git").exists()), None)
        if top is not None:
            raise UsageError(
                "not the top folder of the repository", file=root, next_step=f"run it in {top}"
            )
    return root


def _target(service: str, environment: str, region: str, tenant: str) -> Target:
    try:
        target = Target(service=service, environment=environment, region=region, tenant=tenant)
    except ValidationError as fault:
        first = first_fault(fault)
        raise UsageError(
            first.words,
            field=f"--{first.field}",
            found=first.found or None,
            next_step="name it with that option",
        ) from None
    for name, part in target.model_dump().items():
        if "/" in part:  # no key of a trust file could ever count for it
            raise UsageError(
                "has a slash", field=f"--{name}", found=part, next_step="name it with that option"
            )
    if not str(target).isprintable():
        raise UsageError("control characters in a name", field="target", found=str(target))
    return target


def _contents(ci: str, target: Target) -> dict[str, str]:
    """What we write: path in the repository → text."""
    source = _source()
    shipped = sorted(path for pattern in _SHIPPED for path in source.glob(pattern))
    contents = {path.relative_to(source).as_posix(): _text(path) for path in shipped}
    if _GATE not in contents:
        raise PolicyError("this installation is damaged: a file is missing", file=source / _GATE)
    contents[_GATE] = _with_target(contents[_GATE], target)
    name, template = _WORKFLOWS[ci]
    workflow = _text(_PACKAGE / "cli" / "templates" / template)
    contents[name] = workflow.replace("@VERSION@", __version__)
    contents[".gitignore"] = _IGNORE
    return contents


def _source() -> Path:
    """Where gates/ and configs/ come from: the wheel has a copy, an editable install is one."""
    scaffold = _PACKAGE / "scaffold"
    return scaffold if scaffold.is_dir() else _PACKAGE.parent


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _with_target(gate: str, target: Target) -> str:
    """gate.yaml with this target in place of the sample's; every comment stays."""
    block = "target:\n" + "".join(
        f"  {key}: {json.dumps(value, ensure_ascii=False)}\n"
        for key, value in target.model_dump().items()
    )
    # The key, and every line that belongs to it because it is indented.
    text, found = re.subn(r"(?m)^target:.*\n(?:[ \t]+\S.*\n)*", lambda _: block, gate)
    if found != 1:
        raise PolicyError("this installation is damaged: no such field", file=_GATE, field="target")
    return text


def _placed(root: Path, name: str, content: str) -> _File:
    """``content`` at its place, if the place lies in the repository.

    Raises:
        UsageError: a symbolic link on the way leads out of it, or a file is where a folder must be.
    """
    path = root / name
    below = path.relative_to(root).parents
    for folder in (root / step for step in below):
        # A link to nowhere and a ring of links are no folders either.
        if os.path.lexists(folder) and not folder.is_dir():
            raise UsageError(
                "not a folder", file=folder.relative_to(root), next_step="nothing was written"
            )
    if not _inside(root, path.parent):
        raise UsageError(
            "a symbolic link leads out of the repository",
            file=name,
            found=os.path.realpath(path.parent),
            next_step="nothing was written",
        )
    return _File(name, path, content, taken=os.path.lexists(path))


def _inside(root: Path, path: Path) -> bool:
    """Whether ``path``, its links followed, lies in the repository."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _show_difference(root: Path, file: _File) -> None:
    """Print a unified diff from what is there to what we would write."""
    old: list[str] = []
    if file.taken:
        if not _inside(root, file.path):
            click.echo(f"# {file.name} is a link out of the repository: not compared")
            return
        data = read_bytes(file.path, error=UnusableInputError, max_bytes=_MAX_BYTES)
        old = data.decode(errors="replace").splitlines()
    before = f"a/{file.name}" if file.taken else "/dev/null"
    new = file.content.splitlines()
    for line in difflib.unified_diff(old, new, before, f"b/{file.name}", lineterm=""):
        click.echo("".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line))


def _next_steps(ci: str, kept: list[str]) -> str:
    steps = []
    if _GATE in kept:
        steps.append(f"{_GATE} was there: see that its target and its SLOs are meant.")
    else:
        steps.append(f"See that target, judges and SLOs in {_GATE} are yours.")
    if ".gitignore" in kept:
        steps.append("See that .gitignore has the line var/: what a run makes is not source.")
    if ci == "gitlab":
        steps.append("In .gitlab-ci.yml: include: [{local: .gitlab-ci-decisionos.yml}]")
    steps.append(f"In {_WORKFLOWS[ci][0]}: bring your request logs to var/log.")
    steps.append(f"Try it with sample traffic:\n{_TRY}")
    if kept:
        steps.append("dosctl init --diff shows how the kept files differ from ours.")
    return "\nNext:\n" + "\n".join(f"  {i}. {step}" for i, step in enumerate(steps, 1))
