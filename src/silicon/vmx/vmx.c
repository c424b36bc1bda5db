/* SPDX-License-Identifier: MIT */
/* VMX hung into the processor: the operations of cpu/virt.h, creation and reset. */
#include "silicon/vmx/vmx_internal.h"

/* SDM, restrictions on VMX operation. A guest may be unrestricted, and has nothing to do with VMXE then as now. */
void vmx_fix_control(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	v->virt.cr0_ones = v->on ? v->caps.msr[VMX_CR0_FIXED0] : 0;
	v->virt.cr4_ones = v->on ? v->caps.msr[VMX_CR4_FIXED0] : 0;
	if (v->virt.guest && ctl2(v, CPU2_UNRESTRICTED))
		v->virt.cr0_ones &= ~(CR0_PE | CR0_PG);
}

/* Before SMM: what the guest is stands in its VMCS, and VMX operation is kept for RSM. */
static void enter_smm(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	v->smm_on = v->on;
	v->smm_guest = v->virt.guest;
	if (v->virt.guest) {
		exit_save_guest(cpu, v->vmcs);
		vmx_leave_guest(cpu);
	}
	v->on = false;
	v->virt.blocks_init = false;
	vmx_fix_control(cpu);
}

/* RSM has loaded the registers. */
static void leave_smm(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	bool guest = v->smm_guest;

	if (!v->smm_on)
		return;
	v->on = true;
	v->virt.blocks_init = true;
	v->smm_on = v->smm_guest = false;
	if (guest)
		entry_begin(cpu);
	vmx_fix_control(cpu);
}

static void vmx_smm(struct cpu *cpu, bool enter)
{
	if (enter)
		enter_smm(cpu);
	else
		leave_smm(cpu);
}

void vmx_off(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	if (v->virt.guest)
		vmx_leave_guest(cpu);
	v->on = false;
	v->virt.blocks_init = false;
	v->vmxon_ptr = v->current = v->link_ptr = GPA_NONE;
	v->current_shadow = v->launched = v->linked = false;
	vmx_form_release(cpu);
	v->smm_guest = v->smm_on = false;
	vmx_fix_control(cpu);
}

static const struct virt_ops vmx_ops = {
	.insn = vmx_insn,
	.intercept = vmx_intercept,
	.event = vmx_event,
	.refused = vmx_refused,
	.translate = ept_translate,
	.world = vmx_world,
	.attend = vmx_attend,
	.cr_read = vmx_cr_read,
	.cr_write = vmx_cr_write,
	.tsc = vmx_tsc,
	.reset = vmx_off,
	.smm = vmx_smm,
};

void vmx_init(struct cpu *cpu, struct vmx *v, const struct vmx_caps *caps)
{
	v->virt.size = sizeof(*v);
	v->virt.ops = &vmx_ops;
	v->virt.gif = true;
	v->caps = *caps;
	v->form_gpa = GPA_NONE;
	cpu->virt = &v->virt;
	vmx_off(cpu);
}
