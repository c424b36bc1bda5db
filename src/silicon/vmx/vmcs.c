/* SPDX-License-Identifier: MIT */
/*
 * Fields of the VMCS, from rows (tables/vmcs.def), and its form in guest memory.
 *
 * An encoding has 2 bits of width, 2 of type and an index below 32: a table of 512 places leads to the row. Whether the
 * field exists is then a question to the capabilities, for it hangs on the control that uses it.
 */
#include "silicon/vmx/vmx_internal.h"

enum word { WORD_ALWAYS, WORD_PIN, WORD_CPU, WORD_CPU2, WORD_EXIT, WORD_ENTRY, WORD_FUNC };

static const struct vmcs_row {
	uint32_t encoding;
	uint8_t word; /* enum word */
	uint64_t bit;
	const char *name;
} rows[NR_VMCS_FIELDS] = {
#define FIELD(encoding, name, word, bit) {encoding, WORD_##word, bit, #name},
#include "vmcs.def"
#undef FIELD
};

#define PLACE(e) (((e) >> 13 & 3) << 7 | ((e) >> 10 & 3) << 5 | ((e) >> 1 & 31))

static const uint8_t places[512] = {
#define FIELD(encoding, name, word, bit) [PLACE(encoding)] = VMCS_##name + 1,
#include "vmcs.def"
#undef FIELD
};

uint32_t vmcs_encoding(enum vmcs_field f)
{
	return rows[f].encoding;
}

const char *vmcs_name(enum vmcs_field f)
{
	return rows[f].name;
}

bool vmcs_exists(const struct vmx_caps *caps, enum vmcs_field f)
{
	static const uint8_t msr[] = {
		[WORD_PIN] = VMX_TRUE_PIN,   [WORD_CPU] = VMX_TRUE_CPU,	    [WORD_CPU2] = VMX_CPU2,
		[WORD_EXIT] = VMX_TRUE_EXIT, [WORD_ENTRY] = VMX_TRUE_ENTRY,
	};
	const struct vmcs_row *row = &rows[f];

	if (row->word == WORD_ALWAYS)
		return true;
	if (row->word == WORD_FUNC)
		return caps->msr[VMX_VMFUNC] & row->bit;
	return caps->msr[msr[row->word]] >> 32 & row->bit;
}

int vmcs_find(const struct vmx_caps *caps, uint64_t encoding)
{
	int f;

	/* Bits 12 and 15 up are reserved, an index is below 32 here, and only 64-bit fields have a high half. */
	if (encoding & ~0x6c3full)
		return VMCS_NO_FIELD;
	if ((encoding & 1) && vmcs_width(encoding) != WIDTH_64)
		return VMCS_NO_FIELD;
	f = places[PLACE(encoding)] - 1;
	return f >= 0 && vmcs_exists(caps, f) ? f : VMCS_NO_FIELD;
}

uint64_t vmcs_read(const uint64_t *vmcs, enum vmcs_field f, uint64_t encoding)
{
	return encoding & 1 ? vmcs[f] >> 32 : vmcs[f];
}

void vmcs_write(uint64_t *vmcs, enum vmcs_field f, uint64_t encoding, uint64_t val)
{
	switch (vmcs_width(encoding)) {
	case WIDTH_16:
		val = (uint16_t)val;
		break;
	case WIDTH_32:
		val = (uint32_t)val;
		break;
	case WIDTH_64:
		if (encoding & 1)
			val = (uint32_t)vmcs[f] | val << 32;
		break;
	case WIDTH_NATURAL:
		break;
	}
	vmcs[f] = val;
}

enum result vmcs_load(struct cpu *cpu, gpa_t gpa, struct vmcs_image *ret)
{
	return mmu_read_phys_bytes(cpu, gpa, ret, sizeof(*ret));
}

/* The abort indicator is left alone. */
enum result vmcs_store(struct cpu *cpu, gpa_t gpa, const uint64_t *f, bool shadow, bool launched)
{
	uint32_t revision = VMX_REVISION | (shadow ? VMCS_SHADOW_BIT : 0), state = launched;
	enum result r;

	r = mmu_write_phys_bytes(cpu, gpa, &revision, sizeof(revision));
	if (!r)
		r = mmu_write_phys_bytes(cpu, gpa + offsetof(struct vmcs_image, launched), &state,
					 sizeof(state));
	if (!r)
		r = mmu_write_phys_bytes(cpu, gpa + offsetof(struct vmcs_image, f), f,
					 NR_VMCS_FIELDS * sizeof(*f));
	return r;
}

enum result vmcs_flush(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	if (v->current == GPA_NONE)
		return RESULT_OK;
	return vmcs_store(cpu, v->current, v->vmcs, v->current_shadow, v->launched);
}
