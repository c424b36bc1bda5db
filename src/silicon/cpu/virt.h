/* SPDX-License-Identifier: MIT */
/*
 * Virtualization that the guest uses itself: the contract between VMX or SVM (silicon/vmx, silicon/svm) and the rooms
 * below, which reach them by pointer only.
 *
 * cpu->virt is NULL unless the vCPU has VMX or SVM; each of the two embeds struct virt as the first member of its own
 * state. Registers in struct cpu are always those that run: L1's outside of guest mode, L2's inside. What L1 had is kept
 * apart, in its VMCS or host save area.
 *
 * How an exit comes about. Whoever meets something that a guest hypervisor may have asked for calls
 * cpu_intercept(). True: the exit is made, struct cpu is L1's at its handler, and the caller returns RESULT_AGAIN
 * (EMUL_INTERCEPTED) with nothing else done. An access that the second stage refuses, deep inside an
 * instruction or the delivery of an event, cannot do that: it raises a fault of type EVENT_VMEXIT (virt_refuse()),
 * which travels as any fault does; event delivery hands it to ->ops->refused() with the event that it was
 * delivering, if any.
 *
 * vCPU thread only, general registers only.
 */
#ifndef SILICON_CPU_VIRT_H
#define SILICON_CPU_VIRT_H

#include "silicon/cpu/exception.h"
#include "silicon/cpu/intercept.h"

/* The instructions of both extensions. Decoded in exec/, carried out by ->ops->insn(). */
enum virt_op {
	VIRT_VMXON,
	VIRT_VMXOFF,
	VIRT_VMCLEAR,
	VIRT_VMPTRLD,
	VIRT_VMPTRST,
	VIRT_VMREAD,
	VIRT_VMWRITE,
	VIRT_VMLAUNCH,
	VIRT_VMRESUME,
	VIRT_VMFUNC,
	VIRT_INVEPT,
	VIRT_INVVPID,
	VIRT_VMRUN,
	VIRT_VMLOAD,
	VIRT_VMSAVE,
	VIRT_STGI,
	VIRT_CLGI,
	VIRT_SKINIT,
	VIRT_INVLPGA,
	NR_VIRT_OPS,
};

/* An instruction as exits describe it: length, operands. Filled by exec/ before it runs, in guest mode only. */
struct virt_insn {
	uint8_t len;
	uint8_t opsize, addrsize; /* bytes */
	bool mem;		  /* the ModRM operand is memory, at seg:off */
	uint8_t seg;		  /* enum seg_id */
	uint8_t base, index;	  /* general registers, VIRT_NO_REG: none */
	uint8_t scale;		  /* 1, 2, 4, 8 */
	uint8_t reg, rm;	  /* ModRM's registers, REX applied */
	bool rep;
	uint8_t nr_bytes; /* instruction bytes, for decode assists */
	uint8_t bytes[15];
	int64_t disp;
	uint64_t off; /* effective address, wrapped to addrsize */
};

#define VIRT_NO_REG 0xff

/* One guest-physical access on its way through the second stage: an L2 page, or an entry of L2's own page tables. */
struct stage2 {
	/* Set by the walk. */
	gpa_t gpa;   /* L2's */
	uint8_t op;  /* enum access_op; 0: nothing is checked, as for debuggers */
	bool table;  /* an entry of L2's page tables (write: its A or D bit is to be set) */
	bool dry;    /* set no A or D bit, log nothing */
	bool linear; /* addr is valid */
	bool user;   /* !table: L2's own tables say that the page is the user's */
	gva_t addr;
	/* Set by ->ops->translate(). */
	gpa_t out;	    /* L1's */
	uint8_t rights;	    /* ACCESS_READ | _WRITE | _FETCH */
	uint8_t page_shift; /* of the second stage's mapping */
	bool dirty;	    /* its D bit stands, or there is none: writes need not come back here */
	bool apart;	    /* never to be cached: the APIC-access page */
};

/* Whose translations are cached: two guests that differ in any of these share none. */
struct virt_world {
	bool guest; /* false: the processor's own, outside of guest mode, and the rest is 0 */
	bool untagged; /* no VPID: each entry and exit drops what is cached of it, and of the processor's own */
	uint32_t id; /* VPID, ASID */
	uint64_t
		second; /* bits 51:12: where the second stage's tables are; others: its form. 0: there is none */
	uint64_t apic; /* the APIC-access page, or AVIC's, | 1; 0: none */
};

/* When ->attend() is called: between which servers of docs/events.md. */
enum virt_stage {
	VIRT_FIRST, /* ahead of all: what the last instruction's write to a virtual APIC brings with it */
	VIRT_BEFORE_TRAPS,     /* behind requests and the injected event: MTF */
	VIRT_BEFORE_NMI,       /* behind traps and SMI: preemption timer, NMI window */
	VIRT_BEFORE_INTERRUPT, /* behind NMI: interrupt window, virtual NMI */
	VIRT_LAST,	       /* behind interrupts: virtual interrupts */
};

struct virt_ops {
	/* VMX's or SVM's own instructions, all checks included. The answer is the instruction's result. */
	enum result (*insn)(struct cpu *cpu, enum virt_op op, const struct virt_insn *insn);
	/* In guest mode, for kinds in ->intercepts: true if L1 asked for it, and then the exit is made. */
	bool (*intercept)(struct cpu *cpu, enum intercept kind, uint64_t qualification);
	/*
	 * In guest mode, with INTERCEPT_EXCEPTION in ->intercepts: an exception (INT3, INTO and INT1 with them) is
	 * about to be delivered; cause: the event whose delivery it interrupted, or NULL. CR2 and DR6 are not
	 * changed yet: ev->payload. True: the exit is made.
	 */
	bool (*event)(struct cpu *cpu, const struct event *ev, const struct event *cause);
	/* Make the exit that virt_refuse() asked for; cause: the event that was being delivered, or NULL. */
	void (*refused)(struct cpu *cpu, const struct event *cause);
	/* The second stage. RESULT_OK; RESULT_FAULT (by virt_refuse()); RESULT_EXIT; RESULT_AGAIN: tables changed. */
	enum result (*translate)(struct cpu *cpu, struct stage2 *s);
	/* In guest mode: the world that it is. */
	void (*world)(struct cpu *cpu, struct virt_world *ret);
	/*
	 * Between instructions, while ATTN_VIRT is up: what guest mode adds to the order of events (MTF, preemption
	 * timer, windows, virtual interrupts). Called at each stage; lowers ATTN_VIRT itself. True: something was
	 * done (an exit made, or cpu->inject filled), look again.
	 */
	bool (*attend)(struct cpu *cpu, enum virt_stage stage);
	/*
	 * MOV from and to CR0, CR3, CR4, CR8 (CLTS, LMSW and SMSW too) in guest mode where no exit is due: shadows,
	 * masks, virtual TPR. NULL: none. cr_write: *val becomes what is to be loaded; false: all is done already.
	 */
	uint64_t (*cr_read)(struct cpu *cpu, unsigned nr);
	bool (*cr_write)(struct cpu *cpu, unsigned nr, uint64_t *val);
	/* In guest mode: L1's guest TSC to L2's. */
	uint64_t (*tsc)(struct cpu *cpu, uint64_t tsc);
	/*
	 * SMI, before memory becomes SMM's; area: the state-save area, filled already. Leave guest mode without an
	 * exit and note it there. False: the state cannot be kept. May be NULL.
	 */
	bool (*smi)(struct cpu *cpu, uint8_t *area);
	/* RSM, registers restored from area: back to guest mode, if it was left. False: shutdown. */
	bool (*rsm)(struct cpu *cpu, const uint8_t *area);
	/* RESET# and INIT: the extension is off. */
	void (*reset)(struct cpu *cpu);
	/* SMM begins, its area is written; or RSM has loaded the registers. May be NULL. */
	void (*smm)(struct cpu *cpu, bool enter);
};

/*
 * What the owner of the processor adds to guest mode, beside the architecture; NULL as a whole: nothing. Called with
 * guest vector state put away.
 */
struct virt_owner {
	/*
	 * Guest mode begins, by an entry or with a restored state. msr_map: the guest hypervisor's bitmaps of MSRs, or
	 * GPA_NONE. What is returned is in force in their place while this guest runs; NULL: they are.
	 */
	const uint8_t *(*begun)(struct cpu *cpu, gpa_t msr_map);
	/*
	 * VMCALL or VMMCALL in guest mode; foreign: the other vendor's of the two. True takes it past the guest
	 * hypervisor, to platform->hypercall().
	 */
	bool (*takes_call)(struct cpu *cpu, bool foreign);
};

#define VIRT_MAX_SIZE 0x2000u /* of what the two embed struct virt in */

struct virt {
	uint32_t size; /* of the whole: it can be kept and put back as bytes (lock-step) */
	bool logs;     /* in guest mode: the second stage notes dirty pages (PML), which cannot */
	const struct virt_ops *ops;
	const struct virt_owner *owner;
	const uint8_t *msr_map; /* in guest mode: what ->owner->begun() returned */
	bool guest;	  /* guest mode: VMX non-root operation, or between VMRUN and #VMEXIT */
	bool stage2;	  /* in guest mode, with EPT or nested paging */
	bool gif;	  /* SVM's global interrupt flag; VMX: always true */
	bool blocks_init; /* VMX root operation: INIT waits */
	bool init_waits;  /* the owner met an INIT while ->gif was false, and is to look again */
	/*
	 * In guest mode: interrupts of the platform ask ->if_host instead of RFLAGS.IF. VMX's external-interrupt
	 * exiting: both true.
	 */
	bool if_apart, if_host;
	uint64_t cr0_ones, cr4_ones; /* VMX operation: MOV to CR0 and CR4 may not clear these */
	bool iterated; /* in guest mode: a repeated instruction has ended an iteration, and goes on */
	bool vnmi; /* in guest mode: cpu->nmi_blocked is the virtual NMI's; physical ones always exit */
	bool iret_keeps;     /* in guest mode: IRET does not end NMI blocking */
	bool iret_unblocked; /* the IRET at ->iret_rip, which did not retire yet, has ended it */
	uint64_t iret_rip;
	uint64_t
		intercepts; /* BIT(enum intercept): kinds that may exit; all clear outside of guest mode */
	struct virt_insn insn;
	const struct event
		*delivering; /* INTERCEPT_TASK_SWITCH by a task gate: the event that led there */
	/* What virt_refuse() keeps for ->refused(): numbers of the extension's own. */
	uint64_t refused_reason, refused_info[2];
};

/* What platform->guest_mode() is told. */
enum virt_event {
	VIRT_ENTERED, /* VMRUN, VMLAUNCH or VMRESUME passed its checks */
	VIRT_LEFT,    /* an exit, before the hypervisor's registers come back */
	VIRT_FLUSHED, /* INVLPGA: info */
};

struct virt_note {
	enum virt_event event;
	uint64_t rip; /* where the instruction was: the hypervisor's, the guest's when left */
	/* ENTERED: */
	gpa_t control;		    /* VMCS or VMCB */
	uint64_t guest_rip, tables; /* of the second stage, or CR3 */
	bool stage2;
	uint32_t int_ctl,
		injects; /* SVM's V_INTR and EVENTINJ; VMX's guest interrupt status and interruption information */
	/* LEFT: reason or code, and exit information as the extension has it. */
	uint64_t reason, info[2];
	uint32_t int_info, int_error;
	bool by_interrupt;
};

/* Guest mode begins: ask the owner. exception.c */
void virt_begun(struct cpu *cpu, gpa_t msr_map);
/* In guest mode: the owner takes this hypercall. */
bool virt_takes_call(struct cpu *cpu, bool foreign);
/* Raise the fault that ends the access in an exit; returns RESULT_FAULT. exception.c */
enum result virt_refuse(struct cpu *cpu, uint64_t reason, uint64_t info0, uint64_t info1);

#endif
