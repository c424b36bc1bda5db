/* SPDX-License-Identifier: MIT */
/*
 * State that cannot be is refused with KVM's errno (Linux: arch/x86/kvm/x86.c, lapic.c), and nothing of the vCPU has changed, as all that can
 * be read of it shows.
 */
#include "api_test.h"

#include <stddef.h>
#include <time.h>

struct whole {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs;
	struct kvm_fpu fpu;
	struct kvm_debugregs debug;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	struct kvm_lapic_state lapic;
};

static struct machine m;
static struct whole good;

static void get_whole(struct whole *w)
{
	memset(w, 0, sizeof(*w));
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_REGS, &w->regs), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_SREGS, &w->sregs), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_XSAVE, &w->xsave), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_XCRS, &w->xcrs), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_FPU, &w->fpu), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_DEBUGREGS, &w->debug), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_VCPU_EVENTS, &w->events), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_MP_STATE, &w->mp), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_LAPIC, &w->lapic), 0);
}

static void check_unchanged(int line)
{
	struct whole now;

	get_whole(&now);
	if (!memcmp(&now, &good, sizeof(now)))
		return;
	for (size_t i = 0; i < sizeof(now); i++)
		if (((uint8_t *)&now)[i] != ((uint8_t *)&good)[i]) {
			fprintf(stderr, "%s:%d: byte %#zx of the state has changed\n", __FILE__,
				line, i);
			exit(1);
		}
}

#define REFUSED(request, arg)                                   \
	do {                                                    \
		CHECK_ERR(ioctl(m.vcpu, request, arg), EINVAL); \
		check_unchanged(__LINE__);                      \
	} while (0)

/* Refuse the good state with one field otherwise. */
#define BAD(request, part, field, val)                 \
	do {                                           \
		__typeof__(good.part) bad = good.part; \
		bad.field = (val);                     \
		REFUSED(request, &bad);                \
	} while (0)

/* Protected mode with some of everything, so that a half-done change would show. */
static void make_state(void)
{
	struct kvm_sregs s;

	m = machine_open();
	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_X2APIC_API, 3), 0);
	MACHINE_CODE(&m, 0xf4);
	set_supported_cpuid(m.kvm, m.vcpu);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_SREGS, &s), 0);
	s.cr0 = 0x80050033;
	s.cr3 = 0x8000;
	s.cr4 = 0x620;
	s.efer = 0x500;
	s.cs.l = 1;
	s.cs.db = 0;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &s), 0);
	get_whole(&good);
}

static void test_sregs(void)
{
	BAD(KVM_SET_SREGS, sregs, cr0, good.sregs.cr0 | 1ull << 32);
	BAD(KVM_SET_SREGS, sregs, cr0, good.sregs.cr0 | 1ull << 29);	/* NW without CD */
	BAD(KVM_SET_SREGS, sregs, cr0, good.sregs.cr0 & ~1ull);		/* PG without PE */
	BAD(KVM_SET_SREGS, sregs, cr0, good.sregs.cr0 & ~(1ull << 31)); /* LMA without PG */
	BAD(KVM_SET_SREGS, sregs, cr4, good.sregs.cr4 & ~0x20ull);	/* long mode without PAE */
	BAD(KVM_SET_SREGS, sregs, cr4, good.sregs.cr4 | 1ull << 40);
	BAD(KVM_SET_SREGS, sregs, cr4, good.sregs.cr4 | 1ull << 15);
	BAD(KVM_SET_SREGS, sregs, cr3, 1ull << 62);
	BAD(KVM_SET_SREGS, sregs, efer, 0x100); /* LME and PG without LMA */
	BAD(KVM_SET_SREGS, sregs, efer, 0);	/* CS.L without LMA */
	BAD(KVM_SET_SREGS, sregs, apic_base, good.sregs.apic_base | 1);
	BAD(KVM_SET_SREGS, sregs, apic_base, 0xfee00400); /* x2APIC, not enabled */
	BAD(KVM_SET_SREGS, sregs, apic_base, good.sregs.apic_base | 1ull << 60);
}

static void test_events(void)
{
	struct kvm_vcpu_events e = good.events;
	struct kvm_mp_state init = {.mp_state = KVM_MP_STATE_INIT_RECEIVED};
	struct kvm_mp_state runnable = {.mp_state = KVM_MP_STATE_RUNNABLE};

	BAD(KVM_SET_VCPU_EVENTS, events, flags, 1u << 20);
	/* Their capabilities are not enabled. */
	BAD(KVM_SET_VCPU_EVENTS, events, flags, KVM_VCPUEVENT_VALID_PAYLOAD);
	BAD(KVM_SET_VCPU_EVENTS, events, flags, KVM_VCPUEVENT_VALID_TRIPLE_FAULT);
	e.exception.injected = 1;
	for (unsigned nr = 0; nr < 256; nr++) {
		if (nr < 32 && nr != 2)
			continue;
		e.exception.nr = nr;
		REFUSED(KVM_SET_VCPU_EVENTS, &e);
	}
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_EXCEPTION_PAYLOAD, 1), 0);
	get_whole(&good); /* ->flags say so */
	e.flags = KVM_VCPUEVENT_VALID_PAYLOAD;
	e.exception.nr = 32; /* if it is pending, too (and then not injected) */
	e.exception.pending = 1;
	REFUSED(KVM_SET_VCPU_EVENTS, &e);
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_EXCEPTION_PAYLOAD, 0), 0);
	get_whole(&good);
	/* INIT waits while in SMM. */
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_MP_STATE, &init), 0);
	get_whole(&good);
	e = good.events;
	e.flags |= KVM_VCPUEVENT_VALID_SMM;
	e.smi.pending = 1;
	REFUSED(KVM_SET_VCPU_EVENTS, &e);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_MP_STATE, &runnable), 0);
	get_whole(&good);
}

static void test_debugregs(void)
{
	BAD(KVM_SET_DEBUGREGS, debug, flags, 1);
	BAD(KVM_SET_DEBUGREGS, debug, dr6, 1ull << 32);
	BAD(KVM_SET_DEBUGREGS, debug, dr7, 1ull << 32);
}

/* The header is 64 bytes at 512: XSTATE_BV, XCOMP_BV, 48 that are 0; MXCSR is at 24. */
static void test_xsave(void)
{
	struct kvm_xsave x = good.xsave;

	BAD(KVM_SET_XSAVE, xsave, region[512 / 4 + 1], 0x80000000u);
	BAD(KVM_SET_XSAVE, xsave, region[512 / 4 + 1], 1u << 20);
	BAD(KVM_SET_XSAVE, xsave, region[520 / 4 + 1], 0x80000000u);
	BAD(KVM_SET_XSAVE, xsave, region[520 / 4], 1);
	for (unsigned at = 528; at < 576; at += 4)
		BAD(KVM_SET_XSAVE, xsave, region[at / 4], 1u << at % 32);
	x.region[512 / 4] = 2; /* else nobody looks at it */
	x.region[24 / 4] = 0xffff0000u;
	REFUSED(KVM_SET_XSAVE, &x);
}

static void test_xcrs(void)
{
	BAD(KVM_SET_XCRS, xcrs, nr_xcrs, 17);
	BAD(KVM_SET_XCRS, xcrs, flags, 1);
	BAD(KVM_SET_XCRS, xcrs, xcrs[0].value, 0);
	BAD(KVM_SET_XCRS, xcrs, xcrs[0].value, 2);
	BAD(KVM_SET_XCRS, xcrs, xcrs[0].value, 5); /* AVX without SSE */
	BAD(KVM_SET_XCRS, xcrs, xcrs[0].value, 1ull << 62 | 3);
}

static void test_lapic(void)
{
	struct kvm_sregs s = good.sregs;
	struct kvm_lapic_state state;

	BAD(KVM_SET_MP_STATE, mp, mp_state, 77);
	BAD(KVM_SET_MP_STATE, mp, mp_state, KVM_MP_STATE_STOPPED);
	s.apic_base |= 0x400;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &s), 0);
	get_whole(&good);
	state = good.lapic;
	*(uint32_t *)(state.regs + 0x20) = 7; /* x2APIC ids are the vCPU's */
	REFUSED(KVM_SET_LAPIC, &state);
	state = good.lapic;
	*(uint32_t *)(state.regs + 0x20) = 1u << 24;
	REFUSED(KVM_SET_LAPIC, &state);
}

static int set_two(uint32_t index, uint64_t val)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry v[2];
	} msrs = {.head.nmsrs = 2,
		  .v = {{.index = index, .data = val}, {.index = 0x174, .data = 99}}};

	return ioctl(m.vcpu, KVM_SET_MSRS, &msrs);
}

/* MSRs are set up to the first that is refused: here none, and none behind it. */
static void test_msrs(void)
{
	static const struct {
		uint32_t index;
		uint64_t val;
	} bad[] = {
		{0xc0000080, 1ull << 40},    /* EFER */
		{0xc0000082, 1ull << 60},    /* LSTAR */
		{0xc0000100, 1ull << 60},    /* FS base */
		{0x1b, 0xfee00400},	     /* APIC base */
		{0x277, 0x0202020202020202}, /* PAT: no such type */
		{0x250, 0x0202020202020202}, /* MTRR */
		{0x2ff, 1ull << 40},	     {0x12345678, 1},
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CHECK_EQ(set_two(bad[i].index, bad[i].val), 0);
		check_unchanged(__LINE__);
		CHECK_EQ(msr_get(m.vcpu, 0x174), 0);
	}
}

static uint64_t realtime_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* A clock saved in the future is taken as it was: KVM only ever adds the time that has passed. */
static void test_clock(void)
{
	struct kvm_clock_data c = {.clock = 5000000000ull, .flags = 1u << 7}, before, after;

	CHECK_EQ(ioctl(m.vm, KVM_GET_CLOCK, &before), 0);
	CHECK_ERR(ioctl(m.vm, KVM_SET_CLOCK, &c), EINVAL);
	CHECK_EQ(ioctl(m.vm, KVM_GET_CLOCK, &after), 0);
	CHECK(after.clock >= before.clock && after.clock - before.clock < 1000000000);
	c.flags = KVM_CLOCK_REALTIME;
	c.realtime = realtime_ns() + 3600000000000ull;
	CHECK_EQ(ioctl(m.vm, KVM_SET_CLOCK, &c), 0);
	CHECK_EQ(ioctl(m.vm, KVM_GET_CLOCK, &after), 0);
	CHECK(after.clock >= c.clock && after.clock - c.clock < 5000000000ull);
	c.realtime = realtime_ns() - 3600000000000ull;
	CHECK_EQ(ioctl(m.vm, KVM_SET_CLOCK, &c), 0);
	CHECK_EQ(ioctl(m.vm, KVM_GET_CLOCK, &after), 0);
	CHECK(after.clock >= c.clock + 3600000000000ull);
}

int main(void)
{
	make_state();
	test_sregs();
	test_events();
	test_debugregs();
	test_xsave();
	test_xcrs();
	test_msrs();
	test_clock();
	test_lapic();
	return 0;
}
