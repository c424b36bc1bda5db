/* SPDX-License-Identifier: MIT */
/*
 * The platform in lock-step: step's questions are asked and recorded, those of translated code get the recorded
 * answers, and any other question is a difference. What RAM answers, and what marks it, is no question.
 */
#include "silicon/exec/lockstep.h"

/* Replaying: the recorded call, or NULL. Else NULL, too. */
static struct lockstep_call *recorded(struct lockstep *ls, const struct lockstep_call *want)
{
	struct lockstep_call *call = &ls->call[ls->next_call];

	if (ls->next_call >= ls->nr_calls || call->op != want->op || call->in[0] != want->in[0] ||
	    call->in[1] != want->in[1] || call->in[2] != want->in[2]) {
		ls->strayed = true;
		return NULL;
	}
	ls->next_call++;
	return call;
}

static void record(struct lockstep *ls, const struct lockstep_call *call)
{
	if (ls->mode != LOCKSTEP_RECORD)
		return;
	if (ls->nr_calls < LOCKSTEP_CALLS)
		ls->call[ls->nr_calls] = *call;
	ls->nr_calls++;
}

/*
 * A device that is read may do anything, to memory above all: so the stretch ends before, and the next
 * begins with that instruction. What is read out by the way of the program changes nothing.
 */
static bool cut(struct lockstep *ls)
{
	ls->cut = ls->mode == LOCKSTEP_RECORD && ls->nr_steps > 1;
	return ls->cut;
}

/* By REAL, which leaves answer and outputs in c, or from the record. */
#define ASK(ls, c, REAL)                                                  \
	do {                                                              \
		if ((ls)->mode == LOCKSTEP_REPLAY) {                      \
			struct lockstep_call *was = recorded((ls), &(c)); \
			if (was)                                          \
				(c) = *was;                               \
		} else {                                                  \
			REAL;                                             \
			record((ls), &(c));                               \
		}                                                         \
	} while (0)

#define CALL(op, ...)                 \
	struct lockstep *ls = opaque; \
	struct lockstep_call c = {OP_##op, PLATFORM_FAULT, {__VA_ARGS__}, {0}}

static void ask_memory(void *opaque, gpa_t gpa, struct ram_page *ret)
{
	struct lockstep *ls = opaque;

	ls->platform->memory(ls->opaque, gpa, ret);
}

static void ask_mark_dirty(void *opaque, gpa_t gpa)
{
	struct lockstep *ls = opaque;

	ls->platform->mark_dirty(ls->opaque, gpa);
}

static enum platform_answer ask_mmio_read(void *opaque, gpa_t gpa, unsigned size, uint64_t *ret)
{
	CALL(MMIO_READ, gpa, size);

	if (cut(ls))
		return PLATFORM_USER;
	ASK(ls, c, c.answer = ls->platform->mmio_read(ls->opaque, gpa, size, &c.out[0]));
	*ret = c.out[0];
	return c.answer;
}

static enum platform_answer ask_mmio_write(void *opaque, gpa_t gpa, unsigned size, uint64_t val)
{
	CALL(MMIO_WRITE, gpa, size, val);

	ASK(ls, c, c.answer = ls->platform->mmio_write(ls->opaque, gpa, size, val));
	return c.answer;
}

static enum platform_answer ask_pio_read(void *opaque, uint16_t port, unsigned size, uint64_t *ret)
{
	CALL(PIO_READ, port, size);

	if (cut(ls))
		return PLATFORM_USER;
	ASK(ls, c, c.answer = ls->platform->pio_read(ls->opaque, port, size, &c.out[0]));
	*ret = c.out[0];
	return c.answer;
}

static enum platform_answer ask_pio_write(void *opaque, uint16_t port, unsigned size, uint64_t val)
{
	CALL(PIO_WRITE, port, size, val);

	ASK(ls, c, c.answer = ls->platform->pio_write(ls->opaque, port, size, val));
	return c.answer;
}

static enum platform_answer ask_msr_gate(void *opaque, uint32_t index, bool write)
{
	CALL(MSR_GATE, index, write);

	ASK(ls, c, c.answer = ls->platform->msr_gate(ls->opaque, index, write));
	return c.answer;
}

static enum platform_answer ask_msr_read(void *opaque, uint32_t index, uint64_t *ret)
{
	CALL(MSR_READ, index);

	ASK(ls, c, c.answer = ls->platform->msr_read(ls->opaque, index, &c.out[0]));
	*ret = c.out[0];
	return c.answer;
}

static enum platform_answer ask_msr_write(void *opaque, uint32_t index, uint64_t val)
{
	CALL(MSR_WRITE, index, val);

	ASK(ls, c, c.answer = ls->platform->msr_write(ls->opaque, index, val));
	return c.answer;
}

static enum platform_answer ask_msr_refused(void *opaque, uint32_t index, bool write, bool unknown)
{
	CALL(MSR_REFUSED, index, write, unknown);

	ASK(ls, c, c.answer = ls->platform->msr_refused(ls->opaque, index, write, unknown));
	return c.answer;
}

static void ask_cpuid(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	CALL(CPUID, leaf, subleaf);

	ASK(ls, c, ls->platform->cpuid(ls->opaque, leaf, subleaf, (uint32_t *)c.out));
	__builtin_memcpy(ret, c.out, sizeof(c.out));
}

static int ask_pending(void *opaque)
{
	CALL(PENDING);

	ASK(ls, c, c.answer = ls->platform->interrupt_pending(ls->opaque));
	return c.answer;
}

static int ask_ack(void *opaque)
{
	CALL(ACK);

	ASK(ls, c, c.answer = ls->platform->interrupt_ack(ls->opaque));
	return c.answer;
}

static uint8_t ask_get_tpr(void *opaque)
{
	CALL(GET_TPR);

	ASK(ls, c, c.answer = ls->platform->get_tpr(ls->opaque));
	return c.answer;
}

static void ask_set_tpr(void *opaque, uint8_t tpr)
{
	CALL(SET_TPR, tpr);

	ASK(ls, c, ls->platform->set_tpr(ls->opaque, tpr));
}

static uint64_t ask_tsc(void *opaque)
{
	CALL(TSC);

	ASK(ls, c, c.out[0] = ls->platform->tsc(ls->opaque));
	return c.out[0];
}

static enum platform_answer ask_hypercall(void *opaque, bool foreign, uint64_t *ret)
{
	CALL(HYPERCALL, foreign);

	ASK(ls, c, c.answer = ls->platform->hypercall(ls->opaque, foreign, &c.out[0]));
	*ret = c.out[0];
	return c.answer;
}

static bool ask_service(void *opaque)
{
	struct lockstep *ls = opaque;

	return ls->platform->service(ls->opaque);
}

/* In a stretch the vCPU is alone. */
static void ask_alone(void *opaque, bool on)
{
	struct lockstep *ls = opaque;

	ls->platform->alone(ls->opaque, on);
}

/* Heard already, when step did it. */
static void ask_window_open(void *opaque)
{
	struct lockstep *ls = opaque;

	if (ls->mode != LOCKSTEP_REPLAY)
		ls->platform->window_open(ls->opaque);
}

static const struct platform hooks = {
	.memory = ask_memory,
	.mark_dirty = ask_mark_dirty,
	.mmio_read = ask_mmio_read,
	.mmio_write = ask_mmio_write,
	.pio_read = ask_pio_read,
	.pio_write = ask_pio_write,
	.msr_gate = ask_msr_gate,
	.msr_read = ask_msr_read,
	.msr_write = ask_msr_write,
	.msr_refused = ask_msr_refused,
	.cpuid = ask_cpuid,
	.interrupt_pending = ask_pending,
	.interrupt_ack = ask_ack,
	.get_tpr = ask_get_tpr,
	.set_tpr = ask_set_tpr,
	.tsc = ask_tsc,
	.hypercall = ask_hypercall,
	.service = ask_service,
	.alone = ask_alone,
	.window_open = ask_window_open,
};

void lockstep_calls_begin(struct lockstep *ls)
{
	struct cpu *cpu = ls->run->cpu;

	ls->platform = cpu->platform;
	ls->opaque = cpu->opaque;
	ls->hooks = hooks;
	if (!ls->platform->msr_refused)
		ls->hooks.msr_refused = NULL;
	if (!ls->platform->alone)
		ls->hooks.alone = NULL;
	if (!ls->platform->window_open)
		ls->hooks.window_open = NULL;
	cpu->platform = &ls->hooks;
	cpu->opaque = ls;
}

void lockstep_calls_end(struct lockstep *ls)
{
	struct cpu *cpu = ls->run->cpu;

	cpu->platform = ls->platform;
	cpu->opaque = ls->opaque;
}
