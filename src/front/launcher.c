/* SPDX-License-Identifier: MIT */
/*
 * main() of the command: options of its own, then a verb.
 */
#include "front/launcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct verb verbs[] = {
#define VERB(name, summary) {#name, summary, verb_##name},
#include "verbs.def"
#undef VERB
};

static int help(FILE *to)
{
	size_t i;

	fprintf(to,
		"usage: anykvm VERB [ARGS]\n\nKVM in user space, where the machine has none.\n\n");
	for (i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(to, "  %-8s %s\n", verbs[i].name, verbs[i].summary);
	fprintf(to,
		"\n`anykvm VERB --help` tells more, and so does its page: man anykvm-VERB.\n"
		"Exit status: the program's; 125 an error of anykvm's own, 126 the program cannot\n"
		"be run, 127 it was not found.\n");
	return to == stdout ? launcher_flush() : EXIT_OURS;
}

int launcher_help(void)
{
	return help(stdout);
}

const struct verb *launcher_verb(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(name, verbs[i].name))
			return &verbs[i];
	return NULL;
}

int main(int argc, char **argv)
{
	const struct verb *verb;

	if (argc < 2)
		return help(stderr);
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return launcher_help();
	if (!strcmp(argv[1], "--version")) {
		printf("anykvm %s\n", ANYKVM_VERSION);
		return launcher_flush();
	}
	verb = launcher_verb(argv[1]);
	if (verb)
		return verb->run(argc - 1, argv + 1);
	if (*argv[1] == '-')
		return launcher_error("unknown option '%s'; see `anykvm --help`", argv[1]);
	return launcher_error("unknown verb '%s'; see `anykvm --help`, or to run a program: "
			      "anykvm run -- PROGRAM ARGS",
			      argv[1]);
}
