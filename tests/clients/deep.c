/* SPDX-License-Identifier: MIT */
/*
 * deep [PORTS]: a 64-bit guest with frame pointers that stays in inner(), called by middle(), called by outer(), until it has written to
 * port 0x80 PORTS times; then it halts. `deep --symbols` prints where its functions are, as kallsyms does. For samples of
 * stacks.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define MEMORY (2u << 20)
#define TABLES 0x1000
#define CODE   0x8000
#define STACK  0x20000

extern const uint8_t guest_start[], guest_middle[], guest_inner[], guest_end[];
__asm__(".pushsection .rodata\n"
	"guest_start:\n"
	"push $0\n"
	"push $0\n"
	"mov %rsp, %rbp\n"
	"call guest_middle\n"
	"hlt\n"
	"guest_middle:\n"
	"push %rbp\n"
	"mov %rsp, %rbp\n"
	"call guest_inner\n"
	"pop %rbp\n"
	"ret\n"
	"guest_inner:\n"
	"push %rbp\n"
	"mov %rsp, %rbp\n"
	"1: mov $20000000, %ecx\n"
	"2: dec %ecx\n"
	"jnz 2b\n"
	"out %al, $0x80\n"
	"dec %edi\n"
	"jnz 1b\n"
	"pop %rbp\n"
	"ret\n"
	"guest_end:\n"
	".popsection\n");

static void check(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(2);
}

static unsigned long at(const uint8_t *label)
{
	return CODE + (label - guest_start);
}

static int print_symbols(void)
{
	printf("%016lx T outer\n%016lx t middle\n%016lx t inner\n%016lx T end\n", at(guest_start),
	       at(guest_middle), at(guest_inner), at(guest_end));
	return 0;
}

/* One large page for all of the memory. */
static void fill(uint8_t *memory)
{
	uint64_t *pml4 = (void *)(memory + TABLES), *pdpt = pml4 + 512, *pd = pdpt + 512;

	pml4[0] = (TABLES + 0x1000) | 3;
	pdpt[0] = (TABLES + 0x2000) | 3;
	pd[0] = 0x83;
	memcpy(memory + CODE, guest_start, guest_end - guest_start);
}

/* Long mode is for those whose CPUID has it. */
static void set_cpuid(int kvm, int vcpu)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));

	check(cpuid != NULL, "memory");
	cpuid->nent = 256;
	check(!ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) && !ioctl(vcpu, KVM_SET_CPUID2, cpuid),
	      "cpuid");
	free(cpuid);
}

static void enter_long_mode(int vcpu, unsigned long ports)
{
	struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rsp = STACK, .rdi = ports};
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_sregs sregs;

	check(!ioctl(vcpu, KVM_GET_SREGS, &sregs), "sregs");
	sregs.cr3 = TABLES;
	sregs.cr4 = 0x20;
	sregs.cr0 = 0x80000011;
	sregs.efer = 0x500;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	check(!ioctl(vcpu, KVM_SET_SREGS, &sregs) && !ioctl(vcpu, KVM_SET_REGS, &regs), "regs");
}

int main(int argc, char **argv)
{
	struct kvm_userspace_memory_region region = {.memory_size = MEMORY};
	int kvm, vm, vcpu;
	struct kvm_run *run;
	void *memory;

	if (argc > 1 && !strcmp(argv[1], "--symbols"))
		return print_symbols();
	kvm = open("/dev/kvm", O_RDWR);
	check(kvm >= 0, "/dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(vm >= 0 && memory != MAP_FAILED, "vm");
	fill(memory);
	region.userspace_addr = (uintptr_t)memory;
	check(!ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "memory");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	check(vcpu >= 0, "vcpu");
	set_cpuid(kvm, vcpu);
	enter_long_mode(vcpu, argc > 1 ? strtoul(argv[1], NULL, 0) : 1);
	run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED,
		   vcpu, 0);
	check(run != MAP_FAILED, "mmap");
	do
		check(!ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	while (run->exit_reason == KVM_EXIT_IO);
	return run->exit_reason == KVM_EXIT_HLT ? 0 : 3;
}
