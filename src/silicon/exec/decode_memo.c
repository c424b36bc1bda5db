/* SPDX-License-Identifier: MIT */
/*
 * What decoding said of frequent instructions of 64-bit code, Zydis's answer included, which is most of what translating
 * costs. Found by their bytes; an immediate or branch offset of 32 bits does not count, and is put into what is found:
 * generated code is made of few instructions with ever new ones.
 *
 * Where an immediate stands must be known before Zydis says it: shape() tells for the integer instructions without
 * other prefixes than 66h and REX. It need not be believed: what Zydis sees differently is not remembered.
 */
#include "silicon/exec/decode.h"

#include <stdlib.h>
#include <string.h>

#define MAX_OPS	  5
#define MEMO_BITS 10

/* An instruction's bytes, without its 32-bit immediate. */
struct shape {
	uint64_t word[2];
	uint8_t len;
	uint8_t imm_at; /* 0: it has none */
};

struct decode_memo {
	struct shape shape;
	struct insn insn;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[MAX_OPS];
};

/* ---- lengths ---- */

#define M   BIT(0) /* has ModRM */
#define I8  BIT(1) /* and an immediate of 8 bits, */
#define I32 BIT(2) /* or of 32, with 66h of 16 */
#define OK  BIT(3)

/* clang-format off */
static const uint8_t one_byte[256] = {
#define ALU(op)				\
	[op] = OK | M, [(op) + 1] = OK | M, [(op) + 2] = OK | M, [(op) + 3] = OK | M, [(op) + 4] = OK | I8, \
	[(op) + 5] = OK | I32
	ALU(0x00), ALU(0x08), ALU(0x10), ALU(0x18), ALU(0x20), ALU(0x28), ALU(0x30), ALU(0x38),
#undef ALU
	[0x50 ... 0x5f] = OK,
	[0x63] = OK | M,
	[0x68] = OK | I32, [0x69] = OK | M | I32, [0x6a] = OK | I8, [0x6b] = OK | M | I8,
	[0x70 ... 0x7f] = OK | I8,
	[0x80] = OK | M | I8, [0x81] = OK | M | I32, [0x83] = OK | M | I8,
	[0x84 ... 0x8b] = OK | M, [0x8d] = OK | M,
	[0xa8] = OK | I8, [0xa9] = OK | I32,
	[0xb0 ... 0xb7] = OK | I8, [0xb8 ... 0xbf] = OK | I32,
	[0xc0 ... 0xc1] = OK | M | I8, [0xc3] = OK, [0xc6] = OK | M | I8, [0xc7] = OK | M | I32,
	[0xc9] = OK,
	[0xd0 ... 0xd3] = OK | M,
	[0xe8 ... 0xe9] = OK | I32, [0xeb] = OK | I8,
	[0xf6] = OK | M, [0xf7] = OK | M,
	[0xff] = OK | M,
};

static const uint8_t two_bytes[256] = {
	[0x1f] = OK | M,
	[0x40 ... 0x4f] = OK | M,
	[0x80 ... 0x8f] = OK | I32,
	[0x90 ... 0x9f] = OK | M,
	[0xa3] = OK | M, [0xab] = OK | M, [0xaf] = OK | M,
	[0xb6 ... 0xb7] = OK | M, [0xbe ... 0xbf] = OK | M,
};
/* clang-format on */

/* Bytes of ModRM, SIB and displacement. */
static unsigned modrm_bytes(const uint8_t *p)
{
	unsigned mod = p[0] >> 6, rm = p[0] & 7, nr = 1;

	if (mod == 3)
		return 1;
	if (rm == 4)
		nr++;
	if (mod == 0)
		return nr + (rm == 5 || (rm == 4 && (p[1] & 7) == 5) ? 4 : 0);
	return nr + (mod == 1 ? 1 : 4);
}

/* Of an opcode of one byte: F6 and F7 /0 and /1 are TEST, with an immediate; that of MOV may have 64 bits. */
static uint8_t kind_of(uint8_t opcode, uint8_t modrm, bool wide)
{
	uint8_t kind = one_byte[opcode];

	if ((opcode & 0xfe) == 0xf6 && !(modrm & 0x30))
		return kind | (opcode & 1 ? I32 : I8);
	return wide && (opcode & 0xf8) == 0xb8 ? 0 : kind;
}

/* Of bytes that are padded. False: it is none of those that are told here. */
static bool measure(const uint8_t *p, struct shape *ret)
{
	const uint8_t *q = p + (*p == 0x66);
	bool narrow = q != p, wide = (*q & 0xf8) == 0x48, two;
	uint8_t kind, opcode;

	q += (*q & 0xf0) == 0x40;
	two = *q == 0x0f;
	q += two;
	opcode = *q++;
	kind = two ? two_bytes[opcode] : kind_of(opcode, *q, wide);
	if (!kind)
		return false;
	if (kind & M)
		q += modrm_bytes(q);
	ret->imm_at = kind & I32 && !narrow ? q - p : 0;
	if (kind & I32)
		q += narrow ? 2 : 4;
	ret->len = q - p + !!(kind & I8);
	return true;
}

/* The shape of nr bytes, and the immediate that it leaves out. False: see above. */
static bool shape(const uint8_t *bytes, unsigned nr, struct shape *ret, uint32_t *ret_imm)
{
	uint8_t p[2 * sizeof(ret->word)] = {0};

	memcpy(p, bytes, nr);
	if (!measure(p, ret) || ret->len > nr)
		return false;
	memset(p + ret->len, 0, sizeof(p) - ret->len);
	if (ret->imm_at) {
		memcpy(ret_imm, p + ret->imm_at, 4);
		memset(p + ret->imm_at, 0, 4);
	}
	memcpy(ret->word, p, sizeof(ret->word));
	return true;
}

/* ---- the memo ---- */

static struct decode_memo *memo_of(const struct exec_cache *c, const struct shape *s)
{
	return &c->memo[hash_words(s->word[0], s->word[1], MEMO_BITS)];
}

static bool same(const struct shape *a, const struct shape *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->len == b->len;
}

static uint64_t extended(const ZydisDecodedInstruction *z, uint32_t imm)
{
	return z->raw.imm[0].is_signed ? (uint64_t)(int32_t)imm : imm;
}

/* Thunks that were dropped may stand in any. */
static void follow_drops(struct exec_cache *c)
{
	if (likely(c->memo_drops == c->nr_drops))
		return;
	for (unsigned i = 0; i < BIT(MEMO_BITS); i++)
		c->memo[i].shape.len = 0;
	c->memo_drops = c->nr_drops;
}

static bool covers(uint16_t key)
{
	return (key & (KEY_CODE | KEY_GUEST)) == CODE_64;
}

static void take_insn(const struct decode_memo *m, uint32_t imm, struct insn *ret)
{
	*ret = m->insn;
	if (!m->shape.imm_at)
		return;
	memcpy((uint8_t *)ret->bytes + m->shape.imm_at, &imm, sizeof(imm));
	ret->imm = extended(&m->z, imm);
}

static void take_zydis(const struct decode_memo *m, uint32_t imm, ZydisDecodedInstruction *ret_z,
		       ZydisDecodedOperand *ret_ops)
{
	*ret_z = m->z;
	memcpy(ret_ops, m->ops, sizeof(m->ops[0]) * m->z.operand_count);
	if (!m->shape.imm_at)
		return;
	ret_z->raw.imm[0].value.u = extended(&m->z, imm);
	for (unsigned i = 0; i < m->z.operand_count; i++)
		if (m->ops[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
			ret_ops[i].imm.value.u = extended(&m->z, imm);
}

bool decode_memo_find(struct exec_cache *c, uint16_t key, const uint8_t *bytes, unsigned nr,
		      struct insn *ret, ZydisDecodedInstruction *ret_z,
		      ZydisDecodedOperand *ret_ops)
{
	const struct decode_memo *m;
	struct shape s;
	uint32_t imm = 0;

	if (!covers(key) || !shape(bytes, nr, &s, &imm))
		return false;
	follow_drops(c);
	m = memo_of(c, &s);
	if (!same(&m->shape, &s) || m->insn.mode != key)
		return false;
	take_insn(m, imm, ret);
	if (ret_z)
		take_zydis(m, imm, ret_z, ret_ops);
	return true;
}

/* Zydis sees the immediate as it was seen here, and nothing else of the instruction depends on it. */
static bool as_seen(const struct shape *s, uint32_t imm, const struct insn *insn,
		    const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	uint64_t val = extended(z, imm);

	if (!s->imm_at)
		return true;
	for (unsigned i = 0; i < z->operand_count; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && ops[i].imm.value.u != val)
			return false;
	return z->raw.imm[0].offset == s->imm_at && z->raw.imm[0].size == 32 &&
	       z->raw.imm[0].value.u == val && !z->raw.imm[1].size && (uint64_t)insn->imm == val &&
	       !insn->thunk;
}

void decode_memo_put(struct exec_cache *c, const uint8_t *bytes, unsigned nr,
		     const struct insn *insn, const ZydisDecodedInstruction *z,
		     const ZydisDecodedOperand *ops)
{
	struct decode_memo *m;
	struct shape s;
	uint32_t imm = 0;

	if (!covers(insn->mode) || insn->trap || z->operand_count > MAX_OPS ||
	    !shape(bytes, nr, &s, &imm) || z->length != s.len || !as_seen(&s, imm, insn, z, ops))
		return;
	follow_drops(c);
	m = memo_of(c, &s);
	m->shape = s;
	m->insn = *insn;
	m->z = *z;
	memcpy(m->ops, ops, sizeof(ops[0]) * z->operand_count);
}

struct decode_memo *decode_memo_create(void)
{
	return calloc(BIT(MEMO_BITS), sizeof(struct decode_memo));
}
