/* SPDX-License-Identifier: MIT */
/* The probes' places: a nop each, and a note that names it. One semaphore serves them all. */
#include "kvm/vcpu/probes.h"

#include <string.h>

__attribute__((section(".probes"), used, visibility("hidden"))) volatile uint16_t probes_semaphore;

__asm__(".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"
	".weak _.stapsdt.base\n"
	".hidden _.stapsdt.base\n"
	"_.stapsdt.base: .space 1\n"
	".size _.stapsdt.base, 1\n"
	".popsection\n");

/* Name and arguments as strings; operands up to eight 64-bit values. */
#define PLACE(name, args, ...)                                                  \
	__asm__ volatile("990: nop\n"                                           \
			 ".pushsection .note.stapsdt,\"\",\"note\"\n"           \
			 ".balign 4\n"                                          \
			 ".4byte 992f - 991f, 994f - 993f, 3\n"                 \
			 "991: .asciz \"stapsdt\"\n"                            \
			 "992: .balign 4\n"                                     \
			 "993: .8byte 990b, _.stapsdt.base, probes_semaphore\n" \
			 ".asciz \"anykvm\"\n"                                  \
			 ".asciz \"" name "\"\n"                                \
			 ".asciz \"" args "\"\n"                                \
			 "994: .balign 4\n"                                     \
			 ".popsection\n" ::__VA_ARGS__)

#define A1   "8@%0"
#define A2   A1 " 8@%1"
#define A3   A2 " 8@%2"
#define A4   A3 " 8@%3"
#define A5   A4 " 8@%4"
#define A6   A5 " 8@%5"
#define A8   A6 " 8@%6 8@%7"
#define V(x) "nor"((uint64_t)(x))

static void fire_entry(const void *p)
{
	const struct ev_kvm_entry *e = p;

	PLACE("kvm_entry", A3, V(e->vcpu_id), V(e->rip), V(e->immediate_exit));
}

static void fire_exit(const void *p)
{
	const struct ev_kvm_exit *e = p;

	PLACE("kvm_exit", A8, V(e->exit_reason), V(e->guest_rip), V(e->isa), V(e->info1),
	      V(e->info2), V(e->intr_info), V(e->error_code), V(e->vcpu_id));
}

static void fire_hypercall(const void *p)
{
	const struct ev_kvm_hypercall *e = p;

	PLACE("kvm_hypercall", A5, V(e->nr), V(e->a0), V(e->a1), V(e->a2), V(e->a3));
}

static void fire_pio(const void *p)
{
	const struct ev_kvm_pio *e = p;

	PLACE("kvm_pio", A5, V(e->rw), V(e->port), V(e->size), V(e->count), V(e->val));
}

static void fire_mmio(const void *p)
{
	const struct ev_kvm_mmio *e = p;

	PLACE("kvm_mmio", A4, V(e->type), V(e->len), V(e->gpa), V(e->val));
}

static void fire_cpuid(const void *p)
{
	const struct ev_kvm_cpuid *e = p;

	PLACE("kvm_cpuid", A8, V(e->function), V(e->index), V(e->rax), V(e->rbx), V(e->rcx),
	      V(e->rdx), V(e->found), V(e->used_max_basic));
}

static void fire_msr(const void *p)
{
	const struct ev_kvm_msr *e = p;

	PLACE("kvm_msr", A4, V(e->write), V(e->ecx), V(e->data), V(e->exception));
}

static void fire_virq(const void *p)
{
	const struct ev_kvm_inj_virq *e = p;

	PLACE("kvm_inj_virq", A3, V(e->vector), V(e->soft), V(e->reinjected));
}

static void fire_exception(const void *p)
{
	const struct ev_kvm_inj_exception *e = p;

	PLACE("kvm_inj_exception", A4, V(e->exception), V(e->has_error), V(e->error_code),
	      V(e->reinjected));
}

static void fire_page_fault(const void *p)
{
	const struct ev_kvm_page_fault *e = p;

	PLACE("kvm_page_fault", A4, V(e->vcpu_id), V(e->guest_rip), V(e->fault_address),
	      V(e->error_code));
}

static void fire_userspace_exit(const void *p)
{
	const struct ev_kvm_userspace_exit *e = p;

	PLACE("kvm_userspace_exit", "8@%0 -8@%1", V(e->reason), V((int64_t)e->errno_));
}

static void fire_wakeup(const void *p)
{
	const struct ev_kvm_vcpu_wakeup *e = p;

	PLACE("kvm_vcpu_wakeup", A3, V(e->ns), V(e->waited), V(e->valid));
}

static void fire_nested_enter(const void *p)
{
	const struct ev_kvm_nested_vmenter *e = p;

	PLACE("kvm_nested_vmenter", A8, V(e->rip), V(e->vmcb), V(e->nested_rip), V(e->int_ctl),
	      V(e->event_inj), V(e->tdp_enabled), V(e->guest_pgd), V(e->isa));
}

static void fire_nested_exit(const void *p)
{
	const struct ev_kvm_nested_vmexit *e = p;

	PLACE("kvm_nested_vmexit", A8, V(e->exit_reason), V(e->guest_rip), V(e->isa), V(e->info1),
	      V(e->info2), V(e->intr_info), V(e->error_code), V(e->vcpu_id));
}

static void fire_nested_inject(const void *p)
{
	const struct ev_kvm_nested_vmexit_inject *e = p;

	PLACE("kvm_nested_vmexit_inject", A6, V(e->exit_code), V(e->exit_info1), V(e->exit_info2),
	      V(e->exit_int_info), V(e->exit_int_info_err), V(e->isa));
}

static void fire_nested_interrupt(const void *p)
{
	const struct ev_kvm_nested_intr_vmexit *e = p;

	PLACE("kvm_nested_intr_vmexit", A1, V(e->rip));
}

static void fire_invlpga(const void *p)
{
	const struct ev_kvm_invlpga *e = p;

	PLACE("kvm_invlpga", A3, V(e->rip), V(e->asid), V(e->address));
}

static void (*const fire[])(const void *p) = {
	[EV_kvm_entry] = fire_entry,
	[EV_kvm_exit] = fire_exit,
	[EV_kvm_hypercall] = fire_hypercall,
	[EV_kvm_pio] = fire_pio,
	[EV_kvm_mmio] = fire_mmio,
	[EV_kvm_cpuid] = fire_cpuid,
	[EV_kvm_msr] = fire_msr,
	[EV_kvm_inj_virq] = fire_virq,
	[EV_kvm_inj_exception] = fire_exception,
	[EV_kvm_page_fault] = fire_page_fault,
	[EV_kvm_userspace_exit] = fire_userspace_exit,
	[EV_kvm_vcpu_wakeup] = fire_wakeup,
	[EV_kvm_nested_vmenter] = fire_nested_enter,
	[EV_kvm_nested_vmexit] = fire_nested_exit,
	[EV_kvm_nested_vmexit_inject] = fire_nested_inject,
	[EV_kvm_nested_intr_vmexit] = fire_nested_interrupt,
	[EV_kvm_invlpga] = fire_invlpga,
};

void probes_fire(enum watch_event id, const void *ev)
{
	fire[id](ev);
}
