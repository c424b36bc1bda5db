/* SPDX-License-Identifier: MIT */
/*
 * What happens between two instructions (SDM, priority among concurrent events).
 *
 * sys_retire() closes the instruction that just committed: shadow, RF, single-step; sys_iterate() one
 * iteration of a repeated one. sys_attend()
 * then serves in this order: requests of other threads, the event being injected, traps on the
 * previous instruction, SMI, NMI, interrupts, code breakpoints. An instruction that waits for answers from outside
 * is finished before anything but requests.
 */
#include "silicon/sys/deliver.h"
#include "silicon/sys/sys_internal.h"

/* Means "nothing to do here, ask the next server". */
#define NOT_SERVED RESULT_FAULT

static enum result leave(struct cpu *cpu, enum cpu_exit_kind kind)
{
	cpu->exit = (struct cpu_exit){.kind = kind};
	return RESULT_EXIT;
}

/* ---- servers: NOT_SERVED, RESULT_OK to look again from the top, or a reason to leave ---- */

static enum result serve_request(struct cpu *cpu)
{
	cpu_lower(cpu, ATTN_REQUEST);
	if (platform_call(cpu, service))
		return leave(cpu, CPU_EXIT_REQUEST);
	return NOT_SERVED;
}

static enum result serve_budget(struct cpu *cpu)
{
	if (cpu->retired < cpu->budget_end)
		return NOT_SERVED;
	return leave(cpu, CPU_EXIT_REQUEST);
}

static enum result serve_limit(struct cpu *cpu)
{
	cpu_lower(cpu, ATTN_LIMIT);
	return cpu_at_limit(cpu) ? leave(cpu, CPU_EXIT_REQUEST) : NOT_SERVED;
}

enum result sys_inject(struct cpu *cpu)
{
	struct event ev = cpu->inject;

	cpu->inject.valid = false;
	cpu_lower(cpu, ATTN_INJECT);
	cpu->answers.used = 0;
	if (cpu_refuses(cpu, &ev, ev.pending))
		return RESULT_EXIT;
	if (ev.pending && event_intercepted(cpu, &ev, NULL))
		return RESULT_AGAIN;
	ev.pending = false;
	return deliver_event(cpu, &ev);
}

static enum result serve_inject(struct cpu *cpu)
{
	if (cpu->inject.valid)
		return sys_inject(cpu);
	cpu_lower(cpu, ATTN_INJECT);
	return NOT_SERVED;
}

/* Trap-class #DB; MOV SS holds it back for one instruction. */
static enum result serve_debug(struct cpu *cpu)
{
	uint64_t dr6 = cpu->pending_dr6 & DR6_VOLATILE;
	struct event ev = {
		.valid = true,
		.type = EVENT_EXCEPTION,
		.vector = VEC_DB,
		.has_payload = true,
		.payload = dr6,
	};

	if (cpu->shadow & SHADOW_MOV_SS)
		return NOT_SERVED;
	cpu->pending_dr6 = 0;
	cpu_lower(cpu, ATTN_DEBUG);
	if (!dr6)
		return NOT_SERVED;
	if (debug_by_program(cpu))
		return debug_exit(cpu, VEC_DB, dr6, RESULT_EXIT);
	if (event_intercepted(cpu, &ev, NULL))
		return RESULT_OK;
	return cpu_refuses(cpu, &ev, true) ? RESULT_EXIT : deliver_event(cpu, &ev);
}

/* A trap that MOV SS holds back goes first, for the area has no place for it. */
static enum result serve_smi(struct cpu *cpu)
{
	if (!cpu->smi_pending || !cpu_smi_open(cpu) || (cpu->pending_dr6 & DR6_VOLATILE))
		return NOT_SERVED;
	if (cpu_intercept(cpu, INTERCEPT_SMI, 0))
		return RESULT_OK;
	return sys_smi(cpu);
}

static enum result serve_nmi(struct cpu *cpu)
{
	struct event ev = {.valid = true, .type = EVENT_NMI, .vector = VEC_NMI};

	if (!cpu->nmi_pending || !cpu_nmi_open(cpu))
		return NOT_SERVED;
	if (cpu_intercept(cpu, INTERCEPT_NMI, 0))
		return RESULT_OK;
	cpu->nmi_pending = false;
	return deliver_event(cpu, &ev);
}

static enum result deliver_interrupt(struct cpu *cpu)
{
	struct event ev = {.valid = true, .type = EVENT_INTERRUPT};
	int vector;

	if (cpu_intercept(cpu, INTERCEPT_INTERRUPT, 0))
		return RESULT_OK;
	vector = platform_call(cpu, interrupt_ack);
	/* Whatever else is pending is looked at again when IF opens. */
	cpu_raise(cpu, ATTN_EVENTS);
	if (vector < 0)
		return RESULT_OK;
	ev.vector = vector;
	return deliver_event(cpu, &ev);
}

/* The shadow ends by itself; whatever else keeps interrupts out raises ATTN_EVENTS when it lets them in. */
static enum result serve_interrupt(struct cpu *cpu)
{
	if (cpu->shadow && !cpu_intercepts(cpu, INTERCEPT_INTERRUPT))
		return NOT_SERVED;
	if (cpu->activity == ACTIVITY_SHUTDOWN)
		return NOT_SERVED;
	/* Lowered before looking, so that a later raise is not lost; opening IF raises it anew. */
	cpu_lower(cpu, ATTN_EVENTS);
	cpu->looked = cpu_interrupt_open(cpu);
	if (!cpu->looked)
		return NOT_SERVED;
	if (platform_call(cpu, interrupt_pending) >= 0) {
		cpu->looked = false;
		return deliver_interrupt(cpu);
	}
	sys_notify(cpu);
	/* Whoever waited for the window may want to leave before another instruction closes it. */
	return cpu->attention & ATTN_REQUEST ? RESULT_OK : NOT_SERVED;
}

/* On the instruction after MOV SS, code breakpoints are held back as if RF were set. */
static enum result serve_code_bp(struct cpu *cpu)
{
	gva_t addr = cpu->rip;
	enum result r;

	if (cpu->shadow & SHADOW_MOV_SS)
		return NOT_SERVED;
	if (!cpu_64bit(cpu))
		addr = (uint32_t)(cpu->seg[SEG_CS].base + addr);
	if (sys_check_code_bp(cpu, addr) != RESULT_FAULT)
		return NOT_SERVED;
	r = sys_deliver(cpu, &cpu->fault);
	return r == RESULT_AGAIN ? RESULT_OK : r;
}

/* ---- the order ---- */

static enum result serve_virt(struct cpu *cpu, enum virt_stage stage)
{
	return cpu_guest(cpu) && cpu->virt->ops->attend(cpu, stage) ? RESULT_OK : NOT_SERVED;
}

/* Before anything may leave: no saved state has a place for it. Half delivered events go on first. */
static enum result serve_virt_first(struct cpu *cpu)
{
	return cpu->inject.valid ? NOT_SERVED : serve_virt(cpu, VIRT_FIRST);
}

static enum result serve_virt_traps(struct cpu *cpu)
{
	return serve_virt(cpu, VIRT_BEFORE_TRAPS);
}

static enum result serve_virt_nmi(struct cpu *cpu)
{
	return serve_virt(cpu, VIRT_BEFORE_NMI);
}

static enum result serve_virt_interrupt(struct cpu *cpu)
{
	return serve_virt(cpu, VIRT_BEFORE_INTERRUPT);
}

static enum result serve_virt_last(struct cpu *cpu)
{
	return serve_virt(cpu, VIRT_LAST);
}

static const struct {
	uint32_t attention;
	enum result (*serve)(struct cpu *cpu);
} servers[] = {
	{ATTN_VIRT, serve_virt_first},	   {ATTN_REQUEST, serve_request},
	{ATTN_INJECT, serve_inject},	   {ATTN_LIMIT, serve_limit},
	{ATTN_BUDGET, serve_budget},	   {ATTN_VIRT, serve_virt_traps},
	{ATTN_DEBUG, serve_debug},	   {ATTN_SMI, serve_smi},
	{ATTN_VIRT, serve_virt_nmi},	   {ATTN_NMI, serve_nmi},
	{ATTN_VIRT, serve_virt_interrupt}, {ATTN_EVENTS, serve_interrupt},
	{ATTN_VIRT, serve_virt_last},
};

/* An exit left the instruction at RIP half done; its side effects outside have happened. */
static bool instruction_open(const struct cpu *cpu)
{
	return cpu->answers.nr && cpu->answers.rip == cpu->rip && !cpu->inject.valid;
}

/* A processor that waits for a SIPI hears of nothing else; where there are SIPIs, the owner tells. */
static uint32_t heard(const struct cpu *cpu)
{
	return cpu->activity == ACTIVITY_WAIT_SIPI ? ATTN_REQUEST | ATTN_BUDGET : ~0u;
}

static enum result serve_first(struct cpu *cpu)
{
	enum result r;

	for (unsigned i = 0; i < ARRAY_SIZE(servers); i++) {
		if (!(__atomic_load_n(&cpu->attention, __ATOMIC_ACQUIRE) & servers[i].attention &
		      heard(cpu)))
			continue;
		r = servers[i].serve(cpu);
		if (r != NOT_SERVED)
			return r == RESULT_AGAIN ? RESULT_OK : r;
		if (instruction_open(cpu))
			break;
	}
	return NOT_SERVED;
}

enum result sys_attend(struct cpu *cpu)
{
	enum result r;

	cpu->pending_dr6 &= ~PENDING_MARKERS;
	for (;;) {
		if (instruction_open(cpu) && !(cpu->attention & ATTN_REQUEST))
			return RESULT_OK;
		r = serve_first(cpu);
		if (r == RESULT_OK && cpu->out.nr)
			return RESULT_OK; /* the frame goes out first */
		if (r == RESULT_OK)
			continue;
		if (r != NOT_SERVED)
			return r;
		if (instruction_open(cpu))
			return RESULT_OK;
		if (cpu->activity != ACTIVITY_RUN)
			return leave(cpu, CPU_EXIT_HLT);
		if (!(cpu->attention & ATTN_CODE_BP))
			return RESULT_OK;
		r = serve_code_bp(cpu);
		if (r != RESULT_OK)
			return r == NOT_SERVED ? RESULT_OK : r;
	}
}

/* ---- after an instruction ---- */

/* Single-step of the guest; MOV SS loses it, INT n and SYSCALL took TF away. */
static bool steps(const struct cpu *cpu, bool had_tf)
{
	return had_tf && !(cpu->pending_dr6 & PENDING_NO_STEP) && !(cpu->shadow & SHADOW_MOV_SS);
}

static bool program_steps(const struct cpu *cpu)
{
	return cpu->debug.enabled && cpu->debug.singlestep && !(cpu->shadow & SHADOW_MOV_SS);
}

/* HLT with a trap to deliver does not halt. */
static void wake_for_trap(struct cpu *cpu)
{
	if (cpu->activity == ACTIVITY_HLT && (cpu->pending_dr6 & DR6_VOLATILE))
		cpu->activity = ACTIVITY_RUN;
}

enum result sys_retire(struct cpu *cpu, uint64_t old_rip, bool had_tf, uint8_t old_shadow)
{
	cpu->shadow &= ~old_shadow;
	if (!(cpu->pending_dr6 & PENDING_KEEP_RF))
		cpu->sflags &= ~FLAG_RF;
	if (steps(cpu, had_tf))
		cpu->pending_dr6 |= DR6_BS;
	cpu->pending_dr6 &= ~PENDING_MARKERS;
	wake_for_trap(cpu);
	cpu_update_attention(cpu);
	if (cpu->pending_dr6)
		cpu_raise(cpu, ATTN_DEBUG);
	if (!program_steps(cpu))
		return RESULT_OK;
	cpu->pending_dr6 &= ~(uint64_t)DR6_BS;
	return debug_exit(cpu, VEC_DB, DR6_BS, RESULT_STOP);
}

enum result sys_iterate(struct cpu *cpu)
{
	cpu->shadow = 0;
	if (cpu_guest(cpu))
		cpu->virt->iterated = true;
	if (cpu->sflags & FLAG_TF)
		cpu->pending_dr6 |= DR6_BS;
	cpu_update_attention(cpu);
	return program_steps(cpu) ? debug_exit(cpu, VEC_DB, DR6_BS, RESULT_EXIT) : RESULT_AGAIN;
}
