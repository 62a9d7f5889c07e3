#!/usr/bin/env bash
# Run the gate, and abort if it says so: abort_on_gate_fail.sh [SLO] [EVIDENCE] [QUORUM]
#
# Without SLO all of the phase are judged. Exit status: 0 GO; 2 NO-GO: with action abort the traffic
# was driven back and stage=stable, with action wait nothing was changed; 10 HOLD; 3 denied;
# 4 wrong usage. Relative paths are of the project's folder.
# A gate that cannot run says nothing about the canary: that is NO-GO too, and nothing is aborted.
set -euo pipefail
# shellcheck source=pipeline/release/_common.sh
source "$(dirname "$(readlink -f "$0")")/_common.sh"

if (($# > 3)) || [[ " $*" == *" -"* ]]; then
  echo "usage: abort_on_gate_fail.sh [SLO] [EVIDENCE] [QUORUM]; options: dosctl release guard" >&2
  exit 4
fi
args=()
[[ -z "${1-}" ]] || args+=(--slo "$1")
[[ -z "${2-}" ]] || args+=(--evidence "$2")
[[ -z "${3-}" ]] || args+=(--quorum "$3")

status=0
run_dosctl release guard ${args[@]+"${args[@]}"} || status=$?
case $status in
  0 | 2 | 3 | 10) exit "$status" ;;
esac
# Unusable, not installed, killed: whatever it was, it was no GO.
echo "NO-GO: the gate could not run (status $status); nothing was aborted" >&2
exit 2
