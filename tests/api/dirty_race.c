/* SPDX-License-Identifier: MIT */
/*
 * No write is lost to a migration: while two vCPUs write all over a logged slot, its dirty pages are harvested and copied,
 * again and again. Once the vCPUs stand and the last harvest is copied, the copy is the memory. By the log, by the log with
 * its own clearing (KVM_CLEAR_DIRTY_LOG), and by the ring.
 *
 * Each page is written seldom: a write that a harvest misses is not made good by the next.
 */
#include "api_test.h"

#include <pthread.h>
#include <signal.h>

#define PAGE	   4096
#define NR_PAGES   4096
#define AREA	   0x100000
#define NR_VCPUS   2
#define RING_BYTES (4096 * sizeof(struct kvm_dirty_gfn))
#define SEGMENTS   4
#define HARVESTS   6

enum mode { LOG, MANUAL, RING };

/* Flat 32-bit code: ESI is a xorshift generator, each round writes to four pages. */
asm(".pushsection .rodata\n"
    ".globl guest_begin, guest_end\n"
    "guest_begin:\n"
    ".code32\n"
    "1: call 2f\n"
    "incl %ebx\n"
    "movl %ebx, (%edi)\n" /* a store */
    "call 2f\n"
    "lock incl 8(%edi)\n" /* a locked one */
    "call 2f\n"
    "cmpl $0x10ff000, %edi\n"
    "jae 1b\n"
    "movl %ebx, 0xffe(%edi)\n" /* over two pages */
    "call 2f\n"
    "movl %ebx, %eax\n"
    "leal 64(%edi), %edi\n"
    "movl $8, %ecx\n"
    "rep stosl\n"
    "jmp 1b\n"
    "2: movl %esi, %edx\n"
    "shll $13, %edx\n"
    "xorl %edx, %esi\n"
    "movl %esi, %edx\n"
    "shrl $17, %edx\n"
    "xorl %edx, %esi\n"
    "movl %esi, %edx\n"
    "shll $5, %edx\n"
    "xorl %edx, %esi\n"
    "movl %esi, %edi\n"
    "andl $0xfff000, %edi\n"
    "addl $0x100000, %edi\n"
    "ret\n"
    ".code64\n"
    "guest_end:\n"
    ".popsection\n");
extern const uint8_t guest_begin[], guest_end[];

static struct {
	int kvm, vm;
	enum mode mode;
	uint8_t *ram, *area, *copy;
	bool stop;
	unsigned copied;
	struct vcpu {
		int fd;
		struct kvm_run *run;
		struct kvm_dirty_gfn *ring;
		unsigned fetched;
		pthread_t thread;
	} vcpu[NR_VCPUS];
} t;

static __thread struct kvm_run *own_run;

static void kick(int sig)
{
	if (own_run)
		own_run->immediate_exit = 1;
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;

	own_run = v->run;
	v->run->immediate_exit = 0;
	while (!__atomic_load_n(&t.stop, __ATOMIC_ACQUIRE)) {
		long r = ioctl(v->fd, KVM_RUN, 0);

		if (!r && v->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL) {
			usleep(100);
			continue;
		}
		CHECK(r < 0 && errno == EINTR);
	}
	return NULL;
}

static void copy_page(uint64_t page)
{
	CHECK(page < NR_PAGES);
	memcpy(t.copy + page * PAGE, t.area + page * PAGE, PAGE);
	t.copied++;
}

static void harvest_log(void)
{
	static uint64_t map[NR_PAGES / 64];
	struct kvm_dirty_log log = {.slot = 1, .dirty_bitmap = map};
	struct kvm_clear_dirty_log clear = {.slot = 1, .num_pages = 64};

	CHECK_EQ(ioctl(t.vm, KVM_GET_DIRTY_LOG, &log), 0);
	for (unsigned i = 0; i < NR_PAGES / 64; i++) {
		clear.first_page = 64 * i;
		clear.dirty_bitmap = &map[i];
		if (t.mode == MANUAL && map[i])
			CHECK_EQ(ioctl(t.vm, KVM_CLEAR_DIRTY_LOG, &clear), 0);
		for (uint64_t left = map[i]; left; left &= left - 1)
			copy_page(64 * i + __builtin_ctzll(left));
	}
}

static unsigned fetch_ring(struct vcpu *v, uint64_t *map)
{
	unsigned nr = 0;

	for (;; nr++, v->fetched++) {
		struct kvm_dirty_gfn *e =
			&v->ring[v->fetched % (RING_BYTES / sizeof(struct kvm_dirty_gfn))];

		if (__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
			return nr;
		CHECK(e->slot == 1 && e->offset < NR_PAGES);
		map[e->offset / 64] |= 1ull << (e->offset % 64);
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
}

static void harvest_rings(void)
{
	uint64_t map[NR_PAGES / 64] = {0};
	unsigned nr = 0;

	for (unsigned i = 0; i < NR_VCPUS; i++)
		nr += fetch_ring(&t.vcpu[i], map);
	CHECK_EQ(ioctl(t.vm, KVM_RESET_DIRTY_RINGS, 0), nr);
	for (unsigned page = 0; page < NR_PAGES; page++)
		if (map[page / 64] >> (page % 64) & 1)
			copy_page(page);
}

static void harvest(void)
{
	if (t.mode == RING)
		harvest_rings();
	else
		harvest_log();
}

static void start_vcpu(struct vcpu *v, unsigned nr)
{
	struct kvm_segment flat = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = 0x8000 + nr * 0x1000, .rflags = 2, .rsi = 0x1234567 + nr};
	struct kvm_sregs s;

	v->fd = ioctl(t.vm, KVM_CREATE_VCPU, nr);
	CHECK(v->fd >= 0);
	v->run = map_run(t.kvm, v->fd);
	CHECK_EQ(ioctl(v->fd, KVM_GET_SREGS, &s), 0);
	s.cr0 |= 1;
	s.ds = s.es = s.ss = s.fs = s.gs = flat;
	flat.type = 11;
	flat.selector = 8;
	s.cs = flat;
	CHECK_EQ(ioctl(v->fd, KVM_SET_SREGS, &s), 0);
	CHECK_EQ(ioctl(v->fd, KVM_SET_REGS, &regs), 0);
	if (t.mode == RING) {
		v->ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd,
			       KVM_DIRTY_LOG_PAGE_OFFSET * PAGE);
		CHECK(v->ring != MAP_FAILED);
	}
}

static void make_vm(enum mode mode)
{
	memset(&t, 0, sizeof(t));
	t.mode = mode;
	t.kvm = open_kvm();
	t.vm = create_vm(t.kvm);
	t.ram = map_ram(RAM_SIZE);
	t.area = map_ram(NR_PAGES * PAGE);
	t.copy = map_ram(NR_PAGES * PAGE);
	memcpy(t.ram + CODE_GPA, guest_begin, guest_end - guest_begin);
	if (mode == MANUAL)
		CHECK_EQ(enable_cap(t.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1), 0);
	if (mode == RING)
		CHECK_EQ(enable_cap(t.vm, KVM_CAP_DIRTY_LOG_RING, RING_BYTES), 0);
	CHECK_EQ(set_region(t.vm, 0, 0, 0, RAM_SIZE, t.ram), 0);
	CHECK_EQ(set_region(t.vm, 1, KVM_MEM_LOG_DIRTY_PAGES, AREA, NR_PAGES * PAGE, t.area), 0);
	for (unsigned i = 0; i < NR_VCPUS; i++)
		start_vcpu(&t.vcpu[i], i);
}

static void run_segment(void)
{
	__atomic_store_n(&t.stop, false, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < NR_VCPUS; i++)
		CHECK_EQ(pthread_create(&t.vcpu[i].thread, NULL, vcpu_main, &t.vcpu[i]), 0);
	for (unsigned i = 0; i < HARVESTS; i++) {
		usleep(300);
		harvest();
	}
	__atomic_store_n(&t.stop, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < NR_VCPUS; i++)
		while (pthread_tryjoin_np(t.vcpu[i].thread, NULL)) {
			pthread_kill(t.vcpu[i].thread, SIGUSR1);
			usleep(200);
		}
	harvest();
	for (unsigned page = 0; page < NR_PAGES; page++)
		if (memcmp(t.copy + page * PAGE, t.area + page * PAGE, PAGE)) {
			fprintf(stderr, "mode %d: page %u was written, and not dirty\n", t.mode,
				page);
			exit(1);
		}
}

int main(void)
{
	struct sigaction action = {.sa_handler = kick};

	sigaction(SIGUSR1, &action, NULL);
	for (enum mode mode = LOG; mode <= RING; mode++) {
		make_vm(mode);
		for (unsigned i = 0; i < SEGMENTS; i++)
			run_segment();
		CHECK(t.copied > NR_PAGES);
		close(t.vm);
	}
	return 0;
}
