/* SPDX-License-Identifier: MIT */
/*
 * Permission for dynamic XSAVE components of guests, as arch_prctl(2) gives it (Linux, XSTATE features): AMX's tiles. It is
 * the process's, goes to its children, and ends with execve(2). The first vCPU, of whatever VM, fixes it.
 */
#include "kvm/api/api_internal.h"

#include <errno.h>

#define XFEATURES   19 /* that Linux 6.12 knows */
#define TILEDATA_NR 18

/* Beside the components in struct vm_ops' ->permitted. */
#define FIXED BIT(63)

void api_permission_fix(struct system *sys)
{
	__atomic_fetch_or(&sys->ops.permitted, FIXED, __ATOMIC_SEQ_CST);
}

static long permit(uint64_t *permitted, uint64_t component)
{
	uint64_t old = __atomic_load_n(permitted, __ATOMIC_SEQ_CST);

	do {
		if (old & component)
			return 0;
		if (old & FIXED)
			return -EBUSY;
	} while (!__atomic_compare_exchange_n(permitted, &old, old | component, false,
					      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
	return 0;
}

long api_permission_request(unsigned long component)
{
	struct system *sys = api_system();

	if (component >= XFEATURES)
		return -EINVAL;
	if (component != TILEDATA_NR || !(sys->model->xcr0 & XCR0_TILEDATA))
		return -EOPNOTSUPP;
	return permit(&sys->ops.permitted, XCR0_TILEDATA);
}

long api_permission_get(uint64_t *user)
{
	const struct system *sys = api_system();
	uint64_t permitted = sys->model->xcr0 & ~XCR0_TILEDATA;

	permitted |= __atomic_load_n(&sys->ops.permitted, __ATOMIC_SEQ_CST) & ~FIXED;
	return ioctl_copy_out(user, &permitted, sizeof(permitted));
}
