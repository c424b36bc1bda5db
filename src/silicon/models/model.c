/* SPDX-License-Identifier: MIT */
/*
 * The list of models, and finding one. Each is built once, at start, from its dump and the host
 * (build.c), and never changes after that: the one thing of silicon/ that all VMs share.
 */
#include "silicon/models/model_internal.h"
#include "host/host.h"

#include <pthread.h>
#include <string.h>

static const struct model_spec *const specs[] = {
	&model_spec_host,
	&model_spec_ice_lake_sp,
	&model_spec_milan,
};

const struct model_spec model_spec_host = {
	.name = "host",
	.title = "near the host: its own CPUID, as far as it can be lent or emulated",
};

static struct model_built built[ARRAY_SIZE(specs)];
static const char *refused[ARRAY_SIZE(specs)];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void build_all(void)
{
	const struct model_host host = {.cpuid = host_cpuid, .xcr0 = host_xcr0()};

	for (unsigned i = 0; i < ARRAY_SIZE(specs); i++)
		refused[i] = model_build(specs[i], &host, &built[i]);
}

const struct cpu_model *model_find(const char *name, const char **ret_why)
{
	pthread_once(&once, build_all);
	for (unsigned i = 0; i < ARRAY_SIZE(specs); i++) {
		if (strcmp(specs[i]->name, name ? name : "host"))
			continue;
		if (!refused[i])
			return &built[i].model;
		*ret_why = refused[i];
		return NULL;
	}
	*ret_why = "no such model";
	return NULL;
}

const struct cpu_model *model_nth(unsigned nr)
{
	pthread_once(&once, build_all);
	for (unsigned i = 0; i < ARRAY_SIZE(specs); i++)
		if (!refused[i] && nr-- == 0)
			return &built[i].model;
	return NULL;
}

const struct cpuid_row *model_cpuid(const struct cpu_model *m, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < m->nr_cpuid; i++)
		if (m->cpuid[i].leaf == leaf && m->cpuid[i].subleaf == subleaf)
			return &m->cpuid[i];
	return NULL;
}
