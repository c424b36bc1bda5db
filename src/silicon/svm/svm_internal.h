/* SPDX-License-Identifier: MIT */
/* Private to svm/. */
#ifndef SILICON_SVM_SVM_INTERNAL_H
#define SILICON_SVM_SVM_INTERNAL_H

#include "silicon/models/features.h"
#include "silicon/svm/svm.h"
#include "silicon/svm/vmcb.h"
#include "silicon/sys/sys.h"

struct svm {
	struct virt virt; /* first */
	gpa_t vmcb_gpa;
	struct vmcb vmcb;      /* in guest mode: ->control is in force; ->save is scratch */
	struct vmcb_save host; /* what VMRUN saved */
	uint64_t host_pdpte[4];
	bool report; /* say on stderr why VMRUN refuses */
	bool host_nmi_blocked;
	bool avic_wrote; /* to the register at avic_offset: to be looked at behind the instruction */
	uint16_t avic_offset;
	uint16_t pause_left; /* of pause_count */
	uint64_t pause_last; /* L1's TSC at the last PAUSE */
};

_Static_assert(sizeof(struct svm) <= VIRT_MAX_SIZE, "too large to be kept");

extern const struct virt_ops svm_ops; /* svm.c */

static inline struct svm *svm_of(struct cpu *cpu)
{
	return (struct svm *)cpu->virt;
}

static inline const struct svm *svm_of_const(const struct cpu *cpu)
{
	return (const struct svm *)cpu->virt;
}

static inline bool svm_has(const struct cpu *cpu, enum feature f)
{
	return feature_has(cpu->guest_features, f);
}

/* DEBUGCTL and the records of branches are the guest's own. */
static inline bool svm_lbrv(const struct cpu *cpu)
{
	return svm_has(cpu, FEAT_LBRV) && (svm_of_const(cpu)->vmcb.control.virt_ext & VIRT_EXT_LBR);
}

/* A page stands for the guest's local APIC. */
static inline bool svm_avic(const struct cpu *cpu, const struct vmcb_control *c)
{
	return (c->int_ctl & V_AVIC_ENABLE) && svm_has(cpu, FEAT_AVIC);
}

/* An intercept by its exit code, 60h to BFh. */
static inline bool svm_wants(const struct cpu *cpu, unsigned code)
{
	unsigned n = code - SVM_EXIT_INTR;

	return svm_of_const(cpu)->vmcb.control.intercepts[ICPT_MISC1 + n / 32] >> n % 32 & 1;
}

/* Addresses in rAX: the address size counts, and a page's start within the physical width is asked for. */
static inline uint64_t svm_rax(const struct cpu *cpu, const struct virt_insn *insn)
{
	uint64_t mask = insn->addrsize == 8 ? ~0ull : BIT(8 * insn->addrsize) - 1;

	return cpu->gpr[RAX] & mask;
}

static inline bool svm_page_ok(const struct cpu *cpu, gpa_t gpa)
{
	return !(gpa & ~PAGE_MASK) && !(gpa >> cpu->maxphyaddr);
}

/* RIP behind the present instruction, which is noted in cpu->virt->insn. */
static inline uint64_t svm_next_rip(const struct cpu *cpu)
{
	uint64_t rip = cpu->rip + cpu->virt->insn.len;

	return cpu_64bit(cpu) ? rip : (uint32_t)rip;
}

static inline enum result svm_done(struct cpu *cpu)
{
	cpu->rip = svm_next_rip(cpu);
	return RESULT_OK;
}

/* ---- exit.c ---- */

/* Between struct cpu and a save area: what VMRUN and #VMEXIT move. */
void svm_capture(const struct cpu *cpu, struct vmcb_save *s);
void svm_restore(struct cpu *cpu, const struct vmcb_save *s);
/* DEBUGCTL and the records of branches. */
void svm_restore_lbr(struct cpu *cpu, const struct vmcb_save *s);
/* To the VMCB, where they are the guest's own, as svm_capture() left them. False: no memory there. */
bool svm_write_lbr(struct cpu *cpu);
struct vmcb_segment svm_pack_segment(const struct segment *seg);
struct segment svm_unpack_segment(const struct vmcb_segment *s);
/* #VMEXIT. next_rip 0: none; cause: the event whose delivery it interrupts, or NULL. */
void svm_exit(struct cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2, uint64_t next_rip,
	      const struct event *cause);
/* The same of the instruction that is noted. */
static inline void svm_exit_insn(struct cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2)
{
	svm_exit(cpu, code, info1, info2, svm_next_rip(cpu), NULL);
}
/* Out of guest mode without a word in memory. */
void svm_world_back(struct cpu *cpu);

/* ---- enter.c ---- */

enum result svm_vmrun(struct cpu *cpu, const struct virt_insn *insn);
/* Guest mode's derived state, from the control area: intercepts, stage 2, virtual interrupts. */
void svm_derive(struct cpu *cpu);
/* The first row of tables/svm_checks.def that refuses, and the value that it is about; name NULL: none. */
struct svm_refusal {
	const char *name;
	uint64_t value;
};

struct svm_refusal svm_check_control(const struct cpu *cpu, const struct vmcb_control *c);
struct svm_refusal svm_check_save(const struct cpu *cpu, const struct vmcb_save *s);

/* ---- intercepts.c ---- */

bool svm_intercept(struct cpu *cpu, enum intercept kind, uint64_t qualification);
bool svm_event(struct cpu *cpu, const struct event *ev, const struct event *cause);

/* ---- npt.c ---- */

enum result svm_translate(struct cpu *cpu, struct stage2 *s);
void svm_world(struct cpu *cpu, struct virt_world *ret);
void svm_refused(struct cpu *cpu, const struct event *cause);

/* ---- insns.c ---- */

enum result svm_insn(struct cpu *cpu, enum virt_op op, const struct virt_insn *insn);

/* ---- avic.c: while svm_avic() ---- */

/* The guest's physical address is in its APIC's page; always false without AVIC. */
bool svm_avic_hit(const struct cpu *cpu, gpa_t gpa);
/* An access there, which nested paging lets through. As virt_ops.translate. */
enum result svm_avic_access(struct cpu *cpu, struct stage2 *s);
/* Behind an instruction that wrote there (->avic_wrote): true if that ended in an exit. */
bool svm_avic_written(struct cpu *cpu);
/* An interrupt is above the processor's priority; take it: in service from now on. */
bool svm_avic_pending(struct cpu *cpu);
uint8_t svm_avic_take(struct cpu *cpu);
/* The task priority, all eight bits. */
uint8_t svm_avic_get_tpr(struct cpu *cpu);
void svm_avic_set_tpr(struct cpu *cpu, uint8_t tpr);

/* ---- vintr.c ---- */

bool svm_attend(struct cpu *cpu, enum virt_stage stage);
uint64_t svm_cr_read(struct cpu *cpu, unsigned nr);
bool svm_cr_write(struct cpu *cpu, unsigned nr, uint64_t *val);
uint64_t svm_tsc(struct cpu *cpu, uint64_t tsc);

#endif
