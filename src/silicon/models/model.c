/* SPDX-License-Identifier: MIT */
/*
 * The list of models, and finding one. Each is built once, from its dump and the host
 * (build.c), and never changes after that: the one thing of silicon/ that all VMs share.
 */
#include "silicon/models/model_internal.h"
#include "host/host.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

const struct model_spec model_spec_host = {
	.name = "host",
	.title = "near the host: its own CPUID, as far as it can be lent or emulated",
};

#define MAX_MODELS 64

/* Built when asked for first: a program needs one. */
static struct slot {
	struct model_built *built;
	const char *refused;
} slots[MAX_MODELS];
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;

static const struct model_spec *spec_nth(unsigned nr)
{
	if (!nr)
		return &model_spec_host;
	return nr <= min(model_nr_specs_raw, MAX_MODELS - 1u) ? &model_specs_raw[nr - 1] : NULL;
}

static const struct slot *slot_build(unsigned nr)
{
	const struct model_host host = {.cpuid = host_cpuid, .xcr0 = host_xcr0()};
	struct slot *slot = &slots[nr];

	pthread_mutex_lock(&slots_lock);
	if (!slot->built) {
		slot->built = malloc(sizeof(*slot->built));
		slot->refused = slot->built ? model_build(spec_nth(nr), &host, slot->built)
					    : "out of memory";
	}
	pthread_mutex_unlock(&slots_lock);
	return slot;
}

const struct cpu_model *model_find(const char *name, const char **ret_why)
{
	const struct model_spec *spec;

	for (unsigned i = 0; (spec = spec_nth(i)); i++) {
		const struct slot *slot;

		if (strcmp(spec->name, name ? name : "host"))
			continue;
		slot = slot_build(i);
		if (!slot->refused)
			return &slot->built->model;
		*ret_why = slot->refused;
		return NULL;
	}
	*ret_why = "no such model; `anykvm cpus` lists them";
	return NULL;
}

const struct cpu_model *model_nth(unsigned nr)
{
	for (unsigned i = 0; spec_nth(i); i++)
		if (!slot_build(i)->refused && nr-- == 0)
			return &slots[i].built->model;
	return NULL;
}

const struct cpuid_row *model_cpuid(const struct cpu_model *m, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < m->nr_cpuid; i++)
		if (m->cpuid[i].leaf == leaf && m->cpuid[i].subleaf == subleaf)
			return &m->cpuid[i];
	return NULL;
}
