#!/bin/sh
# SPDX-License-Identifier: MIT
# build.sh DIR: unpack what the KVM selftests need of Debian's linux-source-6.12 into DIR, build them, and
# name the folder of the programs in DIR/where. Done once: a second call finds the file.
# ANYKVM_LINUX_SOURCE names another tarball of the same tree.
set -eu
dir=${1:?usage: build.sh DIR}
tree=linux-source-6.12
tar=${ANYKVM_LINUX_SOURCE:-/usr/src/$tree.tar.xz}
[ -s "$dir/where" ] && exit 0
[ -r "$tar" ] || { echo "build.sh: no $tar; install Debian's $tree" >&2; exit 77; }
mkdir -p "$dir"
cd "$dir"
tar -xf "$tar" $(sed "s,^,$tree/," <<END
Makefile
scripts
include/uapi
include/asm-generic
arch/x86/Makefile
arch/x86/Makefile_32.cpu
arch/x86/Makefile.postlink
arch/x86/include/uapi
arch/x86/include/asm/Kbuild
arch/x86/entry/syscalls
arch/x86/tools
tools/include
tools/arch/x86/include
tools/lib
tools/build
tools/scripts
tools/testing/selftests/lib.mk
tools/testing/selftests/kselftest.h
tools/testing/selftests/kselftest_harness.h
tools/testing/selftests/kselftest
tools/testing/selftests/rseq
tools/testing/selftests/kvm
END
)
# The kernel's make takes settings from the environment that are this project's own.
unset BUILD ARCH CC CFLAGS MAKEFLAGS MFLAGS MAKELEVEL || true
make -s -j"$(nproc)" -C $tree headers
make -s -j"$(nproc)" -C $tree/tools/testing/selftests/kvm
echo "$PWD/$tree/tools/testing/selftests/kvm" >where
