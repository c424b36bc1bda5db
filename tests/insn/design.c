/* SPDX-License-Identifier: MIT */
/*
 * What differs by design: one function for each difference, which looks whether its condition holds, and if
 * so puts what the design promises into the host's outcome. Whatever a rule does not name is compared.
 */
#include "design.h"

#include <string.h>
#include <sys/mman.h>

typedef bool rule_fn(const struct testcase *t, const struct segments *segs, struct state *host,
		     const struct state *guest);

static bool both_fault(const struct state *host, const struct state *guest, int vector)
{
	return host->vector == vector && guest->vector == vector;
}

static bool is_string(const struct testcase *t)
{
	return t->decoded && t->z.meta.category == ZYDIS_CATEGORY_STRINGOP;
}

static bool is_any(const struct testcase *t, const uint16_t *list, size_t nr)
{
	for (size_t i = 0; t->decoded && i < nr; i++)
		if (list[i] == t->z.mnemonic)
			return true;
	return false;
}

/* How long an instruction that nobody knows would be, silicon may know: over 15 bytes, then. */
static bool unknown_too_long(const struct testcase *t, const struct segments *segs,
			     struct state *host, const struct state *guest)
{
	(void)segs;
	if (t->decoded || host->vector != VEC_GP || guest->vector != VEC_UD)
		return false;
	host->vector = VEC_UD;
	return true;
}

/* "Behavior is implementation-specific" for an operand that wraps at 4 GiB in a segment so large. */
static bool wraps_in_segment(const struct testcase *t, const struct segments *segs,
			     struct state *host, const struct state *guest)
{
	(void)t;
	if (segs->bits != 32 || host->vector != VEC_PF ||
	    (guest->vector != VEC_SS && guest->vector != VEC_GP) ||
	    (uint32_t)(host->cr2 + 64) >= 128)
		return false;
	host->vector = guest->vector;
	return true;
}

/* HRESET is in no model: #UD; a host that has it answers #GP outside of CPL 0. */
static bool hreset(const struct testcase *t, const struct segments *segs, struct state *host,
		   const struct state *guest)
{
	static const uint16_t list[] = {ZYDIS_MNEMONIC_HRESET};

	(void)segs;
	if (!is_any(t, list, 1) || host->vector != VEC_GP || guest->vector != VEC_UD)
		return false;
	host->vector = VEC_UD;
	return true;
}

/* REP CMPS and SCAS that fault show the flags of the last iteration; silicon may those of before. */
static bool compared_flags(const struct testcase *t, const struct segments *segs,
			   struct state *host, const struct state *guest)
{
	(void)segs;
	if (!is_string(t) || host->vector < 0 || !((host->rflags ^ guest->rflags) & FLAGS_ARITH) ||
	    (host->rflags ^ t->in.rflags) & FLAGS_ARITH)
		return false;
	host->rflags = guest->rflags;
	return true;
}

/* Of two bad operands either may be named. */
static bool other_operand(const struct testcase *t, const struct segments *segs, struct state *host,
			  const struct state *guest)
{
	(void)segs;
	if (!is_string(t) || !both_fault(host, guest, VEC_PF) || host->cr2 == guest->cr2)
		return false;
	host->cr2 = guest->cr2;
	return true;
}

static bool masked_store(const struct testcase *t)
{
	static const uint16_t list[] = {
		ZYDIS_MNEMONIC_MASKMOVQ,   ZYDIS_MNEMONIC_MASKMOVDQU, ZYDIS_MNEMONIC_VMASKMOVDQU,
		ZYDIS_MNEMONIC_VMASKMOVPS, ZYDIS_MNEMONIC_VMASKMOVPD, ZYDIS_MNEMONIC_VPMASKMOVD,
		ZYDIS_MNEMONIC_VPMASKMOVQ,
	};

	if (!t->decoded)
		return false;
	return (t->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX &&
		t->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY) ||
	       is_any(t, list, ARRAY_SIZE(list));
}

/* Which byte of the page a masked store names is up to silicon. */
static bool masked_byte(const struct testcase *t, const struct segments *segs, struct state *host,
			const struct state *guest)
{
	(void)segs;
	if (!masked_store(t) || !both_fault(host, guest, VEC_PF) || host->cr2 == guest->cr2 ||
	    (host->cr2 ^ guest->cr2) & PAGE_MASK)
		return false;
	host->cr2 = guest->cr2;
	return true;
}

/* So is which byte of an FPU image beyond the first that is not there. */
static bool image_byte(const struct testcase *t, const struct segments *segs, struct state *host,
		       const struct state *guest)
{
	static const uint16_t list[] = {
		ZYDIS_MNEMONIC_FXSAVE,	   ZYDIS_MNEMONIC_FXSAVE64, ZYDIS_MNEMONIC_FXRSTOR,
		ZYDIS_MNEMONIC_FXRSTOR64,  ZYDIS_MNEMONIC_XSAVE,    ZYDIS_MNEMONIC_XSAVE64,
		ZYDIS_MNEMONIC_XSAVEC,	   ZYDIS_MNEMONIC_XSAVEC64, ZYDIS_MNEMONIC_XSAVEOPT,
		ZYDIS_MNEMONIC_XSAVEOPT64, ZYDIS_MNEMONIC_XRSTOR,   ZYDIS_MNEMONIC_XRSTOR64,
		ZYDIS_MNEMONIC_FNSAVE,	   ZYDIS_MNEMONIC_FRSTOR,   ZYDIS_MNEMONIC_FNSTENV,
		ZYDIS_MNEMONIC_FLDENV,
	};

	(void)segs;
	if (!is_any(t, list, ARRAY_SIZE(list)) || !both_fault(host, guest, VEC_PF) ||
	    host->cr2 == guest->cr2 || host->cr2 - guest->cr2 >= XAREA)
		return false;
	host->cr2 = guest->cr2;
	return true;
}

/* ---- MASKMOVQ and MASKMOVDQU ---- */

static bool is_mapped(uint64_t addr)
{
	return (addr >= DATA_PAGE && addr < DATA_PAGE + DATA_SIZE) ||
	       (addr >= STACK_PAGE && addr < STACK_PAGE + STACK_SIZE) ||
	       (addr >= CODE_PAGE && addr < CODE_PAGE + 2 * PAGE_SIZE);
}

static uint64_t byte_address(const struct testcase *t, const struct segments *segs, unsigned i)
{
	uint64_t off = t->in.gpr[RDI] + i, base = segs->data_base;

	if (t->z.address_width < 64)
		off &= BIT(t->z.address_width) - 1;
	for (unsigned n = 0; n < t->z.operand_count; n++)
		if (t->ops[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    t->ops[n].mem.segment == ZYDIS_REGISTER_SS)
			base = segs->stack_base;
	return base + off;
}

/* MMi is the physical register i; the image has the stack's order. */
static const uint8_t *vector_of(const struct state *s, ZydisRegister reg)
{
	unsigned id = ZydisRegisterGetId(reg);

	if (ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_XMM)
		return s->x + 160 + 16 * id;
	return s->x + 32 + 16 * ((id - (s->x[3] >> 3)) & 7);
}

static bool same_mmx(const struct state *a, const struct state *b)
{
	for (unsigned i = 0; i < 8; i++)
		if (memcmp(vector_of(a, ZYDIS_REGISTER_MM0 + i),
			   vector_of(b, ZYDIS_REGISTER_MM0 + i), 10))
			return false;
	return true;
}

static void store_selected(const struct testcase *t, const struct segments *segs,
			   const uint8_t *data, const uint8_t *mask, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		if (mask[i] & 0x80)
			*(uint8_t *)byte_address(t, segs, i) = data[i];
}

static bool masks_bytes(const struct testcase *t)
{
	static const uint16_t list[] = {
		ZYDIS_MNEMONIC_MASKMOVQ,
		ZYDIS_MNEMONIC_MASKMOVDQU,
		ZYDIS_MNEMONIC_VMASKMOVDQU,
	};

	return is_any(t, list, ARRAY_SIZE(list));
}

static unsigned masked_size(const struct testcase *t)
{
	return t->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ? 8 : 16;
}

/* Silicon may name a page where no byte is selected, when the other page has one; the guest names that. */
static bool masked_out_named(const struct testcase *t, const struct segments *segs,
			     struct state *host, const struct state *guest)
{
	const uint8_t *mask;

	if (!masks_bytes(t) || !both_fault(host, guest, VEC_PF) ||
	    !((host->cr2 ^ guest->cr2) & PAGE_MASK))
		return false;
	mask = vector_of(&t->in, t->ops[1].reg.value);
	for (unsigned i = 0; i < masked_size(t); i++)
		if (mask[i] & 0x80 && !((byte_address(t, segs, i) ^ host->cr2) & PAGE_MASK))
			return false;
	host->cr2 = guest->cr2;
	return true;
}

/* Where no byte on a page that is not there is selected, silicon faults now and then; the guest never. */
static bool masked_out(const struct testcase *t, const struct segments *segs, struct state *host,
		       const struct state *guest)
{
	unsigned size;
	const uint8_t *data, *mask;
	bool mmx;

	if (!masks_bytes(t) || host->vector != VEC_PF || guest->vector >= 0 || is_mapped(host->cr2))
		return false;
	mmx = t->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ;
	size = masked_size(t);
	data = vector_of(&t->in, t->ops[0].reg.value);
	mask = vector_of(&t->in, t->ops[1].reg.value);
	for (unsigned i = 0; i < size; i++)
		if (mask[i] & 0x80 && !is_mapped(byte_address(t, segs, i)))
			return false;
	store_selected(t, segs, data, mask, size);
	*host = t->in;
	host->vector = -1;
	host->rip += t->len;
	if (mmx && same_mmx(host, guest)) {
		memcpy(host->x, guest->x, 24);
		memcpy(host->x + 32, guest->x + 32, 128);
	}
	return true;
}

/* ---- what faults change before they are seen ---- */

static bool uses_mmx(const struct testcase *t)
{
	for (unsigned i = 0; t->decoded && i < t->z.operand_count; i++)
		if (t->ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(t->ops[i].reg.value) == ZYDIS_REGCLASS_MMX)
			return true;
	return false;
}

/* An MMX instruction that faults leaves the x87 alone; silicon has set TOP to 0 and all tags to valid. */
static bool mmx_entered(const struct testcase *t, const struct segments *segs, struct state *host,
			const struct state *guest)
{
	(void)segs;
	if (!uses_mmx(t) || host->vector < 0 || !memcmp(host->x, guest->x, 5) ||
	    memcmp(guest->x, t->in.x, 5) || !same_mmx(host, &t->in))
		return false;
	memcpy(host->x, t->in.x, 24);
	memcpy(host->x + 32, t->in.x + 32, 128);
	return true;
}

/* XRSTOR that faults leaves all as it was; silicon has loaded some when it finds a bad MXCSR. */
static bool loaded_before_fault(const struct testcase *t, const struct segments *segs,
				struct state *host, const struct state *guest)
{
	static const uint16_t list[] = {ZYDIS_MNEMONIC_XRSTOR, ZYDIS_MNEMONIC_XRSTOR64};

	(void)segs;
	if (!is_any(t, list, ARRAY_SIZE(list)) || !both_fault(host, guest, VEC_GP) ||
	    !memcmp(host->x, guest->x, sizeof(host->x)))
		return false;
	memcpy(host->x, t->in.x, sizeof(host->x));
	return true;
}

/* Bytes of a vector register from size up; true if they differed. */
static bool copy_above(const struct gen_offsets *o, struct state *to, const struct state *from,
		       unsigned reg, unsigned size)
{
	bool any = false;

	for (unsigned at = size; at < 64; at += 8) {
		unsigned off = at < 16 ? 160 + 16 * reg + at : o->avx + 16 * reg + at - 16;

		if (at >= 32 && !o->zmm_hi)
			break;
		if (at >= 32)
			off = o->zmm_hi + 32 * reg + at - 32;
		any |= memcmp(to->x + off, from->x + off, 8) != 0;
		memcpy(to->x + off, from->x + off, 8);
	}
	return any;
}

/*
 * What an AVX2 gather that faults leaves above its destination and its mask varies. Where indices are wider
 * than data, only half of the vector is destination.
 */
static bool gather_above(const struct testcase *t, const struct segments *segs, struct state *host,
			 const struct state *guest)
{
	static const uint16_t half[] = {ZYDIS_MNEMONIC_VGATHERQPS, ZYDIS_MNEMONIC_VPGATHERQD};
	unsigned size;
	bool any;

	(void)segs;
	if (!t->decoded || t->z.meta.category != ZYDIS_CATEGORY_AVX2GATHER || host->vector < 0)
		return false;
	size = t->z.avx.vector_length / 8 / (1 + is_any(t, half, ARRAY_SIZE(half)));
	any = copy_above(&t->offsets, host, guest, ZydisRegisterGetId(t->ops[0].reg.value), size);
	return copy_above(&t->offsets, host, guest, ZydisRegisterGetId(t->ops[2].reg.value),
			  size) ||
	       any;
}

/*
 * The host runs in this process, which has memory of its own where the guest has none: the tables of the run tempo lie
 * below 2 GiB. An instruction that gets there cannot be compared.
 */
static bool only_host_has_it(const struct testcase *t, const struct segments *segs,
			     struct state *host, const struct state *guest)
{
	uint64_t page = guest->cr2 & PAGE_MASK;
	unsigned char resident;

	(void)t;
	(void)segs;
	if (guest->vector != VEC_PF || guest->error & PFERR_P || page >> 32 ||
	    (host->vector == VEC_PF && host->cr2 == guest->cr2) ||
	    mincore((void *)page, PAGE_SIZE, &resident))
		return false;
	*host = *guest;
	return true;
}

static rule_fn *const rules[] = {
	only_host_has_it, unknown_too_long, wraps_in_segment,	 hreset,     compared_flags,
	other_operand,	  masked_byte,	    image_byte,		 masked_out, masked_out_named,
	mmx_entered,	  gather_above,	    loaded_before_fault,
};

bool design_apply(const struct testcase *t, const struct segments *segs, struct state *host,
		  const struct state *guest)
{
	bool any = false;

	for (unsigned i = 0; i < ARRAY_SIZE(rules); i++)
		any |= rules[i](t, segs, host, guest);
	return any;
}

bool design_stores_ahead(const struct testcase *t)
{
	if (!t->decoded)
		return false;
	switch (t->z.meta.category) {
	case ZYDIS_CATEGORY_X87_ALU:
	case ZYDIS_CATEGORY_STRINGOP:
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_XSAVE:
	case ZYDIS_CATEGORY_XSAVEOPT:
		return true;
	default:
		return t->z.mnemonic == ZYDIS_MNEMONIC_ENTER ||
		       t->z.mnemonic == ZYDIS_MNEMONIC_FXSAVE ||
		       t->z.mnemonic == ZYDIS_MNEMONIC_FXSAVE64;
	}
}
