#!/usr/bin/env bash
# No step goes on until resume.sh; an abort always may.
set -euo pipefail
# shellcheck source=pipeline/release/_common.sh
source "$(dirname "$(readlink -f "$0")")/_common.sh"
run_dosctl release pause "$@"
