/* SPDX-License-Identifier: MIT */
/*
 * Host instructions as bytes, for run_*.c. None of those here changes a flag, unless its name says so.
 *
 * GS-relative operands are offsets in struct cpu; absolute ones lie in the low 2 GiB. What is used most stands in the
 * frame that translated code has on the host's stack, and is put into struct cpu when it is left.
 */
#ifndef SILICON_EXEC_RUN_EMIT_H
#define SILICON_EXEC_RUN_EMIT_H

#include "silicon/cpu/regs.h"

#include <string.h>

struct emit {
	uint8_t *at;
	uint8_t *base; /* offset 0 */
};

/* Condition codes. */
#define CC_Z  4
#define CC_NZ 5

static inline uint32_t emit_pos(const struct emit *e)
{
	return e->at - e->base;
}

static inline void emit8(struct emit *e, uint8_t byte)
{
	*e->at++ = byte;
}

static inline void emit_bytes(struct emit *e, const void *bytes, size_t nr)
{
	memcpy(e->at, bytes, nr);
	e->at += nr;
}

#define EMIT(e, literal) emit_bytes(e, literal, sizeof(literal) - 1)

static inline void emit32(struct emit *e, uint32_t val)
{
	emit_bytes(e, &val, 4);
}

static inline void emit64(struct emit *e, uint64_t val)
{
	emit_bytes(e, &val, 8);
}

static inline uint32_t emit_low(const void *ptr)
{
	return (uint32_t)(uintptr_t)ptr;
}

/* op reg, [disp32] with no base; W and opcode as given. */
static inline void emit_abs(struct emit *e, uint8_t rex, uint8_t opcode, unsigned reg,
			    uint32_t disp)
{
	emit8(e, rex | (reg >> 3) << 2);
	emit8(e, opcode);
	emit8(e, 0x04 | (reg & 7) << 3);
	emit8(e, 0x25);
	emit32(e, disp);
}

static inline void emit_load_cpu(struct emit *e, unsigned reg, size_t offset)
{
	emit8(e, 0x65);
	emit_abs(e, 0x48, 0x8b, reg, offset);
}

static inline void emit_store_cpu(struct emit *e, unsigned reg, size_t offset)
{
	emit8(e, 0x65);
	emit_abs(e, 0x48, 0x89, reg, offset);
}

static inline void emit_mov(struct emit *e, unsigned to, unsigned from)
{
	emit8(e, 0x48 | (from >> 3) << 2 | to >> 3);
	emit8(e, 0x89);
	emit8(e, 0xc0 | (from & 7) << 3 | (to & 7));
}

static inline void emit_mov_imm(struct emit *e, unsigned reg, uint64_t val)
{
	if (val == (uint32_t)val) {
		if (reg >= 8)
			emit8(e, 0x41);
		emit8(e, 0xb8 | (reg & 7));
		emit32(e, val);
	} else if ((int64_t)val == (int32_t)val) {
		emit8(e, 0x48 | reg >> 3);
		emit8(e, 0xc7);
		emit8(e, 0xc0 | (reg & 7));
		emit32(e, val);
	} else {
		emit8(e, 0x48 | reg >> 3);
		emit8(e, 0xb8 | (reg & 7));
		emit64(e, val);
	}
}

static inline unsigned emit_mod(unsigned base, int32_t disp)
{
	if (!disp && (base & 7) != 5)
		return 0;
	return disp >= -128 && disp < 128 ? 1 : 2;
}

/* ModRM and SIB of reg, [base + index * scale + disp]; base or index may be REG_NONE. */
static inline void emit_modrm_mem(struct emit *e, unsigned reg, unsigned base, unsigned index,
				  unsigned scale, int32_t disp)
{
	unsigned mod = base == REG_NONE ? 0 : emit_mod(base, disp);
	unsigned b = base == REG_NONE ? 5 : base, x = index == REG_NONE ? 4 : index;

	if (index == REG_NONE && base != REG_NONE && (base & 7) != 4) {
		emit8(e, mod << 6 | (reg & 7) << 3 | (b & 7));
	} else {
		emit8(e, mod << 6 | (reg & 7) << 3 | 4);
		emit8(e, scale << 6 | (x & 7) << 3 | (b & 7));
	}
	if (mod == 1)
		emit8(e, disp);
	else if (mod == 2 || base == REG_NONE)
		emit32(e, disp);
}

/* op reg, [base + index * scale + disp]; base or index may be REG_NONE. */
static inline void emit_mem(struct emit *e, uint8_t rex, uint8_t opcode, unsigned reg,
			    unsigned base, unsigned index, unsigned scale, int32_t disp)
{
	unsigned b = base == REG_NONE ? 5 : base, x = index == REG_NONE ? 4 : index;

	emit8(e, rex | (reg >> 3) << 2 | (x >> 3) << 1 | b >> 3);
	emit8(e, opcode);
	emit_modrm_mem(e, reg, base, index, scale, disp);
}

static inline void emit_lea(struct emit *e, unsigned reg, unsigned base, unsigned index,
			    unsigned scale, int32_t disp)
{
	emit_mem(e, 0x48, 0x8d, reg, base, index, scale, disp);
}

/* mov reg, [table + index * 8] */
static inline void emit_load_table(struct emit *e, unsigned reg, const void *table, unsigned index)
{
	emit_mem(e, 0x48, 0x8b, reg, REG_NONE, index, 3, emit_low(table));
}

/* Between a register and a slot of the frame that translated code has on the host's stack. */
static inline void emit_load_slot(struct emit *e, unsigned reg, unsigned slot)
{
	emit_mem(e, 0x48, 0x8b, reg, RSP, REG_NONE, 0, 8 * slot);
}

static inline void emit_store_slot(struct emit *e, unsigned reg, unsigned slot)
{
	emit_mem(e, 0x48, 0x89, reg, RSP, REG_NONE, 0, 8 * slot);
}

/* Slots behind those of groups: guest r12 to r15, and ->retired. */
#define EMIT_SLOT_GPR	  11u
#define EMIT_SLOT_RETIRED 15u
#define EMIT_SLOTS	  16u

/* A jump to an offset; returns the offset of the displacement. */
static inline uint32_t emit_jmp(struct emit *e, uint32_t to)
{
	emit8(e, 0xe9);
	emit32(e, to - (emit_pos(e) + 4));
	return emit_pos(e) - 4;
}

static inline void emit_call_stub(struct emit *e, uint32_t to)
{
	emit8(e, 0xe8);
	emit32(e, to - (emit_pos(e) + 4));
}

static inline uint32_t emit_jcc(struct emit *e, unsigned cc, uint32_t to)
{
	emit8(e, 0x0f);
	emit8(e, 0x80 | cc);
	emit32(e, to - (emit_pos(e) + 4));
	return emit_pos(e) - 4;
}

static inline void emit_patch(struct emit *e, uint32_t at, uint32_t to)
{
	uint32_t disp = to - (at + 4);

	memcpy(e->base + at, &disp, 4);
}

/* Unless rcx is 0, jump; returns the displacement's offset. */
static inline uint32_t emit_jmp_rcx(struct emit *e)
{
	EMIT(e, "\xe3\x05");
	return emit_jmp(e, 0);
}

#endif
