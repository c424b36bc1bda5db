/* SPDX-License-Identifier: MIT */
/*
 * MSR lists and feature MSRs of the system fd (KVM api.rst, KVM_GET_MSR_INDEX_LIST and
 * KVM_GET_MSRS): made of silicon's rows, which name KVM's own MSRs too.
 */
#include "kvm/api/api_internal.h"
#include "silicon/sys/sys.h"

#define MAX_IO_MSRS 256
#define MAX_LIST    1024

/* E2BIG, with the right number told, if the program's array is too small. */
static long list_out(const struct system *sys, void *user, enum msr_list_kind kind)
{
	uint32_t indices[MAX_LIST];
	struct kvm_msr_list head;
	uint32_t room;

	if (ioctl_copy_in(&head, user, sizeof(head)))
		return -EFAULT;
	room = head.nmsrs;
	head.nmsrs = sys_msr_list(sys->model, kind, indices, MAX_LIST);
	if (ioctl_copy_out(user, &head, sizeof(head)))
		return -EFAULT;
	if (room < head.nmsrs)
		return -E2BIG;
	return ioctl_copy_out(ioctl_behind(user, sizeof(head)), indices,
			      head.nmsrs * sizeof(indices[0]));
}

long api_msr_index_list(struct system *sys, void *arg)
{
	return list_out(sys, arg, MSR_LIST_SAVE);
}

long api_msr_feature_list(struct system *sys, void *arg)
{
	return list_out(sys, arg, MSR_LIST_FEATURE);
}

static bool feature_value(const struct system *sys, uint32_t index, uint64_t *ret)
{
	if (!sys_msr_feature(sys->model, index, ret))
		return false;
	if (index - MSR_VMX_FIRST < NR_VMX_MSRS)
		*ret = vmx_caps_read(NULL, &sys->vmx, index - MSR_VMX_FIRST);
	return true;
}

/* KVM_GET_MSRS on the system fd: how many could be read, in order, before the first unknown. */
long api_get_feature_msrs(struct system *sys, void *arg)
{
	struct kvm_msr_entry entries[MAX_IO_MSRS];
	struct kvm_msrs head;
	void *user = ioctl_behind(arg, sizeof(head));
	unsigned n;

	if (ioctl_copy_in(&head, arg, sizeof(head)))
		return -EFAULT;
	if (head.nmsrs >= MAX_IO_MSRS)
		return -E2BIG;
	if (ioctl_copy_in(entries, user, head.nmsrs * sizeof(entries[0])))
		return -EFAULT;
	for (n = 0; n < head.nmsrs; n++) {
		uint64_t val;

		if (!feature_value(sys, entries[n].index, &val))
			break;
		entries[n].data = val;
	}
	if (ioctl_copy_out(user, entries, head.nmsrs * sizeof(entries[0])))
		return -EFAULT;
	return n;
}
