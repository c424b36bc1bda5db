/* SPDX-License-Identifier: MIT */
/*
 * The tables of KVM's interface: an ioctl or a capability is served, or refused with a reason, and nothing is both.
 */
#include "kvm/api/api.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

typedef bool nth_fn(unsigned nr, struct api_row *ret);

static bool same(const struct api_row *a, const struct api_row *b)
{
	return !strcmp(a->name, b->name) && (!a->fd || !strcmp(a->fd, b->fd));
}

static void check_once(nth_fn *nth)
{
	struct api_row a, b;

	for (unsigned i = 0; nth(i, &a); i++) {
		assert_true(!a.why_not || *a.why_not);
		for (unsigned j = 0; j < i && nth(j, &b); j++)
			if (same(&a, &b))
				fail_msg("%s stands twice", a.name);
	}
}

static void each_stands_once(void **state)
{
	assert_int_equal(api_init(NULL, NULL), 0);
	check_once(api_ioctl_nth);
	check_once(api_cap_nth);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_stands_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
