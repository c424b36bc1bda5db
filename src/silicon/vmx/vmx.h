/* SPDX-License-Identifier: MIT */
/*
 * VMX as a guest hypervisor sees it (SDM, VMX chapters). Room header.
 *
 * struct vmx hangs from cpu->virt. The current VMCS is kept as an array of fields and is in guest memory only after
 * VMCLEAR or VMPTRLD of another: software may not rely on its memory, and does not get to. What state.c gives
 * out for migration has the current one with it.
 *
 * vCPU thread only, general registers only, unless a comment says otherwise.
 */
#ifndef SILICON_VMX_VMX_H
#define SILICON_VMX_VMX_H

#include "silicon/cpu/cpu.h"
#include "silicon/vmx/bits.h"

struct cpu_model;

enum vmcs_field {
#define FIELD(encoding, name, word, bit) VMCS_##name,
#include "vmcs.def"
#undef FIELD
	NR_VMCS_FIELDS,
};

/* A VMCS region in guest memory, and in saved states. The layout is this: see tables/vmcs.def. */
#define VMCS_SIZE	0x1000u
#define VMCS_SHADOW_BIT BIT(31)
struct vmcs_image {
	uint32_t revision; /* bit 31: shadow VMCS */
	uint32_t abort;
	uint32_t launched;
	uint32_t pad[13];
	uint64_t f[NR_VMCS_FIELDS];
};

/* Values of the capability MSRs from 0x480 on. */
struct vmx_caps {
	uint64_t msr[NR_VMX_MSRS];
};

/* What the owner of the processor takes from it. */
struct vmx_options {
	bool ept, ept_ad, unrestricted, vpid, flexpriority, apicv, preemption_timer, pml, shadow;
};

/* ---- a second form of the VMCS ---- */

enum vmcs_moves { FORM_READ, FORM_IN = 1, FORM_OUT = 2 };

/* Where it has a field, in the field's width, low byte first. */
struct vmcs_place {
	uint16_t offset;
	uint8_t field; /* enum vmcs_field */
	uint8_t moves; /* FORM_IN: read at entries, FORM_OUT: written at exits, FORM_READ: by VMREAD only */
	uint16_t
		groups; /* not read at an entry that finds one of these marked clean; 0: always read */
};

/* Controls for which it has fields: those of field that may be 1. msr, true_msr: where they are announced. */
struct vmcs_limit {
	uint8_t field;
	uint8_t msr, true_msr; /* enum vmx_msr */
	uint32_t allowed;
};

/*
 * The owner of the processor may offer its guest a VMCS in the guest's own memory and a layout of the owner's, beside
 * the one that VMPTRLD loads. While one is active entries read it, exits write it and VMREAD reads it, as its rows say; VMWRITE,
 * VMPTRLD and VMPTRST do not reach it. It has no launch state: VMLAUNCH reads all of it, VMRESUME leaves
 * out the groups that its guest hypervisor marks as clean. Offered or active, no control may be 1 that it has no fields for.
 */
#define VMCS_FORM_SIZE 1024
struct vmcs_form {
	const struct vmcs_place *places; /* by offset */
	unsigned nr_places;
	const struct vmcs_limit *limits;
	unsigned nr_limits;
	uint16_t clean; /* offset of the 32-bit mask of clean groups */
	/* Where the one that is active now begins, which is in the page of that address; GPA_NONE: none is. */
	gpa_t (*find)(struct cpu *cpu);
	/* Its first word says that it is one. */
	bool (*known)(uint32_t revision);
	/* It was read, with clean as the mask; and it is active no more. */
	void (*read)(struct cpu *cpu, const uint8_t image[VMCS_FORM_SIZE], uint32_t clean);
	void (*released)(struct cpu *cpu);
};

struct vmx {
	struct virt virt;	      /* first */
	const struct vmcs_form *form; /* what is offered; NULL: nothing */
	gpa_t form_gpa;		      /* the active one; GPA_NONE: VMPTRLD's VMCS counts */
	bool form_due; /* restored, and still to be found: it is written then, and not read */
	struct vmx_caps caps;
	bool on;		/* between VMXON and VMXOFF */
	bool current_shadow;	/* the current VMCS is a shadow VMCS */
	bool launched;		/* its launch state */
	bool linked;		/* ->link is the shadow VMCS of the guest that runs */
	bool smm_on, smm_guest; /* SMM interrupted VMX operation, guest mode: RSM goes back to it */
	gpa_t vmxon_ptr, current; /* GPA_NONE: none */
	gpa_t link_ptr;
	uint64_t vmcs[NR_VMCS_FIELDS]; /* of the current VMCS */
	uint64_t link[NR_VMCS_FIELDS];
	/* Guest mode. */
	bool mtf;		       /* an MTF exit is due before the next instruction */
	uint64_t mtf_rip, mtf_retired; /* where MTF looked last */
	bool timer_armed;	       /* the preemption timer counts */
	uint64_t timer_end;	       /* TSC of the hypervisor */
	bool tpr_due;		       /* VTPR is to be held against the threshold */
	bool apic_wrote; /* the instruction wrote to the APIC-access page, at apic_offset */
	uint16_t apic_offset;
	uint64_t refused_linear;      /* beside virt.refused_info */
	bool report;		      /* say which entry checks failed */
	uint64_t ple_first, ple_last; /* TSC of the first and last PAUSE of a loop */
	uint64_t nr_entries, nr_exits;
};

static inline struct vmx *vmx_of(const struct cpu *cpu)
{
	return (struct vmx *)cpu->virt;
}

/* ---- caps.c; any thread ---- */

/* What a processor of this model with these options can do. */
void vmx_caps_default(const struct cpu_model *model, const struct vmx_options *opt,
		      struct vmx_caps *ret);
/* A capability MSR as RDMSR reads it: CR4's fixed bits follow the guest's CPUID. */
uint64_t vmx_caps_read(const struct cpu *cpu, const struct vmx_caps *caps, enum vmx_msr msr);
/* The owner sets a capability, within what limit has: false if it may not. */
bool vmx_caps_write(struct vmx_caps *caps, const struct vmx_caps *limit, enum vmx_msr msr,
		    uint64_t val);

/* ---- vmx.c ---- */

/* Give the processor VMX, off; v is zeroed memory that outlives it. */
void vmx_init(struct cpu *cpu, struct vmx *v, const struct vmx_caps *caps);
/* VMX operation ends, whatever it was in: L1's state is not loaded. */
void vmx_off(struct cpu *cpu);

/* ---- state.c: for who saves and restores ---- */

/* The current VMCS with what runs now, as an image of VMCS_SIZE bytes. */
void vmx_image_get(struct cpu *cpu, void *image);
/* The shadow VMCS of the running guest; false if there is none. */
bool vmx_image_get_link(struct cpu *cpu, void *image);
/* Make image the current VMCS at gpa. False: its revision is wrong. */
bool vmx_image_set(struct cpu *cpu, gpa_t gpa, const void *image);
bool vmx_image_set_link(struct cpu *cpu, const void *image);
/* The checks of controls and host state, or of guest state, refuse the current VMCS. */
bool vmx_state_refused(struct cpu *cpu);
bool vmx_guest_refused(struct cpu *cpu);
/* The guest that runs was given a state that no entry would have let it have. */
bool vmx_running_invalid(struct cpu *cpu);
/* Be in guest mode by the current VMCS, without the entry's loads of MSR lists and its event. */
void vmx_enter_restored(struct cpu *cpu);
/* The guest that would run has a shadow VMCS. */
bool vmx_wants_link(const struct cpu *cpu);
/* In VMX root operation with no current VMCS. */
void vmx_set_on(struct cpu *cpu, gpa_t vmxon);
/* Off; in guest mode the host's state is loaded first, without an exit that anybody sees. */
void vmx_leave_nested(struct cpu *cpu);
/* When the preemption timer expires, in its units from the TSC's 0 on. */
uint64_t vmx_timer_deadline(const struct cpu *cpu);
void vmx_timer_set_deadline(struct cpu *cpu, uint64_t deadline);
/* Out of guest mode without an exit: struct cpu stays as it is. */
void vmx_leave_guest(struct cpu *cpu);
/* What is left of the preemption timer, in its units; false: it does not count. */
bool vmx_timer_left(const struct cpu *cpu, uint64_t *ret);

/* ---- form.c: a second form of the VMCS ---- */

/* The current VMCS, just set, is that of a form which is active but not found yet. */
void vmx_form_restored(struct cpu *cpu);
/* Find what is due and write the current VMCS to it. False: there is none, or none that can be. */
bool vmx_form_resume(struct cpu *cpu);
/* None is active, nor due. */
void vmx_form_release(struct cpu *cpu);
/* What is offered: a form, or NULL. */
void vmx_form_offer(struct cpu *cpu, const struct vmcs_form *form);
/* A capability MSR as the guest may see it with that form offered. */
uint64_t vmx_form_limit(const struct vmcs_form *form, enum vmx_msr msr, uint64_t val);
/* ---- exit.c ---- */

/* In guest mode: an exit for a reason of the owner's. */
void vmx_exit_for_owner(struct cpu *cpu, uint32_t reason);

/* For unit tests: the row that refuses the current VMCS, by name; NULL: none. */
const char *vmx_check_name(struct cpu *cpu);
/* The n-th row's name, or NULL past the end. */
const char *vmx_check_nth(unsigned n);

#endif
