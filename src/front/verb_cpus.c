/* SPDX-License-Identifier: MIT */
/* anykvm cpus: the models of --cpu, one per line. */
#include "front/launcher.h"
#include "silicon/models/model.h"

#include <stdio.h>
#include <string.h>

int verb_cpus(int argc, char **argv)
{
	const struct cpu_model *m;

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		printf("usage: anykvm cpus\n\nList the names that `anykvm run --cpu NAME` "
		       "knows.\n");
		return fflush(stdout) ? EXIT_OURS : 0;
	}
	if (argc > 1) {
		fprintf(stderr, "anykvm: cpus takes no arguments\n");
		return EXIT_OURS;
	}
	for (unsigned i = 0; (m = model_nth(i)); i++)
		printf("%-20s %s\n", m->name, m->title);
	return fflush(stdout) ? EXIT_OURS : 0;
}
