#!/bin/sh
# SPDX-License-Identifier: MIT
# host_processor.sh COMMAND: near the host, too, /proc/cpuinfo and the modules speak of virtualization, and of the same.
command=$1
expect() {
	[ "$2" = "$3" ] || { echo "FAILED: $1: $2, expected $3"; exit 1; }
}
cpus=$(grep -c '^processor' /proc/cpuinfo)
vendor=$("$command" run -- sed -n 's/^vendor_id.*: //p' /proc/cpuinfo | sort -u)
case $vendor in
GenuineIntel) flag=vmx module=kvm_intel own=VT-x paging=ept ;;
AuthenticAMD) flag=svm module=kvm_amd own=AMD-V paging=npt ;;
*) echo "FAILED: vendor $vendor"; exit 1 ;;
esac
expect "CPUs with $flag" "$("$command" run -- grep -cwE "^flags.* $flag" /proc/cpuinfo)" "$cpus"
expect "CPUs with $paging" "$("$command" run -- grep -cwE "^flags.* $paging" /proc/cpuinfo)" "$cpus"
expect "$module" "$("$command" run -- cat /sys/module/$module/parameters/$paging)" Y
expect lscpu "$("$command" run -- env LC_ALL=C lscpu | sed -n 's/^Virtualization: *//p')" $own
# All else is the host's.
expect "other lines" "$("$command" run -- grep -vE '^(flags|vmx flags|cpu MHz)' /proc/cpuinfo | md5sum)" \
	"$(grep -vE '^(flags|vmx flags|cpu MHz)' /proc/cpuinfo | md5sum)"
