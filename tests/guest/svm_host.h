/* SPDX-License-Identifier: MIT */
/*
 * A small hypervisor for tests of SVM: one VMRUN of a guest of a few bytes, then what the VMCB says. Offsets, bits and
 * codes are the APM's numbers, written out here once more.
 */
#ifndef TESTS_GUEST_SVM_HOST_H
#define TESTS_GUEST_SVM_HOST_H

#include "guest_asm.h"
#include "silicon/models/model.h"
#include "silicon/svm/svm.h"

#include <stdlib.h>
#include <string.h>

#define HSAVE	0x200000u
#define VMCB	0x201000u
#define IOPM	0x210000u
#define MSRPM	0x220000u
#define NESTED	0x230000u /* tables: four levels, 2 MiB leaves */
#define L2_CODE 0x300000u
#define L2_RSP	0x310000u

#define CR_BITS	   0x00
#define DR_BITS	   0x04
#define EXCEPTIONS 0x08
#define MISC1	   0x0c
#define MISC2	   0x10
#define MISC3	   0x14

GUEST(run_guest, 64, "vmrun\n hlt");

struct host {
	struct flat *f;
	struct cpu_model model;
};

static const enum feature wanted[] = {
	FEAT_SVM,  FEAT_NPT,  FEAT_NRIPS,	    FEAT_TSCRATEMSR, FEAT_DECODEASSISTS,
	FEAT_VGIF, FEAT_VNMI, FEAT_V_VMSAVE_VMLOAD, FEAT_RDTSCP,     FEAT_LBRV,
};

static inline void put(struct host *h, unsigned at, uint64_t val, unsigned size)
{
	flat_poke(h->f, VMCB + at, val, size);
}

static inline uint64_t get(struct host *h, unsigned at, unsigned size)
{
	return flat_peek(h->f, VMCB + at, size);
}

static inline void put_segment(struct host *h, unsigned at, uint16_t sel, uint16_t attr)
{
	put(h, at, sel, 2);
	put(h, at + 2, attr, 2);
	put(h, at + 4, 0xffffffff, 4);
	put(h, at + 8, 0, 8);
}

/* A guest in 64-bit mode on the host's own page tables; VMRUN and VMMCALL are intercepted. */
static inline void make_vmcb(struct host *h)
{
	struct cpu *cpu = h->f->cpu;

	memset(h->f->ram + VMCB, 0, 4096);
	put(h, MISC2, 3, 4);
	put(h, 0x40, IOPM, 8);
	put(h, 0x48, MSRPM, 8);
	put(h, 0x58, 1, 4);
	put_segment(h, 0x400, FLAT_DS32, 0xc93);
	put_segment(h, 0x410, FLAT_CS64, 0xa9b);
	put_segment(h, 0x420, FLAT_DS32, 0xc93);
	put_segment(h, 0x430, FLAT_DS32, 0xc93);
	put(h, 0x464, cpu->gdtr.limit, 4);
	put(h, 0x468, cpu->gdtr.base, 8);
	put(h, 0x484, cpu->idtr.limit, 4);
	put(h, 0x488, cpu->idtr.base, 8);
	put(h, 0x4d0, cpu->msr.efer, 8);
	put(h, 0x548, cpu->cr4, 8);
	put(h, 0x550, cpu->cr3, 8);
	put(h, 0x558, cpu->cr0, 8);
	put(h, 0x560, 0x400, 8);
	put(h, 0x568, 0xffff0ff0, 8);
	put(h, 0x570, 2, 8);
	put(h, 0x578, L2_CODE, 8);
	put(h, 0x5d8, L2_RSP, 8);
}

/* Out of whatever the last guest left, with a VMCB as new. */
static inline void start_again(struct host *h)
{
	struct cpu *cpu = h->f->cpu;

	svm_leave(cpu);
	flat_long(h->f);
	flat_set_efer(h->f, cpu->msr.efer | EFER_SVME);
	cpu_set_rflags(cpu, 2);
	cpu->inject.valid = cpu->smi_pending = false;
	cpu->activity = ACTIVITY_RUN;
	cpu->virt->gif = true;
	h->f->nr_events = 0;
	make_vmcb(h);
}

static inline struct host *host_open(void)
{
	struct host *h = calloc(1, sizeof(*h));
	struct flat *f = flat_new(FLAT_RAM);
	struct cpu *cpu = f->cpu;

	h->f = f;
	flat_long(f);
	h->model = *cpu->model;
	h->model.vendor = VENDOR_AMD;
	cpu->model = &h->model;
	for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++) {
		feature_put(cpu->model_features, wanted[i], true);
		feature_put(cpu->guest_features, wanted[i], true);
	}
	assert_true(svm_create(cpu, false));
	cpu->msr.tsc_ratio = 1ull << 32;
	cpu->msr.vm_hsave_pa = HSAVE;
	flat_set_efer(f, cpu->msr.efer | EFER_SVME);
	make_vmcb(h);
	return h;
}

static inline void host_close(struct host *h)
{
	svm_destroy(h->f->cpu);
	flat_free(h->f);
	free(h);
}

/* Until the host's HLT: the exit code. */
static inline uint64_t vmrun(struct host *h, const void *code, size_t size)
{
	struct cpu *cpu = h->f->cpu;

	flat_write(h->f, L2_CODE, code, size);
	load(h->f, run_guest);
	cpu->gpr[RAX] = VMCB;
	assert_int_equal(flat_run(h->f, 1000), CPU_EXIT_HLT);
	assert_int_equal(cpu->rip, FLAT_CODE + 4);
	assert_false(cpu->virt->guest);
	assert_false(cpu->virt->gif);
	cpu->activity = ACTIVITY_RUN;
	cpu->virt->gif = true;
	return get(h, 0x70, 8);
}

#define VMMCALL "\x0f\x01\xd9"

/* ---- nested paging ---- */

#define LEAF 7ull /* P, W, U */

static inline void nested_tables(struct host *h)
{
	flat_poke(h->f, NESTED, (NESTED + 0x1000) | LEAF, 8);
	flat_poke(h->f, NESTED + 0x1000, (NESTED + 0x2000) | LEAF, 8);
	for (unsigned i = 0; i < 8; i++)
		flat_poke(h->f, NESTED + 0x2000 + 8 * i, (i << 21) | 1 << 7 | LEAF, 8);
	put(h, 0x90, 1, 8);
	put(h, 0xb0, NESTED, 8);
}

#endif
