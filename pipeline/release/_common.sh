# Sourced by the scripts beside it: go to the project's folder, and find dosctl on PATH or there.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."

run_dosctl() {
  if command -v dosctl >/dev/null 2>&1; then
    dosctl "$@"
  else
    .venv/bin/dosctl "$@"
  fi
}
