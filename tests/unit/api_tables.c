/* SPDX-License-Identifier: MIT */
/*
 * The tables of KVM's interface: each ioctl of Linux 6.12 on x86 (those of tests/api/answers.c, which come from its
 * headers) is served or refused with a reason, and nothing is both.
 */
#include "kvm/api/api.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef bool nth_fn(unsigned nr, struct api_row *ret);

static const char *answers;

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

static bool listed(const char *name, unsigned number)
{
	struct api_row row;

	for (unsigned i = 0; api_ioctl_nth(i, &row); i++)
		if (!strcmp(row.name, name) && row.number == number)
			return true;
	return false;
}

static void all_are_listed(void **state)
{
	FILE *file = fopen(answers, "r");
	char line[256], name[64];
	unsigned number, n = 0;

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, " {\"%63[A-Z0-9_]\", %x,", name, &number) != 2)
			continue;
		n++;
		if (!listed(name, number))
			fail_msg("%s stands in neither table", name);
	}
	fclose(file);
	assert_int_equal(n, 103);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_stands_once),
		cmocka_unit_test(all_are_listed),
	};

	answers = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
