#!/usr/bin/env bash
# Run the gate, and abort if it says so: abort_on_gate_fail.sh [SLO] [EVIDENCE] [QUORUM]
#
# Without SLO all of the phase are judged. Exit status: 0 GO; 2 NO-GO: with action abort the traffic
# was driven back and stage=stable, with action wait nothing was changed; 10 HOLD; 3 denied.
# A gate that cannot run says nothing about the canary: that is NO-GO too, and nothing is aborted.
set -euo pipefail
# shellcheck source=pipeline/release/_common.sh
source "$(dirname "$(readlink -f "$0")")/_common.sh"

args=()
[[ -z "${1-}" ]] || args+=(--slo "$1")
[[ -z "${2-}" ]] || args+=(--evidence "$2")
[[ -z "${3-}" ]] || args+=(--quorum "$3")

status=0
run_dosctl release guard ${args[@]+"${args[@]}"} || status=$?
if ((status == 4)); then
  echo "NO-GO: the gate could not run; nothing was aborted" >&2
  status=2
fi
exit "$status"
