/* SPDX-License-Identifier: MIT */
/*
 * watched N: a guest that makes exactly N writes and N reads of port 0x80 and N CPUIDs, then halts; N = 0: it never
 * ends. For tests that count what anykvm says it did.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define LOAD_AT 0x1000

static uint8_t code[] = {
	0x66, 0xbe, 0,	  0, 0, 0, /* mov esi, N */
	0xba, 0x80, 0x00,	   /* mov dx, 0x80 */
	0xee,			   /* 1: out dx, al */
	0xec,			   /* in al, dx */
	0x66, 0x31, 0xc0,	   /* xor eax, eax */
	0x0f, 0xa2,		   /* cpuid */
	0xba, 0x80, 0x00,	   /* mov dx, 0x80 */
	0x66, 0x4e,		   /* dec esi */
	0x75, 0xf2,		   /* jnz 1b */
	0xf4,			   /* hlt */
};

static void check(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(2);
}

static int make_vcpu(int vm, void *page)
{
	struct kvm_userspace_memory_region region = {
		.guest_phys_addr = LOAD_AT,
		.memory_size = 4096,
		.userspace_addr = (uintptr_t)page,
	};
	struct kvm_regs regs = {.rip = LOAD_AT, .rflags = 2};
	struct kvm_sregs sregs;
	int vcpu;

	check(!ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "memory");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	check(vcpu >= 0, "vcpu");
	check(!ioctl(vcpu, KVM_GET_SREGS, &sregs), "sregs");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	check(!ioctl(vcpu, KVM_SET_SREGS, &sregs) && !ioctl(vcpu, KVM_SET_REGS, &regs), "regs");
	return vcpu;
}

int main(int argc, char **argv)
{
	uint32_t n = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;
	int kvm = open("/dev/kvm", O_RDWR), vm, vcpu;
	struct kvm_run *run;
	void *page;

	memcpy(code + 2, &n, sizeof(n));
	check(kvm >= 0, "/dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(vm >= 0 && page != MAP_FAILED, "vm");
	memcpy(page, code, sizeof(code));
	vcpu = make_vcpu(vm, page);
	run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED,
		   vcpu, 0);
	check(run != MAP_FAILED, "mmap");
	do {
		check(!ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
		if (run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_IN)
			*((uint8_t *)run + run->io.data_offset) = 0x5a;
	} while (run->exit_reason == KVM_EXIT_IO);
	return run->exit_reason == KVM_EXIT_HLT ? 0 : 3;
}
