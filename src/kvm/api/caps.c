/* SPDX-License-Identifier: MIT */
/*
 * Capabilities (KVM api.rst): the rows of tables/caps.def, and what KVM_ENABLE_CAP does for those that
 * can be enabled on a VM.
 */
#include "kvm/api/api_internal.h"
#include "kvm/vm/irqchip.h"
#include "silicon/models/model.h"

#include <linux/kvm_para.h>
#include <unistd.h>

#define X2APIC_FLAGS (KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)
#define MSR_REASONS \
	(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER)
#define GUEST_DEBUG_FLAGS                                                           \
	(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP |   \
	 KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP | \
	 KVM_GUESTDBG_BLOCKIRQ)

/* On processors that log writes themselves (Intel's PML) KVM reserves room for the log, too. */
#define RING_RESERVED 64
#define RING_PML      512
#define RING_MAX      (65536u * sizeof(struct kvm_dirty_gfn))

/* Not the residency of C-states, whose MSRs there are not. */
#define DISABLE_EXITS \
	(KVM_X86_DISABLE_EXITS_PAUSE | KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_MWAIT)
#define HYPERCALL_EXITS BIT(KVM_HC_MAP_GPA_RANGE)
#define XEN_FLAGS                                                                   \
	(KVM_XEN_HVM_CONFIG_HYPERCALL_MSR | KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL |    \
	 KVM_XEN_HVM_CONFIG_SHARED_INFO | KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL |        \
	 KVM_XEN_HVM_CONFIG_EVTCHN_SEND | KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE | \
	 KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA)
#define XEN_RUNSTATE_FLAGS (KVM_XEN_HVM_CONFIG_RUNSTATE | KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG)

static long online_cpus(void)
{
	return min(sysconf(_SC_NPROCESSORS_ONLN), (long)VM_MAX_VCPUS);
}

static bool has_xsave(const struct system *sys)
{
	return feature_has(sys->model->features, FEAT_XSAVE);
}

/* Bytes of the largest state; 0: guests get neither VMX nor SVM. */
static long nested_state_size(const struct system *sys)
{
	if (feature_has(sys->model->features, FEAT_VMX))
		return sizeof(struct kvm_nested_state) + sizeof(struct kvm_vmx_nested_state_data);
	if (feature_has(sys->model->features, FEAT_SVM))
		return sizeof(struct kvm_nested_state) + KVM_STATE_NESTED_SVM_VMCB_SIZE;
	return 0;
}

/* Asked of the system: of any VM type. */
static bool private_mem(const struct vm *vm)
{
	return !vm || vm->private_mem;
}

/* Value of a capability; vm NULL on /dev/kvm. */
static long check(const struct system *sys, const struct vm *vm, unsigned long cap)
{
	switch (cap) {
#define CAP(name, value, enable) \
	case KVM_CAP_##name:     \
		return value;
#include "caps.def"
#undef CAP
	default:
		return 0;
	}
}

static const struct {
	const char *name;
	unsigned number;
} cap_rows[] = {
#define CAP(name, value, enable) {"KVM_CAP_" #name, KVM_CAP_##name},
#include "caps.def"
#undef CAP
};

bool api_cap_nth(unsigned nr, struct api_row *ret)
{
	if (nr >= ARRAY_SIZE(cap_rows))
		return api_refused_nth(nr - ARRAY_SIZE(cap_rows), true, ret);
	*ret = (struct api_row){
		.name = cap_rows[nr].name,
		.number = cap_rows[nr].number,
		.value = check(api_system(), NULL, cap_rows[nr].number),
	};
	return true;
}

static const struct {
	bool cap;
	struct api_row row;
} refused[] = {
#define KIND_SYS  "system"
#define KIND_VM	  "vm"
#define KIND_VCPU "vcpu"
#define NO_IOCTL(kind, nr, reason) \
	{false, {.name = #nr, .fd = KIND_##kind, .number = nr, .why_not = reason}},
#define NO_CAP(nr, reason) \
	{true, {.name = "KVM_CAP_" #nr, .number = KVM_CAP_##nr, .why_not = reason}},
#include "refused.def"
#undef NO_IOCTL
#undef NO_CAP
};

bool api_refused_nth(unsigned nr, bool cap, struct api_row *ret)
{
	for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
		if (refused[i].cap != cap || nr--)
			continue;
		*ret = refused[i].row;
		return true;
	}
	return false;
}

long api_check_extension(struct system *sys, void *arg)
{
	return check(sys, NULL, (unsigned long)arg);
}

long api_check_extension_vm(struct vm *vm, void *arg)
{
	return check(api_system(), vm, (unsigned long)arg);
}

/* ---- enabling ---- */

typedef int enable_fn(struct vm *vm, const struct kvm_enable_cap *cap);

static int none(struct vm *vm, const struct kvm_enable_cap *cap)
{
	return -EINVAL;
}

static int set_flag(bool *flag, const struct kvm_enable_cap *cap)
{
	__atomic_store_n(flag, cap->args[0] != 0, __ATOMIC_RELAXED);
	return 0;
}

static int enable_manual_dirty_log(struct vm *vm, const struct kvm_enable_cap *cap)
{
	uint64_t allowed = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;

	if (cap->args[0] & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)
		allowed |= KVM_DIRTY_LOG_INITIALLY_SET;
	if (cap->args[0] & ~allowed)
		return -EINVAL;
	vm->manual_dirty_log = cap->args[0] & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
	vm->manual_dirty_init_set = cap->args[0] & KVM_DIRTY_LOG_INITIALLY_SET;
	return 0;
}

unsigned caps_ring_reserved(const struct system *sys)
{
	return RING_RESERVED + (model_intel(sys->model) ? RING_PML : 0);
}

static int enable_dirty_ring(struct vm *vm, const struct kvm_enable_cap *cap)
{
	size_t least = caps_ring_reserved(api_system()) * sizeof(struct kvm_dirty_gfn);
	uint32_t size = cap->args[0];
	int r = -EINVAL;

	if (!size || size & (size - 1) || size < least || size < PAGE_SIZE)
		return -EINVAL;
	if (size > RING_MAX)
		return -E2BIG;
	pthread_mutex_lock(&vm->lock);
	if (!vm->dirty_ring_size && !vm->created_vcpus) {
		vm->dirty_ring_size = size;
		r = 0;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

static int enable_split_irqchip(struct vm *vm, const struct kvm_enable_cap *cap)
{
	return irqchip_split(vm, cap->args[0]);
}

static int enable_x2apic_api(struct vm *vm, const struct kvm_enable_cap *cap)
{
	if (cap->args[0] & ~(uint64_t)X2APIC_FLAGS)
		return -EINVAL;
	if (cap->args[0] & KVM_X2APIC_API_USE_32BIT_IDS)
		vm->x2apic_format = true;
	if (cap->args[0] & KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)
		vm->x2apic_broadcast_quirk_off = true;
	return 0;
}

static int enable_max_vcpu_id(struct vm *vm, const struct kvm_enable_cap *cap)
{
	int r = -EINVAL;

	if (cap->args[0] > VM_MAX_VCPU_ID)
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	if (vm->boot_cpu_id <= cap->args[0] &&
	    (!vm->max_vcpu_ids || vm->max_vcpu_ids == cap->args[0])) {
		vm->max_vcpu_ids = cap->args[0];
		r = 0;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

static int enable_platform_info(struct vm *vm, const struct kvm_enable_cap *cap)
{
	__atomic_store_n(&vm->hide_platform_info, !cap->args[0], __ATOMIC_RELAXED);
	return 0;
}

static int enable_exception_payload(struct vm *vm, const struct kvm_enable_cap *cap)
{
	return set_flag(&vm->exception_payload, cap);
}

static int enable_triple_fault_event(struct vm *vm, const struct kvm_enable_cap *cap)
{
	return set_flag(&vm->triple_fault_event, cap);
}

static int enable_halt_poll(struct vm *vm, const struct kvm_enable_cap *cap)
{
	if (cap->args[0] != (uint32_t)cap->args[0])
		return -EINVAL;
	__atomic_store_n(&vm->halt_poll, cap->args[0] | VM_HALT_POLL_SET, __ATOMIC_RELAXED);
	return 0;
}

static int enable_exit_on_emulation(struct vm *vm, const struct kvm_enable_cap *cap)
{
	return cap->args[0] & ~1ull ? -EINVAL : set_flag(&vm->exit_on_emulation, cap);
}

static int enable_user_space_msr(struct vm *vm, const struct kvm_enable_cap *cap)
{
	if (cap->args[0] & ~(uint64_t)MSR_REASONS)
		return -EINVAL;
	__atomic_store_n(&vm->user_space_msr_mask, cap->args[0], __ATOMIC_RELAXED);
	return 0;
}

static int enable_disable_quirks(struct vm *vm, const struct kvm_enable_cap *cap)
{
	__atomic_store_n(&vm->disabled_quirks, cap->args[0] & VM_QUIRKS, __ATOMIC_RELAXED);
	return 0;
}

static int enable_disable_quirks2(struct vm *vm, const struct kvm_enable_cap *cap)
{
	return cap->args[0] & ~(uint64_t)VM_QUIRKS ? -EINVAL : enable_disable_quirks(vm, cap);
}

/* A vCPU in HLT or PAUSE is not seen to be, where the two can be told apart (HLT without a local APIC). */
static int enable_disable_exits(struct vm *vm, const struct kvm_enable_cap *cap)
{
	if (cap->args[0] & ~(uint64_t)KVM_X86_DISABLE_VALID_EXITS)
		return -EINVAL;
	__atomic_fetch_or(&vm->disabled_exits, cap->args[0] & DISABLE_EXITS, __ATOMIC_RELAXED);
	return 0;
}

static int enable_exit_hypercall(struct vm *vm, const struct kvm_enable_cap *cap)
{
	if (cap->args[0] & ~HYPERCALL_EXITS)
		return -EINVAL;
	__atomic_store_n(&vm->hypercall_exits, cap->args[0], __ATOMIC_RELAXED);
	return 0;
}

/* The bus clock of the local APICs' timers. KVM's order: overflow of the longest period comes first. */
static int enable_apic_bus_cycles(struct vm *vm, const struct kvm_enable_cap *cap)
{
	uint64_t longest;
	int r = 0;

	if (!cap->args[0] || __builtin_mul_overflow(UINT32_MAX * 128ull, cap->args[0], &longest))
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	if (!vm_irqchip(vm))
		r = -ENXIO;
	else if (vm->created_vcpus)
		r = -EINVAL;
	else
		vm->apic_bus_cycle_ns = cap->args[0];
	pthread_mutex_unlock(&vm->lock);
	return r;
}

static enable_fn *enable_of(uint32_t cap)
{
	switch (cap) {
#define CAP(name, value, enable) \
	case KVM_CAP_##name:     \
		return enable;
#include "caps.def"
#undef CAP
	default:
		return none;
	}
}

/* Linux has no device type that a VM could create here (VFIO, and those of other architectures). */
long api_create_device(struct vm *vm, void *arg)
{
	return -ENODEV;
}

/* No memory is encrypted: as KVM on a processor without SEV. */
long api_encrypt_region(struct vm *vm, void *arg)
{
	return -ENOTTY;
}

long api_enable_cap_vm(struct vm *vm, void *arg)
{
	const struct kvm_enable_cap *cap = arg;

	return cap->flags ? -EINVAL : enable_of(cap->cap)(vm, cap);
}
