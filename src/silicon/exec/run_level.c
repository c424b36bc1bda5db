/* SPDX-License-Identifier: MIT */
/*
 * SYSCALL and SYSRET from 64-bit code to 64-bit code, inline (run_forms.c has how forms go).
 *
 * What they change is put into struct cpu, and the jump cache of the other level's key says where to go on. Before that
 * all is looked at that would make more of it, without touching flags: single-step, a mask that leaves arithmetic flags
 * or AC, a return address outside of the lower half, an interrupt that waits for IF. There, and where the jump
 * cache knows nothing, the handler does all.
 */
#include "silicon/exec/decode.h"
#include "silicon/exec/emul.h"
#include "silicon/exec/run_translate.h"
#include "silicon/models/model.h"
#include "silicon/sys/sys.h"

#define AT_SFLAGS  offsetof(struct cpu, sflags)
#define AT_STAR	   offsetof(struct cpu, msr.star)
#define AT_SEG(id) (offsetof(struct cpu, seg) + (id) * sizeof(struct segment))

/* STAR: where the selectors stand in it, in bytes. */
#define STAR_SYSCALL 4
#define STAR_SYSRET  6

#define FLAT	 (SEG_P | SEG_S | SEG_W | SEG_A | SEG_G)
#define ATTR_CS	 (FLAT | SEG_CODE | SEG_L)
#define ATTR_SS	 (FLAT | SEG_DB)
#define DPL_USER (3u << SEG_DPL_SHIFT)

/* The jump cache of 64-bit code in this access state, or NULL. */
static struct run_jumps *jumps_of(struct translation *t, enum access_state access, uint32_t level)
{
	int i = run_key_index(t->run,
			      (uint16_t)t->key | (uint32_t)access << RUN_KEY_ACCESS | level);

	return i < 0 ? NULL : &t->run->jumps[i];
}

/* r14 is a target: to the cold path, unless these jumps know it; then r15 is its index, times 16. */
static void emit_find(struct translation *t, struct run_jumps *jumps)
{
	struct run_jumps *own = t->jumps;

	t->jumps = jumps;
	run_emit_find(t);
	t->jumps = own;
	run_to_cold(t, emit_jmp_rcx(&t->e));
}

static void emit_go(struct translation *t, const struct run_jumps *jumps)
{
	emit_mem(&t->e, 0x40, 0xff, 4, R15, REG_NONE, 0, emit_low(&jumps->to[0].code));
}

/* ---- what is put into struct cpu: flags may change ---- */

static void emit_store16(struct emit *e, unsigned reg, size_t offset)
{
	EMIT(e, "\x66\x65");
	emit_abs(e, 0x40, 0x89, reg, offset);
}

static void emit_set32(struct emit *e, size_t offset, uint32_t val)
{
	EMIT(e, "\x65\xc7\x04\x25"); /* movl $val,%gs:offset */
	emit32(e, offset);
	emit32(e, val);
}

static void emit_set8(struct emit *e, size_t offset, uint8_t val)
{
	EMIT(e, "\x65\xc6\x04\x25"); /* movb $val,%gs:offset */
	emit32(e, offset);
	emit8(e, val);
}

static void emit_flat(struct emit *e, enum seg_id id, uint32_t attr)
{
	EMIT(e, "\x65\x48\xc7\x04\x25"); /* movq $0,%gs:base */
	emit32(e, AT_SEG(id) + offsetof(struct segment, base));
	emit32(e, 0);
	emit_set32(e, AT_SEG(id) + offsetof(struct segment, limit), ~0u);
	emit_set32(e, AT_SEG(id) + offsetof(struct segment, attr), attr);
}

/* ecx = selector out of STAR */
static void emit_star(struct emit *e, unsigned at)
{
	EMIT(e, "\x65\x0f\xb7\x0c\x25"); /* movzwl %gs:star,%ecx */
	emit32(e, AT_STAR + at);
}

static void emit_selector(struct emit *e, enum seg_id id)
{
	emit_store16(e, RCX, AT_SEG(id) + offsetof(struct segment, sel));
}

static void emit_level(struct emit *e, unsigned cpl, enum access_state access)
{
	emit_set8(e, offsetof(struct cpu, mode.cpl), cpl);
	emit_set8(e, offsetof(struct cpu, mode.access), access);
}

/* ---- SYSCALL ---- */

static void emit_enter_segments(struct emit *e)
{
	emit_star(e, STAR_SYSCALL);
	EMIT(e, "\x81\xe1\xfc\xff\x00\x00"); /* and $0xfffc,%ecx */
	emit_selector(e, SEG_CS);
	EMIT(e, "\x83\xc1\x08"); /* add $8,%ecx */
	emit_selector(e, SEG_SS);
	emit_flat(e, SEG_CS, ATTR_CS);
	emit_flat(e, SEG_SS, ATTR_SS);
}

/* The mask takes away the arithmetic flags and AC; RFLAGS' other bits are ->sflags. */
static void emit_masked(struct emit *e)
{
	emit_load_cpu(e, RCX, offsetof(struct cpu, msr.sfmask));
	EMIT(e, "\x48\xf7\xd1\x65\x48\x23\x0c\x25"); /* not %rcx; and %gs:sflags,%rcx */
	emit32(e, AT_SFLAGS);
	emit_store_cpu(e, RCX, AT_SFLAGS);
}

static void emit_syscall(struct translation *t, const struct run_jumps *jumps,
			 enum access_state access)
{
	struct emit *e = &t->e;

	emit_abs(e, 0x48, 0x8b, R11, emit_low(&t->run->tmp));
	emit_mov_imm(e, run_home(t, RCX), t->rip + t->insn.len);
	emit_masked(e);
	emit_enter_segments(e);
	emit_level(e, 0, access);
	EMIT(e, "\x31\xc9\x83\xc1\x01"); /* xor %ecx,%ecx; add $1,%ecx: none is set */
	emit_go(t, jumps);
}

static enum form form_syscall(struct translation *t)
{
	bool smap = t->cpu->cr4 & CR4_SMAP;
	enum access_state access = smap ? ACCESS_SUPER_SMAP : ACCESS_SUPER;
	struct run_jumps *jumps = jumps_of(t, access, RUN_KEY_CPL0);
	const struct run_masks *masks = &t->run->masks;

	if (!jumps || t->key & RUN_KEY_CPL0)
		return FORM_NONE;
	run_emit_rflags(t);
	emit_abs(&t->e, 0x48, 0x89, RCX, emit_low(&t->run->tmp));
	run_unless_clear(t, AT_SFLAGS, &masks->step);
	run_unless_set(t, offsetof(struct cpu, msr.efer), &masks->sce);
	if (smap)
		run_unless_set(t, offsetof(struct cpu, cr4), &t->run->only_smap);
	else
		run_unless_clear(t, offsetof(struct cpu, cr4), &t->run->only_smap);
	emit_load_cpu(&t->e, RCX, offsetof(struct cpu, msr.sfmask));
	run_emit_pick(t, &masks->taken);
	emit_lea(&t->e, RCX, RCX, REG_NONE, 0,
		 -(int32_t)(BIT(__builtin_popcountll(masks->taken)) - 1));
	run_to_cold(t, emit_jmp_rcx(&t->e));
	emit_load_cpu(&t->e, R14, offsetof(struct cpu, msr.lstar));
	emit_find(t, jumps);
	emit_syscall(t, jumps, access);
	return FORM_END;
}

/* ---- SYSRET ---- */

/* Intel makes SS anew; AMD changes its selector and privilege level only. */
static void emit_leave_segments(struct translation *t)
{
	struct emit *e = &t->e;

	emit_star(e, STAR_SYSRET);
	EMIT(e, "\x83\xc1\x10\x83\xc9\x03"); /* add $16,%ecx; or $3,%ecx */
	emit_selector(e, SEG_CS);
	EMIT(e, "\x83\xe9\x08"); /* sub $8,%ecx */
	emit_selector(e, SEG_SS);
	emit_flat(e, SEG_CS, ATTR_CS | DPL_USER);
	if (model_intel(t->cpu->model)) {
		emit_flat(e, SEG_SS, ATTR_SS | DPL_USER);
		return;
	}
	EMIT(e, "\x65\x83\x0c\x25"); /* orl $3 << SEG_DPL_SHIFT,%gs:attr */
	emit32(e, AT_SEG(SEG_SS) + offsetof(struct segment, attr));
	emit8(e, DPL_USER);
}

/* The host's arithmetic flags = R11's. */
static void emit_flags_of_r11(struct emit *e)
{
	emit_mov(e, R14, RAX);
	EMIT(e, "\x44\x89\xd9"	 /* mov %r11d,%ecx */
		"\xc1\xe9\x0b"	 /* shr $11,%ecx */
		"\x83\xe1\x01"	 /* and $1,%ecx */
		"\x44\x89\xd8"	 /* mov %r11d,%eax */
		"\xc1\xe0\x08"	 /* shl $8,%eax */
		"\x88\xc8"	 /* mov %cl,%al */
		"\x04\x7f\x9e"); /* add $0x7f,%al; sahf */
	emit_mov(e, RAX, R14);
}

static void emit_sysret(struct translation *t, const struct run_jumps *jumps)
{
	struct emit *e = &t->e;

	emit_mov_imm(e, RCX, SYSRET_FLAGS & FLAGS_SYSTEM);
	EMIT(e, "\x4c\x21\xd9"); /* and %r11,%rcx */
	emit_store_cpu(e, RCX, AT_SFLAGS);
	emit_leave_segments(t);
	emit_level(e, 3, ACCESS_USER);
	emit_flags_of_r11(e);
	emit_go(t, jumps);
}

/* To the cold path if the guest's register has one of these bits. */
static void emit_unless_none(struct translation *t, unsigned guest, const uint64_t *mask)
{
	emit_mov(&t->e, RCX, run_home(t, guest));
	run_emit_pick(t, mask);
	run_to_cold(t, emit_jmp_rcx(&t->e));
}

/* A guest hypervisor's window opens with IF: so not in guest mode. */
static enum form form_sysret(struct translation *t)
{
	struct run_jumps *jumps = jumps_of(t, ACCESS_USER, 0);
	const struct run_masks *masks = &t->run->masks;

	if (!jumps || !(t->key & RUN_KEY_CPL0) || t->key & KEY_GUEST ||
	    !(t->insn.flags & INSN_REX_W) || !t->cpu->model)
		return FORM_NONE;
	run_unless_clear(t, AT_SFLAGS, &masks->step);
	run_unless_set(t, offsetof(struct cpu, msr.efer), &masks->sce);
	run_unless_looked(t);
	emit_unless_none(t, R11, &masks->back);
	emit_unless_none(t, RCX, &masks->upper);
	emit_mov(&t->e, R14, run_home(t, RCX));
	emit_find(t, jumps);
	emit_sysret(t, jumps);
	return FORM_END;
}

/* ---- the choice ---- */

void run_masks_init(struct run_masks *ret)
{
	*ret = (struct run_masks){
		.step = FLAG_TF | FLAG_RF | FLAG_VM,
		.sce = EFER_SCE,
		.taken = FLAGS_ARITH | FLAG_AC,
		.back = FLAG_TF | FLAG_AC,
		.upper = GENMASK(63, 47),
	};
}

enum form run_form_level(struct translation *t)
{
	if (!t->run->opt.chain || t->cpu->counted || t->site_flags & SITE_SHADOW)
		return FORM_NONE;
	return t->insn.run == emul_syscall ? form_syscall(t) : form_sysret(t);
}
