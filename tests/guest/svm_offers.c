/* SPDX-License-Identifier: MIT */
/*
 * What CPUID offers beside SVM itself, each used by a guest and each where it is not there: next RIP, decode assists, virtual
 * GIF, virtual NMI, virtual VMLOAD and VMSAVE, the pause filter; and the rest of the intercepts, maps and
 * events that svm.c leaves out. Offsets, bits and codes are the APM's.
 */
#include "svm_host.h"

#define L2_DATA	   0x320000u
#define HANDLER(v) (FLAT_HANDLERS + 16u * (v))

#define INT_CTL	  0x60
#define INT_STATE 0x68
#define EXITINFO1 0x78
#define EXITINFO2 0x80
#define EVENTINJ  0xa8
#define NRIP	  0xc8
#define NR_BYTES  0xd0
#define RIP_AT	  0x578
#define RSP_AT	  0x5d8
#define RFLAGS_AT 0x570

#define V_IRQ	  (1ull << 8)
#define V_GIF	  (1ull << 9)
#define V_NMI	  (1ull << 11)
#define V_BLOCKED (1ull << 12)
#define V_IGN_TPR (1ull << 20)
#define V_MASKING (1ull << 24)
#define GIF_ON	  (1ull << 25)
#define NMI_ON	  (1ull << 26)
#define PRIO_4	  (4ull << 16)
#define VECTOR_41 (0x41ull << 32)

#define EXIT_CALL 0x81
#define EXIT_HLT  0x78
#define EXIT_NMI  0x61

static struct host *open_with(enum feature feature, bool on)
{
	struct host *h = host_open();

	feature_put(h->f->cpu->model_features, feature, on);
	feature_put(h->f->cpu->guest_features, feature, on);
	put(h, MISC1, 1u << 24, 4); /* HLT: handlers end in one */
	return h;
}

static void intercept(struct host *h, unsigned word, unsigned bit)
{
	put(h, word, get(h, word, 4) | 1ull << bit, 4);
}

/* ---- next RIP, decode assists ---- */

static void next_rip(void **state)
{
	for (unsigned on = 0; on < 2; on++) {
		struct host *h = open_with(FEAT_NRIPS, on);

		intercept(h, MISC1, 18);
		assert_int_equal(vmrun(h, "\x0f\xa2", 2), 0x72);
		assert_int_equal(get(h, NRIP, 8), on ? L2_CODE + 2 : 0);
		assert_int_equal(get(h, RIP_AT, 8), L2_CODE);
		host_close(h);
	}
}

static void decode_assists(void **state)
{
	for (unsigned on = 0; on < 2; on++) {
		struct host *h = open_with(FEAT_DECODEASSISTS, on);

		intercept(h, CR_BITS, 19);
		assert_int_equal(vmrun(h, "\x0f\x22\xda", 3), 0x13);
		assert_int_equal(get(h, EXITINFO1, 8), on ? 1ull << 63 | 2 : 0);
		put(h, EXCEPTIONS, 1 << 14, 4);
		put(h, CR_BITS, 0, 4);
		flat_set_entry(h->f, 0x400000, 2, 0);
		assert_int_equal(vmrun(h, "\xc6\x04\x25\x78\x56\x40\x00\x99", 8), 0x4e);
		assert_int_equal(get(h, NR_BYTES, 1), on ? 15 : 0);
		assert_int_equal(get(h, NR_BYTES + 1, 8), on ? 0x99004056782504c6 : 0);
		host_close(h);
	}
	/* Nested page faults, too; a fetch that fails has none. */
	for (unsigned fetch = 0; fetch < 2; fetch++) {
		struct host *h = open_with(FEAT_DECODEASSISTS, true);

		nested_tables(h);
		flat_poke(h->f, NESTED + 0x2000 + 8 * 4, 0, 8);
		h->f->cpu->gpr[RDI] = 0x800000;
		assert_int_equal(vmrun(h, fetch ? "\xff\xe7" : "\x8a\x07", 2), 0x400);
		assert_int_equal(get(h, EXITINFO2, 8), 0x800000);
		assert_int_equal(get(h, NR_BYTES, 1), fetch ? 0 : 15);
		assert_int_equal(get(h, NR_BYTES + 1, 2), fetch ? 0 : 0x078a);
		host_close(h);
	}
}

/* ---- virtual GIF ---- */

#define CLGI "\x0f\x01\xdd"
#define STGI "\x0f\x01\xdc"

static void virtual_gif(void **state)
{
	const uint64_t irq = V_IRQ | PRIO_4 | VECTOR_41;
	struct host *h = open_with(FEAT_VGIF, true);

	/* The guest's own, shown at the exit. */
	put(h, INT_CTL, GIF_ON | V_GIF, 8);
	assert_int_equal(vmrun(h, CLGI VMMCALL, 6), EXIT_CALL);
	assert_int_equal(get(h, INT_CTL, 8), GIF_ON);
	put(h, RIP_AT, L2_CODE, 8);
	assert_int_equal(vmrun(h, STGI VMMCALL, 6), EXIT_CALL);
	assert_int_equal(get(h, INT_CTL, 8), GIF_ON | V_GIF);
	/* It holds the virtual interrupt, until STGI. */
	put(h, RIP_AT, L2_CODE, 8);
	put(h, RFLAGS_AT, 0x202, 8);
	put(h, INT_CTL, GIF_ON | irq, 8);
	assert_int_equal(vmrun(h, "\x90" VMMCALL, 4), EXIT_CALL);
	assert_int_equal(get(h, INT_CTL, 8), GIF_ON | irq);
	put(h, RIP_AT, L2_CODE, 8);
	assert_int_equal(vmrun(h, STGI "\x90" VMMCALL, 7), EXIT_HLT);
	assert_int_equal(get(h, RIP_AT, 8), HANDLER(0x41));
	assert_int_equal(get(h, INT_CTL, 8), GIF_ON | V_GIF | (irq & ~V_IRQ));
	/* Interrupts of the machine pass it by. */
	put(h, RIP_AT, L2_CODE, 8);
	put(h, INT_CTL, GIF_ON, 8);
	put(h, RFLAGS_AT, 0x202, 8);
	intercept(h, MISC1, 0);
	pend_interrupt(h->f, 0x55);
	assert_int_equal(vmrun(h, "\x90" VMMCALL, 4), 0x60);
	h->f->interrupt = -1;
	/* The intercept goes first. */
	intercept(h, MISC2, 5);
	put(h, RFLAGS_AT, 2, 8);
	put(h, INT_CTL, GIF_ON | V_GIF, 8);
	assert_int_equal(vmrun(h, CLGI VMMCALL, 6), 0x85);
	assert_int_equal(get(h, INT_CTL, 8), GIF_ON | V_GIF);
	host_close(h);
}

/* Not enabled, or not there: V_GIF means nothing. */
static void no_virtual_gif(void **state)
{
	for (unsigned there = 0; there < 2; there++) {
		struct host *h = open_with(FEAT_VGIF, there);
		uint64_t ctl = V_IRQ | PRIO_4 | VECTOR_41 | (there ? 0 : GIF_ON);

		put(h, INT_CTL, ctl, 8);
		put(h, RFLAGS_AT, 0x202, 8);
		assert_int_equal(vmrun(h, "\x90" VMMCALL, 4), EXIT_HLT);
		assert_int_equal(get(h, RIP_AT, 8), HANDLER(0x41));
		host_close(h);
	}
}

/* ---- virtual NMIs ---- */

static struct host *open_nmi(uint64_t ctl)
{
	struct host *h = open_with(FEAT_VNMI, true);

	intercept(h, MISC1, 1);
	put(h, INT_CTL, NMI_ON | ctl, 8);
	return h;
}

static void virtual_nmi(void **state)
{
	struct host *h = open_nmi(V_NMI);

	/* Taken, and blocked from then on. */
	assert_int_equal(vmrun(h, "\x90" VMMCALL, 4), EXIT_HLT);
	assert_int_equal(get(h, RIP_AT, 8), HANDLER(2));
	assert_int_equal(get(h, INT_CTL, 8), NMI_ON | V_BLOCKED);
	host_close(h);
	/* It waits while they are blocked, */
	h = open_nmi(V_NMI | V_BLOCKED);
	assert_int_equal(vmrun(h, "\x90" VMMCALL, 4), EXIT_CALL);
	assert_int_equal(get(h, INT_CTL, 8), NMI_ON | V_NMI | V_BLOCKED);
	/* to the end of IRET. */
	const uint64_t frame[] = {L2_CODE + 0x100, FLAT_CS64, 2, L2_RSP, FLAT_DS32};

	flat_write(h->f, L2_DATA, frame, sizeof(frame));
	put(h, RSP_AT, L2_DATA, 8);
	put(h, RIP_AT, L2_CODE, 8);
	assert_int_equal(vmrun(h, "\x48\xcf", 2), EXIT_HLT);
	assert_int_equal(get(h, RIP_AT, 8), HANDLER(2));
	assert_int_equal(flat_peek(h->f, get(h, RSP_AT, 8), 8), L2_CODE + 0x100);
	host_close(h);
	/* One of the machine's exits, and leaves the guest's blocking alone. */
	h = open_nmi(V_BLOCKED);
	h->f->cpu->nmi_pending = true;
	h->f->cpu->virt->gif = false;
	cpu_update_attention(h->f->cpu);
	assert_int_equal(vmrun(h, "\x90" VMMCALL, 4), EXIT_NMI);
	assert_int_equal(get(h, INT_CTL, 8), NMI_ON | V_BLOCKED);
	host_close(h);
	/* Without virtual NMIs the bits mean nothing. */
	h = open_nmi(0);
	put(h, INT_CTL, V_NMI, 8);
	assert_int_equal(vmrun(h, "\x90" VMMCALL, 4), EXIT_CALL);
	host_close(h);
}

/* ---- virtual VMLOAD and VMSAVE ---- */

#define VMLOAD "\x0f\x01\xda"
#define VMSAVE "\x0f\x01\xdb"
#define STATE  0x800000u
#define MOVED  0xa00000u /* where nested paging has it */

static void start_vls(struct host *h, bool on)
{
	start_again(h);
	nested_tables(h);
	flat_poke(h->f, NESTED + 0x2000 + 8 * 4, MOVED | 1 << 7 | LEAF, 8);
	mmu_flush_all(h->f->cpu);
	put(h, 0xb8, on ? 2 : 0, 8);
	put(h, 0x5f8, STATE, 8);
	memset(h->f->ram + STATE, 0, PAGE_SIZE);
	memset(h->f->ram + MOVED, 0, PAGE_SIZE);
}

static void virtual_vmsave(void **state)
{
	struct host *h = open_with(FEAT_V_VMSAVE_VMLOAD, true);

	for (unsigned on = 0; on < 2; on++) {
		start_vls(h, on);
		h->f->cpu->msr.lstar = 0x1234;
		assert_int_equal(vmrun(h, VMSAVE VMMCALL, 6), EXIT_CALL);
		assert_int_equal(flat_peek(h->f, STATE + 0x608, 8), on ? 0 : 0x1234);
		assert_int_equal(flat_peek(h->f, MOVED + 0x608, 8), on ? 0x1234 : 0);
		start_vls(h, on);
		flat_poke(h->f, (on ? MOVED : STATE) + 0x608, 0x5678, 8);
		flat_poke(h->f, (on ? MOVED : STATE) + 0x490, 0x8b00000048, 8); /* TR */
		assert_int_equal(vmrun(h, VMLOAD VMMCALL, 6), EXIT_CALL);
		assert_int_equal(h->f->cpu->msr.lstar, 0x5678);
		/* Intercepted all the same. */
		start_vls(h, on);
		intercept(h, MISC2, 2);
		intercept(h, MISC2, 3);
		assert_int_equal(vmrun(h, VMSAVE, 3), 0x83);
		start_vls(h, on);
		intercept(h, MISC2, 2);
		assert_int_equal(vmrun(h, VMLOAD, 3), 0x82);
	}
	/* A page that is not there is a nested page fault of the access. */
	start_vls(h, true);
	flat_poke(h->f, NESTED + 0x2000 + 8 * 4, 0, 8);
	assert_int_equal(vmrun(h, VMSAVE, 3), 0x400);
	assert_int_equal(get(h, EXITINFO1, 8) & 3, 2);
	assert_int_equal(get(h, EXITINFO2, 8), STATE);
	host_close(h);
	/* Not there: as if it was not asked for. */
	h = open_with(FEAT_V_VMSAVE_VMLOAD, false);
	start_vls(h, true);
	h->f->cpu->msr.lstar = 0x1234;
	assert_int_equal(vmrun(h, VMSAVE VMMCALL, 6), EXIT_CALL);
	assert_int_equal(flat_peek(h->f, STATE + 0x608, 8), 0x1234);
	host_close(h);
}

/* The intercept goes before #GP for the address (SVME_ADDR_CHK). */
static void address_check(void **state)
{
	static const struct {
		const char *code;
		unsigned bit;
	} some[] = {{VMLOAD, 2}, {VMSAVE, 3}};
	struct host *h = open_with(FEAT_SVM, true);

	for (unsigned i = 0; i < 2 * ARRAY_SIZE(some); i++) {
		start_again(h);
		put(h, EXCEPTIONS, 1 << 13, 4);
		put(h, 0x5f8, STATE + 8, 8);
		if (i & 1)
			intercept(h, MISC2, some[i / 2].bit);
		assert_int_equal(vmrun(h, some[i / 2].code, 3),
				 i & 1 ? 0x80 + some[i / 2].bit : 0x4d);
	}
	host_close(h);
}

/* They say what has not changed since; what has changed all the same counts, which the APM leaves open. */
static void clean_bits(void **state)
{
	struct host *h = open_with(FEAT_SVM, true);

	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(vmrun(h, "\x0f\xa2" VMMCALL, 5), EXIT_CALL);
		put(h, RIP_AT, L2_CODE, 8);
		put(h, 0xc0, 0, 8);
		intercept(h, MISC1, 18);
		assert_int_equal(vmrun(h, "\x0f\xa2" VMMCALL, 5), 0x72);
		put(h, MISC1, 0, 4);
	}
	host_close(h);
}

/* ---- the pause filter ---- */

#define PAUSES "\xf3\x90\xf3\x90\xf3\x90\xf3\x90" VMMCALL

/* Which PAUSE exits, from 1 on; 0: none. */
static unsigned exits_at(struct host *h, unsigned count, unsigned threshold)
{
	uint64_t code;

	start_again(h);
	intercept(h, MISC1, 23);
	put(h, 0x3c, threshold, 2);
	put(h, 0x3e, count, 2);
	code = vmrun(h, PAUSES, 11);
	if (code == EXIT_CALL)
		return 0;
	assert_int_equal(code, 0x77);
	return (get(h, RIP_AT, 8) - L2_CODE) / 2 + 1;
}

static void pause_filter(void **state)
{
	struct host *h = open_with(FEAT_PAUSEFILTER, true);

	feature_put(h->f->cpu->guest_features, FEAT_PFTHRESHOLD, true);
	assert_int_equal(exits_at(h, 0, 0), 1);
	assert_int_equal(exits_at(h, 1, 0), 2);
	assert_int_equal(exits_at(h, 2, 0), 3);
	assert_int_equal(exits_at(h, 100, 0), 0);
	/* Each look at the clock is 100 later: near each other, or far and counted anew. */
	assert_int_equal(exits_at(h, 2, 150), 3);
	assert_int_equal(exits_at(h, 2, 50), 0);
	feature_put(h->f->cpu->guest_features, FEAT_PFTHRESHOLD, false);
	assert_int_equal(exits_at(h, 2, 50), 3);
	host_close(h);
	h = open_with(FEAT_PAUSEFILTER, false);
	assert_int_equal(exits_at(h, 100, 0), 1);
	host_close(h);
}

/* ---- the rest of the intercepts ---- */

static void selective_cr0(void **state)
{
	static const struct {
		const char *code;
		uint64_t flip;
		bool exits;
	} some[] = {
		{"\x0f\x22\xc2", CR0_TS, false}, {"\x0f\x22\xc2", CR0_MP, false},
		{"\x0f\x22\xc2", CR0_WP, true},	 {"\x0f\x22\xc2", CR0_AM | CR0_TS, true},
		{"\x0f\x01\xf2", CR0_TS, false}, {"\x0f\x01\xf2", CR0_EM, true},
		{"\x0f\x06\x90", 0, false},
	};
	struct host *h = open_with(FEAT_SVM, true);

	for (unsigned i = 0; i < ARRAY_SIZE(some); i++) {
		uint8_t code[6];

		start_again(h);
		intercept(h, MISC1, 5);
		memcpy(code, some[i].code, 3);
		memcpy(code + 3, VMMCALL, 3);
		h->f->cpu->gpr[RDX] = get(h, 0x558, 8) ^ some[i].flip;
		assert_int_equal(vmrun(h, code, 6), some[i].exits ? 0x65 : EXIT_CALL);
		/* That of all writes goes before it. */
		start_again(h);
		intercept(h, MISC1, 5);
		intercept(h, CR_BITS, 16);
		h->f->cpu->gpr[RDX] = get(h, 0x558, 8) ^ some[i].flip;
		assert_int_equal(vmrun(h, code, 6), 0x10);
	}
	host_close(h);
}

static void later_intercepts(void **state)
{
	struct host *h = open_with(FEAT_INVPCID, true);

	intercept(h, MISC2, 13);
	put(h, 0x548, get(h, 0x548, 8) | CR4_OSXSAVE, 8);
	assert_int_equal(vmrun(h, "\x0f\x01\xd1", 3), 0x8d); /* xsetbv */
	intercept(h, MISC3, 2);
	h->f->cpu->gpr[RDI] = L2_DATA;
	h->f->cpu->gpr[RDX] = 2;
	assert_int_equal(vmrun(h, "\x66\x0f\x38\x82\x57\x10", 6),
			 0xa2); /* invpcid 16(%rdi), %rdx */
	assert_int_equal(get(h, EXITINFO1, 8), L2_DATA + 16);
	assert_int_equal(get(h, EXITINFO2, 8), 2);
	/* SKINIT without its intercept: there is none. */
	put(h, EXCEPTIONS, 1 << 6, 4);
	assert_int_equal(vmrun(h, "\x0f\x01\xde", 3), 0x46);
	host_close(h);
}

/* String accesses say the segment, the address size, REP; ports near the map's end, and MSRs beyond it. */
static void ports_and_msrs(void **state)
{
	struct host *h = open_with(FEAT_SVM, true);

	intercept(h, MISC1, 27);
	intercept(h, MISC1, 28);
	flat_poke(h->f, IOPM + 0x71 / 8, 1 << 1, 1);
	h->f->cpu->gpr[RDX] = 0x71;
	h->f->cpu->gpr[RCX] = 4;
	assert_int_equal(vmrun(h, "\xf3\x64\x6e", 3), 0x7b); /* rep outsb %fs:(%rsi) */
	assert_int_equal(get(h, EXITINFO1, 8),
			 0x71 << 16 | 4 << 10 | 1 << 9 | 1 << 4 | 1 << 3 | 1 << 2);
	put(h, RIP_AT, L2_CODE, 8);
	assert_int_equal(vmrun(h, "\x67\x6d", 2), 0x7b); /* addr32 insl */
	assert_int_equal(get(h, EXITINFO1, 8) & 0xffff03ff,
			 0x71 << 16 | 1 << 8 | 1 << 6 | 1 << 2 | 1);
	/* A word at ffffh ends in the map's third page. */
	flat_poke(h->f, IOPM + 0x2000, 1, 1);
	h->f->cpu->gpr[RDX] = 0xffff;
	assert_int_equal(vmrun(h, "\x66\xed", 2), 0x7b);
	flat_poke(h->f, IOPM + 0x2000, 0, 1);
	put(h, RIP_AT, L2_CODE, 8);
	h->f->cpu->gpr[RDX] = 0xfffe;
	assert_int_equal(vmrun(h, "\x66\xed" VMMCALL, 5), EXIT_CALL);
	put(h, RIP_AT, L2_CODE, 8);
	h->f->cpu->gpr[RCX] = 0x40000000;
	assert_int_equal(vmrun(h, "\x0f\x32", 2), 0x7c);
	assert_int_equal(get(h, EXITINFO1, 8), 0);
	host_close(h);
}

/* Each exception by its own bit. */
static void exception_bits(void **state)
{
	static const struct {
		const char *code;
		uint8_t size, vector;
		uint64_t info1;
	} some[] = {
		{"\xf7\xf1", 2, 0, 0},
		{"\x0f\x0b", 2, 6, 0},
		{"\x8e\xd8", 2, 13, 0xfff8},
	};
	struct host *h = open_with(FEAT_SVM, true);

	for (unsigned i = 0; i < 2 * ARRAY_SIZE(some); i++) {
		unsigned vector = some[i / 2].vector;
		uint64_t code;

		start_again(h);
		put(h, MISC1, 1u << 24, 4);
		put(h, EXCEPTIONS, i & 1 ? ~(1u << vector) : 1u << vector, 4);
		h->f->cpu->gpr[RCX] = 0;
		put(h, 0x5f8, some[i / 2].info1, 8);
		code = vmrun(h, some[i / 2].code, some[i / 2].size);
		assert_int_equal(code, i & 1 ? EXIT_HLT : 0x40 + vector);
		assert_int_equal(get(h, RIP_AT, 8), i & 1 ? HANDLER(vector) : L2_CODE);
		if (!(i & 1))
			assert_int_equal(get(h, EXITINFO1, 8), some[i / 2].info1);
	}
	host_close(h);
}

/* ---- events ---- */

static const struct {
	uint64_t inj;
	uint8_t vector;
	uint64_t back; /* what is returned to */
	bool error;
} injections[] = {
	{1ull << 31 | 0x41, 0x41, L2_CODE, false},
	{1ull << 31 | 2 << 8, 2, L2_CODE, false},
	{1ull << 31 | 3 << 8 | 6, 6, L2_CODE, false},
	{0x1234ull << 32 | 1ull << 31 | 1 << 11 | 3 << 8 | 13, 13, L2_CODE, true},
	{1ull << 31 | 4 << 8 | 0x31, 0x31, L2_CODE + 2, false},
	{1ull << 31 | 3 << 8 | 3, 3, L2_CODE + 2, false},
};

static void injected(void **state)
{
	struct host *h = open_with(FEAT_NRIPS, true);

	for (unsigned i = 0; i < ARRAY_SIZE(injections); i++) {
		uint64_t rsp;

		start_again(h);
		put(h, MISC1, 1u << 24, 4);
		put(h, EXCEPTIONS, 0xffffffff, 4);
		put(h, EVENTINJ, injections[i].inj, 8);
		put(h, NRIP, L2_CODE + 2, 8);
		assert_int_equal(vmrun(h, VMMCALL, 3), EXIT_HLT);
		assert_int_equal(get(h, RIP_AT, 8), HANDLER(injections[i].vector));
		rsp = get(h, RSP_AT, 8) + (injections[i].error ? 8 : 0);
		assert_int_equal(flat_peek(h->f, rsp, 8), injections[i].back);
		assert_int_equal(get(h, 0x88, 8), 0);
		assert_int_equal(get(h, EVENTINJ, 8) >> 31 & 1, 0);
	}
	host_close(h);
}

/* The shadow of the VMCB, V_IGN_TPR, CR8 as V_TPR. */
static void virtual_interrupts(void **state)
{
	const uint64_t irq = V_IRQ | PRIO_4 | VECTOR_41 | V_MASKING;
	struct host *h = open_with(FEAT_SVM, true);

	put(h, RFLAGS_AT, 0x202, 8);
	put(h, INT_CTL, irq, 8);
	put(h, INT_STATE, 1, 8);
	assert_int_equal(vmrun(h, "\x90\x90" VMMCALL, 5), EXIT_HLT);
	assert_int_equal(flat_peek(h->f, get(h, RSP_AT, 8), 8), L2_CODE + 1);
	start_again(h);
	put(h, MISC1, 1u << 24, 4);
	put(h, RFLAGS_AT, 0x202, 8);
	put(h, INT_CTL, irq | V_IGN_TPR | 0xf, 8);
	assert_int_equal(vmrun(h, "\x90" VMMCALL, 4), EXIT_HLT);
	/* mov %rdx, %cr8 lowers it. */
	start_again(h);
	put(h, MISC1, 1u << 24, 4);
	put(h, RFLAGS_AT, 0x202, 8);
	put(h, INT_CTL, irq | 9, 8);
	h->f->tpr = 0x77;
	h->f->cpu->gpr[RDX] = 3;
	assert_int_equal(vmrun(h, "\x44\x0f\x20\xc1\x44\x0f\x22\xc2\x90" VMMCALL, 12), EXIT_HLT);
	assert_int_equal(h->f->cpu->gpr[RCX], 9);
	assert_int_equal(get(h, INT_CTL, 8) & 0xff, 3);
	assert_int_equal(h->f->tpr, 0x77);
	host_close(h);
}

static void physical_nmi(void **state)
{
	struct host *h = open_with(FEAT_SVM, true);

	for (unsigned exits = 0; exits < 2; exits++) {
		start_again(h);
		put(h, MISC1, 1u << 24 | exits << 1, 4);
		h->f->cpu->nmi_pending = true;
		h->f->cpu->nmi_blocked = false;
		h->f->cpu->virt->gif = false;
		cpu_update_attention(h->f->cpu);
		assert_int_equal(vmrun(h, "\x90" VMMCALL, 4), exits ? EXIT_NMI : EXIT_HLT);
		if (!exits)
			assert_int_equal(get(h, RIP_AT, 8), HANDLER(2));
		h->f->cpu->nmi_pending = false;
	}
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(next_rip),	      cmocka_unit_test(decode_assists),
		cmocka_unit_test(virtual_gif),	      cmocka_unit_test(no_virtual_gif),
		cmocka_unit_test(virtual_nmi),	      cmocka_unit_test(virtual_vmsave),
		cmocka_unit_test(pause_filter),	      cmocka_unit_test(address_check),
		cmocka_unit_test(clean_bits),	      cmocka_unit_test(selective_cr0),
		cmocka_unit_test(later_intercepts),   cmocka_unit_test(ports_and_msrs),
		cmocka_unit_test(exception_bits),     cmocka_unit_test(injected),
		cmocka_unit_test(virtual_interrupts), cmocka_unit_test(physical_nmi),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
