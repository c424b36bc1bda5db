/* SPDX-License-Identifier: MIT */
/*
 * Legality: the model's features, then what the control registers say.
 *
 * The decoder accepts what some processor has; here it is asked whether this one does. The rows map
 * the decoder's instruction sets to CPUID bits; the state checks follow the SDM's tables of exception
 * conditions ("Type 1" to "Type 15", EVEX "E1" to "E12") as far as they depend on mode and control registers
 * alone: #UD before #NM, and both before anything about the operands.
 */
#include "silicon/exec/decode.h"
#include "silicon/exec/legal.h"
#include "silicon/models/features.h"

#include <string.h>

#define S(set)	[ZYDIS_ISA_SET_##set]
#define F(name) (FEAT_##name + 1)
#define X512(set, name)                                                   \
	S(AVX512_##set##_128) = F(name), S(AVX512_##set##_256) = F(name), \
	S(AVX512_##set##_512) = F(name)

/* 1 + feature; 0: every model has it, or its handler asks. */
static const uint16_t isa_feature[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
	S(ADOX_ADCX) = F(ADX),
	S(AES) = F(AES),
	S(AVX) = F(AVX),
	S(AVX2) = F(AVX2),
	S(AVX2GATHER) = F(AVX2),
	S(AVXAES) = F(AES),
	S(AVX_GFNI) = F(GFNI),
	S(AVX_VNNI) = F(AVX_VNNI),
	S(BMI1) = F(BMI1),
	S(BMI2) = F(BMI2),
	S(AMX_BF16) = F(AMX_BF16),
	S(AMX_INT8) = F(AMX_INT8),
	S(AMX_TILE) = F(AMX_TILE),
	S(AVX512BW_128) = F(AVX512BW),
	S(AVX512BW_128N) = F(AVX512BW),
	S(AVX512BW_256) = F(AVX512BW),
	S(AVX512BW_512) = F(AVX512BW),
	S(AVX512BW_KOP) = F(AVX512BW),
	S(AVX512CD_128) = F(AVX512CD),
	S(AVX512CD_256) = F(AVX512CD),
	S(AVX512CD_512) = F(AVX512CD),
	S(AVX512DQ_128) = F(AVX512DQ),
	S(AVX512DQ_128N) = F(AVX512DQ),
	S(AVX512DQ_256) = F(AVX512DQ),
	S(AVX512DQ_512) = F(AVX512DQ),
	S(AVX512DQ_KOP) = F(AVX512DQ),
	S(AVX512DQ_SCALAR) = F(AVX512DQ),
	S(AVX512ER_512) = F(AVX512ER),
	S(AVX512ER_SCALAR) = F(AVX512ER),
	S(AVX512F_128) = F(AVX512F),
	S(AVX512F_128N) = F(AVX512F),
	S(AVX512F_256) = F(AVX512F),
	S(AVX512F_512) = F(AVX512F),
	S(AVX512F_KOP) = F(AVX512F),
	S(AVX512F_SCALAR) = F(AVX512F),
	S(AVX512PF_512) = F(AVX512PF),
	S(AVX512_4FMAPS_512) = F(AVX512_4FMAPS),
	S(AVX512_4FMAPS_SCALAR) = F(AVX512_4FMAPS),
	S(AVX512_4VNNIW_512) = F(AVX512_4VNNIW),
	X512(BF16, AVX512_BF16),
	X512(BITALG, AVX512_BITALG),
	X512(FP16, AVX512_FP16),
	S(AVX512_FP16_128N) = F(AVX512_FP16),
	S(AVX512_FP16_SCALAR) = F(AVX512_FP16),
	X512(GFNI, GFNI),
	X512(IFMA, AVX512IFMA),
	X512(VAES, VAES),
	X512(VBMI2, AVX512_VBMI2),
	X512(VBMI, AVX512VBMI),
	X512(VNNI, AVX512_VNNI),
	X512(VP2INTERSECT, AVX512_VP2INTERSECT),
	X512(VPCLMULQDQ, VPCLMULQDQ),
	X512(VPOPCNTDQ, AVX512_VPOPCNTDQ),
	S(CLDEMOTE) = 0,
	S(CLFLUSHOPT) = F(CLFLUSHOPT),
	S(CLFSH) = F(CLFLUSH),
	S(CLWB) = F(CLWB),
	S(CLZERO) = F(CLZERO),
	S(CMOV) = F(CMOV),
	S(CMPXCHG16B) = F(CX16),
	S(ENQCMD) = F(ENQCMD),
	S(F16C) = F(F16C),
	S(FCMOV) = F(CMOV),
	S(FMA) = F(FMA),
	S(FMA4) = F(FMA4),
	S(FXSAVE) = F(FXSR),
	S(FXSAVE64) = F(FXSR),
	S(GFNI) = F(GFNI),
	S(HRESET) = F(HRESET),
	S(INVPCID) = F(INVPCID),
	S(KEYLOCKER) = F(AESKLE),
	S(KEYLOCKER_WIDE) = F(AESKLE_WIDE),
	S(LAHF) = 0,
	S(LWP) = F(LWP),
	S(LZCNT) = F(ABM),
	S(MONITOR) = 0, /* emul_monitor() and emul_mwait() ask the platform's CPUID */
	S(MONITORX) = F(MWAITX),
	S(MOVBE) = F(MOVBE),
	S(MPX) = F(MPX),
	S(PCLMULQDQ) = F(PCLMULQDQ),
	S(PCONFIG) = F(PCONFIG),
	S(PENTIUMMMX) = F(MMX),
	S(PKU) = F(PKU),
	S(POPCNT) = F(POPCNT),
	S(PT) = F(PTWRITE),
	S(RDPID) = F(RDPID),
	S(RDRAND) = F(RDRAND),
	S(RDSEED) = F(RDSEED),
	S(RDTSCP) = F(RDTSCP),
	S(RDWRFSGS) = F(FSGSBASE),
	S(RTM) = F(RTM),
	S(SERIALIZE) = F(SERIALIZE),
	S(SHA) = F(SHA_NI),
	S(SMAP) = F(SMAP),
	S(SMX) = F(SMX),
	S(SSE) = F(SSE),
	S(SSE2) = F(SSE2),
	S(SSE2MMX) = F(SSE2),
	S(SSE3) = F(SSE3),
	S(SSE3X87) = F(SSE3),
	S(SSE4) = F(SSE4_1),
	S(SSE42) = F(SSE4_2),
	S(SSE4A) = F(SSE4A),
	S(SSEMXCSR) = F(SSE),
	S(SSSE3) = F(SSSE3),
	S(SSSE3MMX) = F(SSSE3),
	S(SVM) = F(SVM),
	S(TBM) = F(TBM),
	S(TSX_LDTRK) = F(TSXLDTRK),
	S(UINTR) = F(UINTR),
	S(VAES) = F(VAES),
	S(VPCLMULQDQ) = F(VPCLMULQDQ),
	S(VTX) = F(VMX),
	S(WAITPKG) = F(WAITPKG),
	S(XOP) = F(XOP),
	S(XSAVE) = F(XSAVE),
	S(XSAVEC) = F(XSAVEC),
	S(XSAVEOPT) = F(XSAVEOPT),
	S(XSAVES) = F(XSAVES),
	S(AMD3DNOW) = F(3DNOW),
	S(MOVDIR) = F(MOVDIRI),
	S(SGX) = F(SGX),
};

/* What no model offers. */
static const uint16_t isa_absent[] = {
	ZYDIS_ISA_SET_AMD_INVLPGB, ZYDIS_ISA_SET_KNCE,	      ZYDIS_ISA_SET_KNCJKBR,
	ZYDIS_ISA_SET_KNCSTREAM,   ZYDIS_ISA_SET_KNCV,	      ZYDIS_ISA_SET_KNC_MISC,
	ZYDIS_ISA_SET_KNC_PF_HINT, ZYDIS_ISA_SET_MCOMMIT,     ZYDIS_ISA_SET_PADLOCK_ACE,
	ZYDIS_ISA_SET_PADLOCK_PHE, ZYDIS_ISA_SET_PADLOCK_PMM, ZYDIS_ISA_SET_PADLOCK_RNG,
	ZYDIS_ISA_SET_RDPRU,	   ZYDIS_ISA_SET_SGX_ENCLV,   ZYDIS_ISA_SET_SNP,
	ZYDIS_ISA_SET_TDX,
};

static bool has(const struct cpu *cpu, enum feature f)
{
	return feature_has(cpu->model_features, f);
}

static bool vector_length_known(const struct cpu *cpu, const ZydisDecodedInstruction *z)
{
	const char *set;

	switch (z->meta.isa_set) {
	case ZYDIS_ISA_SET_VAES:
		return has(cpu, FEAT_AVX);
	case ZYDIS_ISA_SET_AVX_GFNI:
	case ZYDIS_ISA_SET_AVXAES:
		return has(cpu, FEAT_AVX);
	default:
		break;
	}
	if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX)
		return true;
	if (!has(cpu, FEAT_AVX512F))
		return false;
	/* "_128" and "_256"; what works on scalars has other endings. */
	set = ZydisISASetGetString(z->meta.isa_set);
	set = strrchr(set, '_');
	return !set || (strcmp(set, "_128") && strcmp(set, "_256")) || has(cpu, FEAT_AVX512VL);
}

/* The calls to the hypervisor below need no VMX or SVM in the guest, and KVM takes either vendor's. */
static bool is_hypercall(const ZydisDecodedInstruction *z)
{
	return z->mnemonic == ZYDIS_MNEMONIC_VMCALL || z->mnemonic == ZYDIS_MNEMONIC_VMMCALL;
}

static bool model_knows(const struct cpu *cpu, const ZydisDecodedInstruction *z)
{
	uint16_t f = isa_feature[z->meta.isa_set];

	if (is_hypercall(z))
		return true;
	for (unsigned i = 0; i < ARRAY_SIZE(isa_absent); i++)
		if (isa_absent[i] == z->meta.isa_set)
			return false;
	if (z->mnemonic == ZYDIS_MNEMONIC_MOVDIR64B)
		f = F(MOVDIR64B);
	return (!f || has(cpu, f - 1)) && vector_length_known(cpu, z);
}

/* Which register files the operands are in. */
enum files { FILE_X87 = 1, FILE_MMX = 2, FILE_VECTOR = 4, FILE_MASK = 8, FILE_TILE = 16 };

static unsigned files_of(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	static const uint8_t file[ZYDIS_REGCLASS_MAX_VALUE + 1] = {
		[ZYDIS_REGCLASS_X87] = FILE_X87,    [ZYDIS_REGCLASS_MMX] = FILE_MMX,
		[ZYDIS_REGCLASS_XMM] = FILE_VECTOR, [ZYDIS_REGCLASS_YMM] = FILE_VECTOR,
		[ZYDIS_REGCLASS_ZMM] = FILE_VECTOR, [ZYDIS_REGCLASS_MASK] = FILE_MASK,
		[ZYDIS_REGCLASS_TMM] = FILE_TILE,
	};
	unsigned files = 0;

	for (unsigned i = 0; i < z->operand_count; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
			files |= file[ZydisRegisterGetClass(ops[i].reg.value)];
	return files;
}

static uint8_t legal_legacy(uint16_t key, const ZydisDecodedInstruction *z, unsigned files)
{
	bool sse = files & FILE_VECTOR || z->meta.isa_set == ZYDIS_ISA_SET_SSEMXCSR;

	if (z->meta.isa_set == ZYDIS_ISA_SET_FXSAVE || z->meta.isa_set == ZYDIS_ISA_SET_FXSAVE64)
		return key & (KEY_EM | KEY_TS) ? VEC_NM : LEGAL;
	if (sse && (key & KEY_EM || !(key & KEY_OSFXSR)))
		return VEC_UD;
	if (sse || z->mnemonic == ZYDIS_MNEMONIC_EMMS || z->mnemonic == ZYDIS_MNEMONIC_FEMMS ||
	    files & FILE_MMX) {
		if (key & KEY_EM)
			return VEC_UD;
		return key & KEY_TS ? VEC_NM : LEGAL;
	}
	if (z->mnemonic == ZYDIS_MNEMONIC_FWAIT)
		return (key & (KEY_MP | KEY_TS)) == (KEY_MP | KEY_TS) ? VEC_NM : LEGAL;
	if (z->meta.isa_ext == ZYDIS_ISA_EXT_X87 || z->meta.category == ZYDIS_CATEGORY_X87_ALU ||
	    z->meta.isa_set == ZYDIS_ISA_SET_FCMOV)
		return key & (KEY_EM | KEY_TS) ? VEC_NM : LEGAL;
	return LEGAL;
}

static uint8_t legal_vex(uint16_t key, const ZydisDecodedInstruction *z, unsigned files)
{
	bool wide = z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || files & FILE_MASK;

	if (!(key & KEY_PROTECTED))
		return VEC_UD;
	if (files & FILE_TILE || z->meta.isa_ext == ZYDIS_ISA_EXT_AMX_TILE) {
		if (!(key & KEY_OSXSAVE) || !(key & KEY_XCR0_AMX) || (key & KEY_CODE) != CODE_64)
			return VEC_UD;
		return key & KEY_TS ? VEC_NM : LEGAL;
	}
	if (!wide && !(files & FILE_VECTOR) && z->meta.isa_ext != ZYDIS_ISA_EXT_AVX)
		return LEGAL; /* general registers */
	if (!(key & KEY_OSXSAVE) || !(key & (wide ? KEY_XCR0_512 : KEY_XCR0_AVX)))
		return VEC_UD;
	return key & KEY_TS ? VEC_NM : LEGAL;
}

/* XSAVE's family and XGETBV, XSETBV: privileges and masks are the handlers'. */
static uint8_t legal_xsave(uint16_t key, const ZydisDecodedInstruction *z)
{
	if (!(key & KEY_OSXSAVE))
		return VEC_UD;
	if (z->mnemonic == ZYDIS_MNEMONIC_XGETBV || z->mnemonic == ZYDIS_MNEMONIC_XSETBV)
		return LEGAL;
	return key & KEY_TS ? VEC_NM : LEGAL;
}

uint8_t legal_trap(const struct cpu *cpu, uint16_t key, const ZydisDecodedInstruction *z,
		   const ZydisDecodedOperand *ops)
{
	unsigned files = files_of(z, ops);

	if (!model_knows(cpu, z))
		return VEC_UD;
	switch (z->meta.isa_ext) {
	case ZYDIS_ISA_EXT_XSAVE:
	case ZYDIS_ISA_EXT_XSAVEC:
	case ZYDIS_ISA_EXT_XSAVEOPT:
	case ZYDIS_ISA_EXT_XSAVES:
		return legal_xsave(key, z);
	default:
		break;
	}
	switch (z->encoding) {
	case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
	case ZYDIS_INSTRUCTION_ENCODING_3DNOW:
		return legal_legacy(key, z, files);
	case ZYDIS_INSTRUCTION_ENCODING_MVEX:
		return VEC_UD;
	default:
		return legal_vex(key, z, files);
	}
}
