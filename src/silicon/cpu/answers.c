/* SPDX-License-Identifier: MIT */
/*
 * Answers from outside, kept for the instruction that asked (see exit.h).
 *
 * The list is in the order of the instruction's requests. A request that differs from the next
 * recorded one means that the instruction goes another way than before (guest memory changed):
 * what was recorded from there on is void. Retiring or abandoning the instruction calls
 * answers_reset(); an iteration of a REP instruction that was completed does, too.
 */
#include "silicon/cpu/cpu.h"

static bool append(struct cpu *cpu, const struct answer *answer)
{
	struct answers *a = &cpu->answers;

	if (a->rip != cpu->rip)
		a->nr = a->used = 0;
	if (a->nr == MAX_ANSWERS)
		return false;
	a->rip = cpu->rip;
	a->v[a->nr++] = *answer;
	return true;
}

void answers_add(struct cpu *cpu, enum answer_kind kind, uint64_t addr, uint8_t size, uint64_t data,
		 bool error)
{
	append(cpu,
	       &(struct answer){
		       .kind = kind, .addr = addr, .size = size, .data = data, .error = error});
	answers_rewind(cpu);
}

void answers_batch(struct cpu *cpu, const uint8_t *batch, unsigned count)
{
	struct answer *answer = &cpu->answers.v[cpu->answers.nr - 1];

	answer->batch = batch;
	answer->count = count;
}

const struct answer *answers_last(const struct cpu *cpu)
{
	return cpu->answers.used ? &cpu->answers.v[cpu->answers.used - 1] : NULL;
}

bool answers_record(struct cpu *cpu, enum answer_kind kind, uint64_t addr, uint8_t size,
		    uint64_t data)
{
	if (!append(cpu, &(struct answer){.kind = kind, .addr = addr, .size = size, .data = data}))
		return false;
	cpu->answers.used = cpu->answers.nr;
	return true;
}

void answers_rewind(struct cpu *cpu)
{
	cpu->answers.used = 0;
	cpu->out.nr = 0;
}

void answers_reset(struct cpu *cpu)
{
	cpu->answers.nr = 0;
	cpu->answers.used = 0;
	cpu->out.nr = 0;
}

static bool is_for(const struct answer *answer, enum answer_kind kind, uint64_t addr, uint8_t size)
{
	return answer->kind == kind && answer->addr == addr && answer->size == size;
}

const struct answer *answers_take(struct cpu *cpu, enum answer_kind kind, uint64_t addr,
				  uint8_t size)
{
	struct answers *a = &cpu->answers;

	if (a->used >= a->nr)
		return NULL;
	if (a->rip != cpu->rip || !is_for(&a->v[a->used], kind, addr, size)) {
		a->nr = a->used;
		return NULL;
	}
	return &a->v[a->used++];
}
