/* SPDX-License-Identifier: MIT */
/*
 * Events of a vCPU: which interrupt comes next, and the ioctls that queue, read and write
 * exceptions, interrupts, NMIs and the activity state.
 *
 * KVM's "injected" and "pending" exceptions are one slot here, cpu->inject: pending ones are those
 * whose payload has not reached CR2 or DR6 yet.
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "host/guard.h"
#include "kvm/pv/hv.h"
#include "kvm/pv/pv.h"
#include "kvm/pv/xen.h"
#include "kvm/vm/irqchip.h"
#include "silicon/mmu/mmu.h"

#include <string.h>

/* ---- interrupts ---- */

bool vcpu_interrupt_allowed(const struct vcpu *vcpu)
{
	return cpu_interrupt_open(&vcpu->cpu) && !(vcpu->guest_debug & KVM_GUESTDBG_BLOCKIRQ);
}

/* The TPR that a guest keeps in memory (KVM_SET_VAPIC_ADDR). */
static void read_vapic(struct vcpu *vcpu)
{
	uint8_t tpr;

	if (!vm_read_guest(vcpu->vm, vcpu->vapic_addr, &tpr, sizeof(tpr)))
		lapic_set_tpr_reg(vcpu->lapic, tpr);
}

/* An interrupt of the PIC, or of a program that has one of its own. */
static bool extint_pending(const struct vcpu *vcpu)
{
	if (!vcpu->lapic)
		return vcpu->interrupt_injected >= 0;
	if (!lapic_accepts_pic(vcpu->lapic))
		return false;
	return vcpu->vm->irqchip_split ? vcpu->interrupt_injected >= 0 : vm_pic_pending(vcpu->vm);
}

/* Xen's upcall comes as an external interrupt that lasts as long as the guest leaves its flag set. */
static int xen_vector(struct vcpu *vcpu)
{
	return vcpu->lapic ? pv_xen_pending_vector(vcpu) : -1;
}

/* The vector of a PIC's interrupt is known by acknowledging only: 0 stands for it. */
int vcpu_peek_interrupt(struct vcpu *vcpu)
{
	int vector;

	if (vcpu->guest_debug & KVM_GUESTDBG_BLOCKIRQ)
		return -1;
	pv_eoi_sync(vcpu);
	if (vcpu->lapic && vcpu->vapic_addr)
		read_vapic(vcpu);
	vector = xen_vector(vcpu);
	if (vector >= 0)
		return vector;
	if (extint_pending(vcpu))
		return vcpu->interrupt_injected >= 0 ? vcpu->interrupt_injected : 0;
	return vcpu->lapic ? lapic_pending_vector(vcpu->lapic) : -1;
}

bool vcpu_has_interrupt(struct vcpu *vcpu)
{
	return vcpu_peek_interrupt(vcpu) >= 0;
}

/* The local APIC's. A synthetic interrupt source may end its interrupts by itself. */
static int take_from_lapic(struct vcpu *vcpu)
{
	int vector = lapic_pending_vector(vcpu->lapic);

	if (vector >= 0 && pv_hv_vector_auto_eoi(vcpu, vector))
		return lapic_ack_ended(vcpu->lapic);
	vector = lapic_ack(vcpu->lapic);
	if (vector >= 0)
		pv_eoi_offer(vcpu, vector);
	return vector;
}

int vcpu_take_interrupt(struct vcpu *vcpu)
{
	int vector = xen_vector(vcpu);

	if (vector < 0 && extint_pending(vcpu)) {
		if (vcpu->interrupt_injected >= 0) {
			vector = vcpu->interrupt_injected;
			vcpu->interrupt_injected = -1;
		} else {
			vector = vm_pic_ack(vcpu->vm);
		}
	}
	if (vector >= 0)
		cpu_tell(&vcpu->cpu);
	else if (vcpu->lapic)
		vector = take_from_lapic(vcpu);
	if (vector >= 0)
		vcpu_count(vcpu, irq_injections);
	return vector;
}

long vcpu_interrupt(struct vcpu *vcpu, void *arg)
{
	const struct kvm_interrupt *irq = arg;

	if (irq->irq > 0xff)
		return -EINVAL;
	if (vcpu->vm->irqchip_full)
		return -ENXIO;
	if (vcpu->lapic && vcpu->interrupt_injected >= 0)
		return -EEXIST;
	vcpu->interrupt_injected = irq->irq;
	vcpu_request(vcpu, REQ_EVENT);
	return 0;
}

long vcpu_nmi(struct vcpu *vcpu, void *arg)
{
	vcpu_request(vcpu, REQ_NMI);
	return 0;
}

long vcpu_smi(struct vcpu *vcpu, void *arg)
{
	vcpu_request(vcpu, REQ_SMI);
	return 0;
}

/* ---- exceptions ---- */

void vcpu_queue_exception(struct vcpu *vcpu, uint8_t vector)
{
	vcpu->cpu.inject = (struct event){
		.valid = true,
		.type = EVENT_EXCEPTION,
		.vector = vector,
		.pending = true,
	};
	cpu_update_attention(&vcpu->cpu);
}

static bool is_exception(const struct event *ev)
{
	return ev->valid && ev->type != EVENT_INTERRUPT && ev->type != EVENT_NMI &&
	       ev->type != EVENT_SOFT_INT;
}

/* INT3 and INTO come again when they are executed again, so they are not shown. */
static bool is_soft(const struct event *ev)
{
	return ev->vector == VEC_BP || ev->vector == VEC_OF;
}

static void deliver_payload(struct cpu *cpu)
{
	struct event *ev = &cpu->inject;

	if (ev->vector == VEC_PF)
		cpu->cr2 = ev->payload;
	else if (ev->vector == VEC_DB)
		cpu->dr6 = (cpu->dr6 & ~0xfull) | DR6_FIXED_1 | ev->payload;
	ev->has_payload = false;
	ev->payload = 0;
}

/* A trap of the last instruction that has not been taken yet becomes a pending exception. */
static void gather_trap(struct cpu *cpu)
{
	if (!cpu->pending_dr6 || cpu->inject.valid || cpu->debug.enabled)
		return;
	cpu->inject = (struct event){
		.valid = true,
		.type = EVENT_EXCEPTION,
		.vector = VEC_DB,
		.pending = true,
		.has_payload = true,
		.payload = cpu->pending_dr6,
	};
	cpu->pending_dr6 = 0;
	cpu_update_attention(cpu);
}

static void get_exception(struct vcpu *vcpu, struct kvm_vcpu_events *e)
{
	struct cpu *cpu = &vcpu->cpu;
	struct event *ev = &cpu->inject;

	gather_trap(cpu);
	if (!is_exception(ev))
		return;
	if (!vcpu->vm->exception_payload && ev->has_payload)
		deliver_payload(cpu);
	if (!is_soft(ev)) {
		e->exception.pending = ev->pending;
		e->exception.injected = !e->exception.pending;
	}
	if (!vcpu->vm->exception_payload)
		e->exception.injected |= e->exception.pending;
	e->exception.nr = ev->vector;
	e->exception.has_error_code = ev->has_error;
	e->exception.error_code = ev->error;
	e->exception_has_payload = ev->has_payload;
	e->exception_payload = ev->payload;
}

static void get_interrupt(const struct vcpu *vcpu, struct kvm_vcpu_events *e)
{
	const struct event *ev = &vcpu->cpu.inject;

	if (ev->valid && ev->type == EVENT_INTERRUPT) {
		e->interrupt.injected = 1;
		e->interrupt.nr = ev->vector;
	} else if (!vcpu->lapic && vcpu->interrupt_injected >= 0) {
		e->interrupt.injected = 1;
		e->interrupt.nr = vcpu->interrupt_injected;
	}
	if (vcpu->cpu.shadow & SHADOW_STI)
		e->interrupt.shadow |= KVM_X86_SHADOW_INT_STI;
	if (vcpu->cpu.shadow & SHADOW_MOV_SS)
		e->interrupt.shadow |= KVM_X86_SHADOW_INT_MOV_SS;
}

long vcpu_get_events(struct vcpu *vcpu, void *arg)
{
	struct kvm_vcpu_events *e = arg;
	struct cpu *cpu = &vcpu->cpu;

	memset(e, 0, sizeof(*e));
	get_exception(vcpu, e);
	get_interrupt(vcpu, e);
	e->nmi.injected = cpu->inject.valid && cpu->inject.type == EVENT_NMI;
	e->nmi.pending = cpu->nmi_pending || vcpu_test_request(vcpu, REQ_NMI);
	e->nmi.masked = cpu->nmi_blocked;
	e->smi.smm = cpu->in_smm;
	e->smi.pending = cpu->smi_pending || vcpu_test_request(vcpu, REQ_SMI);
	e->smi.smm_inside_nmi = cpu->smm_inside_nmi;
	e->smi.latched_init = vcpu->lapic && vcpu_test_request(vcpu, REQ_INIT);
	e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
		   KVM_VCPUEVENT_VALID_SMM;
	if (vcpu->vm->exception_payload)
		e->flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	if (vcpu->vm->triple_fault_event) {
		e->triple_fault.pending = vcpu_test_request(vcpu, REQ_TRIPLE_FAULT);
		e->flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	}
	return 0;
}

#define EVENTS_FLAGS                                                                          \
	(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |                  \
	 KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM | KVM_VCPUEVENT_VALID_PAYLOAD | \
	 KVM_VCPUEVENT_VALID_TRIPLE_FAULT)

/* Settle what the absence of flags means: afterwards the fields alone count. */
static bool normalize_events(const struct vcpu *vcpu, struct kvm_vcpu_events *e)
{
	if (e->flags & ~EVENTS_FLAGS)
		return false;
	if (e->flags & KVM_VCPUEVENT_VALID_PAYLOAD) {
		if (!vcpu->vm->exception_payload)
			return false;
		if (e->exception.pending)
			e->exception.injected = 0;
		else
			e->exception_has_payload = 0;
	} else {
		e->exception.pending = 0;
		e->exception_has_payload = 0;
	}
	return true;
}

static bool events_valid(const struct vcpu *vcpu, const struct kvm_vcpu_events *e)
{
	if ((e->exception.injected || e->exception.pending) &&
	    (e->exception.nr > 31 || e->exception.nr == VEC_NMI))
		return false;
	/* INITs are latched in SMM. */
	if ((e->flags & KVM_VCPUEVENT_VALID_SMM) && (e->smi.smm || e->smi.pending) &&
	    vcpu->mp_state == KVM_MP_STATE_INIT_RECEIVED)
		return false;
	return !(e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) || vcpu->vm->triple_fault_event;
}

static void set_injection(struct vcpu *vcpu, const struct kvm_vcpu_events *e)
{
	struct event ev = {.valid = true};
	int waiting = e->interrupt.injected && !e->interrupt.soft ? e->interrupt.nr : -1;

	if (e->exception.injected || e->exception.pending) {
		ev.type = EVENT_EXCEPTION;
		ev.vector = e->exception.nr;
		ev.has_error = e->exception.has_error_code;
		ev.error = e->exception.error_code;
		ev.pending = e->exception.pending;
		ev.has_payload = e->exception_has_payload;
		ev.payload = e->exception_payload;
	} else if (e->nmi.injected) {
		ev.type = EVENT_NMI;
		ev.vector = VEC_NMI;
	} else if (e->interrupt.injected) {
		ev.type = e->interrupt.soft ? EVENT_SOFT_INT : EVENT_INTERRUPT;
		ev.vector = e->interrupt.nr;
		waiting = -1;
	} else {
		ev.valid = false;
	}
	vcpu->cpu.inject = ev;
	vcpu->inject_behind = ev.valid && vcpu->complete;
	if (!vcpu->lapic)
		vcpu->interrupt_injected = waiting; /* behind the exception or NMI */
}

static void set_request(struct vcpu *vcpu, enum vcpu_request req, bool on)
{
	if (on)
		vcpu_request(vcpu, req);
	else
		vcpu_clear_request(vcpu, req);
}

static void set_shadow(struct cpu *cpu, uint8_t shadow)
{
	cpu->shadow = 0;
	if (shadow & KVM_X86_SHADOW_INT_STI)
		cpu->shadow |= SHADOW_STI;
	if (shadow & KVM_X86_SHADOW_INT_MOV_SS)
		cpu->shadow |= SHADOW_MOV_SS;
}

static void set_smm(struct vcpu *vcpu, const struct kvm_vcpu_events *e)
{
	struct cpu *cpu = &vcpu->cpu;

	vcpu_clear_request(vcpu, REQ_SMI);
	cpu->smi_pending = e->smi.pending;
	cpu->smm_inside_nmi = e->smi.smm && e->smi.smm_inside_nmi;
	if (cpu->in_smm != !!e->smi.smm) {
		cpu->in_smm = e->smi.smm;
		mmu_flush_all(cpu);
	}
	if (vcpu->lapic)
		set_request(vcpu, REQ_INIT, e->smi.latched_init);
}

long vcpu_set_events(struct vcpu *vcpu, void *arg)
{
	struct kvm_vcpu_events e = *(struct kvm_vcpu_events *)arg;
	struct cpu *cpu = &vcpu->cpu;

	if (!normalize_events(vcpu, &e) || !events_valid(vcpu, &e))
		return -EINVAL;
	/* All checks passed. */
	set_injection(vcpu, &e);
	cpu->pending_dr6 = 0;
	if (e.flags & KVM_VCPUEVENT_VALID_SHADOW)
		set_shadow(cpu, e.interrupt.shadow);
	if (e.flags & KVM_VCPUEVENT_VALID_NMI_PENDING) {
		vcpu_clear_request(vcpu, REQ_NMI);
		cpu->nmi_pending = e.nmi.pending;
	}
	cpu->nmi_blocked = e.nmi.masked;
	if (vcpu->lapic && (e.flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR))
		vcpu->sipi_vector = e.sipi_vector;
	if (e.flags & KVM_VCPUEVENT_VALID_SMM)
		set_smm(vcpu, &e);
	if (e.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
		set_request(vcpu, REQ_TRIPLE_FAULT, e.triple_fault.pending);
	cpu_update_attention(cpu);
	vcpu_request(vcpu, REQ_EVENT);
	return 0;
}

/* ---- activity ---- */

long vcpu_get_mp_state(struct vcpu *vcpu, void *arg)
{
	struct kvm_mp_state *mp = arg;

	vcpu_accept_init_sipi(vcpu);
	mp->mp_state = vcpu->mp_state;
	if (mp->mp_state == KVM_MP_STATE_HALTED &&
	    (vcpu->unhalted || vcpu_test_request(vcpu, REQ_UNHALT)))
		mp->mp_state = KVM_MP_STATE_RUNNABLE;
	return 0;
}

/* SMM holds INIT back, and a pending SMI goes first. */
static bool init_blocked(const struct vcpu *vcpu)
{
	return vcpu->cpu.in_smm || vcpu->cpu.smi_pending;
}

long vcpu_set_mp_state(struct vcpu *vcpu, void *arg)
{
	const struct kvm_mp_state *mp = arg;

	switch (mp->mp_state) {
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_HALTED:
	case KVM_MP_STATE_AP_RESET_HOLD:
	case KVM_MP_STATE_INIT_RECEIVED:
	case KVM_MP_STATE_SIPI_RECEIVED:
		if (!vcpu->lapic)
			return -EINVAL;
		break;
	case KVM_MP_STATE_RUNNABLE:
		break;
	default:
		return -EINVAL;
	}
	if (init_blocked(vcpu) && (mp->mp_state == KVM_MP_STATE_SIPI_RECEIVED ||
				   mp->mp_state == KVM_MP_STATE_INIT_RECEIVED))
		return -EINVAL;
	vcpu->mp_state = mp->mp_state;
	if (mp->mp_state == KVM_MP_STATE_SIPI_RECEIVED) {
		vcpu->mp_state = KVM_MP_STATE_INIT_RECEIVED;
		vcpu_request(vcpu, REQ_SIPI);
	}
	if (vcpu->cpu.activity != ACTIVITY_SHUTDOWN || mp->mp_state != KVM_MP_STATE_HALTED)
		vcpu->cpu.activity = ACTIVITY_RUN;
	vcpu_request(vcpu, REQ_EVENT);
	return 0;
}
