/* SPDX-License-Identifier: MIT */
/* Zydis's names of general registers, as numbers, and operations compared (zreg.h). */
#include "silicon/exec/zreg.h"

uint8_t zreg_gpr(ZydisRegister reg)
{
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR8:
		if (zreg_high(reg))
			return reg - ZYDIS_REGISTER_AH;
		break;
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		break;
	default:
		return REG_NONE;
	}
	return ZydisRegisterGetId(
		ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg));
}

ZydisRegister zreg_same_width(ZydisRegister like, uint8_t gpr)
{
	switch (ZydisRegisterGetClass(like)) {
	case ZYDIS_REGCLASS_GPR8:
		if (zreg_high(like))
			return like;
		/* Never AH to BH: the others of that number need REX. */
		return gpr < 4 ? ZYDIS_REGISTER_AL + gpr : ZYDIS_REGISTER_SPL + gpr - 4;
	case ZYDIS_REGCLASS_GPR16:
		return ZYDIS_REGISTER_AX + gpr;
	case ZYDIS_REGCLASS_GPR32:
		return ZYDIS_REGISTER_EAX + gpr;
	default:
		return ZYDIS_REGISTER_RAX + gpr;
	}
}

bool zreg_same_operation(const ZydisDecodedInstruction *a, const ZydisDecodedInstruction *b)
{
	return a->mnemonic == b->mnemonic && a->encoding == b->encoding &&
	       a->operand_count_visible == b->operand_count_visible &&
	       a->avx.mask.mode == b->avx.mask.mode && a->avx.mask.reg == b->avx.mask.reg &&
	       a->avx.broadcast.mode == b->avx.broadcast.mode &&
	       a->avx.rounding.mode == b->avx.rounding.mode && a->avx.has_sae == b->avx.has_sae &&
	       !((a->attributes ^ b->attributes) & ZYDIS_ATTRIB_HAS_LOCK);
}
