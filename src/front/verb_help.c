/* SPDX-License-Identifier: MIT */
/*
 * anykvm help [VERB | ioctls | caps | params | events]: what of KVM's interface is served, by the tables that dispatch it, which module
 * parameters there are, and which trace events with which fields.
 */
#include "front/trace.h"
#include "kvm/api/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int help_ioctls(void)
{
	struct api_row row;

	for (unsigned i = 0; api_ioctl_nth(i, &row); i++)
		printf("%-7s %-32s 0x%08x %s%s\n", row.fd, row.name, row.number,
		       row.why_not ? "no: " : "yes", row.why_not ? row.why_not : "");
	return launcher_flush();
}

static int help_caps(void)
{
	struct api_row row;

	if (api_init(NULL, NULL))
		return EXIT_OURS;
	for (unsigned i = 0; api_cap_nth(i, &row); i++) {
		printf("%-3u %-34s ", row.number, row.name);
		if (row.why_not)
			printf("no: %s\n", row.why_not);
		else
			printf("%ld\n", row.value);
	}
	return launcher_flush();
}

static int help_params(void)
{
	struct api_param param;

	for (unsigned i = 0; api_param_nth(i, &param); i++)
		printf("%s.%s=%s%s: %s\n", param.module, param.name, param.value,
		       param.fixed ? "" : " or another", param.summary);
	return launcher_flush();
}

/* Of a format file the names of the fields, without those that all events have. */
static void print_fields(const char *format)
{
	const char *line, *end, *name;

	for (line = format; (line = strstr(line, "\tfield:")); line = end) {
		end = strchr(line, ';');
		for (name = end; name[-1] != ' '; name--)
			;
		if (strncmp(name, "common_", 7))
			printf(" %.*s", (int)(end - name), name);
	}
}

static int help_events(void)
{
	const char *system;
	char *format;

	for (unsigned i = 0; (format = trace_format(i, &system)); i++) {
		const char *name = format + strlen("name: ");

		printf("%s:%.*s", system, (int)strcspn(name, "\n"), name);
		print_fields(format);
		putchar('\n');
		free(format);
	}
	return launcher_flush();
}

static const struct {
	const char *name;
	int (*tell)(void);
} lists[] = {
	{"ioctls", help_ioctls},
	{"caps", help_caps},
	{"params", help_params},
	{"events", help_events},
};

static int help_verb(const char *name)
{
	char *args[] = {(char *)name, "--help", NULL};
	const struct verb *verb = launcher_verb(name);

	if (verb)
		return verb->run(2, args);
	return launcher_error("help knows the verbs, ioctls, caps, params and events, not '%s'",
			      name);
}

int verb_help(int argc, char **argv)
{
	if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    !strcmp(argv[1], "help"))
		return launcher_help();
	if (argc > 2)
		return launcher_error(
			"help takes one word: a verb, ioctls, caps, params or events");
	for (unsigned i = 0; i < ARRAY_SIZE(lists); i++)
		if (!strcmp(argv[1], lists[i].name))
			return lists[i].tell();
	return help_verb(argv[1]);
}
