// SPDX-License-Identifier: MIT
/*
 * nested_watched N: a guest that is a hypervisor itself, by SVM: N times it enters a guest of its own, which executes a CPUID that is
 * intercepted, and flushes a page by INVLPGA. For tests that count what anykvm says of that.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define CODE_AT	 0x1000
#define VMCB_AT	 0x2000
#define GUEST_AT 0x3000
#define HSAVE_AT 0x4000
#define SIZE	 0x5000

static uint8_t code[] = {
	0xbe, 0,    0,	  0, 0, /* mov esi, N */
	0xb8, 0,    0x20, 0, 0, /* 1: mov eax, VMCB_AT */
	0x0f, 0x01, 0xd8,	/* vmrun */
	0xb8, 0,    0x50, 0, 0, /* mov eax, 0x5000 */
	0xb9, 7,    0,	  0, 0, /* mov ecx, 7 */
	0x0f, 0x01, 0xdf,	/* invlpga */
	0x4e,			/* dec esi */
	0x75, 0xe8,		/* jnz 1b */
	0xf4,			/* hlt */
};

static uint8_t mem[SIZE] __attribute__((aligned(4096)));

static void check(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(2);
}

static void put(unsigned offset, uint64_t val, unsigned size)
{
	memcpy(mem + VMCB_AT + offset, &val, size);
}

static void put_segment(unsigned offset, unsigned attr, uint64_t base)
{
	put(offset + 2, attr, 2);
	put(offset + 4, 0xffff, 4);
	put(offset + 8, base, 8);
}

/* A VMCB whose guest is in real mode (APM, layout of the VMCB). */
static void make_guest(void)
{
	memcpy(mem + GUEST_AT, "\x0f\xa2\xf4", 3);
	put(0x0c, 1u << 18, 4); /* CPUID */
	put(0x10, 1, 4);	/* VMRUN */
	put(0x58, 1, 4);	/* ASID */
	for (unsigned seg = 0x400; seg < 0x460; seg += 16)
		put_segment(seg, 0x93, 0);
	put_segment(0x410, 0x9b, GUEST_AT);
	put_segment(0x460, 0, 0);
	put_segment(0x480, 0, 0);
	put_segment(0x490, 0x8b, 0);
	put(0x4d0, 1 << 12, 8);	   /* EFER.SVME */
	put(0x558, 0x10, 8);	   /* CR0 */
	put(0x560, 0x400, 8);	   /* DR7 */
	put(0x568, 0xffff0ff0, 8); /* DR6 */
	put(0x570, 2, 8);	   /* RFLAGS */
	put(0x668, 0x7040600070406, 8);
}

static void set_state(int vcpu)
{
	struct kvm_segment flat = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {.rip = CODE_AT, .rflags = 2};
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = {.head.nmsrs = 1, .entry = {.index = 0xc0010117, .data = HSAVE_AT}};
	struct kvm_sregs s;

	check(!ioctl(vcpu, KVM_GET_SREGS, &s), "sregs");
	s.cs = flat;
	flat.type = 3;
	flat.selector = 16;
	s.ds = s.es = s.fs = s.gs = s.ss = flat;
	s.cr0 = 0x11;
	s.efer = 1 << 12;
	check(!ioctl(vcpu, KVM_SET_SREGS, &s) && !ioctl(vcpu, KVM_SET_REGS, &regs), "state");
	check(ioctl(vcpu, KVM_SET_MSRS, &msr) == 1, "VM_HSAVE_PA");
}

static void set_cpuid(int kvm, int vcpu)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 200 * sizeof(cpuid->entries[0]));

	cpuid->nent = 200;
	check(!ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) && !ioctl(vcpu, KVM_SET_CPUID2, cpuid),
	      "CPUID");
	free(cpuid);
}

int main(int argc, char **argv)
{
	struct kvm_userspace_memory_region region = {.memory_size = SIZE,
						     .userspace_addr = (uintptr_t)mem};
	uint32_t n = argc > 1 ? strtoul(argv[1], NULL, 0) : 1;
	int kvm = open("/dev/kvm", O_RDWR), vm, vcpu;
	struct kvm_run *run;

	check(kvm >= 0, "/dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	check(vm >= 0 && !ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "vm");
	memcpy(mem + CODE_AT, code, sizeof(code));
	memcpy(mem + CODE_AT + 1, &n, sizeof(n));
	make_guest();
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	check(vcpu >= 0, "vcpu");
	set_cpuid(kvm, vcpu);
	set_state(vcpu);
	run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED,
		   vcpu, 0);
	check(run != MAP_FAILED, "mmap");
	check(!ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	if (run->exit_reason != KVM_EXIT_HLT)
		printf("exit reason %u\n", run->exit_reason);
	return run->exit_reason != KVM_EXIT_HLT;
}
