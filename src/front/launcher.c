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
		"\n`anykvm VERB --help` tells more. Exit status: the program's; 125 an error of\n"
		"anykvm's own, 126 the program cannot be run, 127 it was not found.\n");
	return fflush(to) ? EXIT_OURS : 0;
}

int launcher_help(void)
{
	return help(stdout);
}

int main(int argc, char **argv)
{
	size_t i;

	if (argc < 2) {
		help(stderr);
		return EXIT_OURS;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return launcher_help();
	if (!strcmp(argv[1], "--version")) {
		printf("anykvm %s\n", ANYKVM_VERSION);
		return fflush(stdout) ? EXIT_OURS : 0;
	}
	for (i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (!strcmp(argv[1], verbs[i].name))
			return verbs[i].run(argc - 1, argv + 1);
	}
	fprintf(stderr, "anykvm: unknown verb '%s'; to run a program: anykvm run -- PROGRAM ARGS\n",
		argv[1]);
	return EXIT_OURS;
}
