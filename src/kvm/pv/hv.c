/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V's state of VMs and vCPUs: made with them, so that the program can restore MSRs before it sets CPUID;
 * what the guest may use follows its CPUID leaves.
 */
#include "kvm/pv/hv_internal.h"
#include "kvm/vm/ioctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int pv_hv_vm_create(struct vm *vm)
{
	struct hv_vm *hv = calloc(1, sizeof(*hv));

	if (!hv)
		return -ENOMEM;
	pthread_mutex_init(&hv->lock, NULL);
	pthread_mutex_init(&hv->connections_lock, NULL);
	vm->pv->hv = hv;
	return 0;
}

void pv_hv_vm_destroy(struct vm *vm)
{
	struct hv_vm *hv = vm->pv->hv;

	if (!hv)
		return;
	while (hv->connections) {
		struct hv_connection *c = hv->connections;

		hv->connections = c->next;
		close(c->fd);
		free(c);
	}
	free(hv);
}

int pv_hv_create(struct vcpu *vcpu)
{
	struct hv *hv = calloc(1, sizeof(*hv));

	if (!hv)
		return -ENOMEM;
	pthread_mutex_init(&hv->flush_lock, NULL);
	vcpu->pv->hv = hv;
	hv_synic_init(hv);
	hv_stimer_init(vcpu);
	hv->vp_index = vm_nr_vcpus(vcpu->vm); /* the place that it is going to have */
	return 0;
}

void pv_hv_destroy(struct vcpu *vcpu)
{
	if (!vcpu->pv->hv)
		return;
	hv_stimer_stop(vcpu);
	free(vcpu->pv->hv);
}

/* ---- CPUID ---- */

static const struct kvm_cpuid_entry2 *find_leaf(const struct vcpu *vcpu, uint32_t leaf)
{
	static const struct kvm_cpuid_entry2 none;

	for (unsigned i = 0; i < vcpu->nr_cpuid; i++)
		if (vcpu->cpuid[i].function == leaf)
			return &vcpu->cpuid[i];
	return &none;
}

void pv_hv_cpuid_changed(struct vcpu *vcpu)
{
	struct hv *hv = hv_of(vcpu);
	const struct kvm_cpuid_entry2 *e;

	hv->enabled = find_leaf(vcpu, HV_CPUID_INTERFACE)->eax == HV_SIGNATURE;
	memset(&hv->cpuid, 0, sizeof(hv->cpuid));
	if (!hv->enabled) {
		hv_nested_offer(vcpu);
		return;
	}
	e = find_leaf(vcpu, HV_CPUID_FEATURES);
	hv->cpuid.features_eax = e->eax;
	hv->cpuid.features_ebx = e->ebx;
	hv->cpuid.features_edx = e->edx;
	e = find_leaf(vcpu, HV_CPUID_ENLIGHTENMENTS);
	hv->cpuid.enlightenments_eax = e->eax;
	hv->cpuid.enlightenments_ebx = e->ebx;
	hv->cpuid.syndbg_eax = find_leaf(vcpu, HV_CPUID_SYNDBG_CAPS)->eax;
	e = find_leaf(vcpu, HV_CPUID_NESTED);
	hv->cpuid.nested_eax = e->eax;
	hv->cpuid.nested_ebx = e->ebx;
	hv_nested_offer(vcpu);
}

bool pv_hv_invtsc_hidden(const struct vcpu *vcpu)
{
	return hv_of(vcpu)->cpuid.features_eax & HV_ACCESS_TSC_INVARIANT &&
	       !(__atomic_load_n(&hv_vm_of(vcpu->vm)->invtsc_control, __ATOMIC_RELAXED) &
		 HV_EXPOSE_INVARIANT);
}

static const struct {
	uint32_t leaf;
	const char *text; /* EBX, ECX, EDX */
	uint32_t eax, ebx, edx;
	uint32_t lapic_eax, lapic_edx; /* with an in-kernel local APIC only */
} leaves[] = {
	{HV_CPUID_VENDOR, .text = "Linux KVM Hv", .eax = HV_CPUID_SYNDBG_CAPS},
	{HV_CPUID_INTERFACE, .eax = HV_SIGNATURE},
	/* Hyper-V 2016, as KVM says. */
	{HV_CPUID_VERSION, .eax = 0x3839, .ebx = 0xa0000},
	{HV_CPUID_FEATURES,
	 .eax = HV_ACCESS_VP_RUNTIME | HV_ACCESS_TIME_REF_COUNT | HV_ACCESS_SYNIC |
		HV_ACCESS_STIMERS | HV_ACCESS_APIC | HV_ACCESS_HYPERCALL | HV_ACCESS_VP_INDEX |
		HV_ACCESS_RESET | HV_ACCESS_REFERENCE_TSC | HV_ACCESS_FREQUENCIES |
		HV_ACCESS_REENLIGHTENMENT | HV_ACCESS_TSC_INVARIANT,
	 .ebx = HV_POST_MESSAGES | HV_SIGNAL_EVENTS | HV_EXTENDED_CALLS | HV_DEBUGGING,
	 .edx = HV_XMM_INPUT | HV_FREQUENCY_MSRS | HV_CRASH_MSRS | HV_GUEST_DEBUGGING |
		HV_DEBUG_MSRS | HV_EXT_GVA_RANGES_FLUSH,
	 .lapic_edx = HV_STIMER_DIRECT_MODE},
	{HV_CPUID_ENLIGHTENMENTS,
	 .eax = HV_USE_REMOTE_FLUSH | HV_USE_APIC_MSRS | HV_USE_RELAXED_TIMING | HV_USE_EX_MASKS |
		HV_DEPRECATE_AUTO_EOI,
	 .ebx = 0xfff, /* spinlock retries */
	 .lapic_eax = HV_USE_CLUSTER_IPI},
	{HV_CPUID_LIMITS, .eax = VM_MAX_VCPUS, .ebx = 64},
	{HV_CPUID_SYNDBG_VENDOR, .text = "Linux KVM Hv"},
	{HV_CPUID_SYNDBG_IFACE, .eax = 0x31235356}, /* "VS#1" */
	{HV_CPUID_SYNDBG_CAPS, .eax = HV_SYNDBG_KERNEL_DEBUGGING},
	{HV_CPUID_NESTED, .eax = HV_NESTED_DIRECT_FLUSH | HV_NESTED_MSR_BITMAP,
	 .ebx = HV_NESTED_PERF_CTRL},
};

/* No two vCPUs can share a core without being told so, if the host has no SMT at all. */
static bool smt_possible(void)
{
	char text[16] = "";
	FILE *f = fopen("/sys/devices/system/cpu/smt/control", "re");

	if (!f)
		return true;
	if (!fgets(text, sizeof(text), f))
		text[0] = 0;
	fclose(f);
	return strncmp(text, "forceoff", 8) && strncmp(text, "notsupported", 12);
}

static void fill_leaf(unsigned i, bool lapic, uint16_t evmcs, struct kvm_cpuid_entry2 *ret)
{
	*ret = (struct kvm_cpuid_entry2){
		.function = leaves[i].leaf,
		.eax = leaves[i].eax | (lapic ? leaves[i].lapic_eax : 0),
		.ebx = leaves[i].ebx,
		.edx = leaves[i].edx | (lapic ? leaves[i].lapic_edx : 0),
	};
	if (leaves[i].text) {
		memcpy(&ret->ebx, leaves[i].text, 4);
		memcpy(&ret->ecx, leaves[i].text + 4, 4);
		memcpy(&ret->edx, leaves[i].text + 8, 4);
	}
	if (leaves[i].leaf == HV_CPUID_ENLIGHTENMENTS && !smt_possible())
		ret->eax |= HV_NO_CORE_SHARING;
	if (leaves[i].leaf == HV_CPUID_ENLIGHTENMENTS && evmcs)
		ret->eax |= HV_USE_EVMCS;
	if (leaves[i].leaf == HV_CPUID_NESTED)
		ret->eax |= evmcs;
}

long pv_hv_supported_cpuid(const struct vcpu *vcpu, bool vmx, void *user)
{
	struct kvm_cpuid_entry2 v[ARRAY_SIZE(leaves)];
	struct kvm_cpuid2 head;

	if (ioctl_copy_in(&head, user, sizeof(head)))
		return -EFAULT;
	if (head.nent < ARRAY_SIZE(leaves))
		return -E2BIG;
	head.nent = ARRAY_SIZE(leaves);
	for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++)
		fill_leaf(i, !vcpu || vcpu->lapic, hv_evmcs_version(vcpu, vmx), &v[i]);
	if (ioctl_copy_out(ioctl_behind(user, sizeof(head)), v, sizeof(v)) ||
	    ioctl_copy_out(user, &head, sizeof(head)))
		return -EFAULT;
	return 0;
}

/* ---- capabilities and exits ---- */

static int activate_synic(struct vcpu *vcpu, bool keep_pages)
{
	struct hv *hv = hv_of(vcpu);

	if (!vm_irqchip(vcpu->vm))
		return -EINVAL;
	hv->synic_keep_pages = keep_pages;
	hv->scontrol = HV_SCONTROL_ENABLE;
	__atomic_store_n(&hv->synic, true, __ATOMIC_RELEASE);
	return 0;
}

int pv_hv_enable_cap(struct vcpu *vcpu, const struct kvm_enable_cap *cap)
{
	switch (cap->cap) {
	case KVM_CAP_HYPERV_SYNIC:
		return activate_synic(vcpu, false);
	case KVM_CAP_HYPERV_SYNIC2:
		return cap->args[0] ? -EINVAL : activate_synic(vcpu, true);
	case KVM_CAP_HYPERV_ENFORCE_CPUID:
		hv_of(vcpu)->enforce = cap->args[0];
		return 0;
	case KVM_CAP_HYPERV_ENLIGHTENED_VMCS:
		return hv_evmcs_enable(vcpu, (void *)(uintptr_t)cap->args[0]);
	default:
		return -EINVAL;
	}
}

const struct kvm_hyperv_exit *pv_hv_exit(const struct vcpu *vcpu)
{
	return &hv_of(vcpu)->exit;
}

void pv_hv_exit_done(struct vcpu *vcpu, const struct kvm_hyperv_exit *answer)
{
	struct hv_vm *hv = hv_vm_of(vcpu->vm);

	if (hv_of(vcpu)->exit.type != KVM_EXIT_HYPERV_SYNDBG ||
	    answer->u.syndbg.msr != HV_MSR_SYNDBG_CONTROL)
		return;
	pthread_mutex_lock(&hv->lock);
	hv->syndbg.status = answer->u.syndbg.status;
	pthread_mutex_unlock(&hv->lock);
}
