#!/usr/bin/env bash
# The next step of the canary, or PCT: canary_step.sh [PCT] [OPTIONS of dosctl release step]
set -euo pipefail
# shellcheck source=pipeline/release/_common.sh
source "$(dirname "$(readlink -f "$0")")/_common.sh"
run_dosctl release step "$@"
