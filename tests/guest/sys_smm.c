/* SPDX-License-Identifier: MIT */
/*
 * System-management mode. Expected values: the APM's table of the SMM state-save area and Intel's of the P6, the
 * SDM's of a processor's state in SMM; where KVM fills in what they leave open (IDTR, DR7), KVM's answer.
 */
#include "guest_asm.h"
#include "silicon/models/model.h"
#include "silicon/sys/sys.h"

#include <stdlib.h>
#include <string.h>

#define SMBASE	0x300000u
#define HANDLER 0x8000u /* from SMBASE */
#define AREA	0xfe00u

GUEST(just_rsm, 16, "rsm");
GUEST(halt, 16, "hlt");
GUEST(outside, 64, "inc rax\n hlt");

struct smm {
	struct flat *f;
	uint8_t smram[FLAT_SMRAM];
};

static struct smm *smm_open(void (*mode)(struct flat *f))
{
	struct smm *s = calloc(1, sizeof(*s));

	s->f = flat_new(FLAT_RAM);
	mode(s->f);
	s->f->smram = s->smram;
	s->f->smram_base = SMBASE;
	s->f->cpu->msr.smbase = SMBASE;
	mmu_flush_all(s->f->cpu);
	/* The same addresses outside of SMM: whoever runs them is lost. */
	memset(s->f->ram + SMBASE, 0xcc, FLAT_SMRAM);
	return s;
}

static void smm_close(struct smm *s)
{
	flat_free(s->f);
	free(s);
}

#define handler(s, code) memcpy((s)->smram + HANDLER, code, code##_end - code)

static void pend_smi(struct smm *s)
{
	s->f->cpu->smi_pending = true;
	cpu_update_attention(s->f->cpu);
}

static uint64_t saved(const struct smm *s, unsigned off, unsigned size)
{
	uint64_t val = 0;

	memcpy(&val, s->smram + AREA + off, size);
	return val;
}

static void put(struct smm *s, unsigned off, unsigned size, uint64_t val)
{
	memcpy(s->smram + AREA + off, &val, size);
}

/* SMI before the first instruction of code, until the handler halts. */
static void enter(struct smm *s)
{
	handler(s, halt);
	pend_smi(s);
	assert_int_equal(flat_run(s->f, 10), CPU_EXIT_HLT);
	assert_true(s->f->cpu->in_smm);
}

/* The handler goes on behind its HLT with RSM. */
static enum cpu_exit_kind resume(struct smm *s, unsigned budget)
{
	memcpy(s->smram + (s->f->cpu->rip & 0xffff), just_rsm, just_rsm_end - just_rsm);
	s->f->cpu->activity = ACTIVITY_RUN;
	return flat_run(s->f, budget);
}

static void state_in_smm(void **state)
{
	struct smm *s = smm_open(flat_long);
	struct cpu *cpu = s->f->cpu;

	load(s->f, outside);
	cpu->dr7 = DR7_FIXED_1 | 2;
	cpu->cr0 |= CR0_TS | CR0_EM | CR0_WP;
	enter(s);
	assert_int_equal(cpu->rip, HANDLER + 1);
	assert_int_equal(cpu->seg[SEG_CS].base, SMBASE);
	assert_int_equal(cpu->seg[SEG_CS].sel, SMBASE >> 4 & 0xffff);
	for (unsigned i = 0; i <= SEG_GS; i++)
		assert_int_equal(cpu->seg[i].limit, 0xffffffff);
	assert_int_equal(cpu->seg[SEG_DS].base, 0);
	assert_int_equal(cpu->seg[SEG_DS].sel, 0);
	assert_int_equal(cpu->cr0 & (CR0_PE | CR0_PG | CR0_TS | CR0_EM), 0);
	assert_int_equal(cpu->cr0 & CR0_WP, CR0_WP);
	assert_int_equal(cpu->cr4, 0);
	assert_int_equal(cpu->msr.efer, 0);
	assert_int_equal(cpu->idtr.limit, 0);
	assert_int_equal(cpu->dr7, DR7_FIXED_1);
	assert_int_equal(cpu_rflags(cpu), FLAG_FIXED);
	assert_true(cpu->nmi_blocked);
	assert_int_equal(cpu->msr.smi_count, 1);
	assert_int_equal(cpu->mode.code, CODE_16);
	smm_close(s);
}

static void area_64(void **state)
{
	struct smm *s = smm_open(flat_long);
	struct cpu *cpu = s->f->cpu, old;

	load(s->f, outside);
	for (unsigned i = 0; i < NR_GPRS; i++)
		cpu->gpr[i] = 0x1111111111111111u * i;
	old = *cpu;
	enter(s);
	assert_int_equal(saved(s, 0xfc, 4), 0x20064);
	assert_int_equal(saved(s, 0x100, 4), SMBASE);
	assert_int_equal(saved(s, 0x178, 8), FLAT_CODE);
	assert_int_equal(saved(s, 0x170, 8), FLAG_FIXED);
	assert_int_equal(saved(s, 0x158, 8), old.cr0);
	assert_int_equal(saved(s, 0x150, 8), old.cr3);
	assert_int_equal(saved(s, 0x148, 8), old.cr4);
	assert_int_equal(saved(s, 0xd0, 8), old.msr.efer);
	for (unsigned i = 0; i < NR_GPRS; i++) /* RAX at FFF8H, R15 at FF80H */
		assert_int_equal(saved(s, 0x1f8 - 8 * i, 8), old.gpr[i]);
	assert_int_equal(saved(s, 0x10, 2), old.seg[SEG_CS].sel);
	assert_int_equal(saved(s, 0x12, 2), old.seg[SEG_CS].attr);
	assert_int_equal(saved(s, 0x14, 4), old.seg[SEG_CS].limit);
	assert_int_equal(saved(s, 0x64, 2), old.gdtr.limit);
	assert_int_equal(saved(s, 0x68, 8), old.gdtr.base);
	assert_int_equal(saved(s, 0x88, 8), old.idtr.base);
	assert_int_equal(saved(s, 0x98, 8), old.seg[SEG_TR].base);
	smm_close(s);
}

/* Without long mode in CPUID: the P6's. */
static void area_32(void **state)
{
	struct smm *s = smm_open(flat_paging32);
	struct cpu *cpu = s->f->cpu, old;

	feature_put(cpu->guest_features, FEAT_LM, false);
	for (unsigned i = 0; i < 8; i++)
		cpu->gpr[i] = 0x11111111u * i;
	cpu->gpr[R8] = 77;
	old = *cpu;
	enter(s);
	assert_int_equal(saved(s, 0xfc, 4), 0x20000);
	assert_int_equal(saved(s, 0xf8, 4), SMBASE);
	assert_int_equal(saved(s, 0x1fc, 4), old.cr0);
	assert_int_equal(saved(s, 0x1f8, 4), old.cr3);
	assert_int_equal(saved(s, 0x114, 4), old.cr4);
	assert_int_equal(saved(s, 0x1f0, 4), old.rip);
	for (unsigned i = 0; i < 8; i++) /* EAX at FFD0H, EDI at FFECH */
		assert_int_equal(saved(s, 0x1d0 + 4 * i, 4), old.gpr[i]);
	assert_int_equal(saved(s, 0x1ac, 4), old.seg[SEG_CS].sel);
	assert_int_equal(saved(s, 0x190, 4), old.seg[SEG_CS].attr << 8);
	assert_int_equal(saved(s, 0x194, 4), old.seg[SEG_CS].limit);
	assert_int_equal(saved(s, 0x1b0, 4), old.seg[SEG_SS].sel);
	assert_int_equal(saved(s, 0x174, 4), old.gdtr.base);
	assert_int_equal(saved(s, 0x158, 4), old.idtr.base);
	put(s, 0x1d0, 4, 42);
	put(s, 0x1f0, 4, FLAT_CODE + 1);
	s->f->ram[FLAT_CODE + 1] = 0xf4;
	assert_int_equal(resume(s, 10), CPU_EXIT_HLT);
	assert_int_equal(cpu->gpr[RAX], 42);
	assert_int_equal(cpu->gpr[R8], 77);
	assert_int_equal(cpu->rip, FLAT_CODE + 2);
	assert_int_equal(cpu->mode.code, CODE_32);
	assert_int_equal(cpu->cr3, old.cr3);
	smm_close(s);
}

static void expect_same(const struct cpu *cpu, const struct cpu *old)
{
	assert_memory_equal(cpu->gpr, old->gpr, sizeof(cpu->gpr));
	assert_int_equal(cpu->rip, old->rip);
	assert_int_equal(cpu_rflags(cpu), cpu_rflags(old));
	for (unsigned i = 0; i < NR_SEGS; i++) {
		assert_int_equal(cpu->seg[i].base, old->seg[i].base);
		assert_int_equal(cpu->seg[i].limit, old->seg[i].limit);
		assert_int_equal(cpu->seg[i].sel, old->seg[i].sel);
		assert_int_equal(cpu->seg[i].attr & ~SEG_UNUSABLE,
				 old->seg[i].attr & ~SEG_UNUSABLE);
	}
	assert_memory_equal(&cpu->gdtr, &old->gdtr, sizeof(cpu->gdtr));
	assert_memory_equal(&cpu->idtr, &old->idtr, sizeof(cpu->idtr));
	assert_int_equal(cpu->cr0, old->cr0);
	assert_int_equal(cpu->cr3, old->cr3);
	assert_int_equal(cpu->cr4, old->cr4);
	assert_int_equal(cpu->msr.efer, old->msr.efer);
	assert_int_equal(cpu->dr6, old->dr6);
	assert_int_equal(cpu->dr7, old->dr7);
	assert_memory_equal(&cpu->mode, &old->mode, sizeof(cpu->mode));
}

static void round_trip_in(void (*mode)(struct flat *f), bool user)
{
	struct smm *s = smm_open(mode);
	struct cpu *cpu = s->f->cpu, old;

	if (user)
		flat_user(s->f);
	for (unsigned i = 0; i < NR_GPRS; i++)
		cpu->gpr[i] ^= mode == flat_long ? 0x0123456789abcdefu * i : 0x123 * i;
	cpu_set_rflags(cpu, FLAG_CF | FLAG_OF | FLAG_DF | FLAG_IF | FLAG_ID);
	old = *cpu;
	handler(s, just_rsm);
	pend_smi(s);
	assert_int_equal(flat_run(s->f, 1), CPU_EXIT_REQUEST);
	assert_int_equal(cpu->msr.smi_count, 1);
	assert_false(cpu->in_smm);
	assert_false(cpu->nmi_blocked);
	expect_same(cpu, &old);
	smm_close(s);
}

static void round_trip(void **state)
{
	round_trip_in(flat_real, false);
	round_trip_in(flat_prot16, false);
	round_trip_in(flat_prot32, false);
	round_trip_in(flat_paging32, false);
	round_trip_in(flat_paging32, true);
	round_trip_in(flat_pae, false);
	round_trip_in(flat_pae, true);
	round_trip_in(flat_long, false);
	round_trip_in(flat_long, true);
	round_trip_in(flat_compat, false);
}

/* The handler may move everything, SMBASE too. */
static void image_changed(void **state)
{
	struct smm *s = smm_open(flat_long);
	struct cpu *cpu = s->f->cpu;

	load(s->f, outside);
	enter(s);
	put(s, 0x1f8, 8, 0x123456789abcdef0);
	put(s, 0x100, 4, 0x500000);
	assert_int_equal(resume(s, 10), CPU_EXIT_HLT);
	assert_int_equal(cpu->gpr[RAX], 0x123456789abcdef1);
	assert_int_equal(cpu->msr.smbase, 0x500000);
	smm_close(s);
}

/* Bad images end in a shutdown outside of SMM, with the handler's state. */
static void bad_images(void **state)
{
	static const struct {
		unsigned off, size;
		uint64_t set;
	} bad[] = {
		{0x158, 8, CR0_PG | CR0_ET},			/* PG without PE */
		{0x158, 8, CR0_PG | CR0_PE | CR0_ET | CR0_NW},	/* NW without CD */
		{0x158, 8, BIT(32) | CR0_PG | CR0_PE | CR0_ET}, /* above 4 GiB */
		{0x148, 8, 0},					/* long mode without PAE */
		{0x148, 8, CR4_PAE | BIT(31)},			/* reserved */
		{0x150, 8, BIT(60) | FLAT_TABLES},		/* CR3 beyond physical */
		{0xd0, 8, EFER_LME | EFER_LMA | BIT(5)},	/* reserved */
		{0x160, 8, BIT(32)},				/* DR7 */
		{0x168, 8, BIT(63)},				/* DR6 */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct smm *s = smm_open(flat_long);
		struct cpu *cpu = s->f->cpu;

		cpu->cr4_reserved = BIT(31);
		load(s->f, outside);
		cpu->gpr[RAX] = 7;
		enter(s);
		put(s, 0x1f8, 8, 9);
		put(s, bad[i].off, bad[i].size, bad[i].set);
		assert_int_equal(resume(s, 10), CPU_EXIT_SHUTDOWN);
		assert_false(cpu->in_smm);
		assert_int_equal(cpu->gpr[RAX], 7);
		assert_int_equal(cpu->seg[SEG_CS].base, SMBASE);
		assert_int_equal(cpu->cr4, 0);
		smm_close(s);
	}
}

static void pcid_without_long_mode(void **state)
{
	struct smm *s = smm_open(flat_prot32);

	s->f->cpu->cr4_reserved = 0;
	enter(s);
	put(s, 0x148, 8, CR4_PCIDE);
	assert_int_equal(resume(s, 10), CPU_EXIT_SHUTDOWN);
	smm_close(s);
}

static void bad_pdptes(void **state)
{
	struct smm *s = smm_open(flat_pae);

	enter(s);
	flat_poke(s->f, saved(s, 0x150, 8), PTE_P | BIT(1), 8);
	assert_int_equal(resume(s, 10), CPU_EXIT_SHUTDOWN);
	smm_close(s);
}

static void rsm_outside(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	load(f, just_rsm);
	assert_int_equal(run_to_handler(f), VEC_UD);
	flat_free(f);
}

/* Another SMI waits for RSM; then it comes before the next instruction. */
static void second_smi_waits(void **state)
{
	struct smm *s = smm_open(flat_long);
	struct cpu *cpu = s->f->cpu;

	load(s->f, outside);
	enter(s);
	pend_smi(s);
	assert_int_equal(cpu->attention & ATTN_SMI, 0);
	assert_int_equal(resume(s, 1), CPU_EXIT_REQUEST);
	assert_true(cpu->smi_pending);
	handler(s, halt);
	assert_int_equal(flat_run(s->f, 10), CPU_EXIT_HLT);
	assert_true(cpu->in_smm);
	assert_int_equal(cpu->msr.smi_count, 2);
	assert_int_equal(saved(s, 0x178, 8), FLAT_CODE);
	smm_close(s);
}

/* An NMI waits for RSM; inside of an NMI's handler NMIs stay blocked afterwards. */
static void nmi_and_smi(void **state)
{
	struct smm *s = smm_open(flat_long);
	struct cpu *cpu = s->f->cpu;

	load(s->f, outside);
	enter(s);
	cpu->nmi_pending = true;
	cpu_update_attention(cpu);
	assert_int_equal(resume(s, 10), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(s->f), VEC_NMI);
	assert_true(cpu->nmi_blocked);
	enter(s);
	assert_true(cpu->smm_inside_nmi);
	assert_int_equal(resume(s, 1), CPU_EXIT_REQUEST);
	assert_true(cpu->nmi_blocked);
	assert_false(cpu->smm_inside_nmi);
	smm_close(s);
}

/* STI's shadow is in the area, and is there again after RSM. */
static void shadow_kept(void **state)
{
	struct smm *s = smm_open(flat_long);
	struct cpu *cpu = s->f->cpu;

	load(s->f, outside);
	cpu_set_rflags(cpu, FLAG_IF);
	cpu->shadow = SHADOW_STI;
	cpu_update_attention(cpu);
	enter(s);
	assert_int_equal(cpu->shadow, 0);
	assert_int_equal(saved(s, 0xcb, 1), 2); /* KVM_X86_SHADOW_INT_STI */
	pend_interrupt(s->f, 0x50);
	assert_int_equal(resume(s, 1), CPU_EXIT_REQUEST);
	assert_int_equal(cpu->shadow, SHADOW_STI);
	cpu->gpr[RAX] = 5;
	assert_int_equal(flat_run(s->f, 10), CPU_EXIT_HLT);
	assert_int_equal(cpu->gpr[RAX], 6);
	assert_int_equal(flat_handler(s->f), 0x50);
	smm_close(s);
}

/* No memory for the state: nothing happens but the end. */
static void no_area(void **state)
{
	struct smm *s = smm_open(flat_long);
	struct cpu *cpu = s->f->cpu, old;

	load(s->f, outside);
	cpu->msr.smbase = FLAT_ROM - 0xf000; /* the area is behind the page */
	old = *cpu;
	pend_smi(s);
	assert_int_equal(flat_run(s->f, 10), CPU_EXIT_DEAD);
	assert_false(cpu->in_smm);
	assert_true(cpu->smi_pending);
	assert_int_equal(cpu->msr.smi_count, 0);
	expect_same(cpu, &old);
	smm_close(s);
}

GUEST(inside_loop, 64, "mov ecx,1000\n1: add rax,1\n dec ecx\n jnz 1b\n hlt");
GUEST(outside_loop, 64, "mov ecx,1000\n1: add rax,2\n dec ecx\n jnz 1b\n hlt");

/* One address, two memories: translations of one are never used for the other. */
static void memories_apart(void **state)
{
	struct smm *s = smm_open(flat_long);
	struct cpu *cpu = s->f->cpu;

	memcpy(s->smram + 0x1000, inside_loop, inside_loop_end - inside_loop);
	memcpy(s->f->ram + SMBASE + 0x1000, outside_loop, outside_loop_end - outside_loop);
	for (unsigned i = 0; i < 10; i++) {
		cpu->in_smm = i & 1;
		mmu_flush_all(cpu);
		cpu->rip = SMBASE + 0x1000;
		cpu->gpr[RAX] = 0;
		cpu->activity = ACTIVITY_RUN;
		assert_int_equal(flat_run(s->f, 10000), CPU_EXIT_HLT);
		assert_int_equal(cpu->gpr[RAX], i & 1 ? 1000 : 2000);
	}
	smm_close(s);
}

/* POP SS with a breakpoint on its operand: the trap that is held back is not lost. */
GUEST(held_trap, 32, "push ss\n pop ss\n nop\n hlt");

static void held_trap_goes_first(void **state)
{
	struct smm *s = smm_open(flat_prot32);
	struct cpu *cpu = s->f->cpu;

	load(s->f, held_trap);
	cpu->dr[0] = FLAT_STACK - 4;
	cpu->dr7 = DR7_FIXED_1 | 1 | 3 << 16 | 3 << 18;
	mmu_update_mode(cpu);
	cpu_update_attention(cpu);
	assert_int_equal(flat_run(s->f, 1), CPU_EXIT_REQUEST);
	cpu->pending_dr6 = 0;
	assert_int_equal(flat_run(s->f, 1), CPU_EXIT_REQUEST);
	assert_int_equal(cpu->pending_dr6, 1);
	handler(s, just_rsm);
	pend_smi(s);
	assert_int_equal(flat_run(s->f, 10), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(s->f), VEC_DB);
	assert_int_equal(cpu->dr6 & 0xf, 1);
	assert_int_equal(cpu->msr.smi_count, 1);
	smm_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(state_in_smm),
		cmocka_unit_test(area_64),
		cmocka_unit_test(area_32),
		cmocka_unit_test(round_trip),
		cmocka_unit_test(image_changed),
		cmocka_unit_test(bad_images),
		cmocka_unit_test(bad_pdptes),
		cmocka_unit_test(pcid_without_long_mode),
		cmocka_unit_test(rsm_outside),
		cmocka_unit_test(second_smi_waits),
		cmocka_unit_test(nmi_and_smi),
		cmocka_unit_test(shadow_kept),
		cmocka_unit_test(no_area),
		cmocka_unit_test(memories_apart),
		cmocka_unit_test(held_trap_goes_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
