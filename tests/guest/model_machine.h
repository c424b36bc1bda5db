/* SPDX-License-Identifier: MIT */
/* The flat machine in 64-bit mode with SSE, its processor the default model. */
#ifndef TESTS_GUEST_MODEL_MACHINE_H
#define TESTS_GUEST_MODEL_MACHINE_H

#include "flat.h"
#include "silicon/models/model.h"

#include <string.h>

static inline struct flat *model_machine(void)
{
	struct flat *f = flat_new(FLAT_RAM);
	const char *why = NULL;
	const struct cpu_model *model = model_find(NULL, &why);

	flat_long(f);
	assert_non_null(model);
	f->cpu->model = model;
	memcpy(f->cpu->model_features, model->features, sizeof(model->features));
	flat_set_cr4(f, f->cpu->cr4 | CR4_OSFXSR | CR4_OSXMMEXCPT);
	return f;
}

#endif
