/* SPDX-License-Identifier: MIT */
/*
 * The synchronous road out of silicon/ (struct platform), as KVM answers it: slots, the local APIC,
 * the VM's buses, MSR filter; hypercalls are kvm/pv's. All run on the vCPU's thread inside KVM_RUN, or under
 * vcpu->mutex and slots_lock from an ioctl.
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/pv/pv.h"
#include "kvm/vm/bus.h"
#include "kvm/vm/msr_filter.h"
#include "kvm/vm/private.h"

/* True if the APIC's page answers at gpa, whatever slot is there. */
static bool apic_page(const struct vcpu *vcpu, gpa_t gpa)
{
	return vcpu->lapic && lapic_mmio_hit(vcpu->lapic, gpa) && lapic_hw_enabled(vcpu->lapic) &&
	       !lapic_x2apic(vcpu->lapic);
}

/* What is private and has no guest_memfd behind it is not even a device. */
static void private_memory(const struct memslot *slot, gfn_t gfn, struct ram_page *ret)
{
	ret->hva = slot ? slot_private_hva(slot, gfn) : NULL;
	ret->writable = true;
	ret->closed = !ret->hva;
}

static void op_memory(void *opaque, gpa_t gpa, struct ram_page *ret)
{
	struct vcpu *vcpu = opaque;
	const struct memslot *slot;

	*ret = (struct ram_page){0};
	if (apic_page(vcpu, gpa))
		return;
	slot = vm_slot_find_in(vcpu->vm, vcpu->cpu.in_smm, gpa >> PAGE_SHIFT);
	if (vm_gfn_private(vcpu->vm, gpa >> PAGE_SHIFT)) {
		private_memory(slot, gpa >> PAGE_SHIFT, ret);
		return;
	}
	if (!slot)
		return;
	ret->hva = slot->hva + (((gpa >> PAGE_SHIFT) - slot->gfn) << PAGE_SHIFT);
	ret->writable = !(slot->flags & KVM_MEM_READONLY);
	ret->log = slot->dirty != NULL;
}

static void op_mark_dirty(void *opaque, gpa_t gpa)
{
	struct vcpu *vcpu = opaque;

	vm_mark_dirty_in(vcpu->vm, vcpu->cpu.in_smm, gpa);
}

/* ---- devices ---- */

static enum platform_answer op_mmio_read(void *opaque, gpa_t gpa, unsigned size, uint64_t *ret)
{
	struct vcpu *vcpu = opaque;

	pv_eoi_sync(vcpu);
	if (vcpu->lapic && lapic_mmio_hit(vcpu->lapic, gpa) &&
	    lapic_mmio_read(vcpu->lapic, gpa & ~PAGE_MASK, size, ret))
		return PLATFORM_DONE;
	return vm_bus_read(vcpu->vm, vcpu, false, gpa, size, ret) ? PLATFORM_DONE : PLATFORM_USER;
}

static enum platform_answer op_mmio_write(void *opaque, gpa_t gpa, unsigned size, uint64_t val)
{
	struct vcpu *vcpu = opaque;

	pv_eoi_sync(vcpu);
	if (vcpu->lapic && lapic_mmio_hit(vcpu->lapic, gpa) &&
	    lapic_mmio_write(vcpu->lapic, gpa & ~PAGE_MASK, size, val))
		return PLATFORM_DONE;
	return vm_bus_write(vcpu->vm, vcpu, false, gpa, size, val) ? PLATFORM_DONE : PLATFORM_USER;
}

static enum platform_answer op_pio_read(void *opaque, uint16_t port, unsigned size, uint64_t *ret)
{
	struct vcpu *vcpu = opaque;

	return vm_bus_read(vcpu->vm, vcpu, true, port, size, ret) ? PLATFORM_DONE : PLATFORM_USER;
}

static enum platform_answer op_pio_write(void *opaque, uint16_t port, unsigned size, uint64_t val)
{
	struct vcpu *vcpu = opaque;

	return vm_bus_write(vcpu->vm, vcpu, true, port, size, val) ? PLATFORM_DONE : PLATFORM_USER;
}

/* ---- MSRs ---- */

#define MSR_PLATFORM_INFO 0xce

/* To user space if it asked to hear of this reason, else #GP. */
static enum platform_answer refuse(struct vcpu *vcpu, uint32_t reason)
{
	if (!(vcpu->vm->user_space_msr_mask & reason))
		return PLATFORM_FAULT;
	vcpu->msr_reason = reason;
	return PLATFORM_USER;
}

static enum platform_answer op_msr_gate(void *opaque, uint32_t index, bool write)
{
	struct vcpu *vcpu = opaque;

	if (!vm_msr_allowed(vcpu->vm, index, write))
		return refuse(vcpu, KVM_MSR_EXIT_REASON_FILTER);
	if (index == MSR_PLATFORM_INFO && !write && vcpu->vm->hide_platform_info)
		return refuse(vcpu, KVM_MSR_EXIT_REASON_INVAL);
	return PLATFORM_DONE;
}

static enum platform_answer op_msr_refused(void *opaque, uint32_t index, bool write, bool unknown)
{
	struct vcpu *vcpu = opaque;

	if (unknown && vcpu_msr_ignored(vcpu, index, write))
		return PLATFORM_DONE;
	return refuse(vcpu, unknown ? KVM_MSR_EXIT_REASON_UNKNOWN : KVM_MSR_EXIT_REASON_INVAL);
}

static enum platform_answer msr_answer(enum vcpu_msr r)
{
	if (r == VCPU_MSR_OK)
		return PLATFORM_DONE;
	return r == VCPU_MSR_UNKNOWN ? PLATFORM_USER : PLATFORM_FAULT;
}

static enum platform_answer op_msr_read(void *opaque, uint32_t index, uint64_t *ret)
{
	return msr_answer(vcpu_msr_get(opaque, index, false, ret));
}

static enum platform_answer op_msr_write(void *opaque, uint32_t index, uint64_t val)
{
	return msr_answer(vcpu_msr_set(opaque, index, false, val));
}

static void op_cpuid(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	vcpu_cpuid(opaque, leaf, subleaf, ret);
}

/* ---- interrupts ---- */

static int op_interrupt_pending(void *opaque)
{
	struct vcpu *vcpu = opaque;

	/* A TPR in guest memory falls without a word. */
	if (vcpu->vapic_addr)
		vcpu->cpu.looked = false;
	return vcpu_peek_interrupt(vcpu);
}

static int op_interrupt_ack(void *opaque)
{
	return vcpu_take_interrupt(opaque);
}

static uint8_t op_get_tpr(void *opaque)
{
	return vcpu_get_cr8(opaque);
}

/* A program with an APIC of its own hears of a lowered TPR, which may let an interrupt through. */
static void op_set_tpr(void *opaque, uint8_t tpr)
{
	struct vcpu *vcpu = opaque;
	uint8_t old = vcpu_get_cr8(vcpu);

	vcpu_set_cr8(vcpu, tpr);
	if (!vcpu->lapic && tpr < old)
		vcpu_request(vcpu, REQ_TPR_LOWERED);
}

static uint64_t op_tsc(void *opaque)
{
	return vcpu_tsc(opaque);
}

static enum platform_answer op_hypercall(void *opaque, bool foreign, uint64_t *ret)
{
	return pv_hypercall(opaque, foreign, ret);
}

/* ---- requests ---- */

static bool op_service(void *opaque)
{
	return vcpu_service(opaque);
}

static void op_alone(void *opaque, bool on)
{
	vcpu_alone(opaque, on);
}

static unsigned op_spun(void *opaque)
{
	return vcpu_spun(opaque);
}

/* RFLAGS.IF may have opened: the program that waits to inject an interrupt wants to know. */
static void op_window_open(void *opaque)
{
	struct vcpu *vcpu = opaque;

	if (!vcpu->run->request_interrupt_window)
		return;
	vcpu->leave = true;
	cpu_raise(&vcpu->cpu, ATTN_REQUEST);
}

static void op_alarm(void *opaque, uint64_t tsc)
{
	vcpu_alarm(opaque, tsc);
}

const struct platform vcpu_platform = {
	.memory = op_memory,
	.mark_dirty = op_mark_dirty,
	.mmio_read = op_mmio_read,
	.mmio_write = op_mmio_write,
	.pio_read = op_pio_read,
	.pio_write = op_pio_write,
	.msr_gate = op_msr_gate,
	.msr_refused = op_msr_refused,
	.msr_read = op_msr_read,
	.msr_write = op_msr_write,
	.cpuid = op_cpuid,
	.interrupt_pending = op_interrupt_pending,
	.interrupt_ack = op_interrupt_ack,
	.get_tpr = op_get_tpr,
	.set_tpr = op_set_tpr,
	.tsc = op_tsc,
	.alarm = op_alarm,
	.hypercall = op_hypercall,
	.service = op_service,
	.alone = op_alone,
	.spun = op_spun,
	.window_open = op_window_open,
};
