/* SPDX-License-Identifier: MIT */
/* Making and freeing a processor's tiles. */
#include "silicon/cpu/amx.h"
#include "silicon/cpu/cpu.h"
#include "silicon/models/model.h"

#include <errno.h>
#include <stdlib.h>

int amx_create(struct cpu *cpu)
{
	if (!feature_has(cpu->model->features, FEAT_AMX_TILE))
		return 0;
	cpu->amx = calloc(1, sizeof(*cpu->amx));
	return cpu->amx ? 0 : -ENOMEM;
}

void amx_destroy(struct cpu *cpu)
{
	free(cpu->amx);
	cpu->amx = NULL;
}
