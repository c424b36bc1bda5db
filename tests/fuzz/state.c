/* SPDX-License-Identifier: MIT */
/*
 * All state, read and written back at random points of a random guest, changes nothing:
 * state [SECONDS [SEED]].
 *
 * A VM of random bytes is run for a random time; at each exit everything that the GET ioctls give is
 * SET again and read anew: both readings must be alike, but for what runs on by itself (timers,
 * the TSC). Then the state goes to a second VM's vCPU, whose readings must be the same too.
 */
#include "../api/api_test.h"
#include "fuzz.h"

#include <signal.h>
#include <sys/time.h>

#define MAX_MSRS    256
#define MAX_ENTRIES 128
#define LAPIC_TMCCT 0x390
/* Those that go on by themselves, and one that KVM lists and takes only with an in-kernel local APIC. */
static const uint32_t left_out[] = {
	0x10,	    /* TSC */
	0x40000010, /* Hyper-V's VP run time */
	0x40000020, /* its reference counter */
	0x4b564d06, /* MSR_KVM_ASYNC_PF_INT */
};
#define EXITS 40

struct state {
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs;
	struct kvm_fpu fpu;
	struct kvm_debugregs debug;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	struct kvm_lapic_state lapic;
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[MAX_MSRS];
	} msrs;
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[MAX_ENTRIES];
	} cpuid;
};

static uint64_t current_seed;
static bool irqchip;
static struct {
	struct kvm_msr_list head;
	uint32_t indices[MAX_MSRS];
} list = {.head.nmsrs = MAX_MSRS};

static void fail(const char *what)
{
	fprintf(stderr, "state: %s: run `state 0 %#llx`\n", what, (unsigned long long)current_seed);
	exit(1);
}

/* ---- reading and writing all of it ---- */

static bool is_left_out(uint32_t index)
{
	for (unsigned i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++)
		if (left_out[i] == index)
			return true;
	return false;
}

static void get(int vcpu, struct state *s)
{
	memset(s, 0, sizeof(*s));
	CHECK_EQ(ioctl(vcpu, KVM_GET_MP_STATE, &s->mp), 0);
	CHECK_EQ(ioctl(vcpu, KVM_GET_VCPU_EVENTS, &s->events), 0);
	CHECK_EQ(ioctl(vcpu, KVM_GET_REGS, &s->regs), 0);
	CHECK_EQ(ioctl(vcpu, KVM_GET_SREGS2, &s->sregs), 0);
	CHECK_EQ(ioctl(vcpu, KVM_GET_XSAVE, &s->xsave), 0);
	CHECK_EQ(ioctl(vcpu, KVM_GET_XCRS, &s->xcrs), 0);
	CHECK_EQ(ioctl(vcpu, KVM_GET_FPU, &s->fpu), 0);
	CHECK_EQ(ioctl(vcpu, KVM_GET_DEBUGREGS, &s->debug), 0);
	if (irqchip)
		CHECK_EQ(ioctl(vcpu, KVM_GET_LAPIC, &s->lapic), 0);
	memset(s->lapic.regs + LAPIC_TMCCT, 0, 4);
	s->cpuid.head.nent = MAX_ENTRIES;
	CHECK_EQ(ioctl(vcpu, KVM_GET_CPUID2, &s->cpuid), 0);
	for (unsigned i = 0; i < list.head.nmsrs; i++)
		if (!is_left_out(list.indices[i]))
			s->msrs.entries[s->msrs.head.nmsrs++].index = list.indices[i];
	CHECK_EQ(ioctl(vcpu, KVM_GET_MSRS, &s->msrs), s->msrs.head.nmsrs);
}

/* In the order that QEMU uses. */
static void set(int vcpu, struct state *s, bool cpuid)
{
	long n;

	if (cpuid)
		CHECK_EQ(ioctl(vcpu, KVM_SET_CPUID2, &s->cpuid), 0);
	CHECK_EQ(ioctl(vcpu, KVM_SET_REGS, &s->regs), 0);
	CHECK_EQ(ioctl(vcpu, KVM_SET_XSAVE, &s->xsave), 0);
	CHECK_EQ(ioctl(vcpu, KVM_SET_XCRS, &s->xcrs), 0);
	CHECK_EQ(ioctl(vcpu, KVM_SET_SREGS2, &s->sregs), 0);
	n = ioctl(vcpu, KVM_SET_MSRS, &s->msrs);
	if (n != s->msrs.head.nmsrs)
		fprintf(stderr, "state: MSR %#x refuses %#llx\n", s->msrs.entries[n].index,
			(unsigned long long)s->msrs.entries[n].data);
	CHECK_EQ(n, s->msrs.head.nmsrs);
	CHECK_EQ(ioctl(vcpu, KVM_SET_MP_STATE, &s->mp), 0);
	if (irqchip)
		CHECK_EQ(ioctl(vcpu, KVM_SET_LAPIC, &s->lapic), 0);
	CHECK_EQ(ioctl(vcpu, KVM_SET_VCPU_EVENTS, &s->events), 0);
	CHECK_EQ(ioctl(vcpu, KVM_SET_DEBUGREGS, &s->debug), 0);
}

#define COMPARE(a, b, part) compare(#part, &(a)->part, &(b)->part, sizeof((a)->part))

static void compare(const char *name, const void *a, const void *b, size_t size)
{
	const uint8_t *x = a, *y = b;
	unsigned shown = 0;

	if (!memcmp(a, b, size))
		return;
	for (size_t i = 0; i < size && shown < 16; i++)
		if (x[i] != y[i]) {
			fprintf(stderr, "state: %s byte %#zx was %#x, is %#x\n", name, i, x[i],
				y[i]);
			shown++;
		}
	fail("what was written back reads otherwise");
}

/* Without KVM_CAP_EXCEPTION_PAYLOAD a pending exception is shown as both, and taken as injected. */
static void forget_pending(struct kvm_vcpu_events *e)
{
	if (e->exception.injected)
		e->exception.pending = 0;
}

static void compare_all(const struct state *a, const struct state *b)
{
	COMPARE(a, b, regs);
	COMPARE(a, b, sregs);
	COMPARE(a, b, xsave);
	COMPARE(a, b, xcrs);
	COMPARE(a, b, fpu);
	COMPARE(a, b, debug);
	COMPARE(a, b, events);
	COMPARE(a, b, mp);
	COMPARE(a, b, lapic);
	COMPARE(a, b, msrs);
	COMPARE(a, b, cpuid);
}

/* ---- guests ---- */

/* Flat 64-bit mode; the tables map the first 2 MiB. */
static void go_long(struct machine *m)
{
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_sregs s;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_SREGS, &s), 0);
	*(uint64_t *)(m->ram + 0x8000) = 0x9003;
	*(uint64_t *)(m->ram + 0x9000) = 0xa003;
	*(uint64_t *)(m->ram + 0xa000) = 0x83;
	s.cr3 = 0x8000;
	s.cr0 = 0x80050033;
	s.cr4 = 0x40620;
	s.efer = 0xd01;
	s.cs = code;
	s.ds = s.es = s.ss = s.fs = s.gs = data;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SREGS, &s), 0);
}

static void open_machine(struct machine *m)
{
	*m = machine_open();
	if (irqchip)
		CHECK_EQ(ioctl(m->vm, KVM_CREATE_IRQCHIP, 0), 0);
	m->vcpu = ioctl(m->vm, KVM_CREATE_VCPU, 0);
	CHECK(m->vcpu >= 0);
	m->run = map_run(m->kvm, m->vcpu);
	set_supported_cpuid(m->kvm, m->vcpu);
}

static void fill(struct machine *m, struct rng *r)
{
	static const uint8_t good[] = {0x90, 0xcc, 0xcf, 0xfb, 0x0f, 0x48,
				       0x66, 0xcd, 0xe4, 0xf4, 0xc5};

	for (unsigned i = 0; i < RAM_SIZE; i++)
		m->ram[i] = one_in(r, 3) ? good[below(r, sizeof(good))] : rnd(r);
	machine_start(m);
	if (one_in(r, 2))
		go_long(m);
}

static void close_machine(struct machine *m)
{
	munmap(m->run, ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	munmap(m->ram, RAM_SIZE);
	close(m->vcpu);
	close(m->vm);
	close(m->kvm);
}

static void alarm_after(unsigned us)
{
	struct itimerval t = {.it_value.tv_usec = us, .it_interval.tv_usec = 2000};

	setitimer(ITIMER_REAL, &t, NULL);
}

static void nothing(int sig)
{
}

/* One KVM_RUN; in-flight answers are finished without running on, so that the state is whole. */
static bool run_some(struct machine *m, struct rng *r)
{
	unsigned n = 0;
	long ret;

	alarm_after(1 + below(r, 300));
	ret = ioctl(m->vcpu, KVM_RUN, 0);
	CHECK(ret == 0 || errno == EINTR);
	if (!ret && m->run->exit_reason == KVM_EXIT_SHUTDOWN)
		return false;
	if (!ret && m->run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		return false;
	m->run->immediate_exit = 1;
	while (!ioctl(m->vcpu, KVM_RUN, 0))
		if (++n == 1000)
			fail("an exit that does not complete");
	CHECK_EQ(errno, EINTR);
	m->run->immediate_exit = 0;
	return true;
}

static void some_event(struct machine *m, struct rng *r)
{
	struct kvm_interrupt irq = {.irq = 32 + below(r, 200)};

	switch (below(r, 8)) {
	case 0:
		ioctl(m->vcpu, KVM_NMI, 0);
		break;
	case 1:
		ioctl(m->vcpu, KVM_INTERRUPT, &irq);
		break;
	default:
		break;
	}
}

static void one_case(uint64_t seed)
{
	static struct state before, after;
	struct rng r = {.state = seed};
	struct machine a, b;

	current_seed = seed;
	irqchip = one_in(&r, 2);
	open_machine(&a);
	open_machine(&b);
	fill(&a, &r);
	for (unsigned i = 0; i < EXITS && run_some(&a, &r); i++) {
		some_event(&a, &r);
		get(a.vcpu, &before);
		set(a.vcpu, &before, false);
		get(a.vcpu, &after);
		forget_pending(&before.events);
		compare_all(&before, &after);
		set(b.vcpu, &before, true);
		get(b.vcpu, &after);
		compare_all(&before, &after);
	}
	close_machine(&a);
	close_machine(&b);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 5, end = fuzz_now() + seconds;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1, cases = 0;
	int kvm = open_kvm();

	signal(SIGALRM, nothing);
	CHECK_EQ(ioctl(kvm, KVM_GET_MSR_INDEX_LIST, &list), 0);
	close(kvm);
	do {
		one_case(seed + cases++);
	} while (fuzz_now() < end);
	printf("state: %llu cases\n", (unsigned long long)cases);
	return 0;
}
