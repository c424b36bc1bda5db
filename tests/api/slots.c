/* SPDX-License-Identifier: MIT */
/*
 * Memory slots by the thousand, and changing under vCPUs that write through all of them (KVM api.rst,
 * KVM_SET_USER_MEMORY_REGION): slots [OPERATIONS [SEED]].
 *
 * Once an ioctl has taken memory away from its place, nothing is written to it any more; what it has put into place is written to soon. All
 * slots of both address spaces can be used, and one more cannot.
 */
#include "api_test.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#define PAGE	    4096
#define WINDOWS	    16
#define WINDOW_GPA  0x100000u
#define NR_CPUS	    2
#define LIMIT_S	    30
#define ALL_GPA	    0x40000000u
#define MAX_SIZE    4 /* pages of a slot */
#define NR_BACKINGS 12

struct stand {
	struct machine m;
	int vcpu[NR_CPUS];
	pthread_t thread[NR_CPUS];
	bool stop;
	uint64_t state;
	uint8_t *backing; /* MAX_SIZE pages for each slot */
	struct {
		unsigned window, pages; /* 0 pages: not there */
		uint32_t flags;
	} slot[NR_BACKINGS];
};

static unsigned rnd(struct stand *s, unsigned below)
{
	s->state = s->state * 6364136223846793005u + 1442695040888963407u;
	return (s->state >> 33) % below;
}

static volatile uint32_t *word(struct stand *s, unsigned slot, unsigned page)
{
	return (volatile uint32_t *)(s->backing + (slot * MAX_SIZE + page) * PAGE);
}

/* lock incl (%bx); add $0x1000, %bx; back: round all windows. Where nothing is, it is MMIO, of which nothing is made. */
static const uint8_t code[] = {0xf0, 0x66, 0xff, 0x07, 0x81, 0xc3, 0x00, 0x10, 0xeb, 0xf6};

static void *run(void *opaque)
{
	struct runner {
		struct stand *s;
		int vcpu;
	} *r = opaque;

	while (!__atomic_load_n(&r->s->stop, __ATOMIC_SEQ_CST))
		CHECK_EQ(ioctl(r->vcpu, KVM_RUN, 0), 0);
	free(r);
	return NULL;
}

static void start_vcpu(struct stand *s, unsigned i)
{
	struct kvm_regs regs = {.rip = CODE_GPA, .rsp = CODE_GPA, .rflags = 2};
	struct kvm_sregs sregs;
	struct {
		struct stand *s;
		int vcpu;
	} *r = malloc(sizeof(*r));

	s->vcpu[i] = ioctl(s->m.vm, KVM_CREATE_VCPU, i);
	CHECK(s->vcpu[i] >= 0);
	CHECK_EQ(ioctl(s->vcpu[i], KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = sregs.cs.selector = 0;
	sregs.ds.base = WINDOW_GPA;
	CHECK_EQ(ioctl(s->vcpu[i], KVM_SET_SREGS, &sregs), 0);
	CHECK_EQ(ioctl(s->vcpu[i], KVM_SET_REGS, &regs), 0);
	r->s = s;
	r->vcpu = s->vcpu[i];
	CHECK_EQ(pthread_create(&s->thread[i], NULL, run, r), 0);
}

/* ---- slots that change ---- */

static bool window_free(const struct stand *s, unsigned window, unsigned pages, unsigned but)
{
	if (window + pages > WINDOWS)
		return false;
	for (unsigned i = 0; i < NR_BACKINGS; i++)
		if (i != but && s->slot[i].pages && window < s->slot[i].window + s->slot[i].pages &&
		    s->slot[i].window < window + pages)
			return false;
	return true;
}

static int set_slot(struct stand *s, unsigned i, unsigned window, unsigned pages, uint32_t flags)
{
	return set_region(s->m.vm, i + 1, flags, WINDOW_GPA + window * PAGE, pages * PAGE,
			  s->backing + i * MAX_SIZE * PAGE);
}

/* What is not in place is not written to: neither now nor a while later. */
static void check_away(struct stand *s)
{
	uint32_t seen[NR_BACKINGS][MAX_SIZE];

	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < NR_BACKINGS; i++)
			for (unsigned p = s->slot[i].pages; p < MAX_SIZE; p++)
				if (pass)
					CHECK_EQ(*word(s, i, p), seen[i][p]);
				else
					seen[i][p] = *word(s, i, p);
		usleep(pass ? 0 : 50);
	}
}

static void check_there(struct stand *s)
{
	time_t end = time(NULL) + LIMIT_S;

	for (unsigned i = 0; i < NR_BACKINGS; i++)
		for (unsigned p = 0; p < s->slot[i].pages; p++) {
			uint32_t seen = *word(s, i, p);

			while (*word(s, i, p) == seen) {
				CHECK(time(NULL) < end);
				sched_yield();
			}
		}
}

/* Add, or delete, move, or change a flag of what is there; a size cannot be changed, and no place be taken twice. */
static void change(struct stand *s)
{
	unsigned i = rnd(s, NR_BACKINGS), window = rnd(s, WINDOWS), pages = 1 + rnd(s, MAX_SIZE);
	uint32_t flags = rnd(s, 2) ? KVM_MEM_LOG_DIRTY_PAGES : 0;

	if (!s->slot[i].pages) {
		if (!window_free(s, window, pages, i)) {
			if (window + pages <= WINDOWS)
				CHECK_ERR(set_slot(s, i, window, pages, flags), EEXIST);
			return;
		}
	} else if (rnd(s, 3) == 0) {
		CHECK_EQ(set_slot(s, i, window, 0, 0), 0);
		s->slot[i].pages = 0;
		return;
	} else {
		if (pages != s->slot[i].pages)
			CHECK_ERR(set_slot(s, i, s->slot[i].window, pages, flags), EINVAL);
		pages = s->slot[i].pages;
		if (!window_free(s, window, pages, i))
			window = s->slot[i].window;
	}
	CHECK_EQ(set_slot(s, i, window, pages, flags), 0);
	s->slot[i].window = window;
	s->slot[i].pages = pages;
}

static void test_changing(unsigned operations, uint64_t seed)
{
	struct stand *s = calloc(1, sizeof(*s));

	s->m = machine_open();
	s->state = seed;
	s->backing = map_ram(NR_BACKINGS * MAX_SIZE * PAGE);
	memcpy(s->m.ram + CODE_GPA, code, sizeof(code));
	for (unsigned i = 0; i < NR_CPUS; i++)
		start_vcpu(s, i);
	for (unsigned n = 0; n < operations; n++) {
		change(s);
		check_away(s);
		if (n % 16 == 0)
			check_there(s);
	}
	__atomic_store_n(&s->stop, true, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < NR_BACKINGS; i++)
		if (s->slot[i].pages)
			CHECK_EQ(set_slot(s, i, 0, 0, 0), 0);
	for (unsigned i = 0; i < NR_CPUS; i++)
		CHECK_EQ(pthread_join(s->thread[i], NULL), 0);
	free(s);
}

/* ---- all there can be ---- */

static int one_page(int vm, uint32_t slot, uint64_t gpa, const uint8_t *hva)
{
	return set_region(vm, slot, 0, gpa, PAGE, hva);
}

/* mov %al, (%bx); hlt, with DS at the page: it must come out where the slot says. */
static void check_page(struct machine *m, uint64_t gpa, const uint8_t *hva, uint8_t val)
{
	struct kvm_regs regs = {.rip = CODE_GPA, .rflags = 2, .rax = val, .rsp = CODE_GPA};
	struct kvm_sregs sregs;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.ds.base = gpa;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SREGS, &sregs), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(m, KVM_EXIT_HLT);
	CHECK_EQ(*(volatile const uint8_t *)hva, val);
}

static void test_all(void)
{
	struct machine m = machine_open();
	uint32_t nr = ioctl(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
	uint32_t spaces = ioctl(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE);
	uint8_t *ram = map_ram((size_t)nr * PAGE);

	CHECK_EQ(nr, 32764); /* KVM_USER_MEM_SLOTS on x86 */
	MACHINE_CODE(&m, 0x88, 0x07, 0xf4);
	for (uint32_t i = nr - 1; i > 0; i--)
		CHECK_EQ(one_page(m.vm, i, ALL_GPA + (uint64_t)i * PAGE, ram + (size_t)i * PAGE),
			 0);
	CHECK_ERR(one_page(m.vm, nr, 0x200000, ram), EINVAL);
	CHECK_ERR(one_page(m.vm, 0xffff, 0x200000, ram), EINVAL);
	for (uint32_t i = 1; i < nr; i = i * 3 + 1)
		check_page(&m, ALL_GPA + (uint64_t)i * PAGE, ram + (size_t)i * PAGE, i % 255 + 1);
	/* The other space has as many of its own, and does not touch this one's. */
	if (spaces > 1)
		CHECK_EQ(one_page(m.vm, 1u << 16 | (nr - 1), ALL_GPA + PAGE, ram), 0);
	CHECK_ERR(one_page(m.vm, (spaces > 1 ? spaces : 1) << 16, ALL_GPA, ram), EINVAL);
	check_page(&m, ALL_GPA + PAGE, ram + PAGE, 0xaa);
	CHECK_EQ(ram[0], 0);
	for (uint32_t i = 1; i < nr; i++)
		CHECK_EQ(set_region(m.vm, i, 0, 0, 0, NULL), 0);
	CHECK_ERR(set_region(m.vm, 1, 0, 0, 0, NULL), EINVAL);
	munmap(ram, (size_t)nr * PAGE);
}

/* KVM_MEM_MAX_NR_PAGES, and addresses that wrap or do not fit. */
static void test_large(void)
{
	struct machine m = machine_open();
	uint8_t *ram = map_ram(2 * PAGE);

	CHECK_ERR(set_region(m.vm, 1, 0, 1ull << 44, 1ull << 43, ram), EINVAL);
	CHECK_ERR(set_region(m.vm, 1, 0, ~0ull << 12, 2 * PAGE, ram), EINVAL);
	CHECK_ERR(set_region(m.vm, 1, 0, 0x100000, PAGE, (void *)(~0ull << 12)), EINVAL);
	CHECK_EQ(set_region(m.vm, 1, 0, 0x100000, PAGE, ram), 0);
}

int main(int argc, char **argv)
{
	test_large();
	test_all();
	test_changing(argc > 1 ? atoi(argv[1]) : 1000, argc > 2 ? strtoull(argv[2], NULL, 0) : 1);
	return 0;
}
