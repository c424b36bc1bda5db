/* SPDX-License-Identifier: MIT */
/*
 * System-management mode: SMI's entry and RSM (SDM, system management mode; APM, system-management mode).
 *
 * The state passes through struct smm_image, in which every value has 64 bits. Two tables of offsets take it
 * to and from the state-save area, 512 bytes at SMBASE + FE00H: the APM's layout where the guest's CPUID has
 * long mode, else that of Intel's P6. Both hold what Linux's KVM keeps in them, for that is what firmware and
 * saved states know; so I/O restart and automatic HALT restart are not there.
 *
 * Which memory answers is the platform's to say, by cpu->in_smm: all translations are dropped whenever it
 * changes. RSM judges the whole image first; a bad one is a shutdown outside of SMM, with the handler's
 * registers.
 */
#include "silicon/sys/sys_internal.h"

#include <string.h>

#define AREA_OFFSET   0xfe00u
#define AREA_SIZE     512
#define HANDLER_RIP   0x8000
#define SEG_ATTR_MASK 0xf0ffu

/* Bits of the saved interrupt shadow. */
#define SAVED_MOV_SS BIT(0)
#define SAVED_STI    BIT(1)

struct smm_segment {
	uint64_t base, limit, attr, sel;
};

struct smm_image {
	uint64_t gpr[NR_GPRS];
	uint64_t rip, rflags, cr0, cr3, cr4, dr6, dr7, efer;
	uint64_t smbase, revision, shadow;
	struct smm_segment seg[NR_SEGS], gdtr, idtr;
};

/* Where a value of the image stands in the area. */
struct smm_field {
	uint16_t offset;
	uint16_t member; /* byte offset in struct smm_image */
	uint8_t size;
};

struct smm_layout {
	const struct smm_field *fields;
	unsigned nr;
	unsigned nr_gprs;
	uint32_t revision;
};

#define FIELD(offset, size, member)                              \
	{                                                        \
		offset, offsetof(struct smm_image, member), size \
	}
#define SEGMENT_64(offset, member)                                         \
	FIELD(offset, 2, member.sel), FIELD((offset) + 2, 2, member.attr), \
		FIELD((offset) + 4, 4, member.limit), FIELD((offset) + 8, 8, member.base)
/* The attributes are bits 8 to 23 of their doubleword: a descriptor's. */
#define SEGMENT_32(offset, sel_offset, member)                                     \
	FIELD((offset) + 1, 2, member.attr), FIELD((offset) + 4, 4, member.limit), \
		FIELD((offset) + 8, 4, member.base), FIELD(sel_offset, 2, member.sel)

static const struct smm_field fields_64[] = {
	SEGMENT_64(0x00, seg[SEG_ES]),
	SEGMENT_64(0x10, seg[SEG_CS]),
	SEGMENT_64(0x20, seg[SEG_SS]),
	SEGMENT_64(0x30, seg[SEG_DS]),
	SEGMENT_64(0x40, seg[SEG_FS]),
	SEGMENT_64(0x50, seg[SEG_GS]),
	FIELD(0x64, 4, gdtr.limit),
	FIELD(0x68, 8, gdtr.base),
	SEGMENT_64(0x70, seg[SEG_LDTR]),
	FIELD(0x84, 4, idtr.limit),
	FIELD(0x88, 8, idtr.base),
	SEGMENT_64(0x90, seg[SEG_TR]),
	FIELD(0xcb, 1, shadow),
	FIELD(0xd0, 8, efer),
	FIELD(0xfc, 4, revision),
	FIELD(0x100, 4, smbase),
	FIELD(0x148, 8, cr4),
	FIELD(0x150, 8, cr3),
	FIELD(0x158, 8, cr0),
	FIELD(0x160, 8, dr7),
	FIELD(0x168, 8, dr6),
	FIELD(0x170, 8, rflags),
	FIELD(0x178, 8, rip),
	FIELD(0x180, 8, gpr[R15]),
	FIELD(0x188, 8, gpr[R14]),
	FIELD(0x190, 8, gpr[R13]),
	FIELD(0x198, 8, gpr[R12]),
	FIELD(0x1a0, 8, gpr[R11]),
	FIELD(0x1a8, 8, gpr[R10]),
	FIELD(0x1b0, 8, gpr[R9]),
	FIELD(0x1b8, 8, gpr[R8]),
	FIELD(0x1c0, 8, gpr[RDI]),
	FIELD(0x1c8, 8, gpr[RSI]),
	FIELD(0x1d0, 8, gpr[RBP]),
	FIELD(0x1d8, 8, gpr[RSP]),
	FIELD(0x1e0, 8, gpr[RBX]),
	FIELD(0x1e8, 8, gpr[RDX]),
	FIELD(0x1f0, 8, gpr[RCX]),
	FIELD(0x1f8, 8, gpr[RAX]),
};

static const struct smm_field fields_32[] = {
	FIELD(0xf8, 4, smbase),
	FIELD(0xfc, 4, revision),
	FIELD(0x114, 4, cr4),
	FIELD(0x11a, 1, shadow),
	SEGMENT_32(0x12c, 0x1b4, seg[SEG_DS]),
	SEGMENT_32(0x138, 0x1b8, seg[SEG_FS]),
	SEGMENT_32(0x144, 0x1bc, seg[SEG_GS]),
	FIELD(0x154, 4, idtr.limit),
	FIELD(0x158, 4, idtr.base),
	SEGMENT_32(0x15c, 0x1c4, seg[SEG_TR]),
	FIELD(0x170, 4, gdtr.limit),
	FIELD(0x174, 4, gdtr.base),
	SEGMENT_32(0x178, 0x1c0, seg[SEG_LDTR]),
	SEGMENT_32(0x184, 0x1a8, seg[SEG_ES]),
	SEGMENT_32(0x190, 0x1ac, seg[SEG_CS]),
	SEGMENT_32(0x19c, 0x1b0, seg[SEG_SS]),
	FIELD(0x1c8, 4, dr7),
	FIELD(0x1cc, 4, dr6),
	FIELD(0x1d0, 4, gpr[RAX]),
	FIELD(0x1d4, 4, gpr[RCX]),
	FIELD(0x1d8, 4, gpr[RDX]),
	FIELD(0x1dc, 4, gpr[RBX]),
	FIELD(0x1e0, 4, gpr[RSP]),
	FIELD(0x1e4, 4, gpr[RBP]),
	FIELD(0x1e8, 4, gpr[RSI]),
	FIELD(0x1ec, 4, gpr[RDI]),
	FIELD(0x1f0, 4, rip),
	FIELD(0x1f4, 4, rflags),
	FIELD(0x1f8, 4, cr3),
	FIELD(0x1fc, 4, cr0),
};

static const struct smm_layout layouts[] = {
	{fields_32, ARRAY_SIZE(fields_32), 8, 0x20000},
	{fields_64, ARRAY_SIZE(fields_64), NR_GPRS, 0x20064},
};

static bool has_long_mode(const struct cpu *cpu)
{
	return feature_has(cpu->guest_features, FEAT_LM);
}

static const struct smm_layout *layout_of(const struct cpu *cpu)
{
	return &layouts[has_long_mode(cpu)];
}

static void pack(const struct smm_layout *l, const struct smm_image *image, uint8_t *area)
{
	for (unsigned i = 0; i < l->nr; i++)
		memcpy(area + l->fields[i].offset, (const uint8_t *)image + l->fields[i].member,
		       l->fields[i].size);
}

static void unpack(const struct smm_layout *l, const uint8_t *area, struct smm_image *image)
{
	for (unsigned i = 0; i < l->nr; i++)
		memcpy((uint8_t *)image + l->fields[i].member, area + l->fields[i].offset,
		       l->fields[i].size);
}

/* ---- between the processor and its image ---- */

static struct smm_segment capture_segment(const struct segment *seg)
{
	uint32_t attr = seg->attr & SEG_ATTR_MASK;

	if (seg->attr & SEG_UNUSABLE)
		attr &= ~(uint32_t)SEG_P;
	return (struct smm_segment){
		.base = seg->base, .limit = seg->limit, .attr = attr, .sel = seg->sel};
}

static struct segment restore_segment(const struct smm_segment *s)
{
	uint32_t attr = s->attr & SEG_ATTR_MASK;

	if (!(attr & SEG_P))
		attr |= SEG_UNUSABLE;
	return (struct segment){.base = s->base, .limit = s->limit, .attr = attr, .sel = s->sel};
}

static uint8_t capture_shadow(const struct cpu *cpu)
{
	return (cpu->shadow & SHADOW_STI ? SAVED_STI : 0) |
	       (cpu->shadow & SHADOW_MOV_SS ? SAVED_MOV_SS : 0);
}

static void capture(const struct cpu *cpu, struct smm_image *image)
{
	*image = (struct smm_image){
		.rip = cpu->rip,
		.rflags = cpu_rflags(cpu),
		.cr0 = cpu->cr0,
		.cr3 = cpu->cr3,
		.cr4 = cpu->cr4,
		.dr6 = cpu->dr6,
		.dr7 = cpu->dr7,
		.efer = cpu->msr.efer,
		.smbase = cpu->msr.smbase,
		.revision = layout_of(cpu)->revision,
		.shadow = capture_shadow(cpu),
		.gdtr = {.base = cpu->gdtr.base, .limit = cpu->gdtr.limit},
		.idtr = {.base = cpu->idtr.base, .limit = cpu->idtr.limit},
	};
	memcpy(image->gpr, cpu->gpr, sizeof(image->gpr));
	for (unsigned i = 0; i < NR_SEGS; i++)
		image->seg[i] = capture_segment(&cpu->seg[i]);
}

/* ---- entry ---- */

static void enter_segments(struct cpu *cpu)
{
	struct segment flat = {
		.limit = 0xffffffff,
		.attr = SEG_G | SEG_P | SEG_S | SEG_W | SEG_A,
	};

	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		cpu->seg[i] = flat;
	cpu->seg[SEG_CS].base = cpu->msr.smbase;
	cpu->seg[SEG_CS].sel = cpu->msr.smbase >> 4;
}

static void enter_state(struct cpu *cpu)
{
	cpu->smm_inside_nmi = cpu->nmi_blocked;
	cpu->nmi_blocked = true;
	cpu->smi_pending = false;
	cpu->msr.smi_count++;
	cpu->shadow = 0;
	cpu->rip = HANDLER_RIP;
	cpu->cr0 &= ~(CR0_PE | CR0_EM | CR0_TS | CR0_PG);
	cpu->cr4 = 0;
	cpu->idtr = (struct dtable){0};
	cpu->dr7 = DR7_FIXED_1;
	enter_segments(cpu);
	if (has_long_mode(cpu))
		cpu->msr.efer = 0;
	cpu_set_rflags(cpu, 0);
}

/* The area is in the memory of SMM. What has no RAM for it cannot keep its state: the end. */
enum result sys_smi(struct cpu *cpu)
{
	uint8_t area[AREA_SIZE] = {0};
	struct smm_image image;
	enum result r;

	capture(cpu, &image);
	pack(layout_of(cpu), &image, area);
	if (cpu->virt && cpu->virt->ops->smi && !cpu->virt->ops->smi(cpu, area)) {
		cpu->exit = (struct cpu_exit){.kind = CPU_EXIT_DEAD};
		return RESULT_EXIT;
	}
	cpu->in_smm = true;
	mmu_flush_all(cpu);
	r = mmu_write_phys_bytes(cpu, cpu->msr.smbase + AREA_OFFSET, area, sizeof(area));
	if (r) {
		cpu->in_smm = false;
		mmu_flush_all(cpu);
		if (r == RESULT_FAULT)
			cpu->exit = (struct cpu_exit){.kind = CPU_EXIT_DEAD};
		return RESULT_EXIT;
	}
	/* All checks passed. */
	cpu->activity = ACTIVITY_RUN;
	if (cpu->virt && cpu->virt->ops->smm)
		cpu->virt->ops->smm(cpu, true);
	enter_state(cpu);
	sys_world_changed(cpu);
	return RESULT_OK;
}

/* ---- RSM ---- */

static bool image_valid(const struct cpu *cpu, const struct smm_image *image)
{
	if (image->dr6 >> 32 || image->dr7 >> 32)
		return false;
	return control_image_valid(cpu, image->cr0, image->cr3, image->cr4, image->efer);
}

static void restore_control(struct cpu *cpu, const struct smm_image *image)
{
	cpu->cr0 = (image->cr0 & CR0_KNOWN) | CR0_ET;
	cpu->cr3 = image->cr3;
	cpu->cr4 = image->cr4;
	cpu->msr.efer = image->efer & ~(uint64_t)EFER_LMA;
	if ((cpu->cr0 & CR0_PG) && (cpu->msr.efer & EFER_LME))
		cpu->msr.efer |= EFER_LMA;
	cpu->dr6 = (image->dr6 & DR6_VOLATILE) | DR6_FIXED_1;
	cpu->dr7 = (image->dr7 & DR7_VOLATILE) | DR7_FIXED_1;
	cpu->gdtr = (struct dtable){.base = image->gdtr.base, .limit = image->gdtr.limit};
	cpu->idtr = (struct dtable){.base = image->idtr.base, .limit = image->idtr.limit};
	for (unsigned i = 0; i < NR_SEGS; i++)
		cpu->seg[i] = restore_segment(&image->seg[i]);
}

static void restore(struct cpu *cpu, const struct smm_image *image)
{
	memcpy(cpu->gpr, image->gpr, layout_of(cpu)->nr_gprs * sizeof(cpu->gpr[0]));
	cpu->rip = image->rip;
	cpu->msr.smbase = image->smbase;
	restore_control(cpu, image);
	sys_load_rflags(cpu, image->rflags);
	cpu->shadow = (image->shadow & SAVED_STI ? SHADOW_STI : 0) |
		      (image->shadow & SAVED_MOV_SS ? SHADOW_MOV_SS : 0);
}

/* From here on outside of SMM, whatever the image holds. An INIT that was held back is looked for again. */
static void leave(struct cpu *cpu)
{
	if (!cpu->smm_inside_nmi)
		cpu->nmi_blocked = false;
	cpu->in_smm = false;
	cpu->smm_inside_nmi = false;
	mmu_flush_all(cpu);
	cpu_raise(cpu, ATTN_REQUEST);
}

static enum result shut_down(struct cpu *cpu)
{
	cpu->fault.valid = false;
	cpu->exit = (struct cpu_exit){.kind = CPU_EXIT_SHUTDOWN};
	sys_world_changed(cpu);
	return RESULT_STOP;
}

enum result sys_rsm(struct cpu *cpu)
{
	struct smm_image image = {.efer = cpu->msr.efer};
	uint8_t area[AREA_SIZE];
	enum result r;

	if (!cpu->in_smm)
		return fault_ud(cpu);
	r = mmu_read_phys_bytes(cpu, cpu->msr.smbase + AREA_OFFSET, area, sizeof(area));
	if (r == RESULT_EXIT)
		return r;
	if (r)
		return shut_down(cpu);
	unpack(layout_of(cpu), area, &image);
	leave(cpu);
	if (!image_valid(cpu, &image))
		return shut_down(cpu);
	if (pae_paging(image.cr0, image.cr4, image.efer) && mmu_load_pdptes(cpu, image.cr3))
		return shut_down(cpu);
	/* All checks passed. */
	restore(cpu, &image);
	if (cpu->virt && cpu->virt->ops->smm)
		cpu->virt->ops->smm(cpu, false);
	if (cpu->virt && cpu->virt->ops->rsm && !cpu->virt->ops->rsm(cpu, area))
		return shut_down(cpu);
	sys_world_changed(cpu);
	return RESULT_OK;
}
