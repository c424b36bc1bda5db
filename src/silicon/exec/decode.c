/* SPDX-License-Identifier: MIT */
/*
 * Decoding: Zydis in the guest's mode, the model's word on legality, then the choice of who runs it.
 *
 * The order is that of the manuals: what is no instruction raises #UD (or #GP(0) beyond 15 bytes), then
 * come feature bits and control registers (legal.c), then emulated mnemonics (tables/insns.def), then
 * the borrowed classes that need care (borrow_choose()), and at last the plain thunk.
 */
#include "silicon/exec/borrow.h"
#include "silicon/exec/decode.h"
#include "silicon/exec/emul.h"
#include "silicon/exec/fast.h"
#include "silicon/exec/legal.h"
#include "silicon/exec/thunk.h"
#include "silicon/models/features.h"
#include "silicon/models/model.h"

#include <string.h>

#define MAX_INSN 15

/* One instruction on its way. */
struct decoding {
	struct cpu *cpu;
	uint16_t key;
	const uint8_t *bytes;
	unsigned nr;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	struct insn *insn;
};

enum result run_trap(struct cpu *cpu, const struct insn *insn)
{
	if (insn->trap == VEC_GP)
		return fault_gp(cpu, 0);
	return fault_raise(cpu, insn->trap);
}

static void decoder_setup(struct exec_cache *c, const struct cpu *cpu)
{
	static const struct {
		ZydisMachineMode mode;
		ZydisStackWidth stack;
	} modes[] = {
		[CODE_16] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
		[CODE_32] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
		[CODE_64] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
		{ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16},
	};
	const uint64_t *has = cpu->model_features;

	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		ZydisDecoder *d = &c->decoder[i];

		ZydisDecoderInit(d, modes[i].mode, modes[i].stack);
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MPX, feature_has(has, FEAT_MPX));
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CET,
				       feature_has(has, FEAT_SHSTK) || feature_has(has, FEAT_IBT));
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_LZCNT, feature_has(has, FEAT_ABM));
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_TZCNT, feature_has(has, FEAT_BMI1));
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_WBNOINVD,
				       feature_has(has, FEAT_WBNOINVD));
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CLDEMOTE,
				       feature_has(has, FEAT_CLDEMOTE));
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_AMD_BRANCHES,
				       !model_branch_66_ignored(cpu->model));
	}
	ZydisDecoderInit(&c->host_decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	c->decoders_set = true;
}

static ZydisDecoder *decoder_for(struct exec_cache *c, const struct cpu *cpu, uint16_t key)
{
	unsigned code = key & KEY_CODE;

	if (!c->decoders_set)
		decoder_setup(c, cpu);
	return &c->decoder[code == CODE_16 && !(key & KEY_PROTECTED) ? 3 : code];
}

static void set_bytes(struct insn *insn, const uint8_t *bytes, unsigned len)
{
	memset(insn->bytes, 0, sizeof(insn->bytes));
	memcpy(insn->bytes, bytes, len);
	insn->len = len;
}

static bool decode_trap(struct decoding *d, unsigned len, uint8_t vector)
{
	set_bytes(d->insn, d->bytes, len);
	d->insn->run = run_trap;
	d->insn->trap = vector;
	return true;
}

/* ---- fields ---- */

/* Number of a register operand as the encoding has it: high-byte registers are 4 to 7. */
static uint8_t reg_number(ZydisRegister reg)
{
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR8:
		if (reg >= ZYDIS_REGISTER_SPL)
			return reg - ZYDIS_REGISTER_SPL + 4;
		return reg - ZYDIS_REGISTER_AL;
	case ZYDIS_REGCLASS_SEGMENT:
		return reg - ZYDIS_REGISTER_ES;
	default:
		return ZydisRegisterGetId(reg);
	}
}

static bool is_high(ZydisRegister reg)
{
	return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}

static void set_register(struct insn *insn, const ZydisDecodedOperand *op)
{
	uint8_t number = reg_number(op->reg.value);

	switch (op->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		insn->reg = number;
		insn->flags |= is_high(op->reg.value) ? INSN_HIGH_REG : 0;
		break;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		insn->rm = number;
		insn->flags |= is_high(op->reg.value) ? INSN_HIGH_RM : 0;
		break;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		if (ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_TMM)
			insn->vindex = number;
		break;
	case ZYDIS_OPERAND_ENCODING_NONE:
		/* PUSH and POP of segment registers. */
		if (ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_SEGMENT &&
		    insn->reg == REG_NONE)
			insn->reg = number;
		break;
	default:
		break;
	}
}

static uint8_t mem_slot(ZydisRegister reg)
{
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return ZydisRegisterGetId(reg);
	case ZYDIS_REGCLASS_IP:
		return SLOT_RIP;
	default:
		return SLOT_ZERO;
	}
}

static void set_memory(struct insn *insn, const ZydisDecodedOperand *op, enum code_mode code)
{
	insn->flags |= INSN_MEM;
	insn->seg = op->mem.segment ? op->mem.segment - ZYDIS_REGISTER_ES : SEG_DS;
	insn->base = mem_slot(op->mem.base);
	insn->index = mem_slot(op->mem.index);
	insn->scale = max(op->mem.scale, 1);
	insn->disp = op->mem.disp.value;
	insn->mem_size = op->size / 8;
	insn->mem_op = 0;
	if (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
		insn->mem_op |= ACCESS_READ;
	if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
		insn->mem_op |= ACCESS_WRITE;
	if (code == CODE_64 || (insn->seg != SEG_CS && insn->seg < SEG_FS))
		insn->flags |= INSN_LINEAR;
	if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
		insn->vindex = ZydisRegisterGetId(op->mem.index);
}

static void set_immediates(struct insn *insn, const struct decoding *d)
{
	const ZydisDecodedInstruction *z = &d->z;

	for (unsigned i = 0; i < z->operand_count_visible; i++)
		if (d->ops[i].type == ZYDIS_OPERAND_TYPE_POINTER) {
			insn->imm = d->ops[i].ptr.offset;
			insn->imm2 = d->ops[i].ptr.segment;
			return;
		}
	insn->imm = z->raw.imm[0].is_signed ? z->raw.imm[0].value.s
					    : (int64_t)z->raw.imm[0].value.u;
	insn->imm2 = z->raw.imm[1].value.u;
}

static void set_prefixes(struct insn *insn, const ZydisDecodedInstruction *z)
{
	if (z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
		insn->flags |= INSN_LOCK;
	for (unsigned i = 0; i < z->raw.prefix_count; i++) {
		switch (z->raw.prefixes[i].value) {
		case 0xf3:
			insn->flags = (insn->flags & ~INSN_REPNE) | INSN_REP;
			break;
		case 0xf2:
			insn->flags = (insn->flags & ~INSN_REP) | INSN_REPNE;
			break;
		case 0x66:
			insn->flags |= INSN_66;
			break;
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
		case 0x64:
		case 0x65:
			insn->flags |= INSN_SEG_PFX;
			break;
		}
	}
	if (z->attributes & ZYDIS_ATTRIB_HAS_REX)
		insn->flags |= INSN_REX | (z->raw.rex.W ? INSN_REX_W : 0);
}

/*
 * SIB's base 5 with mod 0 is a displacement alone, with REX.B too; Zydis 4.0.0 says R13D for 32-bit
 * addresses.
 */
static bool wrong_base(const struct decoding *d)
{
	return d->z.attributes & ZYDIS_ATTRIB_HAS_SIB && d->z.raw.modrm.mod == 0 &&
	       d->z.raw.sib.base == 5 && d->insn->base == R13;
}

static void set_fields(struct decoding *d)
{
	const ZydisDecodedInstruction *z = &d->z;
	struct insn *insn = d->insn;

	insn->op = z->mnemonic;
	insn->opcode = z->opcode;
	insn->opsize = z->operand_width / 8;
	insn->addrsize = z->address_width / 8;
	insn->modrm = z->raw.modrm.mod << 6 | z->raw.modrm.reg << 3 | z->raw.modrm.rm;
	insn->seg = SEG_DS;
	set_prefixes(insn, z);
	set_immediates(insn, d);
	for (unsigned i = 0; i < z->operand_count; i++) {
		const ZydisDecodedOperand *op = &d->ops[i];

		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER)
			set_register(insn, op);
		else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && i < z->operand_count_visible)
			set_memory(insn, op, d->key & KEY_CODE);
	}
	if (wrong_base(d))
		insn->base = SLOT_ZERO, insn->disp = z->raw.disp.value;
	if (insn->base == SLOT_RIP)
		insn->disp += z->length;
}

/* ---- serializing instructions ---- */

/* MOV to a control register but CR8, or to a debug register; reading one serializes nothing. */
static enum insn_sync sync_of_mov(const struct decoding *d)
{
	const ZydisDecodedOperand *to = &d->ops[0];

	if (to->type != ZYDIS_OPERAND_TYPE_REGISTER || to->reg.value == ZYDIS_REGISTER_CR8)
		return SYNC_NONE;
	if (to->reg.value == ZYDIS_REGISTER_CR3)
		return SYNC_CPUS;
	switch (ZydisRegisterGetClass(to->reg.value)) {
	case ZYDIS_REGCLASS_CONTROL:
	case ZYDIS_REGCLASS_DEBUG:
		return SYNC_ALL;
	default:
		return SYNC_NONE;
	}
}

/*
 * SDM, serializing instructions. Kernels execute some of them all the time, for other reasons; who polls memory for a
 * device's write of code serializes by one of the others, or is served by the next epoch (errata).
 */
static const struct {
	uint16_t mnemonic;
	enum insn_sync sync;
} serializing[] = {
	{ZYDIS_MNEMONIC_CPUID, SYNC_ALL},   {ZYDIS_MNEMONIC_SERIALIZE, SYNC_BURST},
	{ZYDIS_MNEMONIC_IRET, SYNC_CPUS},   {ZYDIS_MNEMONIC_IRETD, SYNC_CPUS},
	{ZYDIS_MNEMONIC_IRETQ, SYNC_CPUS},  {ZYDIS_MNEMONIC_WRMSR, SYNC_WRMSR},
	{ZYDIS_MNEMONIC_INVLPG, SYNC_CPUS}, {ZYDIS_MNEMONIC_INVPCID, SYNC_CPUS},
	{ZYDIS_MNEMONIC_INVD, SYNC_ALL},    {ZYDIS_MNEMONIC_WBINVD, SYNC_ALL},
	{ZYDIS_MNEMONIC_LGDT, SYNC_CPUS},   {ZYDIS_MNEMONIC_LIDT, SYNC_ALL},
	{ZYDIS_MNEMONIC_LLDT, SYNC_ALL},    {ZYDIS_MNEMONIC_LTR, SYNC_CPUS},
	{ZYDIS_MNEMONIC_RSM, SYNC_ALL},
};

static enum insn_sync sync_of(const struct decoding *d)
{
	if (d->z.mnemonic == ZYDIS_MNEMONIC_MOV)
		return sync_of_mov(d);
	for (unsigned i = 0; i < ARRAY_SIZE(serializing); i++)
		if (d->z.mnemonic == serializing[i].mnemonic)
			return serializing[i].sync;
	return SYNC_NONE;
}

/* ---- in guest mode ---- */

/* What may be intercepted, or shows what guest mode makes different: not done inline, and noted for the exit. */
static bool is_watched(const struct decoding *d)
{
	static const uint16_t mnemonics[] = {
		ZYDIS_MNEMONIC_CPUID,	ZYDIS_MNEMONIC_HLT,	  ZYDIS_MNEMONIC_INVD,
		ZYDIS_MNEMONIC_WBINVD,	ZYDIS_MNEMONIC_INVLPG,	  ZYDIS_MNEMONIC_INVPCID,
		ZYDIS_MNEMONIC_RDPMC,	ZYDIS_MNEMONIC_RDTSC,	  ZYDIS_MNEMONIC_RDTSCP,
		ZYDIS_MNEMONIC_VMCALL,	ZYDIS_MNEMONIC_VMMCALL,	  ZYDIS_MNEMONIC_CLTS,
		ZYDIS_MNEMONIC_LMSW,	ZYDIS_MNEMONIC_SMSW,	  ZYDIS_MNEMONIC_IN,
		ZYDIS_MNEMONIC_OUT,	ZYDIS_MNEMONIC_INSB,	  ZYDIS_MNEMONIC_INSW,
		ZYDIS_MNEMONIC_INSD,	ZYDIS_MNEMONIC_OUTSB,	  ZYDIS_MNEMONIC_OUTSW,
		ZYDIS_MNEMONIC_OUTSD,	ZYDIS_MNEMONIC_RDMSR,	  ZYDIS_MNEMONIC_WRMSR,
		ZYDIS_MNEMONIC_MONITOR, ZYDIS_MNEMONIC_MWAIT,	  ZYDIS_MNEMONIC_PAUSE,
		ZYDIS_MNEMONIC_LGDT,	ZYDIS_MNEMONIC_LIDT,	  ZYDIS_MNEMONIC_SGDT,
		ZYDIS_MNEMONIC_SIDT,	ZYDIS_MNEMONIC_LLDT,	  ZYDIS_MNEMONIC_LTR,
		ZYDIS_MNEMONIC_SLDT,	ZYDIS_MNEMONIC_STR,	  ZYDIS_MNEMONIC_XSETBV,
		ZYDIS_MNEMONIC_RDRAND,	ZYDIS_MNEMONIC_RDSEED,	  ZYDIS_MNEMONIC_IRET,
		ZYDIS_MNEMONIC_IRETD,	ZYDIS_MNEMONIC_IRETQ,	  ZYDIS_MNEMONIC_PUSHF,
		ZYDIS_MNEMONIC_PUSHFD,	ZYDIS_MNEMONIC_PUSHFQ,	  ZYDIS_MNEMONIC_POPF,
		ZYDIS_MNEMONIC_POPFD,	ZYDIS_MNEMONIC_POPFQ,	  ZYDIS_MNEMONIC_INT,
		ZYDIS_MNEMONIC_INT1,	ZYDIS_MNEMONIC_INT3,	  ZYDIS_MNEMONIC_INTO,
		ZYDIS_MNEMONIC_RSM,	ZYDIS_MNEMONIC_XSAVES,	  ZYDIS_MNEMONIC_XSAVES64,
		ZYDIS_MNEMONIC_XRSTORS, ZYDIS_MNEMONIC_XRSTORS64, ZYDIS_MNEMONIC_STI,
		ZYDIS_MNEMONIC_RDPID,	ZYDIS_MNEMONIC_RDPRU,
	};

	if (d->insn->run == emul_mov_from_cr || d->insn->run == emul_mov_to_cr ||
	    d->insn->run == emul_mov_from_dr || d->insn->run == emul_mov_to_dr)
		return true;
	for (unsigned i = 0; i < ARRAY_SIZE(mnemonics); i++)
		if (mnemonics[i] == d->z.mnemonic)
			return true;
	/* JMP, CALL and INT through a gate may switch tasks. */
	return d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

static void watch(struct decoding *d)
{
	struct insn *insn = d->insn;

	if (!(d->key & KEY_GUEST) || insn->thunk || !is_watched(d))
		return;
	insn->watched = insn->run;
	insn->run = run_watched;
	insn->flags &= ~INSN_INLINE;
}

/* ---- who runs it ---- */

static bool choose(struct decoding *d)
{
	bool two_byte = d->z.opcode_map == ZYDIS_OPCODE_MAP_0F;
	struct insn *insn = d->insn;
	insn_fn *fast = fast_choose(&d->z, d->ops, insn);
	bool emulated;

	insn->run = insn_emulated_form(d->z.mnemonic, d->z.opcode, two_byte);
	emulated = insn->run;
	if (emulated)
		insn->flags |= borrow_plain(&d->z) ? INSN_PLAIN : 0;
	else if (fast && insn->mem_op != ACCESS_RMW)
		insn->flags |= INSN_PLAIN | INSN_INLINE;
	else if (borrow_choose(d->cpu->exec, &d->z, d->ops, insn))
		insn->flags |= INSN_PLAIN;
	else
		return false;
	if (emulator_knows(&d->z, emulated))
		insn->flags |= INSN_KVM_EMUL;
	if (fast)
		insn->run = fast;
	return true;
}

/* VMCALL ignores 66h, F2h and F3h. */
static unsigned vmcall_prefixes(const struct decoding *d)
{
	unsigned i = 0;

	while (i < d->nr && (d->bytes[i] == 0x66 || d->bytes[i] == 0xf2 || d->bytes[i] == 0xf3))
		i++;
	return d->nr - i >= 3 && !memcmp(d->bytes + i, "\x0f\x01\xc1", 3) ? i : 0;
}

/* LOCK MOV CR0 is MOV CR8 where the model says so. */
static unsigned lock_mov_cr0_prefixes(const struct decoding *d)
{
	const uint8_t *p = d->bytes + 1;

	if (!model_lock_mov_cr8(d->cpu->model) || d->nr < 4 || d->bytes[0] != 0xf0)
		return 0;
	return p[0] == 0x0f && (p[1] == 0x20 || p[1] == 0x22) && !(p[2] & 0x38) ? 1 : 0;
}

/* VCVTSI2SS, SD or SH or VCVTUSI2SS, SD or SH with W1, in a form that the decoder rejects outside of 64-bit mode. */
static bool converts_with_w1(const uint8_t evex[6])
{
	bool half = (evex[1] & 7) == 5, single = (evex[2] & 3) == 2, rounding = evex[3] & 0x10;

	if (!(evex[2] & 0x80) || (evex[4] != 0x2a && evex[4] != 0x7b))
		return false;
	if (half)
		return single && (!rounding || evex[5] >= 0xc0);
	return (evex[1] & 7) == 1 && evex[2] & 2 && rounding && evex[5] >= 0xc0;
}

/*
 * Outside of 64-bit mode W1 is W0 there (SDM), but the decoder rejects some. Where the EVEX prefix is, or
 * NULL.
 */
static const uint8_t *evex_w1_ignored(const struct decoding *d)
{
	const uint8_t *p = d->bytes, *last = p + d->nr - 6;

	if ((d->key & KEY_CODE) == CODE_64)
		return NULL;
	while (p <= last && (*p == 0x67 || (*p & 0xfe) == 0x64 || (*p & 0xe7) == 0x26))
		p++;
	if (d->nr < 6 || p > last || p[0] != 0x62 || (p[1] & 0xc0) != 0xc0)
		return NULL;
	return converts_with_w1(p) ? p : NULL;
}

static bool decode_without_w(struct decoding *d, const ZydisDecoder *decoder, const uint8_t *evex)
{
	uint8_t bytes[MAX_INSN];

	if (d->nr > MAX_INSN)
		return false;
	memcpy(bytes, d->bytes, d->nr);
	bytes[evex + 2 - d->bytes] &= 0x7f;
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, bytes, d->nr, &d->z, d->ops));
}

/* What Zydis 4.0.0 rejects although it runs (see borrowing in docs/): decode it without the prefixes. */
static bool decode_gap(struct decoding *d, const ZydisDecoder *decoder)
{
	unsigned lock = lock_mov_cr0_prefixes(d), i = lock + vmcall_prefixes(d);
	const uint8_t *evex = evex_w1_ignored(d);
	uint8_t bytes[MAX_INSN];

	if (evex)
		return decode_without_w(d, decoder, evex);
	if (!i)
		return false;
	memset(bytes, 0x3e, i); /* a prefix without meaning here */
	memcpy(bytes + i, d->bytes + i, 3);
	d->insn->flags |= lock ? INSN_LOCK : 0;
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, bytes, i + 3, &d->z, d->ops));
}

static bool decode_as(struct decoding *d, ZyanStatus status, const ZydisDecoder *decoder)
{
	struct insn *ret = d->insn;
	uint8_t trap;

	memset(ret, 0, sizeof(*ret));
	ret->mode = d->key;
	ret->base = ret->index = SLOT_ZERO;
	ret->reg = ret->rm = REG_NONE;
	if (status == ZYDIS_STATUS_NO_MORE_DATA && d->nr < MAX_INSN)
		return false;
	if (status == ZYDIS_STATUS_NO_MORE_DATA || status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
		return decode_trap(d, d->nr, VEC_GP);
	if (!ZYAN_SUCCESS(status) && !decode_gap(d, decoder))
		return decode_trap(d, d->nr, VEC_UD);
	trap = legal_trap(d->cpu, d->key, &d->z, d->ops);
	if (trap != LEGAL)
		return decode_trap(d, d->z.length, trap);
	set_fields(d);
	if (!choose(d))
		return decode_trap(d, d->z.length, VEC_UD);
	watch(d);
	ret->sync = sync_of(d);
	ret->flags |= ret->sync ? INSN_SYNC : 0;
	set_bytes(ret, d->bytes, d->z.length);
	if (ZYAN_SUCCESS(status))
		decode_memo_put(d->cpu->exec, d->bytes, d->nr, ret, &d->z, d->ops);
	return true;
}

bool decode_insn(struct cpu *cpu, uint16_t key, const uint8_t *bytes, unsigned nr, struct insn *ret)
{
	struct decoding d = {.cpu = cpu, .key = key, .bytes = bytes, .nr = nr, .insn = ret};
	const ZydisDecoder *decoder;

	if (decode_memo_find(cpu->exec, key, bytes, nr, ret, NULL, NULL))
		return true;
	decoder = decoder_for(cpu->exec, cpu, key);
	return decode_as(&d, ZydisDecoderDecodeFull(decoder, bytes, nr, &d.z, d.ops), decoder);
}

bool decode_both(struct cpu *cpu, uint16_t key, const uint8_t *bytes, unsigned nr, struct insn *ret,
		 ZydisDecodedInstruction *ret_z, ZydisDecodedOperand *ret_ops)
{
	struct decoding d = {.cpu = cpu, .key = key, .bytes = bytes, .nr = nr, .insn = ret};
	const ZydisDecoder *decoder = decoder_for(cpu->exec, cpu, key);
	ZyanStatus status = ZydisDecoderDecodeFull(decoder, bytes, nr, &d.z, d.ops);

	if (ZYAN_SUCCESS(status)) {
		*ret_z = d.z;
		memcpy(ret_ops, d.ops, sizeof(d.ops[0]) * d.z.operand_count);
	} else {
		memset(ret_z, 0, sizeof(*ret_z));
	}
	return decode_as(&d, status, decoder);
}
