/* SPDX-License-Identifier: MIT */
/*
 * Which pages were written, exactly: a guest writes pages of random choice by every kind of store (dirty_stores.h), the
 * program has KVM write others (kvmclock, steal time, PV EOI, Hyper-V's pages, SMM's state-save area); what the log says
 * must be the pages that were written, no more, and nothing when asked again. And a copy that is only brought up to date by what the
 * log says must be the memory (all that a migration rests on), also if it is asked while the guest runs.
 *
 *   dirty_exact log|manual|ring VCPUS ROUNDS [SEED]
 */
#include "api_test.h"
#include "dirty_stores.h"

#include <pthread.h>
#include <time.h>

#define PAGE	     4096ul
#define LOW_SIZE     0x80000ul /* slot 0, not logged: tables, code, lists, stacks */
#define TABLES	     0x2000ul
#define IDT	     0x5000ul
#define CODE	     0x8000ul
#define SOURCE	     0xf000ul
#define STACKS	     0x10000ul
#define LISTS	     0x20000ul
#define LIST_SIZE    0x8000ul
#define DATA	     0x10000000ul /* slot 1 */
#define DATA_PAGES   4096u
#define NEAR	     0x11000000ul /* slot 2: page tables of slot 1, and the GDT */
#define NEAR_PAGES   9u
#define GDT_PAGE     8u
#define SMRAM	     0x30000ul /* slot 3 of SMM's address space */
#define SMRAM_PAGES  16u
#define SAVE_PAGE    15u
#define RING_ENTRIES 1024u
#define MAX_VCPUS    2
#define MAX_COMMANDS 48

#define MSR_SYSTEM_TIME 0x4b564d01
#define MSR_STEAL_TIME	0x4b564d03
#define HV_GUEST_OS_ID	0x40000000
#define HV_HYPERCALL	0x40000001
#define HV_TSC_PAGE	0x40000021
#define HV_VP_ASSIST	0x40000073

enum mode { LOG, MANUAL, RING };

struct region {
	uint32_t slot, pages;
	uint64_t gpa;
	uint8_t *ram, *copy;
	uint8_t *expected, *found; /* a byte per page */
};

struct command {
	uint64_t kind, address, value;
};

struct processor {
	int fd;
	struct kvm_run *run;
	struct kvm_dirty_gfn *ring;
	uint32_t ring_at;
};

static struct region regions[] = {{.slot = 1, .pages = DATA_PAGES, .gpa = DATA},
				  {.slot = 2, .pages = NEAR_PAGES, .gpa = NEAR},
				  {.slot = 1 << 16 | 3, .pages = SMRAM_PAGES, .gpa = SMRAM}};
static struct region *const data = &regions[0], *const near_tables = &regions[1],
			    *const smram = &regions[2];
#define NR_REGIONS 3

static enum mode mode;
static unsigned nr_vcpus;
static struct processor vcpus[MAX_VCPUS];
static struct machine m;
static uint64_t seed;
static pthread_mutex_t harvest_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned ring_fulls, nr_stores = NR_STORES;

static uint64_t random_word(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

static uint32_t any(uint32_t below)
{
	return random_word() % below;
}

/* ---- what the log says ---- */

static struct region *region_of(uint32_t slot)
{
	for (unsigned i = 0; i < NR_REGIONS; i++)
		if (regions[i].slot == slot)
			return &regions[i];
	fprintf(stderr, "dirty_exact: no slot %#x is logged\n", slot);
	exit(1);
}

static void take_log(struct region *r)
{
	uint64_t map[DATA_PAGES / 64 + 1] = {0};
	struct kvm_dirty_log log = {.slot = r->slot, .dirty_bitmap = map};

	CHECK_EQ(ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), 0);
	if (mode == MANUAL) {
		struct kvm_clear_dirty_log clear = {
			.slot = r->slot, .num_pages = r->pages, .dirty_bitmap = map};

		CHECK_EQ(ioctl(m.vm, KVM_CLEAR_DIRTY_LOG, &clear), 0);
	}
	for (unsigned i = 0; i < r->pages; i++)
		if (map[i / 64] >> i % 64 & 1)
			r->found[i] |= 2;
}

static void take_ring(struct processor *p)
{
	for (;; p->ring_at++) {
		struct kvm_dirty_gfn *entry = &p->ring[p->ring_at % RING_ENTRIES];
		struct region *r;

		if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			return;
		r = region_of(entry->slot);
		CHECK(entry->offset < r->pages);
		r->found[entry->offset] |= 2;
		__atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
}

/* Pages that are new in ->found (bit 1) are copied, as a migration would. */
static void copy_found(struct region *r)
{
	for (unsigned i = 0; i < r->pages; i++)
		if (r->found[i] & 2) {
			memcpy(r->copy + i * PAGE, r->ram + i * PAGE, PAGE);
			r->found[i] = 1;
		}
}

static void harvest(void)
{
	pthread_mutex_lock(&harvest_lock);
	for (unsigned i = 0; i < NR_REGIONS && mode != RING; i++)
		take_log(&regions[i]);
	for (unsigned i = 0; i < nr_vcpus && mode == RING; i++)
		take_ring(&vcpus[i]);
	if (mode == RING)
		CHECK(ioctl(m.vm, KVM_RESET_DIRTY_RINGS, 0) >= 0);
	for (unsigned i = 0; i < NR_REGIONS; i++)
		copy_found(&regions[i]);
	pthread_mutex_unlock(&harvest_lock);
}

static void forget(void)
{
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		memset(regions[i].expected, 0, regions[i].pages);
		memset(regions[i].found, 0, regions[i].pages);
	}
}

static void check_copy(const struct region *r)
{
	for (unsigned i = 0; i < r->pages; i++)
		if (memcmp(r->ram + i * PAGE, r->copy + i * PAGE, PAGE)) {
			fprintf(stderr, "dirty_exact: slot %#x page %u is not what was copied\n",
				r->slot, i);
			exit(1);
		}
}

static void check_sets(const struct region *r, unsigned round)
{
	for (unsigned i = 0; i < r->pages; i++)
		if (!r->expected[i] != !r->found[i]) {
			fprintf(stderr,
				"dirty_exact: round %u: slot %#x page %u was %s, the log says %s\n",
				round, r->slot, i, r->expected[i] ? "written" : "not written",
				r->found[i] ? "it was" : "it was not");
			exit(1);
		}
}

/* ---- what is written ---- */

static void expect(struct region *r, unsigned page)
{
	CHECK(page < r->pages);
	r->expected[page] = 1;
}

static uint64_t *pte_of(unsigned page)
{
	return (uint64_t *)near_tables->ram + page;
}

/* The program's own writes are not the log's business, but the copy's. */
static void host_write(struct region *r, void *at, uint64_t value)
{
	size_t offset = (uint8_t *)at - r->ram;

	memcpy(at, &value, 8);
	memcpy(r->copy + offset, &value, 8);
}

static void clear_pte(unsigned page, uint64_t bits)
{
	host_write(near_tables, pte_of(page), *pte_of(page) & ~bits);
	expect(near_tables, page / 512);
}

static void expect_store(enum store kind, unsigned page, unsigned span)
{
	enum reach reach = store_reach[kind];

	if (reach == ONE || reach == NEXT || reach == TABLE_TOO)
		expect(data, page);
	if (reach == NEXT)
		expect(data, page + 1);
	for (unsigned i = 0; reach == SPAN && i < span; i++)
		expect(data, page + i);
	if (reach == TABLE_ONLY)
		clear_pte(page, 0x20);
	if (reach == TABLE_TOO)
		clear_pte(page, any(2) ? 0x60 : 0x40);
	if (reach == GDT_ONLY) {
		uint64_t *entry = (uint64_t *)(near_tables->ram + GDT_PAGE * PAGE) + 3;

		host_write(near_tables, entry, *entry & ~(1ull << 40));
		expect(near_tables, GDT_PAGE);
	}
}

static struct command any_command(unsigned round)
{
	enum store kind = any(nr_stores);
	unsigned page = any(DATA_PAGES - 1), span = 1 + any(8);
	static const uint32_t msrs[] = {MSR_SYSTEM_TIME, MSR_STEAL_TIME};

	if (store_reach[kind] == SPAN && round % 16 == 0)
		span = 600 + any(1400);
	if (store_reach[kind] == SPAN && page + span > DATA_PAGES)
		page = DATA_PAGES - span;
	expect_store(kind, page, span);
	return (struct command){kind, DATA + page * PAGE,
				kind == STORE_WRMSR_PAGE ? msrs[any(2)] : span};
}

static void fill_list(unsigned vcpu, unsigned round)
{
	struct command *list = (struct command *)(m.ram + LISTS + vcpu * LIST_SIZE);
	unsigned nr = any(MAX_COMMANDS);

	for (unsigned i = 0; i < nr; i++)
		list[i] = any_command(round);
	list[nr].kind = -1ull;
}

/* A page of KVM's own, at a random place. */
static void have_page(int vcpu, uint32_t index)
{
	unsigned page = any(DATA_PAGES);

	CHECK_EQ(msr_set(vcpu, index, DATA + page * PAGE + 1), 1);
	expect(data, page);
}

static void have_kvm_write(void)
{
	int vcpu = vcpus[any(nr_vcpus)].fd;
	static const uint32_t hv[] = {HV_HYPERCALL, HV_TSC_PAGE, HV_VP_ASSIST};
	unsigned what = any(8);

	if (what < 3)
		have_page(vcpu, hv[what]);
	if (what == 3) {
		CHECK_EQ(ioctl(vcpu, KVM_SMI, 0), 0);
		expect(smram, SAVE_PAGE);
	}
}

static void end_pv(void)
{
	for (unsigned i = 0; i < nr_vcpus; i++) {
		CHECK_EQ(msr_set(vcpus[i].fd, MSR_SYSTEM_TIME, 0), 1);
		CHECK_EQ(msr_set(vcpus[i].fd, MSR_STEAL_TIME, 0), 1);
		CHECK_EQ(msr_set(vcpus[i].fd, HV_VP_ASSIST, 0), 1);
	}
	CHECK_EQ(msr_set(vcpus[0].fd, HV_HYPERCALL, 0), 1);
	CHECK_EQ(msr_set(vcpus[0].fd, HV_TSC_PAGE, 0), 1);
}

/* ---- the machine ---- */

static void put64(uint64_t gpa, uint64_t val)
{
	memcpy(m.ram + gpa, &val, 8);
}

static void put_gate(unsigned vector, uint64_t to)
{
	put64(IDT + vector * 16, (to & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (to >> 16) << 48);
	put64(IDT + vector * 16 + 8, 0);
}

static void fill_tables(void)
{
	uint64_t *gdt = (uint64_t *)(near_tables->ram + GDT_PAGE * PAGE);

	put64(TABLES, TABLES + 0x1027);
	put64(TABLES + 0x1000, TABLES + 0x2027);
	put64(TABLES + 0x2000, 0xe3);
	for (unsigned i = 0; i < DATA_PAGES / 512; i++)
		put64(TABLES + 0x2000 + (DATA >> 21) * 8 + i * 8, NEAR + i * PAGE + 0x27);
	put64(TABLES + 0x2000 + (NEAR >> 21) * 8, NEAR + 0xe3);
	for (unsigned i = 0; i < DATA_PAGES; i++)
		*pte_of(i) = DATA + i * PAGE + 0x67;
	gdt[1] = 0x00af9b000000ffff;
	gdt[2] = 0x00cf93000000ffff;
	gdt[3] = 0x00cf93000000ffff;
	memcpy(m.ram + CODE, guest_code, guest_code_end - guest_code);
	put_gate(VECTOR_INT, CODE + (guest_int - guest_code));
	put_gate(VECTOR_IPI, CODE + (guest_ipi - guest_code));
	for (unsigned i = 0; i < MAX_VCPUS; i++)
		put64(LISTS + i * LIST_SIZE, -1ull);
	memcpy(smram->ram + 0x8000, "\x0f\xaa", 2); /* rsm */
}

static void open_region(struct region *r)
{
	r->ram = map_ram(r->pages * PAGE);
	r->copy = map_ram(r->pages * PAGE);
	r->expected = calloc(r->pages, 1);
	r->found = calloc(r->pages, 1);
	CHECK(r->expected && r->found);
}

static void set_cpuid(int vcpu)
{
	struct cpuid_list c;
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0].value = 7};

	get_supported_cpuid(m.kvm, &c);
	CHECK_EQ(ioctl(vcpu, KVM_SET_CPUID2, &c), 0);
	for (unsigned i = 0; i < c.head.nent; i++)
		if (c.v[i].function == 1 && !(c.v[i].ecx >> 28 & 1))
			nr_stores = FIRST_AVX;
	if (nr_stores == NR_STORES)
		CHECK_EQ(ioctl(vcpu, KVM_SET_XCRS, &xcrs), 0);
}

static void start(unsigned i)
{
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment stack = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {.rip = CODE,
				.rsp = STACKS + 0x1000 * (i + 1),
				.rflags = 2,
				.rbp = LISTS + i * LIST_SIZE,
				.r13 = SOURCE};
	struct kvm_mp_state runnable = {KVM_MP_STATE_RUNNABLE};
	struct kvm_sregs s;
	int fd = vcpus[i].fd;

	CHECK_EQ(ioctl(fd, KVM_SET_MP_STATE, &runnable), 0);
	CHECK_EQ(ioctl(fd, KVM_GET_SREGS, &s), 0);
	s.cr3 = TABLES;
	s.cr0 = 0x80010033;
	s.cr4 = nr_stores == NR_STORES ? 0x40620 : 0x620;
	s.efer = 0xd01;
	s.apic_base |= 0xc00;
	s.gdt = (struct kvm_dtable){.base = NEAR + GDT_PAGE * PAGE, .limit = 31};
	s.idt = (struct kvm_dtable){.base = IDT, .limit = 0xfff};
	s.cs = code;
	s.ds = s.es = s.ss = s.fs = s.gs = stack;
	CHECK_EQ(ioctl(fd, KVM_SET_SREGS, &s), 0);
	CHECK_EQ(ioctl(fd, KVM_SET_REGS, &regs), 0);
	CHECK_EQ(msr_set(fd, HV_GUEST_OS_ID, 1), 1);
}

static void open_vcpu(unsigned i)
{
	struct processor *p = &vcpus[i];

	p->fd = ioctl(m.vm, KVM_CREATE_VCPU, i);
	CHECK(p->fd >= 0);
	p->run = map_run(m.kvm, p->fd);
	set_cpuid(p->fd);
	if (mode != RING)
		return;
	p->ring = mmap(NULL, RING_ENTRIES * sizeof(*p->ring), PROT_READ | PROT_WRITE, MAP_SHARED,
		       p->fd, 64 * PAGE);
	CHECK(p->ring != MAP_FAILED);
}

static void open_all(void)
{
	m.kvm = open_kvm();
	m.vm = create_vm(m.kvm);
	m.ram = map_ram(LOW_SIZE);
	if (mode == RING)
		CHECK_EQ(enable_cap(m.vm, KVM_CAP_DIRTY_LOG_RING,
				    RING_ENTRIES * sizeof(struct kvm_dirty_gfn)),
			 0);
	if (mode == MANUAL)
		CHECK_EQ(enable_cap(m.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1), 0);
	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, LOW_SIZE, m.ram), 0);
	for (unsigned i = 0; i < NR_REGIONS; i++)
		open_region(&regions[i]);
	fill_tables();
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		struct region *r = &regions[i];

		CHECK_EQ(set_region(m.vm, r->slot, KVM_MEM_LOG_DIRTY_PAGES, r->gpa, r->pages * PAGE,
				    r->ram),
			 0);
		memcpy(r->copy, r->ram, r->pages * PAGE);
	}
	for (unsigned i = 0; i < nr_vcpus; i++)
		open_vcpu(i);
	for (unsigned i = 0; i < nr_vcpus; i++)
		start(i);
}

/* ---- running ---- */

static void answer_in(struct kvm_run *run)
{
	CHECK_EQ(run->io.direction, KVM_EXIT_IO_IN);
	memset((uint8_t *)run + run->io.data_offset, 0x5a, (size_t)run->io.size * run->io.count);
}

static void *run_list(void *arg)
{
	struct processor *p = arg;

	for (;;) {
		CHECK_EQ(ioctl(p->fd, KVM_RUN, 0), 0);
		if (p->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL) {
			__atomic_fetch_add(&ring_fulls, 1, __ATOMIC_RELAXED);
			harvest();
			continue;
		}
		CHECK_EQ(p->run->exit_reason, KVM_EXIT_IO);
		if (p->run->io.port == PORT_DONE)
			return NULL;
		answer_in(p->run);
	}
}

static void run_all(bool harvest_meanwhile)
{
	pthread_t threads[MAX_VCPUS];

	for (unsigned i = 0; i < nr_vcpus; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, run_list, &vcpus[i]), 0);
	for (unsigned i = 0; harvest_meanwhile && i < 5; i++)
		harvest();
	for (unsigned i = 0; i < nr_vcpus; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

static void one_round(unsigned round)
{
	forget();
	for (unsigned i = 0; i < nr_vcpus; i++)
		fill_list(i, round);
	have_kvm_write();
	run_all(round % 4 == 3);
	harvest();
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		check_sets(&regions[i], round);
		check_copy(&regions[i]);
	}
	end_pv();
	forget();
	harvest();
	for (unsigned i = 0; i < NR_REGIONS; i++)
		check_sets(&regions[i], round);
}

int main(int argc, char **argv)
{
	static const char *const modes[] = {"log", "manual", "ring"};
	unsigned rounds;

	CHECK(argc >= 4);
	while (mode < RING && strcmp(argv[1], modes[mode]))
		mode++;
	nr_vcpus = atoi(argv[2]);
	rounds = atoi(argv[3]);
	seed = argc > 4 ? strtoull(argv[4], NULL, 0) : (uint64_t)time(NULL) << 20 | 1;
	printf("dirty_exact: seed %#llx\n", (unsigned long long)seed);
	fflush(stdout);
	CHECK(nr_vcpus >= 1 && nr_vcpus <= MAX_VCPUS);
	open_all();
	run_all(false);
	harvest();
	for (unsigned round = 0; round < rounds; round++)
		one_round(round);
	printf("dirty_exact: %u rounds of %u stores, %u times a full ring\n", rounds, NR_STORES,
	       ring_fulls);
	CHECK(mode != RING || rounds < 100 || ring_fulls);
	return 0;
}
