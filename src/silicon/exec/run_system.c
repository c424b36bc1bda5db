/* SPDX-License-Identifier: MIT */
/*
 * Forms of what kernels do all the time (run_forms.c has the others): interrupt flag, SMAP's window, PUSHF, time,
 * reading control registers.
 *
 * What decides at run time is looked at without touching flags, and all that is unusual goes to the cold path: a
 * pending interrupt, CR4 bits that refuse.
 */
#include "silicon/exec/emul.h"
#include "silicon/exec/run_translate.h"

#define AT_SFLAGS offsetof(struct cpu, sflags)

/* Operand sizes of 16 and 32 bits are other instructions, or none in 64-bit mode. */
static bool narrow(const struct translation *t)
{
	return t->insn.flags & INSN_66;
}

static bool cpl0(const struct translation *t)
{
	return t->key & RUN_KEY_CPL0;
}

void run_emit_pick(struct translation *t, const uint64_t *mask)
{
	EMIT(&t->e, "\xc4\xe2\xf2\xf5\x0c\x25"); /* pext mask,%rcx,%rcx */
	emit32(&t->e, emit_low(mask));
}

void run_unless_clear(struct translation *t, size_t offset, const uint64_t *mask)
{
	emit_load_cpu(&t->e, RCX, offset);
	run_emit_pick(t, mask);
	run_to_cold(t, emit_jmp_rcx(&t->e));
}

void run_unless_set(struct translation *t, size_t offset, const uint64_t *mask)
{
	emit_load_cpu(&t->e, RCX, offset);
	run_emit_pick(t, mask);
	emit_lea(&t->e, RCX, RCX, REG_NONE, 0, -1);
	run_to_cold(t, emit_jmp_rcx(&t->e));
}

/* Set a bit of RFLAGS' system part that is known to be 0. */
static void emit_set_sflag(struct translation *t, int32_t flag)
{
	emit_load_cpu(&t->e, RCX, AT_SFLAGS);
	emit_lea(&t->e, RCX, RCX, REG_NONE, 0, flag);
	emit_store_cpu(&t->e, RCX, AT_SFLAGS);
}

/* ---- the interrupt flag ---- */

void run_unless_looked(struct translation *t)
{
	struct emit *e = &t->e;

	EMIT(e, "\x65\x0f\xb6\x0c\x25"); /* movzbl %gs:looked,%ecx */
	emit32(e, offsetof(struct cpu, looked));
	EMIT(e, "\x8d\x49\xff"); /* lea -1(%rcx),%ecx */
	run_to_cold(t, emit_jmp_rcx(e));
}

/*
 * Interrupts stay shut over the next instruction, which is in this block: events are looked for behind it. If it
 * goes to its cold path, that makes the shadow. Where IF is open already there is none: then the next instruction
 * runs in a block of its own, as it does behind the handler.
 */
static enum form form_sti(struct translation *t)
{
	struct emit *e = &t->e;

	t->site_flags |= SITE_APART;
	if (!cpl0(t) || !run_next(t))
		return FORM_NONE;
	emit_load_cpu(e, RCX, AT_SFLAGS);
	run_emit_pick(t, &t->run->only_if);
	run_end_at(t, emit_jmp_rcx(e), t->rip + t->insn.len);
	run_unless_looked(t);
	emit_set_sflag(t, FLAG_IF);
	t->next_flags = SITE_SHADOW;
	return FORM_DONE;
}

/* ---- PUSHF ---- */

void run_emit_rflags(struct translation *t)
{
	struct emit *e = &t->e;

	emit_mov(e, R14, RAX);
	EMIT(e, "\x9f\x0f\x90\xc0"     /* lahf; seto %al */
		"\x0f\xb6\xcc"	       /* movzbl %ah,%ecx: the fixed bit, too */
		"\x44\x0f\xb6\xf8"     /* movzbl %al,%r15d */
		"\xc4\x43\xfb\xf0\xff" /* rorx $64-11,%r15,%r15 */
		"\x35");
	emit_mov(e, RAX, R14);
	emit_lea(e, RCX, RCX, R15, 0, 0);
	emit_load_cpu(e, R15, AT_SFLAGS);
	emit_lea(e, RCX, RCX, R15, 0, 0);
}

static enum form form_pushf(struct translation *t)
{
	struct emit *e = &t->e;

	if (narrow(t))
		return FORM_NONE;
	run_emit_rflags(t);
	emit_abs(e, 0x48, 0x89, RCX, emit_low(&t->run->tmp));
	t->site_flags |= SITE_PUSH;
	emit_lea(e, R14, R13, REG_NONE, 0, -8);
	run_look_up(t, DIRECT_WRITE, 8);
	emit_abs(e, 0x48, 0x8b, RCX, emit_low(&t->run->tmp));
	run_note_access(t);
	emit_mem(e, 0x48, 0x89, RCX, R14, R15, 0, 0);
	emit_lea(e, R13, R13, REG_NONE, 0, -8);
	return FORM_DONE;
}

/* ---- SMAP's window ---- */

static void emit_set_access(struct translation *t, enum access_state access)
{
	EMIT(&t->e, "\x65\xc6\x04\x25"); /* movb $access,%gs:mode.access */
	emit32(&t->e, offsetof(struct cpu, mode.access));
	emit8(&t->e, access);
}

/* On by a block of the other access state; in the same page, for jumps over pages look in this state's cache. */
static bool goes_on_here(const struct translation *t)
{
	uint64_t next = t->rip + t->insn.len;

	return !((next ^ t->start) & PAGE_MASK) && !run_near_end(next);
}

static enum form form_stac(struct translation *t)
{
	enum access_state access = t->key >> RUN_KEY_ACCESS & 3;

	if (!cpl0(t) || access != ACCESS_SUPER_SMAP || !goes_on_here(t))
		return FORM_NONE;
	emit_set_sflag(t, FLAG_AC);
	emit_set_access(t, ACCESS_SUPER);
	run_end(t, t->rip + t->insn.len);
	return FORM_END;
}

/* AC is set here, or SMAP off; then the handler runs. */
static enum form form_clac(struct translation *t)
{
	enum access_state access = t->key >> RUN_KEY_ACCESS & 3;

	if (!cpl0(t))
		return FORM_NONE;
	if (access == ACCESS_SUPER_SMAP)
		return FORM_DONE;
	if (!goes_on_here(t))
		return FORM_NONE;
	run_unless_set(t, offsetof(struct cpu, cr4), &t->run->only_smap);
	emit_load_cpu(&t->e, RCX, AT_SFLAGS);
	emit_lea(&t->e, RCX, RCX, REG_NONE, 0, -(int32_t)FLAG_AC);
	emit_store_cpu(&t->e, RCX, AT_SFLAGS);
	emit_set_access(t, ACCESS_SUPER_SMAP);
	run_end(t, t->rip + t->insn.len);
	return FORM_END;
}

/* ---- time ---- */

/* rdx:rax, as the host's instruction left them, plus the guest's offset. */
static void emit_guest_tsc(struct translation *t)
{
	struct emit *e = &t->e;

	emit_mov_imm(e, R15, (uintptr_t)t->cpu->tsc_offset);
	emit_mem(e, 0x48, 0x8b, R15, R15, REG_NONE, 0, 0);
	EMIT(e, "\xc4\xe3\xfb\xf0\xd2\x20"); /* rorx $32,%rdx,%rdx */
	emit_lea(e, RAX, RAX, RDX, 0, 0);
	emit_lea(e, RAX, RAX, R15, 0, 0);
	EMIT(e, "\xc4\xe3\xfb\xf0\xd0\x20" /* rorx $32,%rax,%rdx */
		"\x89\xd2"		   /* mov %edx,%edx */
		"\x89\xc0");		   /* mov %eax,%eax */
}

static bool time_here(struct translation *t)
{
	if (!t->cpu->tsc_offset)
		return false;
	if (!cpl0(t))
		run_unless_clear(t, offsetof(struct cpu, cr4), &t->run->only_tsd);
	return true;
}

static enum form form_rdtsc(struct translation *t)
{
	if (!time_here(t))
		return FORM_NONE;
	EMIT(&t->e, "\x0f\x31");
	emit_guest_tsc(t);
	return FORM_DONE;
}

static void emit_load32_cpu(struct emit *e, unsigned reg, size_t offset)
{
	emit8(e, 0x65);
	emit_abs(e, 0x40, 0x8b, reg, offset);
}

static enum form form_rdtscp(struct translation *t)
{
	if (!time_here(t))
		return FORM_NONE;
	EMIT(&t->e, "\x0f\x01\xf9");
	emit_guest_tsc(t);
	emit_load32_cpu(&t->e, run_home(t, RCX), offsetof(struct cpu, msr.tsc_aux));
	return FORM_DONE;
}

static enum form form_rdpid(struct translation *t)
{
	uint8_t home = run_home(t, t->insn.rm);

	emit_load32_cpu(&t->e, home == REG_NONE ? RCX : home, offsetof(struct cpu, msr.tsc_aux));
	if (home == REG_NONE)
		run_store_gpr(t, RCX, t->insn.rm);
	return FORM_DONE;
}

/* ---- MOV from control registers ---- */

static enum form form_mov_from_cr(struct translation *t)
{
	static const uint16_t at[] = {offsetof(struct cpu, cr0), 0, offsetof(struct cpu, cr2),
				      offsetof(struct cpu, cr3), offsetof(struct cpu, cr4)};
	uint8_t home = run_home(t, t->insn.rm);

	if (!cpl0(t) || t->insn.reg >= ARRAY_SIZE(at) || !at[t->insn.reg])
		return FORM_NONE;
	emit_load_cpu(&t->e, home == REG_NONE ? RCX : home, at[t->insn.reg]);
	if (home == REG_NONE)
		run_store_gpr(t, RCX, t->insn.rm);
	return FORM_DONE;
}

/* ---- the choice ---- */

static const struct {
	uint16_t mnemonic;
	form_fn *form;
} forms[] = {
	{ZYDIS_MNEMONIC_STI, form_sti},	    {ZYDIS_MNEMONIC_PUSHFQ, form_pushf},
	{ZYDIS_MNEMONIC_STAC, form_stac},   {ZYDIS_MNEMONIC_CLAC, form_clac},
	{ZYDIS_MNEMONIC_RDTSC, form_rdtsc}, {ZYDIS_MNEMONIC_RDTSCP, form_rdtscp},
	{ZYDIS_MNEMONIC_RDPID, form_rdpid},
};

enum form run_form_system(struct translation *t)
{
	if (t->insn.run == emul_mov_from_cr)
		return form_mov_from_cr(t);
	if (t->insn.run == emul_syscall || t->insn.run == emul_sysret)
		return run_form_level(t);
	if (t->insn.run == emul_movs || t->insn.run == emul_stos)
		return run_form_string(t);
	for (unsigned i = 0; i < ARRAY_SIZE(forms); i++)
		if (forms[i].mnemonic == t->z.mnemonic)
			return forms[i].form(t);
	return FORM_NONE;
}
