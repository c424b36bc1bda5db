/* SPDX-License-Identifier: MIT */
/* Running the machine of flat.h. Apart from flat.c, so that tests of the lower rooms do without exec/. */
#include "flat.h"
#include "silicon/exec/exec.h"

#include <stdlib.h>

static void free_exec(struct flat *f)
{
	exec_destroy(f->cpu->exec);
}

void flat_exec(struct flat *f)
{
	if (f->cpu->exec)
		return;
	f->cpu->exec = exec_create();
	f->free_exec = free_exec;
	if (!f->cpu->exec || exec_set_tempo(f->cpu, getenv("ANYKVM_TEMPO")))
		abort();
}

enum cpu_exit_kind flat_run_once(struct flat *f, uint64_t budget)
{
	enum cpu_exit_kind kind;

	flat_exec(f);
	f->cpu->budget_end = f->cpu->retired + budget;
	cpu_raise(f->cpu, ATTN_BUDGET);
	kind = cpu_run(f->cpu);
	cpu_lower(f->cpu, ATTN_BUDGET);
	return kind;
}

enum cpu_exit_kind flat_run(struct flat *f, uint64_t budget)
{
	uint64_t end;

	flat_exec(f);
	for (end = f->cpu->retired + budget; f->cpu->retired < end;) {
		enum cpu_exit_kind kind = flat_run_once(f, end - f->cpu->retired);

		if (!flat_answer(f))
			return kind;
	}
	return CPU_EXIT_REQUEST;
}

int flat_handler(struct flat *f)
{
	uint64_t off = f->cpu->rip - FLAT_HANDLERS;

	return off < 16 * 256 && off % 16 == 1 ? (int)(off / 16) : -1;
}
