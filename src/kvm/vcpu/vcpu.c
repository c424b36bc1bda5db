/* SPDX-License-Identifier: MIT */
/*
 * Making, resetting and unmaking a vCPU, and what the VM room asks of it (struct vm_ops).
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/pv/pv.h"
#include "silicon/cpu/amx.h"
#include "silicon/cpu/behaviour.h"
#include "silicon/exec/exec.h"
#include "silicon/mmu/codemap.h"
#include "silicon/svm/svm.h"
#include "silicon/sys/sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_bsp(const struct vcpu *vcpu)
{
	return vcpu->id == vcpu->vm->boot_cpu_id;
}

void vcpu_follow_quirks(struct vcpu *vcpu)
{
	uint64_t disabled = __atomic_load_n(&vcpu->vm->disabled_quirks, __ATOMIC_RELAXED);

	vcpu->cpu.monitor_by_cpuid = disabled & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS;
	vcpu->cpu.mwait_by_misc_enable = disabled & KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT;
	if (vcpu->lapic)
		vcpu_lapic_follow_quirks(vcpu, disabled);
}

void vcpu_reset(struct vcpu *vcpu, bool init)
{
	vcpu_follow_quirks(vcpu);
	pv_reset(vcpu);
	cpu_reset(&vcpu->cpu, init);
	if (!init) {
		sys_msr_reset(&vcpu->cpu);
		vcpu->apic_base = LAPIC_DEFAULT_BASE | APIC_BASE_ENABLED |
				  (is_bsp(vcpu) ? APIC_BASE_BSP : 0);
	}
	if (vcpu->lapic)
		lapic_reset(vcpu->lapic, init);
	vcpu->complete = NULL;
	vcpu->interrupt_injected = -1;
	vcpu->unhalted = false;
	vcpu->halted_in_guest = false;
	vcpu_clear_request(vcpu, REQ_NMI);
	vcpu_clear_request(vcpu, REQ_SMI);
	vcpu_clear_request(vcpu, REQ_TRIPLE_FAULT);
	mmu_flush_all(&vcpu->cpu);
	mmu_update_mode(&vcpu->cpu);
}

/* vm->lock held. */
static bool join(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;

	if (!vm->codemap)
		vm->codemap = codemap_create();
	return vm->codemap && codemap_join(vm->codemap, &vcpu->cpu);
}

/* vCPUs that have a TLB for guest mode beside their own; more than these share the memory that translated code reaches. */
#define TWO_TLBS 16

static bool create_parts(struct vcpu *vcpu)
{
	char name[64];

	snprintf(name, sizeof(name), "kvm-%d/vcpu-%u", (int)vcpu->vm->pid, vcpu->id);
	vcpu->cpu.tlb = tlb_create();
	vcpu->cpu.exec = exec_create();
	vcpu->pv = pv_create(vcpu);
	vcpu->stats = stats_create(STATS_VCPU, name);
	if (amx_create(&vcpu->cpu) || !vcpu->cpu.tlb || !vcpu->cpu.exec || !vcpu->pv ||
	    !vcpu->stats || !join(vcpu))
		return false;
	if (vcpu->cpu.virt && vcpu->cpu.codemap_index < TWO_TLBS)
		tlb_add_guest(vcpu->cpu.tlb);
	return !exec_set_tempo(&vcpu->cpu, vcpu->vm->ops->tempo);
}

static void init_cpu(struct vcpu *vcpu, const struct cpu_model *model)
{
	struct cpu *cpu = &vcpu->cpu;

	cpu->model = model;
	cpu->platform = &vcpu_platform;
	cpu->opaque = vcpu;
	cpu->behaviour = behaviour_of(vcpu->vm->ops->params.behaviour);
	memcpy(cpu->model_features, model->features, sizeof(cpu->model_features));
	cpu->restricted = vcpu->vm->ops->params.restricted;
	cpu->code_most = vcpu->vm->ops->params.code_most;
	cpu->counted = vcpu->vm->turns;
	cpu->random = cpu->counted ? vcpu_turn_random(vcpu) : 0;
	if (feature_has(model->features, FEAT_XSAVE))
		cpu->fpu.xfeatures = model->xcr0 & ~XCR0_AMX;
	vcpu_vmx_create(vcpu);
}

/* SVM for the guest's own guests. */
static bool create_virt(struct vcpu *vcpu)
{
	struct cpu *cpu = &vcpu->cpu;

	return !feature_has(cpu->model_features, FEAT_SVM) ||
	       svm_create(cpu, vcpu->vm->ops->params.report_missed_checks);
}

static void free_parts(struct vcpu *vcpu)
{
	codemap_leave(&vcpu->cpu);
	if (feature_has(vcpu->cpu.model_features, FEAT_SVM))
		svm_destroy(&vcpu->cpu);
	if (vcpu->cpu.exec)
		exec_destroy(vcpu->cpu.exec);
	if (vcpu->cpu.tlb)
		tlb_destroy(vcpu->cpu.tlb);
	amx_destroy(&vcpu->cpu);
	if (vcpu->pv)
		pv_destroy(vcpu->pv);
	stats_destroy(vcpu->stats);
	pthread_mutex_destroy(&vcpu->mutex);
	free(vcpu->cpuid);
	free(vcpu);
}

int vcpu_create(struct vm *vm, uint32_t id, const struct cpu_model *model, void *run,
		struct vcpu **ret)
{
	struct vcpu *vcpu = aligned_alloc(64, ALIGN_UP(sizeof(*vcpu), 64ul));

	if (!vcpu)
		return -ENOMEM;
	memset(vcpu, 0, sizeof(*vcpu));
	pthread_mutex_init(&vcpu->mutex, NULL);
	vcpu->vm = vm;
	vcpu->id = id;
	vcpu->run = run;
	vcpu->xsave_size = sizeof(struct kvm_xsave);
	vcpu->pio_data = (uint8_t *)run + VCPU_PIO_PAGE * PAGE_SIZE;
	init_cpu(vcpu, model);
	if (!create_virt(vcpu) || !create_parts(vcpu)) {
		free_parts(vcpu);
		return -ENOMEM;
	}
	vcpu_tsc_start(vcpu);
	if (vm_irqchip(vm))
		vcpu_lapic_create(vcpu);
	vcpu_cpuid_apply(vcpu);
	vcpu_reset(vcpu, false);
	vcpu->mp_state = vcpu->lapic && !is_bsp(vcpu) ? KVM_MP_STATE_UNINITIALIZED
						      : KVM_MP_STATE_RUNNABLE;
	*ret = vcpu;
	return 0;
}

void vcpu_destroy(struct vcpu *vcpu)
{
	if (vcpu->lapic && vcpu->vm->service)
		service_timer_stop(vcpu->vm->service, &vcpu->timer);
	vcpu_watch_destroy(vcpu);
	if (vcpu->vm->service)
		service_timer_stop(vcpu->vm->service, &vcpu->alarm);
	free_parts(vcpu);
}

/* ---- struct vm_ops ---- */

/*
 * The clock's line was set, while no vCPU runs (hold_all). Linux guests read the first vCPU's page on all of them, so a vCPU that enters
 * before the first one has been served would see time by the old line, and then go back. So write the pages of all; who is in KVM_RUN,
 * and so has the mutex, is held at a safepoint.
 */
static void write_clocks(struct vm *vm)
{
	unsigned nr = vm_nr_vcpus(vm);

	for (unsigned i = 0; i < nr; i++) {
		struct vcpu *vcpu = vm->vcpus[i];
		bool taken = !pthread_mutex_trylock(&vcpu->mutex);

		pthread_mutex_lock(&vm->slots_lock);
		if (vcpu_take_request(vcpu, REQ_CLOCK_UPDATE))
			pv_clock_update(vcpu);
		pthread_mutex_unlock(&vm->slots_lock);
		if (taken)
			pthread_mutex_unlock(&vcpu->mutex);
	}
}

static void op_request_all(struct vm *vm, enum vm_request req, bool wait)
{
	static const uint8_t to[] = {
		[VM_REQUEST_FLUSH] = REQ_FLUSH,
		[VM_REQUEST_FLUSH_WRITES] = REQ_FLUSH_WRITES,
		[VM_REQUEST_CLOCK] = REQ_CLOCK_UPDATE,
		[VM_REQUEST_FILTER] = REQ_MSR_FILTER,
	};

	if (req == VM_REQUEST_FLUSH || req == VM_REQUEST_FLUSH_WRITES) {
		stats_add(vm->stats, STAT_VM_remote_tlb_flush_requests, 1);
		if (vm_nr_vcpus(vm))
			stats_add(vm->stats, STAT_VM_remote_tlb_flush, 1);
	}
	if (req == VM_REQUEST_CLOCK)
		pv_clock_changed(vm);
	vcpu_request_all(vm, to[req], wait);
	if (req == VM_REQUEST_CLOCK)
		write_clocks(vm);
}

static struct lapic *op_lapic(struct vcpu *vcpu)
{
	return vcpu->lapic;
}

static void op_interrupt(struct vcpu *vcpu)
{
	vcpu_request(vcpu, REQ_EVENT);
}

const struct vm_ops vcpu_vm_ops = {
	.request_all = op_request_all,
	.hold_all = vcpu_hold_all,
	.lapic = op_lapic,
	.interrupt = op_interrupt,
	.push_dirty = vcpu_push_dirty,
	.create = pv_vm_create,
	.destroy = pv_vm_destroy,
	.route = pv_route,
	.timer_armed = vcpu_turn_timer,
};
