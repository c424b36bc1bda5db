/* SPDX-License-Identifier: MIT */
/* What /dev/kvm itself answers (KVM api.rst, system ioctls). */
#include "kvm/api/api_internal.h"
#include "silicon/models/model.h"

#include <string.h>

long api_version(struct system *sys, void *arg)
{
	return arg ? -EINVAL : KVM_API_VERSION;
}

long api_vcpu_mmap_size(struct system *sys, void *arg)
{
	return arg ? -EINVAL : (long)VCPU_MMAP_SIZE;
}

long api_supported_cpuid(struct system *sys, void *arg)
{
	return cpuid_get_supported(sys->model, sys->ops.permitted, arg);
}

long api_emulated_cpuid(struct system *sys, void *arg)
{
	return cpuid_get_emulated(sys->model, arg);
}

long api_supported_hv_cpuid(struct system *sys, void *arg)
{
	return pv_hv_supported_cpuid(NULL, sys->ops.params.vmx, arg);
}

long api_mce_cap(struct system *sys, void *arg)
{
	uint64_t cap = vcpu_mce_cap_supported(sys->model);

	memcpy(arg, &cap, sizeof(cap));
	return 0;
}

/* ---- device attributes of the system ---- */

static bool attr_get(const struct system *sys, const struct kvm_device_attr *attr, uint64_t *ret)
{
	if (attr->group || attr->attr != KVM_X86_XCOMP_GUEST_SUPP)
		return false;
	*ret = sys->model->xcr0;
	return true;
}

long api_has_device_attr(struct system *sys, void *arg)
{
	uint64_t val;

	return attr_get(sys, arg, &val) ? 0 : -ENXIO;
}

long api_get_device_attr(struct system *sys, void *arg)
{
	const struct kvm_device_attr *attr = arg;
	uint64_t val;

	if (!attr_get(sys, attr, &val))
		return -ENXIO;
	return ioctl_copy_out((void *)attr->addr, &val, sizeof(val));
}
