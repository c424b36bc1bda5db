/* SPDX-License-Identifier: MIT */
/* VMX hung into the processor: the operations of cpu/virt.h, creation and reset. */
#include "silicon/vmx/vmx_internal.h"

static void vmx_reset(struct cpu *cpu)
{
	vmx_off(cpu);
}

static const struct virt_ops vmx_ops = {
	.insn = vmx_insn,
	.intercept = vmx_intercept,
	.event = vmx_event,
	.refused = vmx_refused,
	.translate = ept_translate,
	.attend = vmx_attend,
	.cr_read = vmx_cr_read,
	.cr_write = vmx_cr_write,
	.tsc = vmx_tsc,
	.reset = vmx_reset,
};

void vmx_off(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	if (v->virt.guest)
		vmx_leave_guest(cpu);
	v->on = false;
	v->virt.blocks_init = false;
	v->vmxon_ptr = v->current = v->link_ptr = GPA_NONE;
	v->current_shadow = v->launched = v->linked = false;
	v->in_smm = v->smm_guest = v->smm_on = false;
}

void vmx_init(struct cpu *cpu, struct vmx *v, const struct vmx_caps *caps)
{
	v->virt.ops = &vmx_ops;
	v->virt.gif = true;
	v->caps = *caps;
	cpu->virt = &v->virt;
	vmx_off(cpu);
}
