/* SPDX-License-Identifier: MIT */
/*
 * String instructions (SDM, instruction reference: REP, MOVS, CMPS, SCAS, LODS, STOS, INS, OUTS).
 *
 * One iteration at a time, or runs of iterations inside one page of RAM on the host's own string instruction
 * (same element size and direction, so overlaps behave as the architecture says). After each the registers are
 * whole; once something asks for attention, RESULT_AGAIN leaves RIP on the instruction for the rest, so that
 * events are taken in between. RFLAGS.RF is set meanwhile, for the image that an event pushes.
 */
#include "silicon/exec/emul.h"
#include "host/guard.h"
#include "host/host.h"

/* One string instruction on its way. */
struct string {
	const struct insn *insn;
	unsigned size;	 /* of an element */
	unsigned width;	 /* address size */
	enum seg_id seg; /* of the source */
	int64_t step;
	bool rep;	/* any repeat prefix */
	uint64_t count; /* rCX, or 1 */
};

static void string_init(const struct cpu *cpu, const struct insn *insn, struct string *s)
{
	unsigned size = insn->opcode & 1 ? emul_opsize(cpu, insn) : 1;

	s->insn = insn;
	s->size = size;
	s->width = insn->addrsize;
	s->seg = emul_implicit_seg(cpu, insn);
	s->step = cpu->sflags & FLAG_DF ? -(int64_t)size : (int64_t)size;
	s->rep = insn->flags & (INSN_REP | INSN_REPNE);
	s->count = s->rep ? reg_read(cpu, RCX, s->width, false) : 1;
}

/*
 * With ECX = 0 under a 32-bit address size in 64-bit mode, Intel's processors clear the upper halves
 * of RCX and of the pointers that MOVS and STOS use.
 */
static enum result string_empty(struct cpu *cpu, const struct string *s)
{
	bool movs = (s->insn->opcode & ~1) == 0xa4, stos = (s->insn->opcode & ~1) == 0xaa;

	if (s->width == 4 && cpu->mode.code == CODE_64 && model_intel(cpu->model)) {
		cpu->gpr[RCX] = 0;
		if (movs)
			cpu->gpr[RSI] = (uint32_t)cpu->gpr[RSI];
		if (movs || stos)
			cpu->gpr[RDI] = (uint32_t)cpu->gpr[RDI];
	}
	cpu->sflags &= ~FLAG_RF;
	return insn_next(cpu, s->insn);
}

static uint64_t string_off(const struct cpu *cpu, const struct string *s, enum gpr reg)
{
	return reg_read(cpu, reg, s->width, false);
}

static void string_move(struct cpu *cpu, const struct string *s, enum gpr reg, uint64_t n)
{
	reg_write(cpu, reg, s->width, false,
		  (cpu->gpr[reg] + s->step * (int64_t)n) & emul_mask(s->width));
}

/* Between two iterations; RF stays set for the image that an event pushes. */
static enum result string_pause(struct cpu *cpu)
{
	cpu->answers.nr = 0;
	cpu->answers.used = 0;
	cpu->sflags |= FLAG_RF;
	return sys_iterate(cpu);
}

/* Commit n iterations; more false ends the repetition early (a comparison decided). */
static enum result string_done(struct cpu *cpu, const struct string *s, uint64_t n, bool more)
{
	if (s->rep)
		reg_write(cpu, RCX, s->width, false, s->count - n);
	if (s->count != n && more)
		return string_pause(cpu);
	cpu->sflags &= ~FLAG_RF;
	return insn_next(cpu, s->insn);
}

/* Linear address of one element at seg:reg. */
static enum result string_linear(struct cpu *cpu, const struct string *s, enum seg_id seg,
				 enum gpr reg, enum access_op op, gva_t *ret)
{
	return seg_linear(cpu, seg, string_off(cpu, s, reg), s->size, op, ret);
}

/* ---- runs inside one page ---- */

/* True where iterations may be taken together: nothing looks at each of them. */
static bool string_may_run(const struct cpu *cpu, const struct string *s)
{
	return s->rep && !(cpu->attention & (ATTN_TF | ATTN_VIRT)) && !(cpu_dr7(cpu) & 0xff);
}

/* Elements from reg on that lie in one page and do not wrap at the address size, at most max. */
static uint64_t run_length(struct cpu *cpu, const struct string *s, enum seg_id seg, enum gpr reg,
			   uint64_t max)
{
	uint64_t off = string_off(cpu, s, reg), linear = off, room, below;

	if (cpu->mode.code != CODE_64 || seg >= SEG_FS)
		linear += cpu->seg[seg].base;
	room = PAGE_SIZE - (linear & ~PAGE_MASK);
	if (s->width < 8)
		room = min(room, BIT(s->width * 8) - off);
	if (s->step > 0)
		return min(room / s->size, max);
	below = linear & ~PAGE_MASK;
	if (s->width < 8)
		below = min(below, off);
	return room < s->size ? 0 : min(below / s->size + 1, max);
}

/*
 * Host pointer to the first of n elements at seg:reg, or NULL: then the single iteration finds out why, and
 * raises what is to be raised for its own element.
 */
static uint8_t *run_pointer(struct cpu *cpu, const struct string *s, enum seg_id seg, enum gpr reg,
			    uint64_t n, enum access_op op)
{
	uint32_t bytes = n * s->size, before = s->step > 0 ? 0 : bytes - s->size;
	uint8_t *hva = NULL;
	gva_t addr;

	if (seg_linear(cpu, seg, string_off(cpu, s, reg) - before, bytes, op, &addr) ||
	    mmu_pointer(cpu, addr, bytes, op, &hva)) {
		cpu->fault.valid = false;
		return NULL;
	}
	return hva ? hva + before : NULL;
}

/*
 * Each returns how many elements were moved before the host faulted: what is moved stays moved, as moving
 * overlapping elements twice would give something else.
 */
#define DEFINE_HOST_MOVS(name, before, insn, after)                                            \
	static __noinline uint64_t host_movs_##name(void *dst, const void *src, uint64_t n)    \
	{                                                                                      \
		uint64_t left = n;                                                             \
                                                                                               \
		asm volatile(before "1: rep " insn "\n2: " after "\n" HOST_EXTABLE("1b", "2b") \
			     : "+D"(dst), "+S"(src), "+c"(left)                                \
			     :                                                                 \
			     : "memory");                                                      \
		return n - left;                                                               \
	}

#define DEFINE_HOST_STOS(name, before, insn, after)                                            \
	static __noinline uint64_t host_stos_##name(void *dst, uint64_t val, uint64_t n)       \
	{                                                                                      \
		uint64_t left = n;                                                             \
                                                                                               \
		asm volatile(before "1: rep " insn "\n2: " after "\n" HOST_EXTABLE("1b", "2b") \
			     : "+D"(dst), "+c"(left)                                           \
			     : "a"(val)                                                        \
			     : "memory");                                                      \
		return n - left;                                                               \
	}

#define DEFINE_HOST(bits, suffix)                                    \
	DEFINE_HOST_MOVS(bits, "", "movs" suffix, "")                \
	DEFINE_HOST_MOVS(down_##bits, "std\n", "movs" suffix, "cld") \
	DEFINE_HOST_STOS(bits, "", "stos" suffix, "")                \
	DEFINE_HOST_STOS(down_##bits, "std\n", "stos" suffix, "cld")

DEFINE_HOST(8, "b")
DEFINE_HOST(16, "w")
DEFINE_HOST(32, "l")
DEFINE_HOST(64, "q")

/* By direction, then by log2 of the element size. */
static uint64_t (*const host_movs[2][4])(void *dst, const void *src, uint64_t n) = {
	{host_movs_8, host_movs_16, host_movs_32, host_movs_64},
	{host_movs_down_8, host_movs_down_16, host_movs_down_32, host_movs_down_64},
};

static uint64_t (*const host_stos[2][4])(void *dst, uint64_t val, uint64_t n) = {
	{host_stos_8, host_stos_16, host_stos_32, host_stos_64},
	{host_stos_down_8, host_stos_down_16, host_stos_down_32, host_stos_down_64},
};

uint64_t emul_host_movs(unsigned log2, void *dst, const void *src, uint64_t n)
{
	return host_movs[0][log2](dst, src, n);
}

uint64_t emul_host_stos(unsigned log2, void *dst, uint64_t val, uint64_t n)
{
	return host_stos[0][log2](dst, val, n);
}

/* ---- all alike ---- */

/* What one of them does. Both return with the flags of the last comparison, where it compares. */
struct string_op {
	uint64_t (*run)(struct cpu *cpu, const struct string *s, uint64_t *aflags); /* iterations */
	enum result (*one)(struct cpu *cpu, const struct string *s, uint64_t *aflags);
	bool rsi, rdi, compares;
};

/* REPE goes on while equal, REPNE while not. */
static bool compare_goes_on(const struct insn *insn, uint64_t aflags)
{
	bool zf = aflags & FLAG_ZF << 8;

	return zf == !(insn->flags & INSN_REPNE);
}

/* Commit n iterations; false if they were the last. */
static __always_inline_ bool string_commit(struct cpu *cpu, struct string *s,
					   const struct string_op *op, uint64_t n, uint64_t aflags)
{
	if (op->rsi)
		string_move(cpu, s, RSI, n);
	if (op->rdi)
		string_move(cpu, s, RDI, n);
	if (op->compares)
		cpu->aflags = aflags;
	s->count -= n;
	if (s->rep)
		reg_write(cpu, RCX, s->width, false, s->count);
	return s->count && !(op->compares && !compare_goes_on(s->insn, aflags));
}

/* Something is to be done before the next iteration. */
static bool string_interrupted(const struct cpu *cpu)
{
	return __atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) | cpu->out.nr | cpu->answers.nr;
}

/* An iteration but the first failed: its instruction has begun. */
static __noinline enum result string_failed(struct cpu *cpu, enum result r)
{
	cpu_update_attention(cpu);
	return r;
}

static __always_inline_ enum result string_all(struct cpu *cpu, const struct insn *insn,
					       const struct string_op *op)
{
	struct string s;
	uint64_t n, aflags = 0;
	enum result r;
	bool together;

	string_init(cpu, insn, &s);
	if (!s.count)
		return string_empty(cpu, &s);
	together = string_may_run(cpu, &s);
	for (;;) {
		n = together && op->run ? op->run(cpu, &s, &aflags) : 0;
		if (!n) {
			r = op->one(cpu, &s, &aflags);
			if (r)
				return cpu->sflags & FLAG_RF ? string_failed(cpu, r) : r;
			n = 1;
		}
		if (!string_commit(cpu, &s, op, n, aflags))
			break;
		if (!together || string_interrupted(cpu))
			return string_pause(cpu);
		cpu->sflags |= FLAG_RF;
	}
	cpu->sflags &= ~FLAG_RF;
	return insn_next(cpu, insn);
}

/* ---- MOVS, STOS, LODS ---- */

static bool string_down(const struct string *s)
{
	return s->step < 0;
}

static unsigned string_log2(const struct string *s)
{
	return __builtin_ctz(s->size);
}

/* Iterations done together, 0 if none can be. */
static uint64_t movs_run(struct cpu *cpu, const struct string *s, uint64_t *aflags)
{
	uint64_t n = run_length(cpu, s, s->seg, RSI, s->count);
	uint8_t *src, *dst;

	n = run_length(cpu, s, SEG_ES, RDI, n);
	if (!n)
		return 0;
	src = run_pointer(cpu, s, s->seg, RSI, n, ACCESS_READ);
	dst = src ? run_pointer(cpu, s, SEG_ES, RDI, n, ACCESS_WRITE) : NULL;
	return dst ? host_movs[string_down(s)][string_log2(s)](dst, src, n) : 0;
}

static enum result movs_one(struct cpu *cpu, const struct string *s, uint64_t *aflags)
{
	uint64_t val;
	enum result r = seg_read(cpu, s->seg, string_off(cpu, s, RSI), s->size, &val);

	return r ? r : seg_write(cpu, SEG_ES, string_off(cpu, s, RDI), s->size, val);
}

enum result emul_movs(struct cpu *cpu, const struct insn *insn)
{
	static const struct string_op op = {movs_run, movs_one, .rsi = true, .rdi = true};

	return string_all(cpu, insn, &op);
}

static uint64_t stos_run(struct cpu *cpu, const struct string *s, uint64_t *aflags)
{
	uint64_t n = run_length(cpu, s, SEG_ES, RDI, s->count);
	uint8_t *dst = n ? run_pointer(cpu, s, SEG_ES, RDI, n, ACCESS_WRITE) : NULL;

	return dst ? host_stos[string_down(s)][string_log2(s)](dst, cpu->gpr[RAX], n) : 0;
}

static enum result stos_one(struct cpu *cpu, const struct string *s, uint64_t *aflags)
{
	return seg_write(cpu, SEG_ES, string_off(cpu, s, RDI), s->size,
			 reg_read(cpu, RAX, s->size, false));
}

enum result emul_stos(struct cpu *cpu, const struct insn *insn)
{
	static const struct string_op op = {stos_run, stos_one, .rdi = true};

	return string_all(cpu, insn, &op);
}

static enum result lods_one(struct cpu *cpu, const struct string *s, uint64_t *aflags)
{
	uint64_t val;
	enum result r = seg_read(cpu, s->seg, string_off(cpu, s, RSI), s->size, &val);

	if (!r)
		reg_write(cpu, RAX, s->size, false, val);
	return r;
}

enum result emul_lods(struct cpu *cpu, const struct insn *insn)
{
	static const struct string_op op = {NULL, lods_one, .rsi = true};

	return string_all(cpu, insn, &op);
}

/* ---- CMPS, SCAS ---- */

/* Flags of CMP a,b in the form of cpu->aflags: the host's own. */
static uint64_t compare(unsigned size, uint64_t a, uint64_t b)
{
	uint64_t flags;

	switch (size) {
	case 1:
		asm("cmpb %b2, %b1; lahf; seto %%al" : "=a"(flags) : "r"(a), "r"(b) : "cc");
		break;
	case 2:
		asm("cmpw %w2, %w1; lahf; seto %%al" : "=a"(flags) : "r"(a), "r"(b) : "cc");
		break;
	case 4:
		asm("cmpl %k2, %k1; lahf; seto %%al" : "=a"(flags) : "r"(a), "r"(b) : "cc");
		break;
	default:
		asm("cmpq %q2, %q1; lahf; seto %%al" : "=a"(flags) : "r"(a), "r"(b) : "cc");
		break;
	}
	return (uint16_t)flags;
}

static bool guarded_load(unsigned size, const uint8_t *ptr, uint64_t *ret)
{
	uint8_t v8;
	uint16_t v16;
	uint32_t v32;

	switch (size) {
	case 1:
		return host_load_8(ptr, &v8) && (*ret = v8, true);
	case 2:
		return host_load_16(ptr, &v16) && (*ret = v16, true);
	case 4:
		return host_load_32(ptr, &v32) && (*ret = v32, true);
	}
	return host_load_64(ptr, ret);
}

/*
 * Compare up to n elements, fixed standing for left where that is NULL. The number done, with the flags of
 * the last; 0 if the host faulted at once.
 */
static uint64_t compare_run(const struct string *s, const uint8_t *left, const uint8_t *right,
			    uint64_t fixed, uint64_t n, uint64_t *aflags)
{
	uint64_t a = fixed, b, last_a = 0, last_b = 0, done = 0;
	bool until_equal = s->insn->flags & INSN_REPNE;

	while (done < n) {
		int64_t at = (int64_t)done * s->step;

		if (left && !guarded_load(s->size, left + at, &a))
			break;
		if (!guarded_load(s->size, right + at, &b))
			break;
		last_a = a;
		last_b = b;
		done++;
		if ((a == b) == until_equal)
			break;
	}
	*aflags = compare(s->size, last_a, last_b);
	return done;
}

static uint64_t cmps_run(struct cpu *cpu, const struct string *s, uint64_t *aflags)
{
	uint64_t n = run_length(cpu, s, s->seg, RSI, s->count);
	const uint8_t *left, *right;

	n = run_length(cpu, s, SEG_ES, RDI, n);
	if (!n)
		return 0;
	left = run_pointer(cpu, s, s->seg, RSI, n, ACCESS_READ);
	right = left ? run_pointer(cpu, s, SEG_ES, RDI, n, ACCESS_READ) : NULL;
	return right ? compare_run(s, left, right, 0, n, aflags) : 0;
}

static enum result cmps_one(struct cpu *cpu, const struct string *s, uint64_t *aflags)
{
	uint64_t a, b;
	enum result r = seg_read(cpu, s->seg, string_off(cpu, s, RSI), s->size, &a);

	if (r)
		return r;
	r = seg_read(cpu, SEG_ES, string_off(cpu, s, RDI), s->size, &b);
	if (!r)
		*aflags = compare(s->size, a, b);
	return r;
}

enum result emul_cmps(struct cpu *cpu, const struct insn *insn)
{
	static const struct string_op op = {cmps_run, cmps_one, true, true, true};

	return string_all(cpu, insn, &op);
}

static uint64_t scas_run(struct cpu *cpu, const struct string *s, uint64_t *aflags)
{
	uint64_t n = run_length(cpu, s, SEG_ES, RDI, s->count);
	const uint8_t *ptr = n ? run_pointer(cpu, s, SEG_ES, RDI, n, ACCESS_READ) : NULL;

	if (!ptr)
		return 0;
	return compare_run(s, NULL, ptr, reg_read(cpu, RAX, s->size, false), n, aflags);
}

static enum result scas_one(struct cpu *cpu, const struct string *s, uint64_t *aflags)
{
	uint64_t val;
	enum result r = seg_read(cpu, SEG_ES, string_off(cpu, s, RDI), s->size, &val);

	if (!r)
		*aflags = compare(s->size, cpu->gpr[RAX], val);
	return r;
}

enum result emul_scas(struct cpu *cpu, const struct insn *insn)
{
	static const struct string_op op = {scas_run, scas_one, .rdi = true, .compares = true};

	return string_all(cpu, insn, &op);
}

/* ---- INS, OUTS ---- */

/* Exit qualification of a string port access (SDM, exit qualification for I/O instructions). */
static uint64_t string_io_qualification(const struct string *s, uint16_t port, bool in)
{
	return (uint64_t)port << 16 | (uint64_t)s->rep << 5 | BIT(4) | (uint64_t)in << 3 |
	       (s->size - 1);
}

/* Ports have no 64-bit accesses: REX.W does not widen. */
static void string_io_init(const struct cpu *cpu, const struct insn *insn, struct string *s)
{
	string_init(cpu, insn, s);
	if (s->size == 8) {
		s->size = 4;
		s->step /= 2;
	}
}

static enum result string_io_check(struct cpu *cpu, const struct string *s, uint16_t port, bool in)
{
	enum result r = sys_io_check(cpu, port, s->size);

	if (!r && cpu_intercept(cpu, INTERCEPT_IO, string_io_qualification(s, port, in)))
		return EMUL_INTERCEPTED;
	return r;
}

/*
 * User space is asked for as many elements at once as fit into the rest of a page of RAM, as KVM does; its
 * buffer has 1 KiB. With DF = 1, in single-step and under breakpoints one by one.
 */
#define INS_BATCH 1024

static uint64_t ins_run(struct cpu *cpu, const struct string *s, uint64_t max, uint8_t **ret)
{
	uint64_t n = 0;

	*ret = NULL;
	if (string_may_run(cpu, s) && s->step > 0)
		n = run_length(cpu, s, SEG_ES, RDI, min(s->count, max));
	if (n > 1)
		*ret = run_pointer(cpu, s, SEG_ES, RDI, n, ACCESS_WRITE);
	return *ret ? n : 1;
}

/* Store what the port gave; the number of elements, 0 if it must be done by one. */
static uint64_t ins_store(struct cpu *cpu, const struct string *s)
{
	const struct answer *answer = answers_last(cpu);
	uint8_t *dst;
	uint64_t n;

	if (!answer || answer->kind != ANSWER_IO || answer->count < 2)
		return 0;
	n = ins_run(cpu, s, answer->count, &dst);
	return dst && host_copy_guarded(dst, answer->batch, n * s->size) ? n : 0;
}

enum result emul_ins(struct cpu *cpu, const struct insn *insn)
{
	uint16_t port = cpu->gpr[RDX];
	struct string s;
	enum result r;
	uint64_t val, n;
	uint8_t *dst;
	gva_t addr;

	string_io_init(cpu, insn, &s);
	if (!s.count)
		return string_empty(cpu, &s);
	r = string_io_check(cpu, &s, port, true);
	if (!r)
		r = string_linear(cpu, &s, SEG_ES, RDI, ACCESS_WRITE, &addr);
	if (!r)
		r = mmu_probe(cpu, addr, s.size, ACCESS_WRITE);
	if (r)
		return r;
	r = sys_io_read(cpu, port, s.size, &val);
	if (r == RESULT_EXIT)
		cpu->exit.count = ins_run(cpu, &s, INS_BATCH / s.size, &dst);
	if (r)
		return r;
	n = ins_store(cpu, &s);
	if (!n) {
		r = mmu_write(cpu, addr, s.size, val);
		if (r)
			return r;
		n = 1;
	}
	string_move(cpu, &s, RDI, n);
	return string_done(cpu, &s, n, true);
}

enum result emul_outs(struct cpu *cpu, const struct insn *insn)
{
	uint16_t port = cpu->gpr[RDX];
	struct string s;
	enum result r;
	uint64_t val;

	string_io_init(cpu, insn, &s);
	if (!s.count)
		return string_empty(cpu, &s);
	r = string_io_check(cpu, &s, port, false);
	if (!r)
		r = seg_read(cpu, s.seg, string_off(cpu, &s, RSI), s.size, &val);
	if (!r)
		r = sys_io_write(cpu, port, s.size, val);
	if (r)
		return r;
	string_move(cpu, &s, RSI, 1);
	return string_done(cpu, &s, 1, true);
}
