/* SPDX-License-Identifier: MIT */
/*
 * Lock-step's memory, and its report (lockstep.h). A difference is looked for again with shorter stretches, until
 * the first is found that shows it, and then with blocks of one instruction. What comes with longer blocks only is
 * reported with its block.
 */
#include "silicon/exec/lockstep.h"
#include "silicon/mmu/tlb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LISTED 12u /* instructions in a report */

static void say_counts(int status, void *opaque)
{
	const struct lockstep *ls = opaque;

	host_log("lockstep: %lu instructions in both tempos, %lu alone", ls->nr_paired,
		 ls->nr_alone);
}

int lockstep_create(struct run *run)
{
	struct lockstep *ls =
		mmap(NULL, sizeof(*ls), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (ls == MAP_FAILED)
		return -ENOMEM;
	ls->other = tlb_create();
	if (!ls->other) {
		munmap(ls, sizeof(*ls));
		return -ENOMEM;
	}
	ls->run = run;
	if (run->cpu->amx) {
		ls->before.amx = &ls->before_amx;
		ls->stepped.amx = &ls->stepped_amx;
	}
	ls->own = run->cpu->tlb;
	ls->own->log = ls->other->log = &ls->log;
	if (ls->own->other)
		ls->own->other->log = &ls->log;
	run->lockstep = ls;
	if (run->opt.perf)
		on_exit(say_counts, ls);
	return 0;
}

void lockstep_destroy(struct lockstep *ls)
{
	if (!ls)
		return;
	tlb_destroy(ls->other);
	if (!ls->run->opt.perf)
		munmap(ls, sizeof(*ls));
}

/* ---- the report ---- */

static void say_instruction(struct lockstep *ls, uint64_t rip)
{
	struct cpu *cpu = ls->run->cpu;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction z;
	ZydisFormatter formatter;
	char text[128] = "?";
	uint8_t bytes[15];
	unsigned nr;

	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_ATT);
	if (!mmu_fetch(cpu, rip, bytes, &nr) &&
	    ZYAN_SUCCESS(ZydisDecoderDecodeFull(&cpu->exec->decoder[cpu->mode.code], bytes, nr, &z,
						ops)))
		ZydisFormatterFormatInstruction(&formatter, &z, ops, z.operand_count_visible, text,
						sizeof(text), rip, NULL);
	host_log("lockstep:   0x%lx: %s", rip, text);
}

static void say_listing(struct lockstep *ls)
{
	uint32_t nr = min(ls->nr_trace, LISTED);

	for (uint32_t i = ls->nr_trace - nr; i != ls->nr_trace; i++)
		say_instruction(ls, ls->trace[i % LOCKSTEP_TRACE]);
}

static void say_registers(const char *when, const struct cpu *cpu)
{
	static const char names[NR_GPRS][4] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					       "rsi", "rdi", "r8",  "r9",  "r10", "r11",
					       "r12", "r13", "r14", "r15"};

	host_log("lockstep: %s: rip %lx, flags %lx", when, cpu->rip, cpu_rflags(cpu));
	for (unsigned i = 0; i < NR_GPRS; i += 4)
		host_log("lockstep:   %s %lx, %s %lx, %s %lx, %s %lx", names[i], cpu->gpr[i],
			 names[i + 1], cpu->gpr[i + 1], names[i + 2], cpu->gpr[i + 2], names[i + 3],
			 cpu->gpr[i + 3]);
}

static void say_memory(const struct mmu_log_difference *diff)
{
	const struct mmu_logged *e = diff->entry;

	if (!e)
		return;
	host_log("lockstep:   memory at gpa 0x%lx (%u bytes were written to 0x%lx): step 0x%lx, "
		 "run 0x%lx",
		 e->gpa + (diff->hva - e->hva), e->size, e->addr, diff->made, diff->now);
}

static void say_calls(const struct lockstep *ls)
{
	const struct lockstep_call *call = &ls->call[ls->next_call];

	if (!ls->strayed)
		return;
	host_log("lockstep:   the platform: step asked %u times, run differs at %u", ls->nr_asked,
		 ls->next_call);
	if (ls->next_call < min(ls->nr_calls, LOCKSTEP_CALLS))
		host_log("lockstep:   step's question there: kind %d, 0x%lx, 0x%lx, 0x%lx",
			 call->op, call->in[0], call->in[1], call->in[2]);
}

/* The shortest stretch that shows a difference; 0: none does. */
static uint64_t refine(struct lockstep *ls, uint64_t end)
{
	for (uint64_t limit = ls->before.retired + 1; limit <= end; limit++) {
		ls->nr_trace = 0;
		if (!lockstep_again(ls, limit))
			return limit;
	}
	return 0;
}

static void use_single_blocks(struct lockstep *ls)
{
	ls->run->opt.max_insns = 1;
	ls->run->opt.threshold = 1;
	ls->run->opt.hot = 0;
	run_flush(ls->run);
}

static void say_difference(struct lockstep *ls)
{
	struct mmu_log_difference diff;

	lockstep_same(ls, &diff);
	lockstep_state_say(ls);
	say_memory(&diff);
	say_calls(ls);
}

static void say_found(struct lockstep *ls, const char *what)
{
	host_log("lockstep: %s", what);
	say_listing(ls);
	say_difference(ls);
	say_registers("step", &ls->stepped);
	say_registers("run", ls->run->cpu);
}

void lockstep_say(struct lockstep *ls)
{
	uint64_t end = ls->stepped.retired;

	say_registers("step and run differ. Before", &ls->before);
	say_difference(ls);
	end = refine(ls, end);
	if (!end) {
		host_log("lockstep: it did not come again");
		return;
	}
	say_found(ls, "the last of these ends the first block that differs:");
	use_single_blocks(ls);
	if (refine(ls, end))
		say_found(ls, "in a block of its own the last of these differs, too:");
	else
		host_log("lockstep: with new blocks of one instruction nothing differs");
}
