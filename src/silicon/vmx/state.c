/* SPDX-License-Identifier: MIT */
/*
 * VMX's state for who saves and restores it: VMCS images, and guest mode entered without an entry.
 *
 * An image of the current VMCS taken in guest mode holds what the guest is now, as if an exit had saved it, but
 * keeps the entry's controls.
 */
#include "silicon/vmx/vmx_internal.h"

static void image_fill(struct vmcs_image *image, const uint64_t *f, bool shadow, bool launched)
{
	memset(image, 0, VMCS_SIZE);
	image->revision = VMX_REVISION | (shadow ? VMCS_SHADOW_BIT : 0);
	image->launched = launched;
	memcpy(image->f, f, sizeof(image->f));
}

void vmx_image_get(struct cpu *cpu, void *image)
{
	struct vmx *v = vmx_of(cpu);
	uint64_t copy[NR_VMCS_FIELDS];

	memcpy(copy, v->vmcs, sizeof(copy));
	if (!v->virt.guest)
		form_peek(cpu, copy);
	if (v->virt.guest) {
		exit_save_guest(cpu, copy);
		/* All that an exit might leave out must survive, too. */
		copy[VMCS_DR7] = cpu->dr7;
		copy[VMCS_DEBUGCTL] = cpu->msr.debugctl;
		copy[VMCS_PAT] = cpu->msr.pat;
		copy[VMCS_EFER] = cpu->msr.efer;
	}
	image_fill(image, copy, v->current_shadow, v->launched);
}

bool vmx_image_get_link(struct cpu *cpu, void *image)
{
	struct vmx *v = vmx_of(cpu);

	if (v->linked)
		image_fill(image, v->link, true, false);
	return v->linked;
}

bool vmx_image_set(struct cpu *cpu, gpa_t gpa, const void *data)
{
	const struct vmcs_image *image = data;
	struct vmx *v = vmx_of(cpu);

	if ((image->revision & ~(uint32_t)VMCS_SHADOW_BIT) != VMX_REVISION)
		return false;
	v->current = gpa;
	v->current_shadow = image->revision & VMCS_SHADOW_BIT;
	v->launched = image->launched;
	memcpy(v->vmcs, image->f, sizeof(v->vmcs));
	return true;
}

bool vmx_image_set_link(struct cpu *cpu, const void *data)
{
	const struct vmcs_image *image = data;
	struct vmx *v = vmx_of(cpu);

	if (image->revision != (VMX_REVISION | VMCS_SHADOW_BIT))
		return false;
	memcpy(v->link, image->f, sizeof(v->link));
	v->link_ptr = get(v, VMCS_LINK_POINTER);
	v->linked = true;
	return true;
}

bool vmx_state_refused(struct cpu *cpu)
{
	return check_stage(cpu, CHECK_CONTROL) || check_stage(cpu, CHECK_HOST);
}

bool vmx_guest_refused(struct cpu *cpu)
{
	return check_stage(cpu, CHECK_GUEST);
}

bool vmx_running_invalid(struct cpu *cpu)
{
	uint64_t kept[NR_VMCS_FIELDS];
	struct vmx *v = vmx_of(cpu);
	bool bad;

	if (!v->virt.guest || ctl2(v, CPU2_UNRESTRICTED))
		return false;
	memcpy(kept, v->vmcs, sizeof(kept));
	exit_save_guest(cpu, v->vmcs);
	v->vmcs[VMCS_ENTRY_INTR_INFO] = 0;
	bad = check_stage(cpu, CHECK_GUEST);
	memcpy(v->vmcs, kept, sizeof(kept));
	return bad;
}

void vmx_enter_restored(struct cpu *cpu)
{
	struct event inject = cpu->inject;
	struct vmx *v = vmx_of(cpu);
	uint64_t info = get(v, VMCS_ENTRY_INTR_INFO);

	put(v, VMCS_ENTRY_INTR_INFO, info & ~(uint64_t)INTR_VALID);
	entry_load_guest(cpu);
	put(v, VMCS_ENTRY_INTR_INFO, info);
	if (!v->linked)
		entry_load_link(cpu);
	entry_begin(cpu);
	mmu_flush_all(cpu);
	cpu->inject = inject;
	cpu_update_attention(cpu);
}

bool vmx_wants_link(const struct cpu *cpu)
{
	const struct vmx *v = vmx_of(cpu);

	return ctl2(v, CPU2_SHADOW) && get(v, VMCS_LINK_POINTER) != GPA_NONE;
}

void vmx_set_on(struct cpu *cpu, gpa_t vmxon)
{
	struct vmx *v = vmx_of(cpu);

	v->on = true;
	v->virt.blocks_init = true;
	v->vmxon_ptr = vmxon;
	v->current = GPA_NONE;
	vmx_fix_control(cpu);
}

void vmx_leave_nested(struct cpu *cpu)
{
	if (cpu_guest(cpu))
		exit_quietly(cpu);
	vmx_off(cpu);
}
