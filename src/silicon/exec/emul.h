/* SPDX-License-Identifier: MIT */
/*
 * What the files of emulated instructions share. Private to exec/emul*.c.
 *
 * A handler checks everything first and commits afterwards. The order of checks is the manuals':
 * privilege and operand rules, then the intercept, then memory in the order of the accesses.
 */
#ifndef SILICON_EXEC_EMUL_H
#define SILICON_EXEC_EMUL_H

#include "silicon/exec/insn.h"
#include "silicon/models/model.h"
#include "silicon/sys/sys.h"

#define INSN(mnemonic, handler) insn_fn handler;
#include "insns.def"
#undef INSN

/* Forms of MOV that no mnemonic tells apart. */
insn_fn emul_mov_from_seg, emul_mov_to_seg;
insn_fn emul_mov_from_cr, emul_mov_to_cr, emul_mov_from_dr, emul_mov_to_dr;

/* A guest hypervisor took the instruction: state stands where its exit leads. */
#define EMUL_INTERCEPTED RESULT_AGAIN

/* Control register nr as the guest reads it, where reading it is not intercepted (emul_system.c). */
uint64_t emul_cr_read(struct cpu *cpu, unsigned nr);

/* Operand size in bytes where 64-bit mode's default is 32 bits. */
static inline unsigned emul_opsize(const struct cpu *cpu, const struct insn *insn)
{
	bool p66 = insn->flags & INSN_66;

	if (cpu->mode.code == CODE_16)
		return p66 ? 4 : 2;
	if (insn->flags & INSN_REX_W)
		return 8;
	return p66 ? 2 : 4;
}

/* Operand size in bytes where 64-bit mode's default is 64 bits: the stack. */
static inline unsigned emul_stack_opsize(const struct cpu *cpu, const struct insn *insn)
{
	unsigned size = emul_opsize(cpu, insn);

	return cpu->mode.code == CODE_64 && size == 4 ? 8 : size;
}

/* 8 in 64-bit mode, 4 elsewhere: control, debug and descriptor-table registers. */
static inline unsigned emul_native_size(const struct cpu *cpu)
{
	return cpu->mode.code == CODE_64 ? 8 : 4;
}

static inline uint64_t emul_mask(unsigned size)
{
	return size >= 8 ? ~0ull : BIT(size * 8) - 1;
}

/* Register number of a form that names it in the opcode's low bits. */
static inline unsigned emul_opcode_reg(const struct insn *insn)
{
	return insn->rm != REG_NONE ? insn->rm : insn->reg;
}

/* The reg field of ModRM, without REX: opcode extensions, segment registers. */
static inline unsigned emul_modrm_reg(const struct insn *insn)
{
	return insn->modrm >> 3 & 7;
}

/* Read the ModRM operand: register or memory. */
static inline enum result emul_read_rm(struct cpu *cpu, const struct insn *insn, unsigned size,
				       uint64_t *ret)
{
	if (insn->flags & INSN_MEM)
		return seg_read(cpu, insn->seg, insn_ea(cpu, insn), size, ret);
	*ret = reg_read(cpu, insn->rm, size, insn->flags & INSN_HIGH_RM);
	return RESULT_OK;
}

/* Effective address off bytes past the operand's start, wrapped as the address size demands. */
static inline uint64_t emul_ea_plus(const struct cpu *cpu, const struct insn *insn, unsigned off)
{
	return (insn_ea(cpu, insn) + off) & emul_mask(insn->addrsize);
}

/* True in real and virtual-8086 mode, where the instructions about descriptors are #UD. */
static inline bool emul_no_descriptors(const struct cpu *cpu)
{
	return cpu->mode.real || cpu->mode.v86;
}

/* Segment of an implicit memory operand: DS unless overridden (emul.c). */
enum seg_id emul_implicit_seg(const struct cpu *cpu, const struct insn *insn);

/* ---- x87 and vector state in cpu->fpu.area, after fpu_save(): emul_fpu.c ---- */

#define AREA_FCW	0
#define AREA_FSW	2
#define AREA_FTW	4 /* abridged: a bit per physical register, 1 = in use */
#define AREA_MXCSR	24
#define AREA_MXCSR_MASK 28
#define AREA_ST		32 /* ST0 first, 16 bytes each */
#define AREA_XMM	160
#define AREA_LEGACY_END 416
#define AREA_BV		512
#define AREA_COMP_BV	520
#define AREA_EXTENDED	576

#define FSW_ES	   0x80
#define FSW_BUSY   0x8000
#define FSW_TOP	   0x3800
#define FCW_INIT   0x37f
#define FCW_ONE	   0x40	  /* reserved, always set */
#define FCW_LOADED 0x1f3f /* the others that can be */
#define MXCSR_INIT 0x1f80

static inline uint16_t emul_get16(const void *p)
{
	return *(const uint16_t *)p;
}

static inline uint32_t emul_get32(const void *p)
{
	return *(const uint32_t *)p;
}

static inline uint64_t emul_get64(const void *p)
{
	return *(const uint64_t *)p;
}

static inline void emul_put16(void *p, uint16_t val)
{
	*(uint16_t *)p = val;
}

static inline void emul_put32(void *p, uint32_t val)
{
	*(uint32_t *)p = val;
}

static inline void emul_put64(void *p, uint64_t val)
{
	*(uint64_t *)p = val;
}

/* Change FSW.TOP; the physical registers stay where they are, so the stack order turns. */
void emul_x87_set_top(struct cpu *cpu, unsigned top);
/* First 24 bytes of an FXSAVE image; wide: 64-bit pointers. */
void emul_x87_header_write(const struct cpu *cpu, uint8_t *image, bool wide);
void emul_x87_header_read(struct cpu *cpu, const uint8_t *image, bool wide);
/* The state that FNINIT makes, pointers included. */
void emul_x87_init(struct cpu *cpu);
/* Bits of MXCSR that may be set. */
uint32_t emul_mxcsr_mask(const struct cpu *cpu);
/* Components not in their initial state: XINUSE (emul_xsave.c). */
uint64_t emul_xinuse(const struct cpu *cpu);
/* IA32_XFD disables these components, which the instruction needs: #NM. */
enum result emul_xfd_fault(struct cpu *cpu, uint64_t components);

/* ---- strings ---- */

/*
 * Move or store n elements of 1 << log2 bytes upwards by the host's instruction. Returns how many are done: fewer if the
 * host faulted.
 */
uint64_t emul_host_movs(unsigned log2, void *dst, const void *src, uint64_t n);
uint64_t emul_host_stos(unsigned log2, void *dst, uint64_t val, uint64_t n);

/* emul_short.c: the same by other instructions, of size bytes, where this is quicker. Returns how many bytes are done. */

#define EMUL_SHORT 384 /* bytes */

/* Whether a copy may be done so: short enough, and without an overlap that would tell. */
static inline bool emul_short_movs_may(const void *dst, const void *src, uint64_t size)
{
	uint64_t ahead = ((uintptr_t)dst - (uintptr_t)src) & ~PAGE_MASK;

	return size <= EMUL_SHORT && ahead - 1 >= 7;
}

uint64_t emul_short_movs(void *dst, const void *src, uint64_t size);
uint64_t emul_short_stos(unsigned log2, void *dst, uint64_t val, uint64_t size);

/* ---- stack ---- */

static inline uint64_t emul_stack_mask(const struct cpu *cpu)
{
	return emul_mask(cpu->mode.stack_bytes);
}

/* Write one item below *sp and move *sp; RSP itself is the caller's to commit. */
static inline enum result emul_push(struct cpu *cpu, uint64_t *sp, unsigned size, uint64_t val)
{
	uint64_t off = (*sp - size) & emul_stack_mask(cpu);
	enum result r = seg_write(cpu, SEG_SS, off, size, val);

	if (!r)
		*sp = off;
	return r;
}

static inline enum result emul_pop(struct cpu *cpu, uint64_t *sp, unsigned size, uint64_t *ret)
{
	uint64_t mask = emul_stack_mask(cpu);
	enum result r = seg_read(cpu, SEG_SS, *sp & mask, size, ret);

	if (!r)
		*sp = (*sp + size) & mask;
	return r;
}

static inline void emul_set_sp(struct cpu *cpu, uint64_t sp)
{
	reg_write(cpu, RSP, cpu->mode.stack_bytes, false, sp);
}

#endif
