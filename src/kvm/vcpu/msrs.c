/* SPDX-License-Identifier: MIT */
/*
 * MSRs that belong to the vCPU rather than to silicon/: the APIC's, the TSC's, KVM's own; and the
 * ioctls that read and write any MSR, the machine-check bank and the TSC's attributes.
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/pv/hv.h"
#include "kvm/pv/pv.h"
#include "silicon/exec/exec.h"
#include "silicon/sys/sys.h"

#include <stdlib.h>
#include <string.h>

#define MSR_TSC		 0x10
#define MSR_TSC_ADJUST	 0x3b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_DOORBELL	 0xc001011b

#define MCG_CTL_P    BIT(8)
#define MCG_CMCI_P   BIT(10)
#define MCG_SER_P    BIT(24)
#define MCG_LMCE_P   BIT(27)
#define CTL2_CMCI_EN BIT(30)
#define MCI_VAL	     BIT(63)
#define MCI_OVER     BIT(62)
#define MCI_UC	     BIT(61)
#define MCI_PCC	     BIT(57)
#define MCI_S	     BIT(56)
#define MCI_AR	     BIT(55)
#define MCG_MCIP     BIT(2)
#define MAX_MSRS     256

uint64_t vcpu_tsc(const struct vcpu *vcpu)
{
	return vcpu_tsc_at(vcpu, clock_tsc(vcpu->vm));
}

/* ---- TSC ---- */

static void set_tsc_offset(struct vcpu *vcpu, uint64_t offset)
{
	vcpu->tsc_offset = offset;
	if (vcpu->lapic)
		lapic_tsc_changed(vcpu->lapic);
	vcpu_request(vcpu, REQ_CLOCK_UPDATE);
}

/*
 * Whether all are in step shows in each one's page. This one's is written at once: guests read the first vCPU's before that one is entered
 * again. Slots claimed.
 */
static void write_tsc(struct vcpu *vcpu, const struct clock_tsc_write *write)
{
	set_tsc_offset(vcpu, clock_tsc_write(vcpu->vm, write, &vcpu->tsc_generation));
	vcpu_request_all(vcpu->vm, REQ_CLOCK_UPDATE, false);
	if (write->by_program)
		pv_clock_update(vcpu);
}

static void set_tsc(struct vcpu *vcpu, uint64_t val, bool by_program)
{
	const struct clock_tsc_write write = {
		.val = val,
		.offset = val - vcpu_tsc_scaled(vcpu, clock_tsc(vcpu->vm)),
		.khz = vcpu->tsc_khz,
		.by_program = by_program,
	};

	write_tsc(vcpu, &write);
}

static void exact_tsc_offset(struct vcpu *vcpu, uint64_t offset)
{
	const struct clock_tsc_write write = {
		.val = vcpu_tsc_scaled(vcpu, clock_tsc(vcpu->vm)) + offset,
		.offset = offset,
		.khz = vcpu->tsc_khz,
		.by_program = true,
		.exact = true,
	};

	write_tsc(vcpu, &write);
}

/* The TSC's frequency from now on; the guest's TSC makes a step. No guest code runs. */
static void tsc_run_at(struct vcpu *vcpu, uint32_t khz)
{
	uint32_t host = clock_tsc_khz(vcpu->vm), apart = khz > host ? khz - host : host - khz;
	bool same = (uint64_t)apart * 1000000 <=
		    (uint64_t)host * vcpu->vm->ops->params.tsc_tolerance_ppm;
	const uint64_t *direct = same && !vcpu->vm->turns ? &vcpu->tsc_offset : NULL;

	vcpu->tsc_khz = khz;
	vcpu->tsc_ratio = BIT(VCPU_TSC_FRACTION);
	if (!same)
		vcpu->tsc_ratio = ((unsigned __int128)khz << VCPU_TSC_FRACTION) / host;
	/* Code that was translated reads the host's TSC, or asks. */
	if (vcpu->cpu.tsc_offset == direct)
		return;
	vcpu->cpu.tsc_offset = direct;
	exec_forget(&vcpu->cpu);
}

void vcpu_tsc_start(struct vcpu *vcpu)
{
	tsc_run_at(vcpu, __atomic_load_n(&vcpu->vm->tsc_khz, __ATOMIC_RELAXED));
	set_tsc(vcpu, 0, false);
}

static enum vcpu_msr tsc_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = vcpu_tsc(vcpu);
	return VCPU_MSR_OK;
}

static enum vcpu_msr tsc_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	uint64_t delta = val - vcpu_tsc(vcpu);

	if (host) {
		set_tsc(vcpu, val, true);
		return VCPU_MSR_OK;
	}
	vcpu->cpu.msr.tsc_adjust += delta;
	set_tsc_offset(vcpu, vcpu->tsc_offset + delta);
	return VCPU_MSR_OK;
}

static enum vcpu_msr adjust_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	if (!host && !feature_has(vcpu->cpu.guest_features, FEAT_TSC_ADJUST))
		return VCPU_MSR_UNKNOWN;
	*ret = vcpu->cpu.msr.tsc_adjust;
	return VCPU_MSR_OK;
}

/* The program restores the value alone; the TSC it sets apart. */
static enum vcpu_msr adjust_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	if (!host && !feature_has(vcpu->cpu.guest_features, FEAT_TSC_ADJUST))
		return VCPU_MSR_UNKNOWN;
	if (!host)
		set_tsc_offset(vcpu, vcpu->tsc_offset + val - vcpu->cpu.msr.tsc_adjust);
	vcpu->cpu.msr.tsc_adjust = val;
	return VCPU_MSR_OK;
}

/* ---- APIC ---- */

static enum vcpu_msr base_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = vcpu_get_apic_base(vcpu);
	return VCPU_MSR_OK;
}

static enum vcpu_msr base_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	return vcpu_set_apic_base(vcpu, val, host) ? VCPU_MSR_OK : VCPU_MSR_DENIED;
}

static enum vcpu_msr deadline_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = vcpu->lapic ? lapic_get_deadline(vcpu->lapic) : 0;
	return VCPU_MSR_OK;
}

static enum vcpu_msr deadline_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	if (vcpu->lapic)
		lapic_set_deadline(vcpu->lapic, val);
	return VCPU_MSR_OK;
}

static enum vcpu_msr x2apic_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	pv_eoi_sync(vcpu);
	if (!vcpu->lapic || !lapic_msr_read(vcpu->lapic, index, ret))
		return VCPU_MSR_DENIED;
	return VCPU_MSR_OK;
}

static enum vcpu_msr x2apic_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	pv_eoi_sync(vcpu);
	if (!vcpu->lapic || !lapic_msr_write(vcpu->lapic, index, val))
		return VCPU_MSR_DENIED;
	return VCPU_MSR_OK;
}

/* ---- AVIC ---- */

static bool has_id(const struct vcpu *vcpu, uint32_t id)
{
	const struct lapic *lapic = vcpu->lapic;

	if (!lapic)
		return false;
	return lapic_x2apic(lapic) ? lapic->config.id == id
				   : lapic_reg(lapic, LAPIC_ID) >> 24 == id;
}

/* Write-only, and not the program's. */
static enum vcpu_msr doorbell_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	return VCPU_MSR_UNKNOWN;
}

static enum vcpu_msr doorbell_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	unsigned nr = vm_nr_vcpus(vcpu->vm);

	if (host || !feature_has(vcpu->cpu.guest_features, FEAT_AVIC))
		return VCPU_MSR_UNKNOWN;
	if (val >> 32)
		return VCPU_MSR_DENIED;
	for (unsigned i = 0; i < nr; i++)
		if (has_id(vcpu->vm->vcpus[i], val))
			vcpu_request(vcpu->vm->vcpus[i], REQ_DOORBELL);
	return VCPU_MSR_OK;
}

/* ---- dispatch ---- */

static const struct own_msr {
	uint32_t first, last;
	enum vcpu_msr (*get)(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret);
	enum vcpu_msr (*set)(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val);
} own_msrs[] = {
	{MSR_TSC, MSR_TSC, tsc_get, tsc_set},
	{MSR_APIC_BASE, MSR_APIC_BASE, base_get, base_set},
	{MSR_TSC_ADJUST, MSR_TSC_ADJUST, adjust_get, adjust_set},
	{MSR_TSC_DEADLINE, MSR_TSC_DEADLINE, deadline_get, deadline_set},
	{LAPIC_MSR_FIRST, LAPIC_MSR_LAST, x2apic_get, x2apic_set},
	{MSR_DOORBELL, MSR_DOORBELL, doorbell_get, doorbell_set},
	{MSR_FEATURE_CONTROL, MSR_FEATURE_CONTROL, vcpu_feature_control_get,
	 vcpu_feature_control_set},
	{MSR_VMX_FIRST, MSR_VMX_FIRST + NR_VMX_MSRS - 1, vcpu_vmx_msr_get, vcpu_vmx_msr_set},
};

static const struct own_msr *find_own(uint32_t index)
{
	for (unsigned i = 0; i < ARRAY_SIZE(own_msrs); i++)
		if (index >= own_msrs[i].first && index <= own_msrs[i].last)
			return &own_msrs[i];
	return NULL;
}

static enum vcpu_msr from_pv(enum pv_result r)
{
	return r == PV_OK ? VCPU_MSR_OK : r == PV_UNKNOWN ? VCPU_MSR_UNKNOWN : VCPU_MSR_DENIED;
}

enum vcpu_msr vcpu_msr_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	const struct own_msr *own = find_own(index);

	if (own)
		return own->get(vcpu, index, host, ret);
	return from_pv(pv_msr_get(vcpu, index, host, ret));
}

enum vcpu_msr vcpu_msr_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	const struct own_msr *own = find_own(index);

	if (own)
		return own->set(vcpu, index, host, val);
	return from_pv(pv_msr_set(vcpu, index, host, val));
}

/* ---- KVM_GET_MSRS, KVM_SET_MSRS ---- */

bool vcpu_msr_ignored(const struct vcpu *vcpu, uint32_t index, bool write)
{
	const struct vm_params *params = &vcpu->vm->ops->params;

	if (params->ignore_msrs && params->report_ignored_msrs)
		host_log("ignored %s of MSR 0x%x", write ? "write" : "read", index);
	return params->ignore_msrs;
}

static bool get_one(struct vcpu *vcpu, struct kvm_msr_entry *e)
{
	uint64_t data = 0;
	enum vcpu_msr r = vcpu_msr_get(vcpu, e->index, true, &data);
	enum msr_result below = MSR_OK;

	if (r == VCPU_MSR_UNKNOWN)
		below = sys_msr_get(&vcpu->cpu, e->index, MSR_HOST, &data);
	if (below == MSR_UNKNOWN && vcpu_msr_ignored(vcpu, e->index, false)) {
		below = MSR_OK;
		data = 0;
	}
	if (r == VCPU_MSR_DENIED || below != MSR_OK)
		return false;
	e->data = data;
	return true;
}

static bool set_one(struct vcpu *vcpu, struct kvm_msr_entry *e)
{
	enum vcpu_msr r = vcpu_msr_set(vcpu, e->index, true, e->data);
	enum msr_result below;

	if (r != VCPU_MSR_UNKNOWN)
		return r == VCPU_MSR_OK;
	below = sys_msr_set(&vcpu->cpu, e->index, MSR_HOST, e->data);
	return below == MSR_OK || (below == MSR_UNKNOWN && vcpu_msr_ignored(vcpu, e->index, true));
}

/* How many entries were dealt with before the first that failed, or -errno. */
static long msr_io(struct vcpu *vcpu, void *user, bool write_back,
		   bool (*one)(struct vcpu *vcpu, struct kvm_msr_entry *e))
{
	struct kvm_msrs head;
	struct kvm_msr_entry *e;
	void *entries = ioctl_behind(user, sizeof(head));
	size_t size;
	long n = -EFAULT;

	if (ioctl_copy_in(&head, user, sizeof(head)))
		return -EFAULT;
	if (head.nmsrs >= MAX_MSRS)
		return -E2BIG;
	size = head.nmsrs * sizeof(*e);
	e = malloc(size + 1);
	if (!e)
		return -ENOMEM;
	if (!ioctl_copy_in(e, entries, size)) {
		for (n = 0; n < head.nmsrs; n++)
			if (!one(vcpu, &e[n]))
				break;
		if (write_back && ioctl_copy_out(entries, e, size))
			n = -EFAULT;
	}
	free(e);
	return n;
}

long vcpu_get_msrs(struct vcpu *vcpu, void *arg)
{
	return msr_io(vcpu, arg, true, get_one);
}

long vcpu_set_msrs(struct vcpu *vcpu, void *arg)
{
	vcpu_follow_quirks(vcpu);
	return msr_io(vcpu, arg, false, set_one);
}

/* ---- machine check ---- */

uint64_t vcpu_mce_cap_supported(const struct cpu_model *model)
{
	return MCG_CTL_P | MCG_SER_P | (model_intel(model) ? MCG_CMCI_P | MCG_LMCE_P : 0);
}

long vcpu_setup_mce(struct vcpu *vcpu, void *arg)
{
	uint64_t cap = *(uint64_t *)arg;
	unsigned banks = cap & 0xff;

	if (!banks || banks > ARRAY_SIZE(vcpu->cpu.msr.mci_ctl2))
		return -EINVAL;
	if (cap & ~(vcpu_mce_cap_supported(vcpu->cpu.model) | 0xff | 0xff0000))
		return -EINVAL;
	sys_mce_setup(&vcpu->cpu, cap);
	vcpu_lapic_configure(vcpu);
	return 0;
}

/* Uncorrected, but no action is required: no exception (SDM, UCNA errors). */
static bool is_ucna(const struct kvm_x86_mce *mce)
{
	return !mce->mcg_status && !(mce->status & (MCI_PCC | MCI_S | MCI_AR)) &&
	       (mce->status & MCI_UC);
}

static void bank_store(uint64_t *bank, const struct kvm_x86_mce *mce)
{
	bool full = bank[1] & MCI_VAL;

	bank[1] = mce->status | (full && !is_ucna(mce) ? MCI_OVER : 0);
	bank[2] = mce->addr;
	bank[3] = mce->misc;
}

static void raise_uncorrected(struct vcpu *vcpu, uint64_t *bank, const struct kvm_x86_mce *mce)
{
	struct msrs *msr = &vcpu->cpu.msr;

	if (((msr->mcg_cap & MCG_CTL_P) && msr->mcg_ctl != ~0ull) || bank[0] != ~0ull)
		return;
	if ((msr->mcg_status & MCG_MCIP) || !(vcpu->cpu.cr4 & CR4_MCE)) {
		vcpu_request(vcpu, REQ_TRIPLE_FAULT);
		return;
	}
	bank_store(bank, mce);
	msr->mcg_status = mce->mcg_status;
	vcpu_queue_exception(vcpu, VEC_MC);
}

/* SDM, corrected machine-check error interrupt. */
static void raise_cmci(struct vcpu *vcpu, unsigned bank)
{
	const struct msrs *msr = &vcpu->cpu.msr;

	if (vcpu->lapic && (msr->mcg_cap & MCG_CMCI_P) && (msr->mci_ctl2[bank] & CTL2_CMCI_EN))
		lapic_local_deliver(vcpu->lapic, LAPIC_LVT_CMCI);
}

long vcpu_set_mce(struct vcpu *vcpu, void *arg)
{
	const struct kvm_x86_mce *mce = arg;
	struct msrs *msr = &vcpu->cpu.msr;
	uint64_t *bank;

	if (mce->bank >= (msr->mcg_cap & 0xff) || !(mce->status & MCI_VAL))
		return -EINVAL;
	bank = &msr->mce_banks[4 * mce->bank];
	if (is_ucna(mce)) {
		bank_store(bank, mce);
		msr->mcg_status = mce->mcg_status;
		raise_cmci(vcpu, mce->bank);
	} else if (mce->status & MCI_UC) {
		raise_uncorrected(vcpu, bank, mce);
	} else if ((bank[1] & MCI_VAL) && (bank[1] & MCI_UC)) {
		bank[1] |= MCI_OVER;
	} else {
		bank_store(bank, mce);
	}
	return 0;
}

/* ---- TSC frequency and offset ---- */

long vcpu_get_tsc_khz(struct vcpu *vcpu, void *arg)
{
	return vcpu->tsc_khz;
}

long vcpu_set_tsc_khz(struct vcpu *vcpu, void *arg)
{
	uint32_t khz = (uint32_t)(uintptr_t)arg;

	if (khz >= vm_tsc_khz_limit(vcpu->vm))
		return -EINVAL;
	tsc_run_at(vcpu, khz ? khz : (uint32_t)clock_tsc_khz(vcpu->vm));
	vcpu_lapic_configure(vcpu);
	if (vcpu->lapic)
		lapic_tsc_changed(vcpu->lapic);
	vcpu_request(vcpu, REQ_CLOCK_UPDATE);
	pv_clock_update(vcpu);
	return 0;
}

static int check_attr(const struct kvm_device_attr *attr)
{
	if (attr->group != KVM_VCPU_TSC_CTRL || attr->attr != KVM_VCPU_TSC_OFFSET)
		return -ENXIO;
	return 0;
}

long vcpu_has_device_attr(struct vcpu *vcpu, void *arg)
{
	return check_attr(arg);
}

long vcpu_get_device_attr(struct vcpu *vcpu, void *arg)
{
	const struct kvm_device_attr *attr = arg;
	int r = check_attr(attr);

	return r ? r : ioctl_copy_out((void *)(uintptr_t)attr->addr, &vcpu->tsc_offset, 8);
}

long vcpu_set_device_attr(struct vcpu *vcpu, void *arg)
{
	const struct kvm_device_attr *attr = arg;
	int r = check_attr(attr);
	uint64_t offset;

	if (!r)
		r = ioctl_copy_in(&offset, (void *)(uintptr_t)attr->addr, 8);
	if (!r)
		exact_tsc_offset(vcpu, offset);
	return r;
}

/* ---- odds and ends of KVM's own ---- */

long vcpu_kvmclock_ctrl(struct vcpu *vcpu, void *arg)
{
	int r = pv_clock_paused(vcpu->pv);

	if (!r)
		vcpu_request(vcpu, REQ_CLOCK_UPDATE);
	return r;
}

long vcpu_enable_cap(struct vcpu *vcpu, void *arg)
{
	const struct kvm_enable_cap *cap = arg;

	if (cap->flags)
		return -EINVAL;
	if (cap->cap != KVM_CAP_ENFORCE_PV_FEATURE_CPUID)
		return pv_hv_enable_cap(vcpu, cap);
	vcpu->pv_enforce = cap->args[0];
	return 0;
}

long vcpu_get_stats_fd(struct vcpu *vcpu, void *arg)
{
	return stats_open_fd(vcpu->stats);
}
