/* SPDX-License-Identifier: MIT */
/*
 * A second form of the VMCS, the processor's owner's (vmx.h): a table of places, and the address that the owner names.
 *
 * Its fields pass through the array that a VMCS loaded by VMPTRLD would fill, so that checks, entries and exits know
 * nothing of it: an entry copies in what may have changed, an exit copies out what it wrote. The fields without a place
 * keep what they had, which a first VMLAUNCH makes 0.
 */
#include "silicon/vmx/vmx_internal.h"

#define ALL_CLEAN 0xffffu

static gpa_t page(const struct vmx *v)
{
	return v->form_gpa & PAGE_MASK;
}

static unsigned width(const struct vmcs_place *p)
{
	static const uint8_t bytes[] = {
		[WIDTH_16] = 2, [WIDTH_64] = 8, [WIDTH_32] = 4, [WIDTH_NATURAL] = 8};

	return bytes[vmcs_width(vmcs_encoding(p->field))];
}

static uint64_t image_get(const uint8_t *image, const struct vmcs_place *p)
{
	uint64_t val = 0;

	memcpy(&val, image + p->offset, width(p));
	return val;
}

static uint32_t image_word(const uint8_t *image, unsigned offset)
{
	uint32_t val;

	memcpy(&val, image + offset, sizeof(val));
	return val;
}

/* ---- in ---- */

static void take(const struct vmcs_form *form, const uint8_t *image, uint32_t clean, uint64_t *vmcs)
{
	for (unsigned i = 0; i < form->nr_places; i++) {
		const struct vmcs_place *p = &form->places[i];

		if ((p->moves & FORM_IN) && !(p->groups & clean))
			vmcs[p->field] = image_get(image, p);
	}
}

void form_peek(struct cpu *cpu, uint64_t *vmcs)
{
	const struct vmx *v = vmx_of(cpu);
	uint8_t image[VMCS_FORM_SIZE];

	if (form_active(v) && !mmu_read_phys_bytes(cpu, page(v), image, sizeof(image)))
		take(v->form, image, 0, vmcs);
}

bool form_read_field(struct cpu *cpu, uint64_t encoding, uint64_t *ret)
{
	const struct vmx *v = vmx_of(cpu);

	*ret = 0;
	for (unsigned i = 0; i < v->form->nr_places; i++) {
		const struct vmcs_place *p = &v->form->places[i];

		if (vmcs_encoding(p->field) == encoding)
			return !mmu_read_phys_bytes(cpu, page(v) + p->offset, ret, width(p));
	}
	return false;
}

/* ---- out ---- */

/* Neighbours in one write. */
static void give(struct cpu *cpu, enum vmcs_field only)
{
	const struct vmx *v = vmx_of(cpu);
	uint8_t run[VMCS_FORM_SIZE];
	unsigned first = 0, size = 0;

	for (unsigned i = 0; i < v->form->nr_places; i++) {
		const struct vmcs_place *p = &v->form->places[i];

		if (!(p->moves & FORM_OUT) || (only != NR_VMCS_FIELDS && only != p->field))
			continue;
		if (p->offset != first + size) {
			mmu_write_phys_bytes(cpu, page(v) + first, run, size);
			first = p->offset;
			size = 0;
		}
		memcpy(run + size, &v->vmcs[p->field], width(p));
		size += width(p);
	}
	mmu_write_phys_bytes(cpu, page(v) + first, run, size);
}

void form_write(struct cpu *cpu)
{
	if (form_active(vmx_of(cpu)))
		give(cpu, NR_VMCS_FIELDS);
}

void form_write_error(struct cpu *cpu)
{
	if (form_active(vmx_of(cpu)))
		give(cpu, VMCS_INSN_ERROR);
}

static void set_clean(struct cpu *cpu, uint32_t old, bool clean)
{
	const struct vmx *v = vmx_of(cpu);
	uint32_t val = clean ? old | ALL_CLEAN : old & ~ALL_CLEAN;

	mmu_write_phys_bytes(cpu, page(v) + v->form->clean, &val, sizeof(val));
}

void form_entered(struct cpu *cpu)
{
	const struct vmx *v = vmx_of(cpu);
	uint32_t old;

	if (form_active(v) &&
	    !mmu_read_phys_bytes(cpu, page(v) + v->form->clean, &old, sizeof(old)))
		set_clean(cpu, old, true);
}

/* ---- which one is active ---- */

void vmx_form_release(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	bool was = form_active(v);

	v->form_gpa = GPA_NONE;
	v->form_due = false;
	if (!was)
		return;
	fpu_save(cpu);
	v->form->released(cpu);
}

static gpa_t find(struct cpu *cpu)
{
	fpu_save(cpu);
	return vmx_of(cpu)->form->find(cpu);
}

/*
 * The one at gpa becomes active, and so the VMCS of VMPTRLD current no more. RESULT_FAULT: no memory there.
 * *ret_known: else nothing is active.
 */
static enum result activate(struct cpu *cpu, gpa_t gpa, uint8_t *image, bool *ret_known)
{
	struct vmx *v = vmx_of(cpu);
	enum result r = vmcs_flush(cpu);

	if (r == RESULT_EXIT)
		return r;
	v->current = GPA_NONE;
	v->current_shadow = false;
	vmx_form_release(cpu);
	r = mmu_read_phys_bytes(cpu, gpa & PAGE_MASK, image, VMCS_FORM_SIZE);
	*ret_known = !r && v->form->known(image_word(image, 0));
	if (*ret_known)
		v->form_gpa = gpa;
	return r;
}

static void tell(struct cpu *cpu, const uint8_t *image, uint32_t clean)
{
	fpu_save(cpu);
	vmx_of(cpu)->form->read(cpu, image, clean);
}

enum result form_select(struct cpu *cpu, bool launch, bool *ret_known)
{
	struct vmx *v = vmx_of(cpu);
	gpa_t gpa = v->form ? find(cpu) : GPA_NONE;
	uint8_t image[VMCS_FORM_SIZE];
	bool fresh = gpa != v->form_gpa;
	uint32_t clean;
	enum result r;

	*ret_known = true;
	if (gpa == GPA_NONE) {
		vmx_form_release(cpu);
		return RESULT_OK;
	}
	r = fresh ? activate(cpu, gpa, image, ret_known)
		  : mmu_read_phys_bytes(cpu, page(v), image, sizeof(image));
	if (r || !*ret_known)
		return r == RESULT_FAULT ? fault_ud(cpu) : r;
	clean = launch || fresh ? 0 : image_word(image, v->form->clean);
	if (launch || fresh)
		set_clean(cpu, image_word(image, v->form->clean), false);
	if (launch && fresh)
		memset(v->vmcs, 0, sizeof(v->vmcs));
	tell(cpu, image, clean);
	take(v->form, image, clean, v->vmcs);
	v->launched = !launch;
	return RESULT_OK;
}

bool form_clears(struct cpu *cpu, gpa_t addr)
{
	struct vmx *v = vmx_of(cpu);

	if (!v->form || find(cpu) == GPA_NONE)
		return false;
	if (addr == v->form_gpa)
		vmx_form_release(cpu);
	return true;
}

/* ---- for who saves and restores ---- */

void vmx_form_restored(struct cpu *cpu)
{
	vmx_of(cpu)->form_due = true;
}

bool vmx_form_resume(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	uint8_t image[VMCS_FORM_SIZE];
	bool known;
	gpa_t gpa;

	if (!v->form_due || !v->form)
		return true;
	gpa = find(cpu);
	if (gpa == GPA_NONE) {
		vmx_form_release(cpu);
		return true;
	}
	if (activate(cpu, gpa, image, &known) || !known)
		return false;
	set_clean(cpu, image_word(image, v->form->clean), false);
	tell(cpu, image, 0);
	form_write(cpu);
	return true;
}

void vmx_form_offer(struct cpu *cpu, const struct vmcs_form *form)
{
	struct vmx *v = vmx_of(cpu);

	if (form == v->form)
		return;
	if (form_active(v))
		vmx_form_release(cpu);
	v->form = form;
}

/* ---- controls ---- */

bool form_has_fields(const struct vmx *v)
{
	for (unsigned i = 0; v->form && i < v->form->nr_limits; i++) {
		const struct vmcs_limit *l = &v->form->limits[i];

		if (get(v, l->field) & ~(uint64_t)l->allowed)
			return false;
	}
	return true;
}

/* The allowed ones of controls stand in the upper half, those of VM functions in the whole. */
uint64_t vmx_form_limit(const struct vmcs_form *form, enum vmx_msr msr, uint64_t val)
{
	for (unsigned i = 0; i < form->nr_limits; i++) {
		const struct vmcs_limit *l = &form->limits[i];

		if (l->msr != msr && l->true_msr != msr)
			continue;
		if (msr == VMX_VMFUNC)
			return val & (l->allowed | ~0xffffffffull);
		return val & ((uint64_t)l->allowed << 32 | 0xffffffff);
	}
	return val;
}
