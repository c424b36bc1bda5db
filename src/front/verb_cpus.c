/* SPDX-License-Identifier: MIT */
/* anykvm cpus: the models of --cpu, one per line; or what two of them differ in. */
#include "front/launcher.h"
#include "silicon/models/model.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static int usage(void)
{
	printf("usage: anykvm cpus\n"
	       "       anykvm cpus --diff A B\n"
	       "\n"
	       "List the names that `anykvm run --cpu NAME` knows, or show what A and B differ "
	       "in.\n"
	       "Exit status of --diff: 0 nothing, 1 something.\n");
	return launcher_flush();
}

static const struct cpu_model *find(const char *name)
{
	const char *why;
	const struct cpu_model *m = model_find(name, &why);

	if (!m)
		launcher_error("CPU model '%s': %s", name, why);
	return m;
}

static int diff(const char *first, const char *second)
{
	const struct cpu_model *a = find(first), *b = a ? find(second) : NULL;
	unsigned found;

	if (!b)
		return EXIT_OURS;
	found = cpus_diff(a, b);
	return launcher_flush() ? EXIT_OURS : !!found;
}

static int list(void)
{
	const struct cpu_model *m;

	for (unsigned i = 0; (m = model_nth(i)); i++)
		printf("%-20s %s\n", m->name, m->title);
	return launcher_flush();
}

int verb_cpus(int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, {"diff", no_argument, NULL, 'd'}, {0}};
	bool differ = false;
	int opt;

	while ((opt = launcher_getopt("cpus", argc, argv, "+:hd", options)) != -1) {
		if (opt == 'h')
			return usage();
		if (opt != 'd')
			return EXIT_OURS;
		differ = true;
	}
	if (differ && argc - optind != 2)
		return launcher_error("cpus --diff wants two models; `anykvm cpus` lists them");
	if (differ)
		return diff(argv[optind], argv[optind + 1]);
	if (optind < argc)
		return launcher_error(
			"cpus takes no arguments; to compare: anykvm cpus --diff A B");
	return list();
}
