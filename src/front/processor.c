/* SPDX-License-Identifier: MIT */
/*
 * The processor that the program sees.
 *
 * Under a model other than the host's the program's own CPUID instructions answer as the model. Where the host has
 * CPUID faulting each ends in SIGSEGV and is answered there, in all code of the process, loaded later or made
 * at run time; else patch.c deals with what can be found. So SIGSEGV and SIGILL are never blocked while that is on. The setting is each thread's, inherited by new ones and
 * children, and ends with execve(2), after which this library starts anew.
 */
#include "front/files.h"
#include "silicon/models/model.h"

#include <string.h>

static const struct cpu_model *model;

static void answer(uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	model_program_cpuid(model, leaf, subleaf, ret);
}

void processor_start(const char *cpu, bool patch_wanted)
{
	const char *why = NULL;
	sigset_t faults;

	if (!cpu || !strcmp(cpu, "host"))
		return;
	/* Who opens /dev/kvm is told why. */
	model = model_find(cpu, &why);
	if (!model || !model->raw) {
		model = NULL;
		return;
	}
	if (host_fault_thread_init())
		return;
	sigemptyset(&faults);
	sigaddset(&faults, SIGSEGV);
	sigaddset(&faults, SIGILL);
	pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
	if (!patch_wanted && !host_cpuid_answer(answer))
		return;
	host_cpuid_answer_sites(answer);
	patch_all();
}

const struct cpu_model *processor_model(void)
{
	return model;
}

bool processor_intel(void)
{
	static int intel = -1;
	const struct cpu_model *host;
	const char *why;

	if (model)
		return model_intel(model);
	if (intel < 0) {
		host = model_find(NULL, &why);
		intel = !host || model_intel(host);
	}
	return intel;
}

void processor_mask(sigset_t *set)
{
	if (!host_cpuid_answering())
		return;
	sigdelset(set, SIGSEGV);
	sigdelset(set, SIGILL);
}
