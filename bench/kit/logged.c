/* SPDX-License-Identifier: MIT */
/*
 * What dirty logging costs: logged [SECONDS-OF-WORK]
 *
 * One vCPU computes all the time and rewrites 100 MB/s, page after page of 256 MiB, so that each page that it writes is a first write since
 * the last look. Twice the same work: without logging, and with a thread that takes the log and clears it 10 times a second, as a
 * migration does. Prints the CPU seconds of the vCPU's thread, and of that one: "LOGGED off SEC", "LOGGED on SEC", "LOGGED harvest SEC".
 * Fails if the log lacks pages.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE   4096
#define TABLES 0x2000
#define CODE   0x8000
#define DATA   0x200000
#define BYTES  (256ull << 20)
#define RATE   100000000 /* bytes a second */
#define PART   100	 /* pages between two looks at the clock */

/* RCX: pages. RDI: where. RBX: loops between two pages. */
asm(".pushsection .rodata\n.intel_syntax noprefix\n"
    "work: mov rsi, rcx\n"
    "1: mov rax, rbx\n2: imul r8, r8, 77\n add r8, rax\n mov [0x7000], r8\n add r9, [0x7000]\n dec "
    "rax\n jnz 2b\n"
    "mov rax, r8\n mov ecx, 512\n rep stosq\n cmp rdi, 0x10200000\n jb 3f\n mov edi, 0x200000\n"
    "3: dec rsi\n jnz 1b\n out 0x80, al\n"
    "work_end:\n.att_syntax prefix\n.popsection\n");
extern const uint8_t work[], work_end[];

static int kvm, vm, vcpu;
static struct kvm_run *run;
static uint8_t *ram;
static volatile int logging;
static double harvest_cpu;
static uint64_t reported; /* pages, by the log */

static void check(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void set_slot(uint32_t flags)
{
	struct kvm_userspace_memory_region slot = {.slot = 1,
						   .flags = flags,
						   .guest_phys_addr = DATA,
						   .memory_size = BYTES,
						   .userspace_addr = (uintptr_t)ram + DATA};

	check(!ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "slot");
}

static void put(uint64_t gpa, uint64_t val)
{
	memcpy(ram + gpa, &val, 8);
}

static void all_features(void)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 v[128];
	} cpuid = {.head.nent = 128};

	check(!ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "cpuid");
	check(!ioctl(vcpu, KVM_SET_CPUID2, &cpuid), "cpuid");
}

static void long_mode(void)
{
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_sregs s;

	put(TABLES, TABLES + 0x1007);
	put(TABLES + 0x1000, TABLES + 0x2007);
	for (uint64_t i = 0; i < 512; i++)
		put(TABLES + 0x2000 + i * 8, i << 21 | 0x83);
	check(!ioctl(vcpu, KVM_GET_SREGS, &s), "sregs");
	s.cr3 = TABLES;
	s.cr0 = 0x80010033;
	s.cr4 = 0x620;
	s.efer = 0xd00;
	s.cs = code;
	s.ds = s.es = s.ss = data;
	check(!ioctl(vcpu, KVM_SET_SREGS, &s), "sregs");
}

static void make(void)
{
	struct kvm_userspace_memory_region low = {.memory_size = DATA};

	kvm = open("/dev/kvm", O_RDWR);
	check(kvm >= 0, "/dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	ram = mmap(NULL, DATA + BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(vm >= 0 && ram != MAP_FAILED, "vm");
	memset(ram, 1, DATA + BYTES);
	low.userspace_addr = (uintptr_t)ram;
	check(!ioctl(vm, KVM_SET_USER_MEMORY_REGION, &low), "slot");
	set_slot(0);
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED,
		   vcpu, 0);
	check(vcpu >= 0 && run != MAP_FAILED, "vcpu");
	all_features();
	memcpy(ram + CODE, work, work_end - work);
	long_mode();
}

/* CPU seconds of so many pages with so many loops to each. */
static double work_for(uint64_t pages, uint64_t loops)
{
	struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rcx = pages, .rbx = loops, .rdi = DATA};
	double began = now(CLOCK_THREAD_CPUTIME_ID);

	check(!ioctl(vcpu, KVM_SET_REGS, &regs), "regs");
	check(!ioctl(vcpu, KVM_RUN, 0) && run->exit_reason == KVM_EXIT_IO, "run");
	return now(CLOCK_THREAD_CPUTIME_ID) - began;
}

/* How many loops make the rate. */
static uint64_t calibrate(void)
{
	double page = (double)PAGE / RATE, bare = work_for(20000, 1) / 20000;
	double loop = work_for(100, 100000) / 1e7;

	return bare < page ? (page - bare) / loop : 1;
}

static void *harvest(void *arg)
{
	static uint64_t map[BYTES / PAGE / 64];
	struct kvm_dirty_log log = {.slot = 1, .dirty_bitmap = map};

	while (logging) {
		usleep(100000);
		check(!ioctl(vm, KVM_GET_DIRTY_LOG, &log), "log");
		for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]); i++)
			reported += __builtin_popcountll(map[i]);
	}
	harvest_cpu += now(CLOCK_THREAD_CPUTIME_ID);
	return arg;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 1, off = 0, on = 0;
	uint64_t loops, pages;
	pthread_t thread;

	make();
	work_for(BYTES / PAGE, 1);
	loops = calibrate();
	pages = seconds * RATE / PAGE / 5;
	/* By turns: a machine that is busy touches both alike. */
	for (int i = 0; i < 5; i++) {
		off += work_for(pages, loops);
		set_slot(KVM_MEM_LOG_DIRTY_PAGES);
		logging = 1;
		check(!pthread_create(&thread, NULL, harvest, NULL), "thread");
		on += work_for(pages, loops);
		logging = 0;
		pthread_join(thread, NULL);
		set_slot(0);
	}
	if (reported < 5 * pages / 10 * 9) {
		fprintf(stderr, "the log has %lu pages of %lu\n", reported, 5 * pages);
		return 1;
	}
	printf("LOGGED off %.4f\nLOGGED on %.4f\nLOGGED harvest %.4f\n", off, on, harvest_cpu);
	return 0;
}
