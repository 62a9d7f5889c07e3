#!/usr/bin/env bash
# All traffic to the canary: promote.sh [OPTIONS of dosctl release promote]
set -euo pipefail
# shellcheck source=pipeline/release/_common.sh
source "$(dirname "$(readlink -f "$0")")/_common.sh"
run_dosctl release promote "$@"
