/* SPDX-License-Identifier: MIT */
/*
 * A small hypervisor for tests of VMX: a VMCS that enters a guest in 64-bit mode on the host's own page tables. Fields
 * are put into the current VMCS as VMWRITE would; bits and formats are the SDM's numbers, written out here once more.
 */
#ifndef TESTS_GUEST_VMX_HOST_H
#define TESTS_GUEST_VMX_HOST_H

#include "guest_asm.h"
#include "silicon/models/features.h"
#include "silicon/models/model.h"
#include "silicon/vmx/vmx.h"

#include <stdlib.h>
#include <string.h>

#define VMXON	 0x200000u
#define VMCS	 0x201000u
#define TABLES	 0x230000u /* EPT: four levels, 2 MiB leaves */
#define L2_CODE	 0x300000u
#define L2_RSP	 0x310000u
#define HOST_RIP 0x9000u

/* Controls: the bits that are always one. */
#define PIN_ONES    0x16ull
#define CPU_ONES    0x04006172ull
#define EXIT_64	    0x36ffbull /* 64-bit host */
#define ENTRY_64    0x13fbull
#define HLT_EXIT    0x80ull
#define CPU2_ON	    (1ull << 31)
#define TABLES_EPTP (TABLES | 0x1e)

#define UNUSABLE 0x10000

/* An entry that fails ends at the HLT. */
GUEST(launch, 64, "vmlaunch\n hlt");

struct host {
	struct flat *f;
	struct cpu_model model;
	struct vmx vmx;
};

static inline void put(struct host *h, enum vmcs_field f, uint64_t val)
{
	h->vmx.vmcs[f] = val;
}

static inline uint64_t get(const struct host *h, enum vmcs_field f)
{
	return h->vmx.vmcs[f];
}

static inline void put_segment(struct host *h, enum seg_id n, uint16_t sel, uint32_t ar)
{
	put(h, VMCS_ES_SEL + n, sel);
	put(h, VMCS_ES_BASE + n, 0);
	put(h, VMCS_ES_LIMIT + n, ar & UNUSABLE ? 0 : 0xffffffff);
	put(h, VMCS_ES_AR + n, ar);
}

static inline void put_host(struct host *h)
{
	const struct cpu *cpu = h->f->cpu;

	put(h, VMCS_HOST_CR0, cpu->cr0);
	put(h, VMCS_HOST_CR3, cpu->cr3);
	put(h, VMCS_HOST_CR4, cpu->cr4);
	put(h, VMCS_HOST_CS_SEL, FLAT_CS64);
	put(h, VMCS_HOST_SS_SEL, FLAT_DS32);
	put(h, VMCS_HOST_TR_SEL, FLAT_TR);
	put(h, VMCS_HOST_TR_BASE, cpu->seg[SEG_TR].base);
	put(h, VMCS_HOST_GDTR_BASE, cpu->gdtr.base);
	put(h, VMCS_HOST_IDTR_BASE, cpu->idtr.base);
	put(h, VMCS_HOST_RSP, FLAT_STACK);
	put(h, VMCS_HOST_RIP, HOST_RIP);
	put(h, VMCS_EXIT_CTLS, EXIT_64);
}

/* A guest in 64-bit mode on the host's own page tables. */
static inline void put_guest(struct host *h)
{
	const struct cpu *cpu = h->f->cpu;

	put(h, VMCS_CR0, cpu->cr0);
	put(h, VMCS_CR3, cpu->cr3);
	put(h, VMCS_CR4, cpu->cr4);
	for (enum seg_id n = SEG_ES; n <= SEG_GS; n++)
		put_segment(h, n, FLAT_DS32, 0xc093);
	put_segment(h, SEG_CS, FLAT_CS64, 0xa09b);
	put_segment(h, SEG_LDTR, 0, UNUSABLE);
	put_segment(h, SEG_TR, FLAT_TR, 0x8b);
	put(h, VMCS_TR_LIMIT, 0x67);
	put(h, VMCS_TR_BASE, cpu->seg[SEG_TR].base);
	put(h, VMCS_GDTR_BASE, cpu->gdtr.base);
	put(h, VMCS_GDTR_LIMIT, cpu->gdtr.limit);
	put(h, VMCS_IDTR_BASE, cpu->idtr.base);
	put(h, VMCS_IDTR_LIMIT, cpu->idtr.limit);
	put(h, VMCS_RFLAGS, 2);
	put(h, VMCS_RIP, L2_CODE);
	put(h, VMCS_RSP, L2_RSP);
	put(h, VMCS_DR7, 0x400);
	put(h, VMCS_ENTRY_CTLS, ENTRY_64);
	put(h, VMCS_LINK_POINTER, ~0ull);
	put(h, VMCS_PIN_CTLS, PIN_ONES);
	put(h, VMCS_CPU_CTLS, CPU_ONES);
	put(h, VMCS_TSC_MULTIPLIER, 1);
}

/* At VMLAUNCH, with a current VMCS of zeroes, as if nothing had been before. */
static inline void start_empty(struct host *h)
{
	struct cpu *cpu = h->f->cpu;

	vmx_leave_nested(cpu);
	flat_long(h->f);
	cpu->cr0 |= CR0_NE;
	cpu->cr4 |= CR4_VMXE;
	cpu_set_rflags(cpu, 2);
	cpu->inject.valid = cpu->smi_pending = cpu->nmi_pending = cpu->nmi_blocked = false;
	cpu->activity = ACTIVITY_RUN;
	cpu->pending_dr6 = 0;
	cpu->shadow = 0;
	cpu_update_mode(cpu);
	cpu_update_attention(cpu);
	vmx_set_on(cpu, VMXON);
	h->vmx.current = VMCS;
	h->vmx.launched = false;
	memset(h->vmx.vmcs, 0, sizeof(h->vmx.vmcs));
	flat_poke(h->f, HOST_RIP, 0xf4, 1); /* HLT */
	load(h->f, launch);
}

/* The same with a VMCS that enters. */
static inline void start(struct host *h)
{
	start_empty(h);
	put_host(h);
	put_guest(h);
}

/* A second stage: identity, two gigabytes of 2 MiB pages, write-back. */
static inline void ept_tables(struct host *h)
{
	flat_poke(h->f, TABLES, (TABLES + 0x1000) | 7, 8);
	for (unsigned i = 0; i < 2; i++)
		flat_poke(h->f, TABLES + 0x1000 + 8 * i, (TABLES + 0x2000 + 0x1000 * i) | 7, 8);
	for (uint64_t i = 0; i < 1024; i++)
		flat_poke(h->f, TABLES + 0x2000 + 8 * i, i << 21 | 0xb7, 8);
}

/* The guest runs code until an exit: its reason. */
static inline uint32_t run(struct host *h, const void *code, size_t size)
{
	struct cpu *cpu = h->f->cpu;

	flat_write(h->f, L2_CODE, code, size);
	assert_int_equal(flat_run(h->f, 1000), CPU_EXIT_HLT);
	assert_int_equal(cpu->rip, HOST_RIP + 1);
	assert_false(cpu->virt->guest);
	return get(h, VMCS_EXIT_REASON);
}

/* A processor with all that silicon/vmx has, VMX off. */
static inline struct host *host_open(void)
{
	static const enum feature wanted[] = {FEAT_VMX, FEAT_RDTSCP, FEAT_INVPCID, FEAT_XSAVES};
	static const struct vmx_options all = {true, true, true, true, true,
					       true, true, true, true};
	struct host *h = calloc(1, sizeof(*h));
	struct vmx_caps caps;
	struct cpu *cpu;

	assert_non_null(h);
	h->f = long_machine();
	cpu = h->f->cpu;
	h->model = *cpu->model;
	h->model.vendor = VENDOR_INTEL;
	cpu->model = &h->model;
	for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++) {
		feature_put(cpu->model_features, wanted[i], true);
		feature_put(cpu->guest_features, wanted[i], true);
	}
	cpu->cr4_reserved &= ~(uint64_t)CR4_VMXE;
	vmx_caps_default(NULL, &all, &caps);
	vmx_init(cpu, &h->vmx, &caps);
	return h;
}

static inline void host_close(struct host *h)
{
	h->f->cpu->virt = NULL;
	flat_free(h->f);
	free(h);
}

#endif
