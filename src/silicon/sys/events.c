/* SPDX-License-Identifier: MIT */
/*
 * Event delivery through the IVT or IDT (SDM, interrupt and exception handling).
 *
 * deliver_once() tries one event and commits only when the whole frame stands on the new stack.
 * deliver() turns the faults met on the way into what the SDM's table of double-fault conditions says, until
 * something is delivered or the processor shuts down. What is served between two instructions, and in which order, is in
 * attend.c.
 */
#include "silicon/sys/deliver.h"
#include "silicon/sys/sys_internal.h"

/* What the frame of one delivery holds. */
struct frame {
	const struct event *ev;
	uint64_t rip;	 /* return address */
	uint64_t rflags; /* as pushed */
	unsigned size;	 /* of each value */
};

/* ---- properties of events ---- */

#define FAULT_VECTORS                                                                         \
	(BIT(VEC_DE) | BIT(VEC_BR) | BIT(VEC_UD) | BIT(VEC_NM) | BIT(VEC_CSO) | BIT(VEC_TS) | \
	 BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) | BIT(VEC_PF) | BIT(VEC_MF) | BIT(VEC_AC) |  \
	 BIT(VEC_XM) | BIT(VEC_VE) | BIT(VEC_CP))
#define CONTRIBUTORY \
	(BIT(VEC_DE) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) | BIT(VEC_CP))
#define PAGE_FAULTS (BIT(VEC_PF) | BIT(VEC_VE))
/* Faults whose error code has an EXT bit. */
#define SELECTOR_ERRORS (BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP))

static bool vector_in(uint64_t set, uint8_t vector)
{
	return vector < 32 && (set >> vector & 1);
}

/* Fault class: the pushed image has RF set, and the instruction did not retire. */
static bool is_fault(const struct event *ev)
{
	return ev->type == EVENT_EXCEPTION && vector_in(FAULT_VECTORS, ev->vector);
}

static bool event_is_soft(const struct event *ev)
{
	return ev->type == EVENT_SOFT_INT || ev->type == EVENT_SOFT_EXC;
}

/* Return address: past the instruction for those that are instructions. */
static uint64_t return_rip(const struct cpu *cpu, const struct event *ev)
{
	uint64_t rip = ev->has_return ? ev->return_rip : cpu->rip;

	if (event_is_soft(ev) || ev->type == EVENT_PRIV_SOFT_EXC)
		rip += ev->insn_len;
	return cpu->mode.code == CODE_64 ? rip : (uint32_t)rip;
}

static uint64_t pushed_rflags(const struct cpu *cpu, const struct event *ev)
{
	return cpu_rflags(cpu) | (is_fault(ev) ? FLAG_RF : 0);
}

/* CR2 and DR6 change as delivery begins, whatever becomes of it. */
static void apply_payload(struct cpu *cpu, struct event *ev)
{
	if (ev->type != EVENT_EXCEPTION)
		return;
	/* A page fault that became a double fault still leaves its address. */
	if ((ev->vector == VEC_PF || ev->vector == VEC_DF) && ev->has_payload)
		cpu->cr2 = ev->payload;
	if (ev->vector == VEC_DB) {
		if (ev->has_payload)
			cpu->dr6 = (cpu->dr6 & ~0xfull) | (ev->payload & DR6_VOLATILE) |
				   DR6_FIXED_1;
		cpu->dr7 &= ~DR7_GD;
	}
	ev->has_payload = false;
}

/* ---- real mode, and virtual-8086 mode redirected by VME ---- */

static enum result push_frame16(struct cpu *cpu, struct stack *s, uint16_t flags, uint64_t rip)
{
	enum result r;

	r = stack_reserve(cpu, s, 2, 3);
	if (!r)
		r = stack_push(cpu, s, 2, flags);
	if (!r)
		r = stack_push(cpu, s, 2, cpu->seg[SEG_CS].sel);
	if (!r)
		r = stack_push(cpu, s, 2, rip);
	return r;
}

static enum result deliver_real(struct cpu *cpu, const struct frame *f)
{
	struct stack s = stack_here(cpu);
	uint32_t off = f->ev->vector * 4;
	uint64_t vec;
	enum result r;

	if (off + 3 > cpu->idtr.limit)
		return fault_gp(cpu, f->ev->vector * 8 + ERROR_IDT);
	r = mmu_read_sys(cpu, (uint32_t)(cpu->idtr.base + off), 4, &vec);
	if (r)
		return r;
	r = push_frame16(cpu, &s, f->rflags, f->rip);
	if (r)
		return r;
	stack_commit(cpu, &s);
	segment_set_real(cpu, SEG_CS, vec >> 16);
	cpu->rip = vec & 0xffff;
	cpu_set_rflags(cpu, cpu_rflags(cpu) & ~(uint64_t)(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF));
	return RESULT_OK;
}

/* INT n of a virtual-8086 task through its own IVT (SDM, VME): IF or VIF is the flag at stake. */
static enum result deliver_v86_redirected(struct cpu *cpu, uint8_t vector, unsigned insn_len)
{
	bool virtual_if = (cpu->sflags & FLAG_IOPL) != FLAG_IOPL;
	struct stack s = stack_here(cpu);
	uint64_t rflags = cpu_rflags(cpu);
	uint16_t image = rflags;
	uint64_t vec;
	enum result r;

	if (virtual_if) {
		image |= FLAG_IOPL;
		image &= ~FLAG_IF;
		image |= rflags & FLAG_VIF ? FLAG_IF : 0;
	}
	r = mmu_read_sys(cpu, vector * 4, 4, &vec);
	if (!r)
		r = push_frame16(cpu, &s, image, (uint16_t)(cpu->rip + insn_len));
	if (r)
		return r;
	stack_commit(cpu, &s);
	cpu->seg[SEG_CS] = segment_v86(vec >> 16);
	cpu->rip = vec & 0xffff;
	cpu_set_rflags(cpu, rflags & ~(uint64_t)(FLAG_TF | FLAG_NT | FLAG_RF |
						 (virtual_if ? FLAG_VIF : FLAG_IF)));
	return RESULT_OK;
}

/* ---- gates ---- */

struct gate {
	unsigned type;
	uint16_t sel;
	uint64_t off;
	unsigned ist;
};

static bool gate_type_ok(const struct cpu *cpu, uint64_t raw)
{
	unsigned type = raw >> 40 & 0x1f;

	if (type == DESC_INT32 || type == DESC_TRAP32)
		return true;
	if (cpu_long_mode(cpu))
		return false;
	return type == DESC_INT16 || type == DESC_TRAP16 || type == DESC_TASK_GATE;
}

static enum result gate_check(struct cpu *cpu, const struct event *ev, uint64_t raw)
{
	uint32_t error = ev->vector * 8 + ERROR_IDT;

	if (!gate_type_ok(cpu, raw))
		return fault_gp(cpu, error);
	if (event_is_soft(ev) && (raw >> 45 & 3) < cpu->mode.cpl)
		return fault_gp(cpu, error);
	if (!(raw >> 47 & 1))
		return fault_raise_error(cpu, VEC_NP, error);
	return RESULT_OK;
}

static enum result gate_read(struct cpu *cpu, const struct event *ev, struct gate *ret)
{
	unsigned size = cpu_long_mode(cpu) ? 16 : 8;
	uint32_t off = ev->vector * size;
	uint64_t raw, high = 0;
	gva_t addr = cpu->idtr.base + off;
	enum result r;

	if (off + size - 1 > cpu->idtr.limit)
		return fault_gp(cpu, ev->vector * 8 + ERROR_IDT);
	r = mmu_read_sys(cpu, size == 16 ? addr : (uint32_t)addr, 8, &raw);
	if (!r && size == 16)
		r = mmu_read_sys(cpu, addr + 8, 8, &high);
	if (!r)
		r = gate_check(cpu, ev, raw);
	if (r)
		return r;
	ret->type = raw >> 40 & 0xf;
	ret->sel = raw >> 16;
	ret->off = (raw & 0xffff) | (raw >> 32 & 0xffff0000) | high << 32;
	ret->ist = size == 16 ? raw >> 32 & 7 : 0;
	if (ret->type < 8)
		ret->off &= 0xffff;
	return RESULT_OK;
}

/* The handler's code segment; *ret_cpl is the privilege level it runs at. */
static enum result gate_target(struct cpu *cpu, const struct gate *g, struct desc *ret,
			       unsigned *ret_cpl)
{
	unsigned cpl = cpu->mode.cpl;
	enum result r;

	if (sel_null(g->sel))
		return fault_gp(cpu, 0);
	r = desc_fetch(cpu, g->sel, VEC_GP, ret);
	if (r)
		return r;
	if (!desc_code(ret) || SEG_DPL(ret->attr) > cpl)
		return fault_gp(cpu, SEL_ERROR(g->sel));
	if (cpu_long_mode(cpu) && (ret->attr & (SEG_L | SEG_DB)) != SEG_L)
		return fault_gp(cpu, SEL_ERROR(g->sel));
	*ret_cpl = desc_conforming(ret) ? cpl : SEG_DPL(ret->attr);
	if (cpu->mode.v86 && *ret_cpl != 0)
		return fault_gp(cpu, SEL_ERROR(g->sel));
	if (!desc_present(ret))
		return fault_raise_error(cpu, VEC_NP, SEL_ERROR(g->sel));
	return desc_mark_accessed(cpu, ret);
}

/* The common end: everything is checked and pushed. */
static void gate_commit(struct cpu *cpu, const struct gate *g, const struct segment *cs,
			const struct stack *s)
{
	uint64_t clear = FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM;

	if (!(g->type & 1))
		clear |= FLAG_IF;
	stack_commit(cpu, s);
	cpu->seg[SEG_CS] = *cs;
	cpu->rip = g->off;
	cpu_set_rflags(cpu, cpu_rflags(cpu) & ~clear);
}

/* ---- protected mode ---- */

static enum result push_v86_segments(struct cpu *cpu, struct stack *s, unsigned size)
{
	static const uint8_t order[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};
	enum result r = RESULT_OK;

	for (unsigned i = 0; !r && i < ARRAY_SIZE(order); i++)
		r = stack_push(cpu, s, size, cpu->seg[order[i]].sel);
	return r;
}

static enum result push_frame(struct cpu *cpu, struct stack *s, const struct frame *f, bool outer)
{
	unsigned count = 3 + (outer ? 2 : 0) + (cpu->mode.v86 ? 4 : 0) + f->ev->has_error;
	enum result r;

	r = stack_reserve(cpu, s, f->size, count);
	if (!r && cpu->mode.v86)
		r = push_v86_segments(cpu, s, f->size);
	if (!r && outer)
		r = stack_push(cpu, s, f->size, cpu->seg[SEG_SS].sel);
	if (!r && outer)
		r = stack_push(cpu, s, f->size, cpu->gpr[RSP]);
	if (!r)
		r = stack_push(cpu, s, f->size, f->rflags);
	if (!r)
		r = stack_push(cpu, s, f->size, cpu->seg[SEG_CS].sel);
	if (!r)
		r = stack_push(cpu, s, f->size, f->rip);
	if (!r && f->ev->has_error)
		r = stack_push(cpu, s, f->size, f->ev->error);
	return r;
}

static void null_data_segments(struct cpu *cpu)
{
	static const uint8_t all[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};

	for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
		cpu->seg[all[i]] = (struct segment){.attr = SEG_UNUSABLE};
}

/* The flags of the frame, RF included, go to the old TSS; a failed switch leaves them as they were. */
static enum result deliver_task(struct cpu *cpu, const struct gate *g, const struct frame *f)
{
	const struct event *ev = f->ev;
	uint16_t old = cpu->seg[SEG_TR].sel;
	bool had_rf = cpu->sflags & FLAG_RF;
	enum result r;

	cpu->sflags |= f->rflags & FLAG_RF;
	if (cpu->virt)
		cpu->virt->delivering = ev;
	r = sys_task_switch(cpu, g->sel, TASK_GATE, ev->has_error, ev->error, f->rip);
	if (cpu->virt)
		cpu->virt->delivering = NULL;
	if (r && !had_rf && cpu->seg[SEG_TR].sel == old)
		cpu->sflags &= ~FLAG_RF;
	return r;
}

static enum result deliver_protected(struct cpu *cpu, struct frame *f)
{
	struct gate g;
	struct desc d;
	struct segment cs;
	struct stack s;
	unsigned cpl;
	enum result r;

	r = gate_read(cpu, f->ev, &g);
	if (r)
		return r;
	if (g.type == DESC_TASK_GATE)
		return deliver_task(cpu, &g, f);
	r = gate_target(cpu, &g, &d, &cpl);
	if (r)
		return r;
	cs = code_segment(&d, cpl);
	s = stack_here(cpu);
	if (cpl != cpu->mode.cpl)
		r = stack_inner(cpu, cpl, &s);
	f->size = g.type & 8 ? 4 : 2;
	if (!r)
		r = push_frame(cpu, &s, f, cpl != cpu->mode.cpl);
	if (!r)
		r = code_check_rip(cpu, &cs, g.off);
	if (r)
		return r;
	if (cpu->mode.v86)
		null_data_segments(cpu);
	gate_commit(cpu, &g, &cs, &s);
	return RESULT_OK;
}

/* ---- long mode ---- */

/* The stack: IST, RSPn of the TSS, or the present one; 16-byte aligned in every case. */
static enum result long_stack(struct cpu *cpu, unsigned cpl, unsigned ist, struct stack *ret)
{
	uint64_t rsp = cpu->gpr[RSP];
	enum result r = RESULT_OK;

	if (ist)
		r = tss_read_rsp(cpu, ist + 3, &rsp);
	else if (cpl != cpu->mode.cpl)
		r = tss_read_rsp(cpu, cpl, &rsp);
	*ret = stack_flat64(cpu, cpl, rsp & ~15ull);
	if (cpl != cpu->mode.cpl)
		ret->ss = (struct segment){
			.sel = cpl,
			.attr = SEG_UNUSABLE | cpl << SEG_DPL_SHIFT,
		};
	return r;
}

static enum result deliver_long(struct cpu *cpu, struct frame *f)
{
	struct gate g;
	struct desc d;
	struct segment cs;
	struct stack s;
	unsigned cpl;
	enum result r;

	r = gate_read(cpu, f->ev, &g);
	if (!r)
		r = gate_target(cpu, &g, &d, &cpl);
	if (!r)
		r = long_stack(cpu, cpl, g.ist, &s);
	if (r)
		return r;
	cs = code_segment(&d, cpl);
	if (!gva_canonical(cpu, g.off))
		return fault_gp(cpu, 0);
	f->size = 8;
	r = push_frame(cpu, &s, f, true);
	if (!r)
		gate_commit(cpu, &g, &cs, &s);
	return r;
}

/* ---- escalation ---- */

static enum result deliver_once(struct cpu *cpu, const struct event *ev)
{
	struct frame f = {
		.ev = ev,
		.rip = return_rip(cpu, ev),
		.rflags = pushed_rflags(cpu, ev),
	};

	if (cpu->mode.real)
		return deliver_real(cpu, &f);
	if (cpu_long_mode(cpu))
		return deliver_long(cpu, &f);
	return deliver_protected(cpu, &f);
}

static bool event_is_external(const struct cpu *cpu, const struct event *ev)
{
	if (model_ext_by_exceptions(cpu->model))
		return !event_is_soft(ev);
	return ev->type == EVENT_INTERRUPT || ev->type == EVENT_NMI;
}

static void set_ext(const struct cpu *cpu, const struct event *during, struct event *fault)
{
	if (event_is_external(cpu, during) && fault->has_error &&
	    vector_in(SELECTOR_ERRORS, fault->vector))
		fault->error |= ERROR_EXT;
}

/* True where a second exception makes a double fault of the first (SDM's table). */
static bool makes_double(uint8_t first, uint8_t second)
{
	if (vector_in(CONTRIBUTORY, first))
		return vector_in(CONTRIBUTORY, second);
	return vector_in(PAGE_FAULTS, first) && vector_in(CONTRIBUTORY | PAGE_FAULTS, second);
}

/* What follows fault, met while ev was being delivered; false: shutdown. */
static bool escalate(struct event *ev, const struct event *fault)
{
	uint8_t first = ev->vector;
	bool exception = ev->type == EVENT_EXCEPTION;

	if (exception && first == VEC_DF && vector_in(CONTRIBUTORY | PAGE_FAULTS, fault->vector))
		return false;
	if (exception && makes_double(first, fault->vector))
		*ev = (struct event){
			.valid = true,
			.type = EVENT_EXCEPTION,
			.vector = VEC_DF,
			.has_error = true,
			.has_payload = fault->has_payload && fault->vector == VEC_PF,
			.payload = fault->payload,
		};
	else
		*ev = *fault;
	return true;
}

static bool event_is_exception(const struct event *ev)
{
	return ev->type == EVENT_EXCEPTION || ev->type == EVENT_SOFT_EXC ||
	       ev->type == EVENT_PRIV_SOFT_EXC;
}

/* True where a guest hypervisor takes the exception; the event being injected is none of them. */
bool event_intercepted(struct cpu *cpu, const struct event *ev, const struct event *cause)
{
	return event_is_exception(ev) && cpu_intercepts(cpu, INTERCEPT_EXCEPTION) &&
	       cpu->virt->ops->event(cpu, ev, cause);
}

/* In guest mode, a fault was met while ev was being delivered: true if that ends in an exit. */
static bool fault_intercepted(struct cpu *cpu, const struct event *ev)
{
	struct event fault = cpu->fault;

	if (fault.type == EVENT_VMEXIT) {
		cpu->fault.valid = false;
		cpu->virt->ops->refused(cpu, ev);
		return true;
	}
	return event_intercepted(cpu, &fault, ev);
}

static enum result shutdown(struct cpu *cpu)
{
	if (cpu_intercept(cpu, INTERCEPT_SHUTDOWN, 0))
		return RESULT_AGAIN;
	cpu->fault.valid = false;
	cpu->exit = (struct cpu_exit){.kind = CPU_EXIT_SHUTDOWN};
	return RESULT_STOP;
}

/*
 * Behind delivery; from: where it interrupted. #DB (INT1's, too) ends the recording and leaves the records alone, #MC has
 * no part in those of exceptions (APM, control-transfer recording).
 */
static void record_event(struct cpu *cpu, const struct event *ev, uint64_t from)
{
	uint64_t *lbr = cpu->msr.lbr;
	bool machine_check = ev->type == EVENT_EXCEPTION && ev->vector == VEC_MC;

	if (likely(!cpu_lbr(cpu)))
		return;
	if (event_is_exception(ev) && ev->vector == VEC_DB) {
		cpu->msr.debugctl &= ~(uint64_t)DEBUGCTL_LBR;
		return;
	}
	if (!machine_check) {
		lbr[2] = lbr[0];
		lbr[3] = lbr[1];
	}
	sys_record_branch(cpu, from);
}

static enum result delivered(struct cpu *cpu)
{
	cpu->fault.valid = false;
	cpu->inject.valid = false;
	cpu->shadow = 0;
	cpu->activity = ACTIVITY_RUN;
	cpu->answers.nr = 0;
	cpu->answers.used = 0;
	sys_mode_changed(cpu);
	return RESULT_OK;
}

enum result deliver_event(struct cpu *cpu, const struct event *ev)
{
	struct event cur = *ev, cause;
	bool guest = cpu_guest(cpu);
	uint64_t from = cpu->rip;
	enum result r;

	if (cur.type == EVENT_NMI && !cur.keeps_nmis)
		cpu->nmi_blocked = true;
	for (;;) {
		apply_payload(cpu, &cur);
		r = deliver_once(cpu, &cur);
		if (r == RESULT_OK) {
			record_event(cpu, &cur, from);
			return delivered(cpu);
		}
		if (r == RESULT_EXIT) {
			cpu->inject = cur;
			cpu_update_attention(cpu);
			return r;
		}
		if (guest && !cpu_guest(cpu))
			return RESULT_AGAIN; /* a task gate's switch is intercepted */
		if (r != RESULT_FAULT)
			continue;
		set_ext(cpu, &cur, &cpu->fault);
		if (fault_intercepted(cpu, &cur))
			return RESULT_AGAIN;
		cause = cur;
		if (!escalate(&cur, &cpu->fault))
			return shutdown(cpu);
		if (cur.vector == VEC_DF && event_intercepted(cpu, &cur, &cause))
			return RESULT_AGAIN;
	}
}

enum result sys_deliver(struct cpu *cpu, const struct event *ev)
{
	struct event copy = *ev;

	if (copy.type == EVENT_VMEXIT) {
		cpu->answers.nr = cpu->answers.used = 0;
		cpu->virt->ops->refused(cpu, NULL);
		return RESULT_AGAIN;
	}
	/* Answers and data breakpoints of the instruction that did not retire. */
	cpu->answers.nr = 0;
	cpu->answers.used = 0;
	if (is_fault(&copy) && !(cpu->shadow & SHADOW_MOV_SS))
		cpu->pending_dr6 = 0;
	if (copy.type == EVENT_EXCEPTION && copy.vector == VEC_DB && debug_by_program(cpu))
		return debug_exit(cpu, VEC_DB, copy.payload, RESULT_EXIT);
	if (event_intercepted(cpu, &copy, NULL))
		return RESULT_AGAIN;
	if (cpu_refuses(cpu, &copy, true))
		return RESULT_EXIT;
	return deliver_event(cpu, &copy);
}

/* ---- INT n, INT3, INTO, INT1 ---- */

/* The redirection bitmap is the 32 bytes below the I/O permission bitmap. */
static enum result v86_redirected(struct cpu *cpu, uint8_t vector, bool *ret)
{
	const struct segment *tr = &cpu->seg[SEG_TR];
	uint64_t base, byte;
	enum result r;

	*ret = false;
	if (!(cpu->cr4 & CR4_VME))
		return RESULT_OK;
	if (tr->limit < 103)
		return fault_gp(cpu, 0);
	r = mmu_read_sys(cpu, (uint32_t)(tr->base + 102), 2, &base);
	if (r)
		return r;
	base = base - 32 + vector / 8;
	if (base > tr->limit)
		return fault_gp(cpu, 0);
	r = mmu_read_sys(cpu, (uint32_t)(tr->base + base), 1, &byte);
	if (!r)
		*ret = !(byte >> (vector & 7) & 1);
	return r;
}

/* RESULT_AGAIN: not redirected, deliver through the IDT. */
static enum result soft_v86(struct cpu *cpu, uint8_t vector, unsigned insn_len)
{
	bool redirected;
	enum result r;

	r = v86_redirected(cpu, vector, &redirected);
	if (r)
		return r;
	if (redirected)
		return deliver_v86_redirected(cpu, vector, insn_len);
	if ((cpu->sflags & FLAG_IOPL) != FLAG_IOPL)
		return fault_gp(cpu, 0);
	return RESULT_AGAIN;
}

static bool soft_intercepted(struct cpu *cpu, const struct event *ev)
{
	if (ev->type == EVENT_SOFT_INT)
		return cpu_intercept(cpu, INTERCEPT_SOFT_INT, ev->vector);
	return event_intercepted(cpu, ev, NULL);
}

enum result sys_soft_interrupt(struct cpu *cpu, uint8_t vector, enum event_type type,
			       unsigned insn_len)
{
	struct event ev = {
		.valid = true,
		.type = type,
		.vector = vector,
		.insn_len = insn_len,
	};
	bool had_tf = cpu->sflags & FLAG_TF;
	uint64_t from = cpu->rip;
	enum result r = RESULT_AGAIN;

	if (type == EVENT_SOFT_EXC && vector == VEC_BP && cpu->debug.enabled &&
	    cpu->debug.use_sw_bp)
		return debug_exit(cpu, VEC_BP, 0, RESULT_EXIT);
	if (soft_intercepted(cpu, &ev))
		return RESULT_AGAIN;
	if (cpu->mode.v86 && type == EVENT_SOFT_INT)
		r = soft_v86(cpu, vector, insn_len);
	if (r == RESULT_AGAIN)
		r = deliver_once(cpu, &ev);
	if (r == RESULT_FAULT)
		set_ext(cpu, &ev, &cpu->fault);
	if (r == RESULT_FAULT && cpu_guest(cpu) && fault_intercepted(cpu, &ev))
		return RESULT_AGAIN;
	if (r)
		return r;
	record_event(cpu, &ev, from);
	if (type == EVENT_PRIV_SOFT_EXC)
		cpu->dr7 &= ~DR7_GD;
	if (had_tf)
		cpu->pending_dr6 |= PENDING_NO_STEP;
	sys_mode_changed(cpu);
	return RESULT_OK;
}
