/* SPDX-License-Identifier: MIT */
/*
 * The vCPU's local APIC: its connection to the other vCPUs, to the I/O APIC and to the VM's timers,
 * IA32_APIC_BASE, and its ioctls. Vcpus without an in-kernel one keep APIC base and CR8 themselves.
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/pv/hv.h"
#include "kvm/pv/pv.h"
#include "kvm/vm/eventfd.h"
#include "kvm/vm/irqchip.h"
#include "silicon/mmu/mmu.h"

#include <string.h>

/* ---- what the APIC calls ---- */

static struct lapic *bus_at(void *opaque, unsigned i)
{
	struct vm *vm = opaque;

	return vm->vcpus[i]->lapic;
}

static void op_send(void *opaque, const struct apic_message *msg)
{
	struct vcpu *vcpu = opaque;
	struct lapic_bus bus = {
		.at = bus_at,
		.opaque = vcpu->vm,
		.nr = vm_nr_vcpus(vcpu->vm),
		.broadcast_quirk = !vcpu->vm->x2apic_broadcast_quirk_off,
	};

	lapic_deliver(&bus, vcpu->lapic, msg);
}

static void op_eoi(void *opaque, uint8_t vector, bool level)
{
	struct vcpu *vcpu = opaque;

	pv_hv_eoi(vcpu, vector);
	if (!vm_apic_eoi(vcpu->vm, vcpu->lapic, vector, level))
		return;
	vcpu->eoi_vector = vector;
	vcpu_request(vcpu, REQ_IOAPIC_EOI);
}

static void op_timer(void *opaque, uint64_t expiry)
{
	struct vcpu *vcpu = opaque;

	if (expiry == LAPIC_NEVER)
		service_timer_cancel(vcpu->vm->service, &vcpu->timer);
	else
		service_timer_arm(vcpu->vm->service, &vcpu->timer, expiry);
}

static uint64_t op_now(void *opaque)
{
	return clock_monotonic_ns(((struct vcpu *)opaque)->vm);
}

static uint64_t op_tsc(void *opaque)
{
	return vcpu_tsc(opaque);
}

/* The page may have moved, and with it what answers at its address. */
static void op_changed(void *opaque)
{
	struct vcpu *vcpu = opaque;
	uint64_t base = lapic_get_base(vcpu->lapic);

	if (base != vcpu->apic_base) {
		vcpu->apic_base = base;
		vcpu_request(vcpu, REQ_FLUSH);
	}
	vcpu_request(vcpu, REQ_EVENT);
	pv_apic_changed(vcpu);
}

static void op_tpr_access(void *opaque, bool write)
{
	struct vcpu *vcpu = opaque;

	if (!vcpu->tpr_access_reporting)
		return;
	vcpu->tpr_write = write;
	vcpu->tpr_rip = vcpu->cpu.rip;
	vcpu_request(vcpu, REQ_TPR_REPORT);
}

static void op_told(void *opaque)
{
	cpu_tell(&((struct vcpu *)opaque)->cpu);
}

/* op_told() has counted it. */
static void op_raised(void *opaque)
{
	vcpu_request_own(opaque, REQ_EVENT);
}

static bool op_event(void *opaque, enum apic_delivery what, uint8_t vector)
{
	struct vcpu *vcpu = opaque;

	switch (what) {
	case APIC_NMI:
		vcpu_request(vcpu, REQ_NMI);
		return true;
	case APIC_SMI:
		vcpu_request(vcpu, REQ_SMI);
		return true;
	case APIC_INIT:
		vcpu_clear_request(vcpu, REQ_SIPI);
		vcpu_request(vcpu, REQ_INIT);
		return true;
	case APIC_STARTUP:
		vcpu->sipi_vector = vector;
		vcpu_request(vcpu, REQ_SIPI);
		return true;
	case APIC_REMOTE_READ:
		vcpu_request(vcpu, REQ_UNHALT);
		return true;
	default:
		return false;
	}
}

static const struct lapic_ops ops = {
	.send = op_send,
	.eoi = op_eoi,
	.timer = op_timer,
	.now = op_now,
	.tsc = op_tsc,
	.changed = op_changed,
	.tpr_access = op_tpr_access,
	.told = op_told,
	.raised = op_raised,
	.event = op_event,
};

static void timer_expired(struct service_timer *timer)
{
	vcpu_request(container_of(timer, struct vcpu, timer), REQ_TIMER);
}

/* ---- making and configuring ---- */

static struct lapic_config config(const struct vcpu *vcpu)
{
	const struct vm *vm = vcpu->vm;
	const uint64_t *f = vcpu->cpu.guest_features;

	return (struct lapic_config){
		.id = vcpu->id,
		.bsp = vcpu->id == vm->boot_cpu_id,
		.x2apic = feature_has(f, FEAT_X2APIC),
		.tsc_deadline = feature_has(f, FEAT_TSC_DEADLINE_TIMER),
		.cmci = vcpu->cpu.msr.mcg_cap & BIT(10),
		.directed_eoi = vm->irqchip_split,
		.intel = model_intel(vcpu->cpu.model),
		.lint0_reenabled = !(vm->disabled_quirks & KVM_X86_QUIRK_LINT0_REENABLED),
		.mmio_hole = !(vm->disabled_quirks & KVM_X86_QUIRK_LAPIC_MMIO_HOLE),
		.x2apic_format = vm->x2apic_format,
		.reserved_gpa = ~0ull << vcpu->cpu.maxphyaddr,
		.bus_cycle_ns = vm->apic_bus_cycle_ns,
		.tsc_khz = vcpu_tsc_rate(vcpu),
	};
}

void vcpu_lapic_create(struct vcpu *vcpu)
{
	struct lapic_config c = config(vcpu);

	vcpu->timer.expire = timer_expired;
	vcpu->lapic = &vcpu->lapic_storage;
	lapic_init(vcpu->lapic, &ops, vcpu, &c);
	vcpu->apic_base = lapic_get_base(vcpu->lapic);
}

void vcpu_lapic_configure(struct vcpu *vcpu)
{
	struct lapic_config c = config(vcpu);

	if (vcpu->lapic)
		lapic_configure(vcpu->lapic, &c);
}

void vcpu_lapic_follow_quirks(struct vcpu *vcpu, uint64_t disabled)
{
	struct lapic_config *c = &vcpu->lapic->config;

	c->lint0_reenabled = !(disabled & KVM_X86_QUIRK_LINT0_REENABLED);
	c->mmio_hole = !(disabled & KVM_X86_QUIRK_LAPIC_MMIO_HOLE);
}

/* ---- IA32_APIC_BASE and CR8 ---- */

uint64_t vcpu_get_apic_base(const struct vcpu *vcpu)
{
	return vcpu->lapic ? lapic_get_base(vcpu->lapic) : vcpu->apic_base;
}

bool vcpu_set_apic_base(struct vcpu *vcpu, uint64_t val, bool host)
{
	uint64_t reserved = ~0ull << vcpu->cpu.maxphyaddr;

	if (vcpu->lapic)
		return lapic_set_base(vcpu->lapic, val, host);
	if (!feature_has(vcpu->cpu.guest_features, FEAT_X2APIC))
		reserved |= APIC_BASE_X2APIC;
	if (!lapic_base_valid(vcpu->apic_base, val, reserved, host))
		return false;
	vcpu->apic_base = val;
	return true;
}

uint8_t vcpu_get_cr8(const struct vcpu *vcpu)
{
	return vcpu->lapic ? lapic_get_tpr(vcpu->lapic) : vcpu->cr8;
}

void vcpu_set_cr8(struct vcpu *vcpu, uint8_t cr8)
{
	if (vcpu->lapic)
		lapic_set_tpr(vcpu->lapic, cr8 & 0xf);
	else
		vcpu->cr8 = cr8 & 0xf;
}

/* ---- ioctls ---- */

/* KVM_CAP_X2APIC_API may be enabled at any time. */
static void follow_format(struct vcpu *vcpu)
{
	vcpu->lapic->config.x2apic_format = vcpu->vm->x2apic_format;
}

long vcpu_get_lapic(struct vcpu *vcpu, void *arg)
{
	if (!vcpu->lapic)
		return -EINVAL;
	follow_format(vcpu);
	pthread_mutex_lock(&vcpu->vm->irq_lock);
	irqfd_settle_locked(vcpu->vm);
	pthread_mutex_unlock(&vcpu->vm->irq_lock);
	pv_eoi_sync(vcpu);
	return lapic_get_state(vcpu->lapic, arg);
}

/* RAW: a vCPU without APIC refuses before it looks at the state. */
long vcpu_set_lapic(struct vcpu *vcpu, void *arg)
{
	struct kvm_lapic_state state;
	long r;

	if (!vcpu->lapic)
		return -EINVAL;
	if (ioctl_copy_in(&state, arg, sizeof(state)))
		return -EFAULT;
	follow_format(vcpu);
	pv_eoi_sync(vcpu);
	r = lapic_set_state(vcpu->lapic, &state);
	if (!r)
		vcpu_request(vcpu, REQ_EVENT);
	return r;
}

long vcpu_tpr_access_reporting(struct vcpu *vcpu, void *arg)
{
	const struct kvm_tpr_access_ctl *ctl = arg;

	if (ctl->flags)
		return -EINVAL;
	vcpu->tpr_access_reporting = ctl->enabled;
	return 0;
}

long vcpu_set_vapic_addr(struct vcpu *vcpu, void *arg)
{
	struct kvm_vapic_addr va;

	if (!vcpu->lapic)
		return -EINVAL;
	if (ioctl_copy_in(&va, arg, sizeof(va)))
		return -EFAULT;
	if (va.vapic_addr && !vm_hva(vcpu->vm, va.vapic_addr, sizeof(uint32_t)))
		return -EINVAL;
	vcpu->vapic_addr = va.vapic_addr;
	return 0;
}
