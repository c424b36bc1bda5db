/* SPDX-License-Identifier: MIT */
/* Debug registers, guest debugging and address translation by ioctl. */
#include "kvm/vcpu/vcpu_internal.h"
#include "silicon/mmu/mmu.h"

#include <string.h>

long vcpu_get_debugregs(struct vcpu *vcpu, void *arg)
{
	struct kvm_debugregs *d = arg;
	const struct cpu *cpu = &vcpu->cpu;

	memset(d, 0, sizeof(*d));
	memcpy(d->db, cpu->dr, sizeof(d->db));
	d->dr6 = cpu->dr6;
	d->dr7 = cpu->dr7;
	return 0;
}

long vcpu_set_debugregs(struct vcpu *vcpu, void *arg)
{
	const struct kvm_debugregs *d = arg;
	struct cpu *cpu = &vcpu->cpu;

	if (d->flags || d->dr6 >> 32 || d->dr7 >> 32)
		return -EINVAL;
	memcpy(cpu->dr, d->db, sizeof(cpu->dr));
	cpu->dr6 = d->dr6;
	cpu->dr7 = d->dr7 | DR7_FIXED_1;
	cpu_update_attention(cpu);
	return 0;
}

static void apply_guest_debug(struct vcpu *vcpu, const struct kvm_guest_debug *dbg)
{
	struct cpu *cpu = &vcpu->cpu;
	uint32_t control = dbg->control & KVM_GUESTDBG_ENABLE ? dbg->control : 0;

	vcpu->guest_debug = control;
	cpu->debug.enabled = control;
	cpu->debug.singlestep = control & KVM_GUESTDBG_SINGLESTEP;
	cpu->debug.use_hw_bp = control & KVM_GUESTDBG_USE_HW_BP;
	cpu->debug.use_sw_bp = control & KVM_GUESTDBG_USE_SW_BP;
	if (control & KVM_GUESTDBG_USE_HW_BP) {
		memcpy(cpu->debug.dr, dbg->arch.debugreg, sizeof(cpu->debug.dr));
		cpu->debug.dr7 = dbg->arch.debugreg[7] | DR7_FIXED_1;
	}
	cpu_update_attention(cpu);
	cpu_raise(cpu, ATTN_EVENTS);
}

long vcpu_set_guest_debug(struct vcpu *vcpu, void *arg)
{
	const struct kvm_guest_debug *dbg = arg;
	const struct event *ev = &vcpu->cpu.inject;

	if (dbg->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) {
		if (ev->valid && ev->type == EVENT_EXCEPTION)
			return -EBUSY;
		vcpu_queue_exception(vcpu, dbg->control & KVM_GUESTDBG_INJECT_DB ? VEC_DB : VEC_BP);
	}
	apply_guest_debug(vcpu, dbg);
	return 0;
}

long vcpu_translate(struct vcpu *vcpu, void *arg)
{
	struct kvm_translation *t = arg;
	uint32_t flags;
	gpa_t gpa;

	t->valid = mmu_translate_debug(&vcpu->cpu, t->linear_address, &gpa, &flags);
	t->physical_address = t->valid ? gpa : GPA_NONE;
	t->writeable = 1;
	t->usermode = 0;
	return 0;
}
