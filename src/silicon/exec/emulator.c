/* SPDX-License-Identifier: MIT */
/*
 * Which instructions KVM's emulator knows (the opcode tables of Linux 6.12): where KVM would have to emulate and cannot, the
 * program is told (KVM_CAP_EXIT_ON_EMULATION_FAILURE, restricted guests). All instructions run here, whatever these lists say.
 *
 * Of what is borrowed little is known, of what is emulated here nearly all: so one list has the former, the other the
 * latter's exceptions.
 */
#include "silicon/exec/borrow.h"

#define M(name) ZYDIS_MNEMONIC_##name

static const uint16_t known[] = {
	M(ADD),		M(OR),	      M(ADC),	      M(SBB),	     M(AND),	    M(SUB),
	M(XOR),		M(CMP),	      M(TEST),	      M(INC),	     M(DEC),	    M(NOT),
	M(NEG),		M(MUL),	      M(IMUL),	      M(DIV),	     M(IDIV),	    M(ROL),
	M(ROR),		M(RCL),	      M(RCR),	      M(SHL),	     M(SHR),	    M(SAR),
	M(SHLD),	M(SHRD),      M(BT),	      M(BTS),	     M(BTR),	    M(BTC),
	M(BSF),		M(BSR),	      M(TZCNT),	      M(LZCNT),	     M(MOV),	    M(MOVZX),
	M(MOVSX),	M(MOVSXD),    M(MOVBE),	      M(MOVNTI),     M(XCHG),	    M(XADD),
	M(CMPXCHG),	M(CMPXCHG8B), M(MOVUPS),      M(MOVUPD),     M(MOVAPS),	    M(MOVAPD),
	M(MOVNTPS),	M(MOVNTPD),   M(MOVDQA),      M(MOVDQU),     M(MOVNTDQ),    M(FNSTCW),
	M(FNSTSW),	M(FNINIT),    M(CLFLUSH),     M(CLFLUSHOPT), M(CBW),	    M(CWDE),
	M(CDQE),	M(CWD),	      M(CDQ),	      M(CQO),	     M(BSWAP),	    M(NOP),
	M(PREFETCH),	M(PREFETCHW), M(PREFETCHNTA), M(PREFETCHT0), M(PREFETCHT1), M(PREFETCHT2),
	M(PREFETCHWT1), M(CLDEMOTE),  M(ENDBR32),     M(ENDBR64),
};

/* The forms of interrupts and IRET outside of real mode come beside these: step.c. */
static const uint16_t unknown[] = {
	M(UD0),	       M(UD1),	       M(UD2),	     M(GETSEC),	   M(INVLPGB),	  M(VMCLEAR),
	M(VMFUNC),     M(VMLAUNCH),    M(VMPTRLD),   M(VMPTRST),   M(VMREAD),	  M(VMRESUME),
	M(VMWRITE),    M(VMXOFF),      M(VMXON),     M(INVEPT),	   M(INVVPID),	  M(VMRUN),
	M(VMLOAD),     M(VMSAVE),      M(STGI),	     M(CLGI),	   M(SKINIT),	  M(INVLPGA),
	M(BOUND),      M(ARPL),	       M(AAA),	     M(AAS),	   M(DAA),	  M(MASKMOVQ),
	M(MASKMOVDQU), M(VMASKMOVDQU), M(MOVDIR64B), M(CLZERO),	   M(RDTSCP),	  M(RDRAND),
	M(RDSEED),     M(XGETBV),      M(RDPKRU),    M(WRPKRU),	   M(STAC),	  M(CLAC),
	M(INVPCID),    M(MONITOR),     M(MWAIT),     M(SERIALIZE), M(INT1),	  M(SYSRET),
	M(LAR),	       M(LSL),	       M(VERR),	     M(VERW),	   M(SWAPGS),	  M(RDFSBASE),
	M(RDGSBASE),   M(WRFSBASE),    M(WRGSBASE),  M(FNSTENV),   M(FLDENV),	  M(FNSAVE),
	M(FRSTOR),     M(XSAVE),       M(XSAVE64),   M(XSAVEOPT),  M(XSAVEOPT64), M(XSAVEC),
	M(XSAVEC64),   M(XSAVES),      M(XSAVES64),  M(XRSTOR),	   M(XRSTOR64),	  M(XRSTORS),
	M(XRSTORS64),
};

static bool listed(const uint16_t *list, size_t nr, ZydisMnemonic mnemonic)
{
	for (size_t i = 0; i < nr; i++)
		if (list[i] == mnemonic)
			return true;
	return false;
}

bool emulator_knows(const ZydisDecodedInstruction *z, bool emulated)
{
	if (emulated)
		return !listed(unknown, ARRAY_SIZE(unknown), z->mnemonic);
	if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	/* Of the forms of MOVQ, those with MMX registers. */
	if (z->mnemonic == ZYDIS_MNEMONIC_MOVQ)
		return z->opcode == 0x6f || z->opcode == 0x7f;
	return z->meta.category == ZYDIS_CATEGORY_CMOV ||
	       z->meta.category == ZYDIS_CATEGORY_SETCC ||
	       listed(known, ARRAY_SIZE(known), z->mnemonic);
}
