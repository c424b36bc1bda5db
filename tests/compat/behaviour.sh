#!/bin/sh
# SPDX-License-Identifier: MIT
# behaviour.sh ANYKVM TEST VERSION: TEST under that version of the guest-visible behaviour; versions that there are not are refused.
set -e
"$1" run --cpu haswell-ep --param "anykvm.behaviour=$3" -- "$2" "$3"
for wrong in 0 99 x; do
	if "$1" run --param "anykvm.behaviour=$wrong" -- true 2>/dev/null; then
		echo "anykvm.behaviour=$wrong was taken" >&2
		exit 1
	fi
done
