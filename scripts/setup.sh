#!/usr/bin/env bash
# Make the virtual environment $1 and install this checkout with its development tools into it.
# PYTHON=… chooses the interpreter. Written for bash 3.2 (macOS).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

runs() { "$@" >/dev/null 2>&1; }
# A version manager's shim can be there and not run, so every candidate is asked.
recent() { runs "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; }

if ! recent "$venv/bin/python" || ! runs "$venv/bin/python" -m pip --version; then
  python='' lacking=''
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; do
    recent "$candidate" || continue
    if runs "$candidate" -c 'import ensurepip, venv'; then
      python=$candidate
      break
    fi
    lacking=${lacking:-$candidate}
  done
  if [ -z "$python" ] && [ -n "$lacking" ]; then
    version=$("$lacking" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "setup: $lacking has no venv module → apt-get install python$version-venv" >&2
    exit 1
  elif [ -z "$python" ]; then
    echo "setup: no Python 3.11 or later found → apt-get install python3 python3-venv (macOS: brew install python@3.13), or name one with PYTHON=…" >&2
    exit 1
  fi
  echo "setup: $venv with $("$python" -V)"
  "$python" -m venv --clear "$venv"
fi
echo "setup: installing pytest-decisionos and its development tools into $venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -e '.[dev]' || {
  echo "setup: pip could not install them; its reason stands above" >&2
  exit 1
}
