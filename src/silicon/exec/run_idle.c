/* SPDX-License-Identifier: MIT */
/*
 * What blocks took beyond their first room (run_grow()) is given back once the burst that asked for it is over: a vCPU that
 * waits most of the time and translates next to nothing needs few of its blocks, and these are made anew in no time.
 *
 * Code is a file's memory, so its pages are cut out of the file; tables are private, and come again as zeroes.
 */
#include "silicon/exec/exec.h"
#include "silicon/exec/run.h"

#include <sys/mman.h>

#define QUIET_NS     3000000000ull /* how long the vCPU is to be quiet, */
#define QUIET_INSNS  (256u << 20)  /* which is: to retire no more than these, */
#define QUIET_BLOCKS 1024u	   /* and translate no more than these */

static uint64_t translated(const struct run *run)
{
	return run->count[COUNT_BLOCK] + run->count[COUNT_TRACE] + run->count[COUNT_PLAIN];
}

static bool quiet(const struct run *run)
{
	return run->quiet.since && run->cpu->retired - run->quiet.retired <= QUIET_INSNS &&
	       translated(run) - run->quiet.translated <= QUIET_BLOCKS;
}

/* All but what stands before the first block. */
static void drop_code(struct run *run)
{
	size_t first = ALIGN_UP(run->first, PAGE_SIZE);

	madvise(run->code.rw + first, run->code.size - first, MADV_REMOVE);
	run->prepared = 0;
}

static void give_back(struct run *run)
{
	run_flush(run);
	run_tables_drop(run);
	drop_code(run);
	run->count[COUNT_BACK]++;
}

uint64_t exec_idle(struct cpu *cpu, uint64_t now)
{
	struct run *run = cpu->exec->run;

	if (!run || run->growth <= RUN_FIRST || run->lockstep)
		return 0;
	if (!quiet(run)) {
		run->quiet.since = now;
		run->quiet.retired = cpu->retired;
		run->quiet.translated = translated(run);
	}
	if (now - run->quiet.since < QUIET_NS)
		return QUIET_NS - (now - run->quiet.since);
	give_back(run);
	return 0;
}
