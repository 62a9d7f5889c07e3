#!/usr/bin/env bash
# All traffic back, stage=stable: abort.sh [OPTIONS of dosctl release abort]
set -euo pipefail
# shellcheck source=pipeline/release/_common.sh
source "$(dirname "$(readlink -f "$0")")/_common.sh"
run_dosctl release abort "$@"
