/* SPDX-License-Identifier: MIT */
/* Making SVM for a vCPU, and unmaking it: what needs the C library, so not while guest code runs. */
#include "silicon/svm/svm_internal.h"

#include <stdlib.h>

bool svm_create(struct cpu *cpu, bool report)
{
	struct svm *svm = calloc(1, sizeof(*svm));

	if (!svm)
		return false;
	svm->virt.size = sizeof(*svm);
	svm->virt.ops = &svm_ops;
	svm->virt.gif = true;
	svm->report = report;
	cpu->virt = &svm->virt;
	return true;
}

void svm_destroy(struct cpu *cpu)
{
	free(cpu->virt);
	cpu->virt = NULL;
}
