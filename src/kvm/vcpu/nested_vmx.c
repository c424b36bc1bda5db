/* SPDX-License-Identifier: MIT */
/*
 * VMX's side of KVM: nested state, capability MSRs, the alarm of the preemption timer.
 *
 * KVM's validation of a nested state is followed check by check (Linux 6.12): each failure comes with the same error, and
 * from the same point on leaves the vCPU outside of VMX operation.
 */
#include "kvm/pv/hv.h"
#include "kvm/vcpu/nested.h"
#include "kvm/vcpu/vcpu_internal.h"
#include "silicon/mmu/mmu.h"
#include "silicon/vmx/vmx.h"

#include <string.h>

#define NO_ADDRESS (~0ull)
#define SMM_FLAGS  (KVM_STATE_NESTED_SMM_GUEST_MODE | KVM_STATE_NESTED_SMM_VMXON)

static struct vmx *vmx_of_vcpu(struct vcpu *vcpu)
{
	return &vcpu->vmx;
}

/* ---- reading ---- */

static void get_data(struct vcpu *vcpu, struct kvm_nested_state *state)
{
	struct kvm_vmx_nested_state_data *data = state->data.vmx;

	state->size += sizeof(data->vmcs12);
	vmx_image_get(&vcpu->cpu, data->vmcs12);
	if (vmx_of_vcpu(vcpu)->virt.guest && vmx_image_get_link(&vcpu->cpu, data->shadow_vmcs12))
		state->size += sizeof(data->shadow_vmcs12);
}

static void get_guest_mode(struct vcpu *vcpu, struct kvm_nested_state *state)
{
	struct vmx *v = vmx_of_vcpu(vcpu);

	state->flags |= KVM_STATE_NESTED_GUEST_MODE;
	if (v->mtf)
		state->flags |= KVM_STATE_NESTED_MTF_PENDING;
	if (!v->timer_armed)
		return;
	state->hdr.vmx.flags |= KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE;
	state->hdr.vmx.preemption_timer_deadline = vmx_timer_deadline(&vcpu->cpu);
}

static void vmx_get(struct vcpu *vcpu, struct kvm_nested_state *state)
{
	struct vmx *v = vmx_of_vcpu(vcpu);
	bool form = v->form_due || v->form_gpa != GPA_NONE;

	state->format = KVM_STATE_NESTED_FORMAT_VMX;
	state->hdr.vmx.vmxon_pa = NO_ADDRESS;
	state->hdr.vmx.vmcs12_pa = NO_ADDRESS;
	if (!v->on && !v->smm_on)
		return;
	state->hdr.vmx.vmxon_pa = v->vmxon_ptr;
	state->hdr.vmx.vmcs12_pa = v->current;
	if (form)
		state->flags |= KVM_STATE_NESTED_EVMCS;
	if (form || v->current != GPA_NONE)
		get_data(vcpu, state);
	if (v->smm_on)
		state->hdr.vmx.smm.flags |= KVM_STATE_NESTED_SMM_VMXON;
	if (v->smm_guest)
		state->hdr.vmx.smm.flags |= KVM_STATE_NESTED_SMM_GUEST_MODE;
	if (v->virt.guest)
		get_guest_mode(vcpu, state);
}

/* ---- writing ---- */

static bool has_vmx(const struct vcpu *vcpu)
{
	return feature_has(vcpu->cpu.guest_features, FEAT_VMX);
}

static bool page_valid(const struct vcpu *vcpu, uint64_t gpa)
{
	return !(gpa & ~PAGE_MASK) && !(gpa >> vcpu->cpu.maxphyaddr);
}

static bool vmxon_valid(const struct vcpu *vcpu, const struct kvm_nested_state *s)
{
	if (s->hdr.vmx.vmxon_pa != NO_ADDRESS)
		return has_vmx(vcpu) && page_valid(vcpu, s->hdr.vmx.vmxon_pa);
	return !s->hdr.vmx.smm.flags && s->hdr.vmx.vmcs12_pa == NO_ADDRESS &&
	       !(s->flags & ~KVM_STATE_NESTED_EVMCS);
}

static bool smm_valid(const struct vcpu *vcpu, const struct kvm_nested_state *s)
{
	uint16_t smm = s->hdr.vmx.smm.flags;

	if ((smm & ~SMM_FLAGS) ||
	    ((smm & KVM_STATE_NESTED_SMM_GUEST_MODE) && (s->flags & KVM_STATE_NESTED_GUEST_MODE)))
		return false;
	if (vcpu->cpu.in_smm) {
		if (s->flags & (KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING))
			return false;
	} else if (smm) {
		return false;
	}
	return !(smm & KVM_STATE_NESTED_SMM_GUEST_MODE) || (smm & KVM_STATE_NESTED_SMM_VMXON);
}

static bool state_valid(const struct vcpu *vcpu, const struct kvm_nested_state *s)
{
	if (s->format != KVM_STATE_NESTED_FORMAT_VMX || !vmxon_valid(vcpu, s) ||
	    !smm_valid(vcpu, s))
		return false;
	if (s->hdr.vmx.flags & ~KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE)
		return false;
	return !(s->flags & KVM_STATE_NESTED_EVMCS) || (has_vmx(vcpu) && vcpu->evmcs);
}

/* SMM interrupted VMX operation: it goes on at RSM. */
static void set_smm(struct vmx *v, const struct kvm_nested_state *s)
{
	if (!(s->hdr.vmx.smm.flags & KVM_STATE_NESTED_SMM_VMXON))
		return;
	v->smm_on = true;
	v->smm_guest = s->hdr.vmx.smm.flags & KVM_STATE_NESTED_SMM_GUEST_MODE;
	v->on = false;
}

static long set_link(struct vcpu *vcpu, const struct kvm_nested_state *s, const void *data)
{
	uint8_t image[VMCS_SIZE];

	if (!vmx_wants_link(&vcpu->cpu))
		return 0;
	if (s->size < sizeof(*s) + 2 * VMCS_SIZE)
		return -EINVAL;
	if (ioctl_copy_in(image, (const uint8_t *)data + VMCS_SIZE, sizeof(image)))
		return -EFAULT;
	return vmx_image_set_link(&vcpu->cpu, image) ? 0 : -EINVAL;
}

static long set_guest_mode(struct vcpu *vcpu, const struct kvm_nested_state *s, const void *data)
{
	struct cpu *cpu = &vcpu->cpu;
	long r = set_link(vcpu, s, data);

	if (r)
		return r;
	if (vmx_state_refused(cpu) || vmx_guest_refused(cpu))
		return -EINVAL;
	vmx_enter_restored(cpu);
	vmx_of_vcpu(vcpu)->mtf = s->flags & KVM_STATE_NESTED_MTF_PENDING;
	if (s->hdr.vmx.flags & KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE)
		vmx_timer_set_deadline(cpu, s->hdr.vmx.preemption_timer_deadline);
	cpu_raise(cpu, ATTN_VIRT);
	return 0;
}

/* VMX operation without a VMCS is a state, too. */
static long set_nothing_loaded(const struct kvm_nested_state *s)
{
	if (s->flags & (KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_EVMCS))
		return -EINVAL;
	return s->hdr.vmx.vmcs12_pa == NO_ADDRESS ? 0 : -EINVAL;
}

/* Without an address it is an enlightened VMCS, whose place the guest's memory tells. */
static bool place_valid(const struct vcpu *vcpu, const struct kvm_nested_state *s)
{
	uint64_t pa = s->hdr.vmx.vmcs12_pa;

	if (pa == NO_ADDRESS)
		return s->flags & KVM_STATE_NESTED_EVMCS;
	return pa != s->hdr.vmx.vmxon_pa && page_valid(vcpu, pa);
}

static long set_current(struct vcpu *vcpu, const struct kvm_nested_state *s, const void *data)
{
	uint64_t pa = s->hdr.vmx.vmcs12_pa;
	uint8_t image[VMCS_SIZE];

	if (!place_valid(vcpu, s))
		return -EINVAL;
	if (pa == NO_ADDRESS) {
		vmx_form_restored(&vcpu->cpu);
		vcpu_request(vcpu, REQ_NESTED);
	}
	set_smm(vmx_of_vcpu(vcpu), s);
	if (ioctl_copy_in(image, data, sizeof(image)))
		return -EFAULT;
	return vmx_image_set(&vcpu->cpu, pa, image) ? 0 : -EINVAL;
}

static long vmx_set(struct vcpu *vcpu, const struct kvm_nested_state *s, const void *data)
{
	struct vmx *v = vmx_of_vcpu(vcpu);
	long r;

	if (!state_valid(vcpu, s))
		return -EINVAL;
	vmx_leave_nested(&vcpu->cpu);
	pv_hv_nested_restored(vcpu);
	if (s->hdr.vmx.vmxon_pa == NO_ADDRESS)
		return 0;
	vmx_set_on(&vcpu->cpu, s->hdr.vmx.vmxon_pa);
	if (s->size < sizeof(*s) + VMCS_SIZE)
		return set_nothing_loaded(s);
	/* Memory slots may have changed without the flush being served yet. */
	mmu_flush_all(&vcpu->cpu);
	r = set_current(vcpu, s, data);
	if (r || !(s->flags & KVM_STATE_NESTED_GUEST_MODE))
		return r;
	r = set_guest_mode(vcpu, s, data);
	if (r)
		v->linked = false;
	return r;
}

const struct nested_format nested_vmx = {.get = vmx_get, .set = vmx_set};

/* ---- capability MSRs ---- */

/* Intel's KVM knows them and refuses; AMD's does not know them. */
static enum vcpu_msr absent(const struct vcpu *vcpu)
{
	return model_intel(vcpu->cpu.model) ? VCPU_MSR_DENIED : VCPU_MSR_UNKNOWN;
}

enum vcpu_msr vcpu_vmx_msr_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	if (!vcpu->cpu.virt || !has_vmx(vcpu))
		return absent(vcpu);
	*ret = vmx_caps_read(&vcpu->cpu, &vmx_of_vcpu(vcpu)->caps, index - MSR_VMX_FIRST);
	if (!host)
		*ret = pv_hv_vmx_msr(vcpu, index - MSR_VMX_FIRST, *ret);
	return VCPU_MSR_OK;
}

/* Within what the module has, and not in VMX operation. */
enum vcpu_msr vcpu_vmx_msr_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	struct vmx *v = vmx_of_vcpu(vcpu);

	if (!host)
		return VCPU_MSR_DENIED;
	if (!vcpu->cpu.virt || !has_vmx(vcpu))
		return absent(vcpu);
	if (v->on ||
	    !vmx_caps_write(&v->caps, vcpu->vm->ops->params.vmx, index - MSR_VMX_FIRST, val))
		return VCPU_MSR_DENIED;
	return VCPU_MSR_OK;
}

enum vcpu_msr vcpu_feature_control_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	return VCPU_MSR_UNKNOWN;
}

/* As QEMU does at reset, before it sets the registers. */
enum vcpu_msr vcpu_feature_control_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	if (host && !val && vcpu->cpu.virt == &vcpu->vmx.virt)
		vmx_leave_nested(&vcpu->cpu);
	return VCPU_MSR_UNKNOWN;
}

bool vcpu_nested_resume(struct vcpu *vcpu)
{
	return vcpu->cpu.virt != &vcpu->vmx.virt || vmx_form_resume(&vcpu->cpu);
}

void vcpu_judge_guest(struct vcpu *vcpu)
{
	vcpu->judge_guest = false;
	if (vcpu->cpu.virt == &vcpu->vmx.virt && vmx_running_invalid(&vcpu->cpu))
		vcpu_request(vcpu, REQ_TRIPLE_FAULT);
}

/* ---- creation ---- */

static void alarm_expired(struct service_timer *timer)
{
	struct vcpu *vcpu = container_of(timer, struct vcpu, alarm);

	cpu_raise(&vcpu->cpu, ATTN_VIRT);
	vcpu_kick(vcpu);
}

void vcpu_alarm(struct vcpu *vcpu, uint64_t tsc)
{
	int64_t left = tsc - vcpu_tsc(vcpu);
	uint64_t ns = left > 0 ? (unsigned __int128)left * 1000000 / vcpu_tsc_rate(vcpu) + 1 : 0;

	if (left <= 0)
		cpu_raise(&vcpu->cpu, ATTN_VIRT);
	else if (left < INT64_MAX / 2)
		service_timer_arm(vcpu->vm->service, &vcpu->alarm,
				  clock_monotonic_ns(vcpu->vm) + ns);
}

void vcpu_vmx_create(struct vcpu *vcpu)
{
	vcpu->alarm.expire = alarm_expired;
	if (!vcpu->vm->ops->params.vmx)
		return;
	vmx_init(&vcpu->cpu, &vcpu->vmx, vcpu->vm->ops->params.vmx);
	vcpu->vmx.report = vcpu->vm->ops->params.report_missed_checks;
}
