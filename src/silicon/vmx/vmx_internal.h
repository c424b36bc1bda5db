/* SPDX-License-Identifier: MIT */
/* Private to vmx/. */
#ifndef SILICON_VMX_VMX_INTERNAL_H
#define SILICON_VMX_VMX_INTERNAL_H

#include "silicon/mmu/mmu.h"
#include "silicon/models/features.h"
#include "silicon/models/model.h"
#include "silicon/sys/sys.h"
#include "silicon/vmx/vmx.h"

#include <string.h>

/* Room of struct vmcs_image's fields: the layout ends where the region does. */
_Static_assert(sizeof(struct vmcs_image) <= VMCS_SIZE, "VMCS does not fit its region");
_Static_assert(sizeof(struct vmx) <= VIRT_MAX_SIZE, "too large to be kept");

/* ---- vmcs.c ---- */

#define VMCS_NO_FIELD (-1)

enum vmcs_width { WIDTH_16, WIDTH_64, WIDTH_32, WIDTH_NATURAL };
enum vmcs_type { TYPE_CONTROL, TYPE_READ_ONLY, TYPE_GUEST, TYPE_HOST };

static inline enum vmcs_width vmcs_width(uint32_t encoding)
{
	return encoding >> 13 & 3;
}

static inline enum vmcs_type vmcs_type(uint32_t encoding)
{
	return encoding >> 10 & 3;
}

/* The field of an encoding (bit 0, the access type, too), if caps make it exist; or VMCS_NO_FIELD. */
int vmcs_find(const struct vmx_caps *caps, uint64_t encoding);
bool vmcs_exists(const struct vmx_caps *caps, enum vmcs_field f);
uint32_t vmcs_encoding(enum vmcs_field f);
const char *vmcs_name(enum vmcs_field f);
/* One field by its encoding, bit 0 included, cut to its width. */
uint64_t vmcs_read(const uint64_t *vmcs, enum vmcs_field f, uint64_t encoding);
void vmcs_write(uint64_t *vmcs, enum vmcs_field f, uint64_t encoding, uint64_t val);
/* Guest memory. RESULT_OK, RESULT_FAULT (no RAM: cpu->fault is not set), RESULT_EXIT. */
enum result vmcs_load(struct cpu *cpu, gpa_t gpa, struct vmcs_image *ret);
enum result vmcs_store(struct cpu *cpu, gpa_t gpa, const uint64_t *f, bool shadow, bool launched);
/* Write the current VMCS back; it stays current. */
enum result vmcs_flush(struct cpu *cpu);

/* ---- form.c ---- */

/*
 * Before VMLAUNCH or VMRESUME: the current VMCS is that of the active form, if there is one. RESULT_FAULT: #UD is raised.
 * *ret_known false: VMfailInvalid.
 */
enum result form_select(struct cpu *cpu, bool launch, bool *ret_known);
/* VMCLEAR with a form active: that is all it does. */
bool form_clears(struct cpu *cpu, gpa_t addr);
/* VMREAD of the active one. False: it has no such field. */
bool form_read_field(struct cpu *cpu, uint64_t encoding, uint64_t *ret);
/* The active one, if any: all fields into vmcs; those that exits write; the error of an instruction. */
void form_peek(struct cpu *cpu, uint64_t *vmcs);
void form_write(struct cpu *cpu);
void form_write_error(struct cpu *cpu);
/* The checks of an entry have passed: from here on its guest hypervisor says what changes. */
void form_entered(struct cpu *cpu);
/* No control is 1 for which the form that is offered has no fields. */
bool form_has_fields(const struct vmx *v);

static inline bool form_active(const struct vmx *v)
{
	return v->form_gpa != GPA_NONE;
}

/* ---- accessors ---- */

static inline uint64_t get(const struct vmx *v, enum vmcs_field f)
{
	return v->vmcs[f];
}

static inline void put(struct vmx *v, enum vmcs_field f, uint64_t val)
{
	v->vmcs[f] = val;
}

static inline bool pin(const struct vmx *v, uint64_t bit)
{
	return v->vmcs[VMCS_PIN_CTLS] & bit;
}

static inline bool ctl(const struct vmx *v, uint64_t bit)
{
	return v->vmcs[VMCS_CPU_CTLS] & bit;
}

static inline bool ctl2(const struct vmx *v, uint64_t bit)
{
	return ctl(v, CPU_SECONDARY) && (v->vmcs[VMCS_CPU2_CTLS] & bit);
}

static inline bool on_exit(const struct vmx *v, uint64_t bit)
{
	return v->vmcs[VMCS_EXIT_CTLS] & bit;
}

static inline bool on_entry(const struct vmx *v, uint64_t bit)
{
	return v->vmcs[VMCS_ENTRY_CTLS] & bit;
}

static inline uint32_t cap_low(const struct vmx *v, enum vmx_msr msr)
{
	return v->caps.msr[msr];
}

static inline uint32_t cap_high(const struct vmx *v, enum vmx_msr msr)
{
	return v->caps.msr[msr] >> 32;
}

/* A guest-physical address that may name a structure: within the processor's width, aligned. */
static inline bool gpa_ok(const struct cpu *cpu, gpa_t gpa, unsigned align)
{
	return !(gpa & (align - 1)) && !(gpa >> cpu->maxphyaddr);
}

/* ---- insn.c ---- */

enum result vmx_insn(struct cpu *cpu, enum virt_op op, const struct virt_insn *insn);

/* ---- check.c ---- */

enum check_stage { CHECK_CONTROL, CHECK_HOST, CHECK_GUEST };
struct entry_check;
/* The first row of a stage that refuses, or NULL. */
const struct entry_check *check_stage(struct cpu *cpu, enum check_stage stage);
uint64_t check_qualification(const struct entry_check *row);
/* Say so, if that is asked for. */
void check_report(struct cpu *cpu, const struct entry_check *row);

/* ---- entry.c ---- */

enum result vmx_entry(struct cpu *cpu, bool launch);
/* What the current VMCS says of the guest, to struct cpu; the part that never fails. */
void entry_load_guest(struct cpu *cpu);
void entry_load_link(struct cpu *cpu);
/* Guest mode begins: intercepts, timers, attention. */
void entry_begin(struct cpu *cpu);

/* ---- exit.c ---- */

/* What the exit information fields say; the rest is 0. */
struct exit_info {
	uint32_t reason;
	uint64_t qualification;
	const struct event *cause; /* whose delivery the exit interrupted; NULL: none */
	uint32_t intr_info, intr_error;
	uint64_t linear, gpa;
	uint32_t insn_info;
	uint8_t insn_len;
	bool set_rf; /* RFLAGS.RF is saved as 1, as a fault would push it */
};

/* Leave guest mode for the hypervisor. */
void exit_make(struct cpu *cpu, const struct exit_info *info);
void vmx_exit(struct cpu *cpu, uint32_t reason, uint64_t qualification);
/* The same for the instruction at RIP, with its length; info: instruction information, or 0. */
void vmx_exit_insn(struct cpu *cpu, uint32_t reason, uint64_t qualification, uint32_t info);
/* Interruption information of ev in the form of the VMCS. */
uint32_t event_info(const struct event *ev);
/* Save the guest's state in vmcs, which may be a copy. */
void exit_save_guest(struct cpu *cpu, uint64_t *vmcs);
/* The host's state is loaded, and that is all. */
void exit_quietly(struct cpu *cpu);
/* An entry failed after its first checks: the host's state is loaded, nothing is saved. */
void exit_failed_entry(struct cpu *cpu, uint32_t reason, uint64_t qualification);

/* ---- msr_list.c: index of the entry that failed, from 1, or 0 ---- */

unsigned msr_list_load(struct cpu *cpu, gpa_t list, uint32_t count);
unsigned msr_list_store(struct cpu *cpu, gpa_t list, uint32_t count);

/* ---- intercept.c ---- */

uint64_t intercept_mask(const struct vmx *v);
bool vmx_intercept(struct cpu *cpu, enum intercept kind, uint64_t qualification);
void vmx_refused(struct cpu *cpu, const struct event *cause);
bool vmx_event(struct cpu *cpu, const struct event *ev, const struct event *cause);
/* The instruction at RIP ends in #UD or #GP(0), or in the exit that the exception bitmap asks for; true. */
bool vmx_raise(struct cpu *cpu, uint8_t vector);
/* The instruction at RIP was done by VMX itself: RIP goes on. */
void vmx_retire(struct cpu *cpu);
uint64_t vmx_cr_read(struct cpu *cpu, unsigned nr);
bool vmx_cr_write(struct cpu *cpu, unsigned nr, uint64_t *val);

/* SDM, NMI unblocking due to IRET: the present instruction is one that has ended NMI blocking. */
static inline bool vmx_iret_unblocked(const struct cpu *cpu)
{
	return cpu->virt->iret_unblocked && cpu->virt->iret_rip == cpu->rip;
}

/* ---- ept.c ---- */

enum result ept_translate(struct cpu *cpu, struct stage2 *s);
void vmx_world(struct cpu *cpu, struct virt_world *ret);
/* An EPTP that VM entry accepts. */
bool eptp_ok(const struct cpu *cpu, uint64_t eptp);

/* ---- apic.c: what is virtualized of the local APIC ---- */

uint32_t vapic_read(struct cpu *cpu, unsigned offset);
void vapic_write(struct cpu *cpu, unsigned offset, uint32_t val);
/* SDM, TPR virtualization: VTPR was written. True: an exit is made. */
bool vapic_tpr_written(struct cpu *cpu);
/* A virtual interrupt is recognized: RVI is above VPPR. */
bool vapic_pending(struct cpu *cpu);
/* Take the highest one: its vector. */
uint8_t vapic_deliver(struct cpu *cpu);
/* The notification came: take what is posted. */
void vapic_take_posted(struct cpu *cpu);
/* What a write to the APIC-access page, or of an MSR in its place, brings with it. True: an exit is made. */
bool vapic_written(struct cpu *cpu, unsigned offset);
/* RDMSR and WRMSR of 0x800 to 0x8ff in x2APIC virtualization: true if it was done, or an exit was made. */
bool vapic_msr_read(struct cpu *cpu, uint32_t index);
bool vapic_msr_write(struct cpu *cpu, uint32_t index);
/* An access to the APIC-access page. */
enum result vapic_access(struct cpu *cpu, struct stage2 *s);

/* ---- vmx.c ---- */

/* Bits of CR0 and CR4 that VMX operation keeps at 1. */
void vmx_fix_control(struct cpu *cpu);

/* ---- attend.c ---- */

bool vmx_attend(struct cpu *cpu, enum virt_stage stage);
/* Raise ATTN_VIRT if vmx_attend() may have something to do. */
void attend_update(struct cpu *cpu);
uint64_t vmx_tsc(struct cpu *cpu, uint64_t tsc);

/* ---- info.c: VM-exit instruction information ---- */

uint32_t info_memory(const struct virt_insn *insn, unsigned reg2); /* INVEPT, VMPTRLD, ... */
uint32_t info_vmread(const struct virt_insn *insn);
uint32_t info_string(const struct virt_insn *insn);
uint32_t info_dt(const struct virt_insn *insn, unsigned op);
uint32_t info_ldtr(const struct virt_insn *insn, unsigned op);
uint32_t info_reg(const struct virt_insn *insn); /* RDRAND, RDSEED */

#endif
