/* SPDX-License-Identifier: MIT */
/*
 * What the manuals' system volumes describe: descriptors, event delivery, far transfers, task
 * switches, control registers, MSRs, CPUID. Called by the instructions in exec/ and, for
 * state that the program sets, by kvm/.
 *
 * vCPU thread only, general registers only, unless a comment says otherwise.
 */
#ifndef SILICON_SYS_SYS_H
#define SILICON_SYS_SYS_H

#include "silicon/cpu/cpu.h"

/* ---- segments.c: descriptor loads (SDM, protection; instruction MOV/LDS/LLDT/LTR) ---- */

enum result sys_load_segment(struct cpu *cpu, enum seg_id seg, uint16_t sel); /* ES SS DS FS GS */
enum result sys_load_ldtr(struct cpu *cpu, uint16_t sel);
enum result sys_load_tr(struct cpu *cpu, uint16_t sel);
/* LAR, LSL, VERR, VERW: *ret_ok is ZF. */
enum result sys_lar(struct cpu *cpu, uint16_t sel, bool *ret_ok, uint32_t *ret);
enum result sys_lsl(struct cpu *cpu, uint16_t sel, bool *ret_ok, uint32_t *ret);
enum result sys_verify(struct cpu *cpu, uint16_t sel, bool write, bool *ret_ok);

/* ---- far.c: far transfers. opsize 2, 4 or 8 bytes; next is the return RIP ---- */

enum result sys_jmp_far(struct cpu *cpu, uint16_t sel, uint64_t off, unsigned opsize,
			uint64_t next);
enum result sys_call_far(struct cpu *cpu, uint16_t sel, uint64_t off, unsigned opsize,
			 uint64_t next);
enum result sys_ret_far(struct cpu *cpu, unsigned opsize, unsigned pop_bytes);
enum result sys_iret(struct cpu *cpu, unsigned opsize, uint64_t next);
/* RFLAGS bits that SYSRET takes from R11. */
#define SYSRET_FLAGS 0x3c7fd7ull
enum result sys_syscall(struct cpu *cpu, uint64_t next);
enum result sys_sysret(struct cpu *cpu, unsigned opsize);
enum result sys_sysenter(struct cpu *cpu);
enum result sys_sysexit(struct cpu *cpu, unsigned opsize);

/* ---- events.c: delivery through IVT or IDT ---- */

/*
 * Deliver ev, RIP still on the instruction that it interrupts. Escalates faults met on the way to
 * double fault and triple fault. RESULT_OK: RIP is at the handler. RESULT_STOP: shutdown
 * (cpu->exit). RESULT_EXIT: user space is needed; cpu->inject keeps the event.
 */
enum result sys_deliver(struct cpu *cpu, const struct event *ev);
/* INT n, INT3, INTO, INT1 as instructions: delivery with their own checks (VME, IOPL, gate DPL). */
enum result sys_soft_interrupt(struct cpu *cpu, uint8_t vector, enum event_type type,
			       unsigned insn_len);
/*
 * Serve the attention bits between two instructions: requests, injected events, traps, NMI,
 * interrupts, in the order of the SDM's table of priorities among concurrent events. RESULT_OK: go on,
 * but first with what cpu->out holds (a frame on a stack in MMIO).
 */
enum result sys_attend(struct cpu *cpu);
/* Deliver cpu->inject, which is valid; the rest as sys_deliver(). */
enum result sys_inject(struct cpu *cpu);
/* After an instruction retired while attention bits were up: shadow end, RF, TF trap, budget. */
enum result sys_retire(struct cpu *cpu, uint64_t old_rip, bool had_tf, uint8_t old_shadow);

/*
 * After an iteration of a REP instruction that is not done; RIP and registers are whole. RESULT_AGAIN, or
 * RESULT_EXIT to the program's debugger.
 */
enum result sys_iterate(struct cpu *cpu);

/* ---- smm.c ---- */

/*
 * Take the pending SMI between two instructions. RESULT_OK: RIP is at the handler, in SMM. RESULT_EXIT: the
 * state-save area is not there (CPU_EXIT_DEAD) or was taken away (CPU_EXIT_MEMORY); still outside.
 */
enum result sys_smi(struct cpu *cpu);
/* RSM as an instruction: #UD outside of SMM, RESULT_STOP with a shutdown for an area that makes no state. */
enum result sys_rsm(struct cpu *cpu);

/* ---- task.c ---- */
enum task_switch_reason { TASK_CALL, TASK_JMP, TASK_IRET, TASK_GATE };
enum result sys_task_switch(struct cpu *cpu, uint16_t tss_sel, enum task_switch_reason why,
			    bool has_error, uint32_t error, uint64_t next);

/* ---- control.c: MOV to CRn and DRn with their checks; also the side effects of sregs ioctls ---- */

enum result sys_set_cr0(struct cpu *cpu, uint64_t val);
enum result sys_set_cr3(struct cpu *cpu, uint64_t val);
enum result sys_set_cr4(struct cpu *cpu, uint64_t val);
enum result sys_set_cr8(struct cpu *cpu, uint64_t val);
enum result sys_set_xcr0(struct cpu *cpu, uint64_t val);
enum result sys_get_dr(struct cpu *cpu, unsigned n, uint64_t *ret);
enum result sys_set_dr(struct cpu *cpu, unsigned n, uint64_t val);

/*
 * World switches (VM entry and exit, SMI, RSM): registers of struct cpu were replaced whole, and were judged. Whatever
 * follows from them follows: modes, attention, TLB (flushed), interrupt window. EFER.LMA is the caller's to set.
 */
void sys_world_changed(struct cpu *cpu);
/* Bits of EFER that this processor and this guest have; bits of CR3 that must be 0. */
uint64_t sys_efer_allowed(const struct cpu *cpu);
uint64_t sys_cr3_reserved(const struct cpu *cpu);

/* ---- msr.c: rows of tables/msrs.def ---- */

enum msr_origin { MSR_GUEST, MSR_HOST /* the program, by ioctl: KVM's host_initiated */ };
enum msr_result { MSR_OK, MSR_UNKNOWN, MSR_DENIED };

/*
 * Rows first, then, for the guest, platform->msr_*. No filter, no exit: for ioctls, whose caller asks the platform's own
 * MSRs itself, and, after msr_gate, for the guest. vCPU thread.
 */
enum msr_result sys_msr_get(struct cpu *cpu, uint32_t index, enum msr_origin by, uint64_t *ret);
enum msr_result sys_msr_set(struct cpu *cpu, uint32_t index, enum msr_origin by, uint64_t val);
/* RDMSR and WRMSR as instructions: CPL is checked by the caller; gate, answers, exits, #GP here. A refused
 * access is offered to platform->msr_refused before the #GP. */
enum result sys_rdmsr(struct cpu *cpu, uint32_t index, uint64_t *ret);
enum result sys_wrmsr(struct cpu *cpu, uint32_t index, uint64_t val);

/* Values after RESET# of the rows that are not 0; call after cpu_reset(cpu, false), with the model set. */
void sys_msr_reset(struct cpu *cpu);
/* KVM_X86_SETUP_MCE: banks and their controls; cap was judged by the caller. */
void sys_mce_setup(struct cpu *cpu, uint64_t cap);

/* Any thread. Which MSRs KVM's lists name for this model; the number of them, at most max stored. */
enum msr_list_kind {
	MSR_LIST_SAVE /* and emulated ones: KVM_GET_MSR_INDEX_LIST */,
	MSR_LIST_FEATURE
};
unsigned sys_msr_list(const struct cpu_model *model, enum msr_list_kind kind, uint32_t *buf,
		      unsigned max);
/* Any thread. A feature MSR's value for a new vCPU (KVM_GET_MSRS on the system fd); false if it is none. */
bool sys_msr_feature(const struct cpu_model *model, uint32_t index, uint64_t *ret);

/* ---- io.c: ports ---- */

/* IOPL and the TSS's I/O permission bitmap: #GP(0) where refused. */
enum result sys_io_check(struct cpu *cpu, uint16_t port, unsigned size);
/* One access, checks done: takes answers, or builds the exit. Data breakpoints on ports included. */
enum result sys_io_read(struct cpu *cpu, uint16_t port, unsigned size, uint64_t *ret);
enum result sys_io_write(struct cpu *cpu, uint16_t port, unsigned size, uint64_t val);

/* ---- debug.c: breakpoints (SDM, debug registers) ---- */

/* Fault-class: a code breakpoint at linear address addr (none while RF is set). */
enum result sys_check_code_bp(struct cpu *cpu, gva_t addr);
/* A control transfer from this RIP has been taken, and branches are recorded (cpu_lbr()). */
static inline void sys_record_branch(struct cpu *cpu, uint64_t from)
{
	cpu->msr.lbr[0] = from;
	cpu->msr.lbr[1] = cpu->rip;
}
/* Trap-class: collect matches of a port access into ->pending_dr6; the mmu room does those of its own accesses. */
void sys_check_io_bp(struct cpu *cpu, uint16_t port, unsigned size);

#endif
