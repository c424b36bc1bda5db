/* SPDX-License-Identifier: MIT */
/*
 * Running borrowed instructions.
 *
 * The operand's address is checked as the manuals say (segment, alignment, pages), then the thunk
 * runs on the host pointer. Where there is none (the operand crosses a page, or is no RAM), it runs on
 * a copy with the same offset modulo 64, so that the host judges alignment alike; all bytes are
 * checked for writing before the thunk commits registers. A thunk that returns 1 stored nothing.
 */
#include "silicon/exec/borrow.h"
#include "silicon/mmu/tlb.h"

#define LINE	       64
#define XSAVE_X87_SIZE 160 /* of the image: x87 and MXCSR */

enum result run_nop(struct cpu *cpu, const struct insn *insn)
{
	return insn_next(cpu, insn);
}

static enum result memory_gone(struct cpu *cpu)
{
	cpu->exit.kind = CPU_EXIT_MEMORY;
	cpu->exit.addr = GPA_NONE;
	cpu->exit.addr = cpu->exec->trap.addr;
	return RESULT_EXIT;
}

enum result borrow_trapped(struct cpu *cpu)
{
	const struct host_trap *trap = &cpu->exec->trap;

	if (trap->signo == SIGBUS || trap->signo == HOST_RESTART || trap->trapno == VEC_PF)
		return memory_gone(cpu);
	switch (trap->trapno) {
	case VEC_GP:
	case VEC_SS:
		return fault_gp(cpu, 0);
	case VEC_XM:
		return fault_raise(cpu, cpu->cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
	default:
		return fault_raise(cpu, trap->trapno);
	}
}

/* ---- x87: the pointers to the last instruction, which the host's would show wrongly ---- */

static void x87_record(struct cpu *cpu, const struct insn *insn)
{
	struct fpu *fpu = &cpu->fpu;

	fpu->fip = cpu->rip;
	fpu->fcs = cpu->seg[SEG_CS].sel;
	fpu->fop = (insn->opcode & 7) << 8 | insn->modrm;
	if (insn->flags & INSN_MEM) {
		fpu->fdp = insn_ea(cpu, insn);
		fpu->fds = cpu->seg[insn->seg].sel;
	}
}

static enum result finish(struct cpu *cpu, const struct insn *insn)
{
	if (unlikely(insn->flags & INSN_X87))
		x87_record(cpu, insn);
	return insn_next(cpu, insn);
}

/* ---- registers only ---- */

enum result run_reg(struct cpu *cpu, const struct insn *insn)
{
	if (unlikely(insn->thunk(cpu, NULL)))
		return borrow_trapped(cpu);
	return insn_next(cpu, insn);
}

enum result run_reg_fpu(struct cpu *cpu, const struct insn *insn)
{
	fpu_load(cpu);
	if (unlikely(insn->thunk(cpu, NULL)))
		return borrow_trapped(cpu);
	return finish(cpu, insn);
}

/* ---- one memory operand ---- */

static bool alignment_checked(const struct cpu *cpu)
{
	return cpu->sflags & FLAG_AC && cpu->cr0 & CR0_AM && cpu->mode.cpl == 3;
}

static enum result check_alignment(struct cpu *cpu, const struct insn *insn, gva_t addr)
{
	if (insn->flags & INSN_ALIGN && addr & (insn->align - 1))
		return fault_raise_error(cpu, VEC_AC, 0);
	return RESULT_OK;
}

static bool misaligned(const struct cpu *cpu, const struct insn *insn, uint64_t off)
{
	if (cpu->mode.code != CODE_64 || insn->seg >= SEG_FS)
		off += cpu->seg[insn->seg].base;
	return off & (insn->must_align - 1);
}

enum result borrow_address(struct cpu *cpu, const struct insn *insn, uint64_t off, gva_t *ret)
{
	enum result r;

	/* Silicon judges it before anything else about the address; the host would, but later. */
	if (insn->must_align && unlikely(misaligned(cpu, insn, off)))
		return fault_gp(cpu, 0);
	r = seg_linear(cpu, insn->seg, off, insn->mem_size, insn->mem_op, ret);
	if (unlikely(r))
		return r;
	return unlikely(alignment_checked(cpu)) ? check_alignment(cpu, insn, *ret) : RESULT_OK;
}

static bool power_of_two(uint32_t size)
{
	return !(size & (size - 1));
}

static enum result bounce_read(struct cpu *cpu, gva_t addr, uint8_t *buf, uint32_t size)
{
	uint64_t val;
	enum result r;

	if (size > 8 || !power_of_two(size))
		return mmu_read_bytes(cpu, addr, buf, size);
	r = mmu_read(cpu, addr, size, &val);
	if (!r)
		__builtin_memcpy(buf, &val, size);
	return r;
}

static enum result bounce_write(struct cpu *cpu, gva_t addr, const uint8_t *buf, uint32_t size)
{
	uint64_t val = 0;

	if (size > 8 || !power_of_two(size))
		return mmu_write_bytes(cpu, addr, buf, size);
	__builtin_memcpy(&val, buf, size);
	return mmu_write(cpu, addr, size, val);
}

/* An x87 store that raised an unmasked exception, precision apart, stored nothing. */
static bool x87_stored(void)
{
	uint16_t fsw, fcw;

	asm volatile("fnstsw %0; fnstcw %1" : "=a"(fsw), "=m"(fcw));
	return !(fsw & ~fcw & 0x1f);
}

/* Decisions: what KVM has no emulation for is the program's to run, if it asked for that. */
static enum result refuse(struct cpu *cpu, const struct insn *insn)
{
	cpu->exit = (struct cpu_exit){.kind = CPU_EXIT_EMULATION, .nr_bytes = insn->len};
	__builtin_memcpy(cpu->exit.bytes, insn->bytes, sizeof(cpu->exit.bytes));
	return RESULT_EXIT;
}

enum result borrow_probe(struct cpu *cpu, const struct insn *insn, gva_t addr, uint32_t size)
{
	bool device;
	enum result r = mmu_probe_bounced(cpu, addr, size, insn->mem_op, &device);

	if (!r && device && cpu->exit_on_emulation && !(insn->flags & INSN_KVM_EMUL))
		return refuse(cpu, insn);
	return r;
}

static enum result bounce(struct cpu *cpu, const struct insn *insn, gva_t addr)
{
	uint8_t area[3 * LINE] __aligned_(LINE), *buf = area + addr % LINE;
	uint32_t size = insn->mem_size;
	enum result r = borrow_probe(cpu, insn, addr, size);

	if (!r && insn->mem_op & ACCESS_READ)
		r = bounce_read(cpu, addr, buf, size);
	if (r)
		return r;
	if (insn->flags & INSN_FPU)
		fpu_load(cpu);
	if (insn->thunk(cpu, buf))
		return borrow_trapped(cpu);
	if (insn->mem_op & ACCESS_WRITE && !(insn->flags & INSN_X87 && !x87_stored()))
		r = bounce_write(cpu, addr, buf, size);
	return r ? r : finish(cpu, insn);
}

/* XCHG with memory locks without the prefix. */
static bool is_locked(const struct insn *insn)
{
	return insn->flags & INSN_LOCK || insn->op == ZYDIS_MNEMONIC_XCHG;
}

enum result borrow_bounce(struct cpu *cpu, const struct insn *insn, gva_t addr)
{
	enum result r;

	if (likely(!is_locked(insn)))
		return bounce(cpu, insn, addr);
	cpu_alone(cpu, true);
	r = bounce(cpu, insn, addr);
	cpu_alone(cpu, false);
	return r;
}

/*
 * An x87 store whose address is no good, while exceptions are unmasked: it may not come to storing. Try it on
 * a buffer, and take the state back if it would have stored.
 */
static enum result x87_store_anyway(struct cpu *cpu, const struct insn *insn, enum result r)
{
	uint8_t buf[LINE] __aligned_(16), image[XSAVE_X87_SIZE];

	fpu_save(cpu);
	__builtin_memcpy(image, cpu->fpu.area, sizeof(image));
	fpu_load(cpu);
	if (insn->thunk(cpu, buf))
		return borrow_trapped(cpu);
	if (!x87_stored()) {
		cpu->fault.valid = false;
		return finish(cpu, insn);
	}
	fpu_save(cpu);
	__builtin_memcpy(cpu->fpu.area, image, sizeof(image));
	return r;
}

static bool x87_unmasked(struct cpu *cpu, const struct insn *insn)
{
	uint16_t fcw;

	if (!(insn->flags & INSN_X87) || insn->mem_op != ACCESS_WRITE)
		return false;
	fpu_load(cpu);
	asm volatile("fnstcw %0" : "=m"(fcw));
	return (fcw & 0x1f) != 0x1f;
}

enum result borrow_convert_anyway(struct cpu *cpu, const struct insn *insn, enum result r)
{
	uint8_t buf[LINE] __aligned_(16);

	if (insn->op != ZYDIS_MNEMONIC_VCVTPS2PH || cpu->fault.vector == VEC_XM)
		return r;
	fpu_load(cpu);
	return insn->thunk(cpu, buf) ? borrow_trapped(cpu) : r;
}

static enum result store_faulted(struct cpu *cpu, const struct insn *insn, enum result r)
{
	if (x87_unmasked(cpu, insn) && cpu->fault.vector != VEC_MF)
		return x87_store_anyway(cpu, insn, r);
	return borrow_convert_anyway(cpu, insn, r);
}

static inline enum result run_on(struct cpu *cpu, const struct insn *insn, uint8_t *ptr)
{
	if (insn->flags & INSN_FPU)
		fpu_load(cpu);
	if (unlikely(insn->thunk(cpu, ptr)))
		return borrow_trapped(cpu);
	return finish(cpu, insn);
}

static enum result run_at(struct cpu *cpu, const struct insn *insn, gva_t addr)
{
	uint8_t *ptr;
	enum result r = mmu_pointer(cpu, addr, insn->mem_size, insn->mem_op, &ptr);

	if (unlikely(r))
		return r;
	if (unlikely(!ptr))
		return borrow_bounce(cpu, insn, addr);
	return run_on(cpu, insn, ptr);
}

/* The operand's host pointer where nothing is left to check, or NULL. */
static inline uint8_t *operand_hit(const struct cpu *cpu, const struct insn *insn)
{
	gva_t addr;

	if (!insn_linear(cpu, insn, &addr) || (insn->must_align && addr & (insn->must_align - 1)))
		return NULL;
	return insn->mem_op & ACCESS_WRITE ? tlb_hit_write(cpu, addr, insn->mem_size)
					   : tlb_hit_read(cpu, addr, insn->mem_size);
}

enum result run_mem(struct cpu *cpu, const struct insn *insn)
{
	uint8_t *ptr = operand_hit(cpu, insn);
	enum result r;
	gva_t addr;

	if (likely(ptr)) {
		r = run_on(cpu, insn, ptr);
	} else {
		r = borrow_address(cpu, insn, insn_ea(cpu, insn), &addr);
		if (likely(!r))
			r = run_at(cpu, insn, addr);
	}
	if (unlikely(r == RESULT_FAULT))
		return store_faulted(cpu, insn, r);
	return r;
}

/* ---- bit strings: the index reaches beyond the operand ---- */

static int64_t signed_reg(const struct cpu *cpu, unsigned reg, unsigned size)
{
	unsigned shift = 64 - 8 * size;

	return (int64_t)(cpu->gpr[reg] << shift) >> shift;
}

static uint64_t wrap(uint64_t off, unsigned addrsize)
{
	return addrsize == 8 ? off : off & (BIT(8 * addrsize) - 1);
}

uint64_t borrow_bit_ea(const struct cpu *cpu, const struct insn *insn)
{
	int64_t index = signed_reg(cpu, insn->reg, insn->opsize);
	uint64_t off =
		insn_ea(cpu, insn) + (index >> __builtin_ctz(8 * insn->opsize)) * insn->opsize;

	return wrap(off, insn->addrsize);
}

/* The thunk sees the operand that holds the bit, and the index within it. */
enum result run_bit(struct cpu *cpu, const struct insn *insn)
{
	uint64_t was = cpu->gpr[insn->reg];
	gva_t addr;
	enum result r = borrow_address(cpu, insn, borrow_bit_ea(cpu, insn), &addr);

	if (r)
		return r;
	cpu->gpr[insn->reg] = was & (8 * insn->opsize - 1);
	r = run_at(cpu, insn, addr);
	cpu->gpr[insn->reg] = was;
	return r;
}
