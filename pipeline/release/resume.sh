#!/usr/bin/env bash
# Steps go on again after pause.sh.
set -euo pipefail
# shellcheck source=pipeline/release/_common.sh
source "$(dirname "$(readlink -f "$0")")/_common.sh"
run_dosctl release resume "$@"
