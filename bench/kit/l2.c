// l2.c - a guest's guest under the clock: run in a guest that has KVM, or on the host with -n.
// usage: l2 exits N | l2 [-n] int N
//   exits  the guest executes CPUID N times, each an exit to this kernel's KVM; EXIT lines as ioexit has them
//   int    the guest computes; -n: the same bytes as a function of this program. BENCH lines as bench has them
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>
#include <time.h>

#define MEMORY 0x400000
#define TABLES 0x1000
#define CODE   0x10000
#define STACK  0x20000

// rdi: rounds; the sum comes back in rax. In a guest they end in HLT, which is never reached as a function.
extern const char compute[], compute_end[], exits[], exits_end[];
asm(".pushsection .rodata\n"
    "compute: xor %eax,%eax; mov $0x9e3779b97f4a7c15,%rcx\n"
    "1: mov %rcx,%rdx; shl $13,%rdx; xor %rdx,%rcx; mov %rcx,%rdx; shr $7,%rdx; xor %rdx,%rcx\n"
    "mov %rcx,%rdx; shl $17,%rdx; xor %rdx,%rcx; test $1,%cl; jz 2f; add %rcx,%rax; jmp 3f\n"
    "2: imul $31,%rax,%rax\n"
    "3: mov %rax,-64(%rsp); mov -64(%rsp),%rdx; xor %rdx,%rax; add %rdx,%rax; dec %rdi; jnz 1b\n"
    "ret; compute_end:\n"
    "exits: xor %eax,%eax; cpuid; dec %rdi; jnz exits; xor %eax,%eax; ret; exits_end:\n"
    ".popsection");

static void die(const char *what)
{
	perror(what);
	exit(1);
}
static double clock_s(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

// One vCPU in 64-bit mode, its memory mapped as it is, at a call of the code; behind it, HLT.
static int vcpu_new(uint8_t *ram, const char *code, size_t size, struct kvm_run **run)
{
	uint64_t *table = (uint64_t *)(ram + TABLES);
	int kvm = open("/dev/kvm", O_RDWR), vm = ioctl(kvm, KVM_CREATE_VM, 0), vcpu;
	struct kvm_userspace_memory_region region = {.memory_size = MEMORY,
						     .userspace_addr = (uintptr_t)ram};
	struct kvm_sregs s;
	if (kvm < 0 || vm < 0)
		die("/dev/kvm");
	table[0] = TABLES + 0x1000 + 3, table[512] = TABLES + 0x2000 + 3;
	for (int i = 0; i < 2; i++)
		table[1024 + i] = (uint64_t)i << 21 | 0x83;
	memcpy(ram + CODE + 16, code, size);
	ram[CODE] = 0xf4;
	*(uint64_t *)(ram + STACK) = CODE;
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) ||
	    (vcpu = ioctl(vm, KVM_CREATE_VCPU, 0)) < 0)
		die("vm");
	*run = mmap(0, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), 3, MAP_SHARED, vcpu, 0);
	if (*run == MAP_FAILED || ioctl(vcpu, KVM_GET_SREGS, &s))
		die("vcpu");
	s.cr0 = 0x80010033, s.cr3 = TABLES, s.cr4 = 0x20, s.efer = 0x500;
	s.cs = (struct kvm_segment){
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	s.ds = (struct kvm_segment){
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	s.es = s.fs = s.gs = s.ss = s.ds;
	if (ioctl(vcpu, KVM_SET_SREGS, &s))
		die("sregs");
	return vcpu;
}

static uint64_t run_guest(int vcpu, struct kvm_run *run, uint64_t rounds)
{
	struct kvm_regs r = {.rip = CODE + 16, .rsp = STACK, .rflags = 2, .rdi = rounds};
	if (ioctl(vcpu, KVM_SET_REGS, &r))
		die("regs");
	while (ioctl(vcpu, KVM_RUN, 0) == 0 && run->exit_reason == KVM_EXIT_INTR)
		;
	if (run->exit_reason != KVM_EXIT_HLT)
		die("KVM_RUN");
	ioctl(vcpu, KVM_GET_REGS, &r);
	return r.rax;
}

int main(int argc, char **argv)
{
	int native = argc > 1 && !strcmp(argv[1], "-n"), vcpu = -1, computes;
	uint8_t *ram = mmap(0, MEMORY, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_run *run = 0;
	uint64_t n, sum;
	if (argc < 3 + native || ram == MAP_FAILED)
		die("usage: l2 exits N | l2 [-n] int N");
	computes = !strcmp(argv[1 + native], "int");
	n = strtoull(argv[2 + native], 0, 0);
	if (native)
		memcpy(ram + CODE + 16, compute, compute_end - compute);
	else if (computes)
		vcpu = vcpu_new(ram, compute, compute_end - compute, &run);
	else
		vcpu = vcpu_new(ram, exits, exits_end - exits, &run);
	if (!native)
		run_guest(vcpu, run, n / 10 + 1); // warm
	printf("START l2\n"), fflush(stdout), tcdrain(1);
	double wall = clock_s(CLOCK_MONOTONIC), cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID);
	sum = native ? ((uint64_t(*)(uint64_t))(uintptr_t)(ram + CODE + 16))(n)
		     : run_guest(vcpu, run, n);
	wall = clock_s(CLOCK_MONOTONIC) - wall, cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	if (computes)
		printf("BENCH l2_int n=%lu sec=%.4f min=%.4f cpu=%.4f ns/it=%.2f sum=%lx\n", n,
		       wall, wall, cpu, wall / n * 1e9, sum);
	else
		printf("EXIT l2_cpuid n=%lu sec=%.4f ns/it=%.1f\n", n, wall, wall / n * 1e9);
	fflush(stdout), tcdrain(1);
	return 0;
}
