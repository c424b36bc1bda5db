/* SPDX-License-Identifier: MIT */
/* Running the machine of flat.h. Apart from flat.c, so that tests of the lower rooms do without exec/. */
#include "flat.h"
#include "silicon/exec/exec.h"

#include <stdlib.h>
#include <sys/mman.h>

static void free_exec(struct flat *f)
{
	exec_destroy(f->cpu->exec);
}

#define LOW_MAPS 0x40000000ul /* where MAP_32BIT begins */
#define HIGH	 0x50000000ul
#define STEP	 0x100000ul

/*
 * With ANYKVM_TEST_HIGH=1 the tables of translated code stand where those of a machine's 64th vCPU do: their addresses, which are part of
 * code, have another first byte there.
 */
static void occupy(void)
{
	static bool occupied;

	if (occupied || !getenv("ANYKVM_TEST_HIGH"))
		return;
	for (uint64_t at = LOW_MAPS; at < HIGH; at += STEP)
		mmap((void *)at, STEP, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	occupied = true;
}

void flat_exec(struct flat *f)
{
	if (f->cpu->exec)
		return;
	occupy();
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
