/* SPDX-License-Identifier: MIT */
/* anykvm help [VERB | ioctls | caps]: what of KVM's interface is served, by the tables that dispatch it. */
#include "front/launcher.h"
#include "kvm/api/api.h"

#include <stdio.h>
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

static int help_verb(const char *name)
{
	char *args[] = {(char *)name, "--help", NULL};
	const struct verb *verb = launcher_verb(name);

	if (verb)
		return verb->run(2, args);
	return launcher_error("help knows the verbs, ioctls and caps, not '%s'", name);
}

int verb_help(int argc, char **argv)
{
	if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    !strcmp(argv[1], "help"))
		return launcher_help();
	if (argc > 2)
		return launcher_error("help takes one word: a verb, ioctls or caps");
	if (!strcmp(argv[1], "ioctls"))
		return help_ioctls();
	if (!strcmp(argv[1], "caps"))
		return help_caps();
	return help_verb(argv[1]);
}
