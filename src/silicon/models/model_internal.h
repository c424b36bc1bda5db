/* SPDX-License-Identifier: MIT */
/* Private to models/: what a model is made from. */
#ifndef SILICON_MODELS_MODEL_INTERNAL_H
#define SILICON_MODELS_MODEL_INTERNAL_H

#include "silicon/models/model.h"

#define MODEL_MAX_ROWS 160

/* A raw dump of silicon (raw/NAME.tsv), all-zero rows left out. rows NULL: read from the host. */
struct model_spec {
	const char *name;
	const char *title;
	enum vendor vendor; /* ignored where rows is NULL */
	const struct cpuid_row *rows;
	unsigned nr_rows;
	const struct model_msr *msrs; /* ends with index 0; NULL with rows */
};

/* What a model is built from and against; tests pass recorded hosts. */
struct model_host {
	void (*cpuid)(uint32_t leaf, uint32_t subleaf, uint32_t ret[4]);
	uint64_t xcr0;
};

struct model_built {
	struct cpu_model model;
	struct cpuid_row rows[MODEL_MAX_ROWS];
};

extern const struct model_spec model_spec_host;
/* Made of raw/ by tools/cpu-models.py: Intel's, then AMD's, by name. */
extern const struct model_spec model_specs_raw[];
extern const unsigned model_nr_specs_raw;

/*
 * Fill ret from spec and host: the dump, less what can neither be lent nor emulated.
 * NULL, or in one line why this host cannot lend the model.
 */
const char *model_build(const struct model_spec *spec, const struct model_host *host,
			struct model_built *ret);

#endif
