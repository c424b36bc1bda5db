/* SPDX-License-Identifier: MIT */
/*
 * What must be the same after a stretch (lockstep.h): members of struct cpu by table, vector state by its bytes.
 *
 * Two images of the same vector state may differ in what counts as initial, and the host's own x87 pointers
 * stand in them: images that differ are passed through the processor once more and those bytes left out.
 */
#include "silicon/exec/lockstep.h"

#define FIELD(name, member)                                                           \
	{                                                                             \
		name, offsetof(struct cpu, member), sizeof(((struct cpu *)0)->member) \
	}
#define SEGMENT(name, id)                                                       \
	FIELD(name " base", seg[id].base), FIELD(name " limit", seg[id].limit), \
		FIELD(name " attributes", seg[id].attr), FIELD(name, seg[id].sel)

/* clang-format off */
static const struct {
	const char *name;
	uint32_t offset, size;
} fields[] = {
	FIELD("rip", rip), FIELD("retired", retired),
	FIELD("rax", gpr[RAX]), FIELD("rcx", gpr[RCX]), FIELD("rdx", gpr[RDX]), FIELD("rbx", gpr[RBX]),
	FIELD("rsp", gpr[RSP]), FIELD("rbp", gpr[RBP]), FIELD("rsi", gpr[RSI]), FIELD("rdi", gpr[RDI]),
	FIELD("r8", gpr[R8]), FIELD("r9", gpr[R9]), FIELD("r10", gpr[R10]), FIELD("r11", gpr[R11]),
	FIELD("r12", gpr[R12]), FIELD("r13", gpr[R13]), FIELD("r14", gpr[R14]), FIELD("r15", gpr[R15]),
	FIELD("arithmetic flags", aflags), FIELD("system flags", sflags), FIELD("mode", mode),
	SEGMENT("es", SEG_ES), SEGMENT("cs", SEG_CS), SEGMENT("ss", SEG_SS), SEGMENT("ds", SEG_DS),
	SEGMENT("fs", SEG_FS), SEGMENT("gs", SEG_GS), SEGMENT("ldtr", SEG_LDTR), SEGMENT("tr", SEG_TR),
	FIELD("gdt base", gdtr.base), FIELD("gdt limit", gdtr.limit),
	FIELD("idt base", idtr.base), FIELD("idt limit", idtr.limit),
	FIELD("cr0", cr0), FIELD("cr2", cr2), FIELD("cr3", cr3), FIELD("cr4", cr4), FIELD("xcr0", xcr0),
	FIELD("pdpte", pdpte), FIELD("dr0-3", dr), FIELD("dr6", dr6), FIELD("dr7", dr7), FIELD("pkru", pkru),
	FIELD("efer", msr.efer), FIELD("kernel gs base", msr.kernel_gs_base), FIELD("msrs", msr),
	FIELD("event to inject", inject.valid), FIELD("shadow", shadow), FIELD("activity", activity),
	FIELD("nmi pending", nmi_pending), FIELD("nmi blocked", nmi_blocked), FIELD("smm", in_smm),
	FIELD("smi pending", smi_pending), FIELD("pending dr6", pending_dr6),
	FIELD("writes to devices", out.nr), FIELD("x87 opcode", fpu.fop), FIELD("x87 cs", fpu.fcs),
	FIELD("x87 ds", fpu.fds), FIELD("x87 rip", fpu.fip), FIELD("x87 operand", fpu.fdp),
};
/* clang-format on */

#define COPY(to, from, first, last)                                                    \
	__builtin_memcpy((uint8_t *)(to) + (first), (const uint8_t *)(from) + (first), \
			 (last) - (first))

void lockstep_state_copy(struct cpu *to, const struct cpu *from)
{
	COPY(to, from, 0, offsetof(struct cpu, attention));
	COPY(to, from, offsetof(struct cpu, mode), offsetof(struct cpu, model));
	COPY(to, from, offsetof(struct cpu, model_features), sizeof(struct cpu));
	if (from->amx)
		amx_copy(to->amx, from->amx);
}

void lockstep_virt_keep(const struct cpu *cpu, uint8_t *to)
{
	if (cpu->virt)
		__builtin_memcpy(to, cpu->virt, cpu->virt->size);
}

void lockstep_virt_set(struct cpu *cpu, const uint8_t *from)
{
	if (cpu->virt)
		__builtin_memcpy(cpu->virt, from, cpu->virt->size);
}

/* The first byte of *cpu->virt that differs, or -1; what describes the last instruction is a note. */
static int virt_difference(const struct lockstep *ls)
{
	const struct virt *now = ls->run->cpu->virt;

	for (uint32_t i = 0; now && i < now->size; i++) {
		if (i == offsetof(struct virt, insn))
			i += sizeof(now->insn);
		if (ls->virt_stepped[i] != ((const uint8_t *)now)[i])
			return i;
	}
	return -1;
}

static bool field_same(const struct lockstep *ls, unsigned i)
{
	const uint8_t *a = (const uint8_t *)&ls->stepped, *b = (const uint8_t *)ls->run->cpu;

	return !__builtin_memcmp(a + fields[i].offset, b + fields[i].offset, fields[i].size);
}

static bool event_same(const struct event *a, const struct event *b)
{
	return a->valid == b->valid &&
	       (!a->valid ||
		(a->type == b->type && a->vector == b->vector && a->has_error == b->has_error &&
		 (!a->has_error || a->error == b->error) && a->has_payload == b->has_payload &&
		 (!a->has_payload || a->payload == b->payload)));
}

/* Where the program took memory away is known better after a walk than after a hit. */
static bool exit_same(const struct lockstep *ls)
{
	const struct cpu_exit *a = &ls->stepped.exit, *b = &ls->run->cpu->exit;

	if (ls->kind != ls->run_kind)
		return false;
	return !ls->kind || ls->kind == CPU_EXIT_MEMORY ||
	       (a->kind == b->kind && a->size == b->size && a->count == b->count &&
		a->addr == b->addr && a->data == b->data);
}

static bool writes_same(const struct lockstep *ls)
{
	const struct out_writes *a = &ls->stepped.out, *b = &ls->run->cpu->out;

	for (unsigned i = 0; i < a->nr; i++)
		if (a->v[i].addr != b->v[i].addr || a->v[i].size != b->v[i].size ||
		    a->v[i].data != b->v[i].data || a->v[i].is_port != b->v[i].is_port)
			return false;
	return a->nr == b->nr;
}

/* ---- vector state ---- */

#define X87_POINTERS 6 /* opcode, instruction and operand; the guest's own stand in struct fpu */
#define X87_TABS     24
#define MXCSR_END    28
#define MASK_END     32
#define LEGACY_END   416
#define HEADER	     512
#define HEADER_END   576

static bool bytes_same(const struct fpu *a, const struct fpu *b, unsigned from, unsigned to)
{
	return !__builtin_memcmp(a->area + from, b->area + from, to - from);
}

static bool area_same(const struct fpu *a, const struct fpu *b)
{
	return bytes_same(a, b, 0, X87_POINTERS) && bytes_same(a, b, X87_TABS, MXCSR_END) &&
	       bytes_same(a, b, MASK_END, LEGACY_END) &&
	       bytes_same(a, b, HEADER_END, FPU_AREA_SIZE);
}

static void pass_through(struct cpu *cpu)
{
	fpu_load(cpu);
	fpu_save(cpu);
}

static bool vectors_same(const struct lockstep *ls)
{
	struct cpu *was = (struct cpu *)&ls->stepped, *is = ls->run->cpu;

	if (area_same(&was->fpu, &is->fpu))
		return true;
	pass_through(was);
	pass_through(is);
	return area_same(&was->fpu, &is->fpu);
}

static bool tiles_same(const struct lockstep *ls)
{
	return !ls->run->cpu->amx || amx_same(&ls->stepped_amx, ls->run->cpu->amx);
}

/* ---- all ---- */

bool lockstep_state_same(const struct lockstep *ls)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		if (!field_same(ls, i))
			return false;
	return event_same(&ls->stepped.inject, &ls->run->cpu->inject) && exit_same(ls) &&
	       writes_same(ls) && vectors_same(ls) && tiles_same(ls) && virt_difference(ls) < 0;
}

static uint64_t value(const struct cpu *cpu, unsigned i)
{
	uint64_t val = 0;

	__builtin_memcpy(&val, (const uint8_t *)cpu + fields[i].offset, min(fields[i].size, 8u));
	return val;
}

static void say_vectors(const struct fpu *a, const struct fpu *b)
{
	for (unsigned i = 0; i < FPU_AREA_SIZE; i += 8)
		if ((i < HEADER || i >= HEADER_END) &&
		    __builtin_memcmp(a->area + i, b->area + i, 8))
			host_log("lockstep:   vector state, byte %u of the XSAVE image: step "
				 "0x%lx, run 0x%lx",
				 i, *(const uint64_t *)(a->area + i),
				 *(const uint64_t *)(b->area + i));
}

void lockstep_state_say(const struct lockstep *ls)
{
	const struct cpu *a = &ls->stepped, *b = ls->run->cpu;

	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		if (!field_same(ls, i))
			host_log("lockstep:   %s: step 0x%lx, run 0x%lx", fields[i].name,
				 value(a, i), value(b, i));
	if (!exit_same(ls))
		host_log("lockstep:   exit: step %d (0x%lx), run %d (0x%lx)", ls->kind,
			 a->exit.addr, ls->run_kind, b->exit.addr);
	if (!event_same(&a->inject, &b->inject) || !writes_same(ls))
		host_log("lockstep:   events or writes to devices");
	if (!tiles_same(ls))
		host_log("lockstep:   tiles");
	if (!vectors_same(ls))
		say_vectors(&a->fpu, &b->fpu);
	if (virt_difference(ls) >= 0)
		host_log("lockstep:   what VMX or SVM keeps: byte %d", virt_difference(ls));
}
