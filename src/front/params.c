/* SPDX-License-Identifier: MIT */
/*
 * Module parameters, as named on the command line: a name that no row of params.def has is refused, for
 * a parameter that does nothing would be a lie.
 */
#include "front/launcher.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum type { BOOL, UINT };

struct param {
	const char *name; /* MODULE.NAME */
	enum type type;
};

static const struct param params[] = {
#define PARAM(module, name, type, value, summary) {#module "." #name, type},
#include "params.def"
#undef PARAM
	{NULL, BOOL},
};

/* As the kernel reads them: y, n, Y, N, 0, 1. */
static bool bool_ok(const char *val)
{
	return val[0] && !val[1] && strchr("ynYN01", val[0]);
}

static bool uint_ok(const char *val)
{
	char *end;

	errno = 0;
	strtoul(val, &end, 0);
	return isdigit((unsigned char)val[0]) && !*end && !errno;
}

static const struct param *find(const char *text, size_t len)
{
	const struct param *param;

	for (param = params; param->name; param++) {
		if (strlen(param->name) == len && !memcmp(param->name, text, len))
			return param;
	}
	return NULL;
}

bool param_check(const char *text)
{
	const char *equals = strchr(text, '=');
	const struct param *param;

	if (!equals) {
		fprintf(stderr, "anykvm: --param wants MODULE.NAME=VALUE, not '%s'\n", text);
		return false;
	}
	param = find(text, (size_t)(equals - text));
	if (!param) {
		fprintf(stderr,
			"anykvm: unknown parameter '%.*s'; `anykvm run --help` lists them\n",
			(int)(equals - text), text);
		return false;
	}
	if (param->type == BOOL ? !bool_ok(equals + 1) : !uint_ok(equals + 1)) {
		fprintf(stderr, "anykvm: parameter %s wants %s, not '%s'\n", param->name,
			param->type == BOOL ? "y or n" : "a number", equals + 1);
		return false;
	}
	return true;
}
