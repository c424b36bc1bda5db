/* SPDX-License-Identifier: MIT */
/*
 * A virtual CPU: one processor of silicon/, its local APIC, its kvm_run page and what KVM keeps
 * beside them. Room header of kvm/vcpu.
 *
 * Another thread reaches a vCPU by vcpu_request() and vcpu_kick() only.
 */
#ifndef KVM_VCPU_VCPU_H
#define KVM_VCPU_VCPU_H

#include "host/host.h"
#include "kvm/vcpu/watch.h"
#include "kvm/vm/service.h"
#include "kvm/vm/vm.h"
#include "silicon/chips/lapic.h"
#include "silicon/cpu/cpu.h"
#include "silicon/vmx/vmx.h"

#include <signal.h>

struct cpu_model;
struct pv;

#define VCPU_MAX_CPUID_ENTRIES 256
/* The vCPU file: run page, port data page, coalesced ring page. */
#define VCPU_PIO_PAGE  1
#define VCPU_RING_PAGE 2
#define VCPU_MMAP_SIZE (3 * PAGE_SIZE)
/* With KVM_CAP_DIRTY_LOG_RING the ring follows at this page. */
#define VCPU_DIRTY_RING_PAGE 64

/* Requests: bits of vcpu->requests, served on the vCPU thread by vcpu_service(). */
enum vcpu_request {
	REQ_KICK,	  /* leave guest code; serve nothing in particular */
	REQ_FLUSH,	  /* memory slots changed: flush every cached translation */
	REQ_FLUSH_WRITES, /* dirty log re-armed */
	REQ_EVENT,	  /* interrupt state changed */
	REQ_NMI,
	REQ_SMI,
	REQ_INIT,
	REQ_SIPI,
	REQ_UNHALT,	  /* KVM's paravirtual kick */
	REQ_CLOCK_UPDATE, /* kvmclock page must be written */
	REQ_MSR_FILTER,
	REQ_TRIPLE_FAULT,
	REQ_TIMER,	 /* local APIC timer expired */
	REQ_TPR_REPORT,	 /* KVM_EXIT_TPR_ACCESS is due */
	REQ_TPR_LOWERED, /* KVM_EXIT_SET_TPR is due */
	REQ_IOAPIC_EOI,	 /* KVM_EXIT_IOAPIC_EOI is due */
	REQ_VM_DEAD,
	REQ_ALONE,     /* another vCPU wants to be alone: wait until it has been */
	REQ_RING_FULL, /* KVM_EXIT_DIRTY_RING_FULL, until the ring is reset */
	REQ_STEAL,     /* steal time is to be shown */
	REQ_APF,       /* asynchronous page faults: an event may be due */
	REQ_HV_FLUSH,  /* Hyper-V: pages to flush are listed */
	REQ_HV_STIMER, /* Hyper-V: a synthetic timer is due or enabled */
	REQ_HV_CRASH,  /* Hyper-V: KVM_EXIT_SYSTEM_EVENT is due */
	REQ_HV_RESET,
	REQ_HV_EXIT,  /* Hyper-V: KVM_EXIT_HYPERV for a register is due */
	REQ_HV_TRAP,  /* Hyper-V: a nested guest has flushed, and its hypervisor hears of it */
	REQ_NESTED,   /* restored nested state names something in guest memory */
	REQ_DOORBELL, /* AVIC: an interrupt for the guest's guest is in its backing page */
	REQ_XEN,      /* Xen: an event came */
};

/* Where the vCPU's thread is: vcpu->running. */
enum vcpu_running {
	VCPU_OUTSIDE, /* not in KVM_RUN */
	VCPU_BLOCKED, /* in KVM_RUN, waiting for an event: touches no slot and no bus */
	VCPU_POLLING, /* the same, but no futex: it looks at ->kicked all the time */
	VCPU_INSIDE,  /* in KVM_RUN, anywhere else: may hold on to slots until its next safepoint */
};

/* In a deterministic VM: vcpu->turn. */
enum vcpu_turn {
	TURN_OUT,    /* waits for KVM_RUN, INIT or SIPI */
	TURN_HALTED, /* waits for an event */
	TURN_READY,  /* may have the next turn */
};

/* KVM_CAP_DIRTY_LOG_RING: written by the vCPU, harvested by the program, reset by KVM_RESET_DIRTY_RINGS. */
struct dirty_ring {
	struct kvm_dirty_gfn *v; /* in the vCPU's file; NULL: not enabled */
	uint32_t size, limit;	 /* entries; how many in use make KVM_RUN leave */
	uint32_t pushed;	 /* entries ever; atomic */
	uint32_t reset;		 /* of them reset; slots_lock; atomic */
};

/* Who watches, and where it is told: watch.h. */
struct vcpu_watch {
	/* Of each exit. */
	struct watch_page *page; /* NULL: the vCPU has no file */
	struct watch_session *session;
	uint64_t telling; /* bits of enum watch_event: whose details the ring or a probe wants */
	uint64_t copied;  /* cpu.retired as counters were copied into the page, */
	uint32_t skipped; /* and looks at them since then */
	uint32_t looks;	  /* since the clock was asked for how long somebody watches */
	bool on;	  /* cpu.platform is ->platform */
	bool open;	  /* guest code was left, for ->reason */
	uint8_t reason;	  /* enum watch_reason */
	uint8_t stands;	  /* exits that this one, or the last, stands for; 0: it is not timed */
	bool window;	  /* the session wants one of instructions */
	bool stepping;	  /* the window's next instruction follows without an exit */
	bool silent;	  /* KVM_RUN did nothing */
	bool sampling;	  /* ->sample_timer is in use */
	bool sample;	  /* is due; atomic */
	uint64_t counted; /* cpu.retired as KVM_RUN began */
	struct watch_clock clocks[NR_WATCH_REASONS];
	uint64_t since;	 /* TSC as it was left, if it is timed or told */
	uint64_t random; /* for ->clocks */

	uint8_t *ring;	     /* the session's; NULL: only counters */
	uint64_t end;	     /* of the ring with the event at hand; 0: it is not in the ring */
	uint64_t room_until; /* the ring's head may go as far without a look at its tail */
	bool impatient;	     /* the ring's reader did not make room */
	uint64_t told;	     /* cpu.retired at the last instruction of the window */
	uint64_t **touched;  /* bitmaps of pages that were told of, by chunk; NULL while off */
	struct service_timer sample_timer;
	struct platform platform;	       /* the vCPU's, watched */
	uint64_t scratch[WATCH_MAX_EVENT / 8]; /* events that do not go to the ring */
} __aligned_(64);

struct vcpu {
	struct cpu cpu; /* first: struct platform's opaque is the vcpu */
	struct vm *vm;
	uint32_t id, index;
	uint64_t inode;
	pthread_mutex_t mutex; /* held by every vCPU ioctl, KVM_RUN included */

	struct kvm_run *run; /* shared file mapping: VCPU_MMAP_SIZE bytes, kvm/api's */
	uint8_t *pio_data;

	struct dirty_ring dirty_ring;

	struct lapic *lapic; /* NULL without an in-kernel local APIC */
	struct lapic lapic_storage;
	struct service_timer timer; /* the local APIC's */
	uint64_t apic_base;	    /* IA32_APIC_BASE where there is no local APIC */
	uint8_t cr8;		    /* likewise */
	uint32_t mp_state;	    /* KVM_MP_STATE_* */

	uint64_t requests;	    /* atomic */
	uint32_t kicked;	    /* futex: 1 = leave or wake up */
	uint32_t running;	    /* enum vcpu_running; atomic */
	uint32_t turn;		    /* enum vcpu_turn; atomic */
	bool slept;		    /* since its last turn */
	bool spinning;		    /* it yields because its guest spins; atomic */
	uint32_t alone;		    /* depth of vcpu_alone(); the vCPU's thread */
	uint32_t safepoint;	    /* futex: counts requests served and sections left */
	uint32_t safepoint_waiters; /* atomic */
	uint32_t serving;	    /* requests are taken but not served yet; atomic */
	int tid;	/* atomic: the thread in KVM_RUN; valid while ->running is not OUTSIDE */
	bool restarted; /* an access gave up for a safepoint; set in a signal handler */
	bool signal_pending; /* a signal asked for EINTR; set by its handler; atomic */
	bool has_run;	     /* the guest was entered: CPUID is fixed */
	bool leave;	     /* vcpu_service() wants out of cpu_run() */
	bool halted_in_guest; /* HLT with KVM_X86_DISABLE_EXITS_HLT: waits, but is no state of KVM's */
	bool unhalted;	      /* KVM's paravirtual kick arrived */
	uint32_t poll_ns;     /* how long to poll when halted (halt.c) */
	bool wait_flush;      /* other vCPUs were asked to flush: wait for them before guest code */
	bool eoi_offered;     /* the guest may end its interrupt in memory: pv_eoi_sync() */

	/* The one continuation across exits to user space; NULL when nothing is open. */
	int (*complete)(struct vcpu *vcpu);
	bool inject_behind; /* the program wants an event injected behind what is open */
	unsigned next_write,
		nr_write;    /* into cpu.out: fragments handed out, and now on their way */
	uint64_t exit_rip;   /* linear RIP of the instruction that waits for an answer */
	uint64_t rip_behind; /* RIP behind the OUT that stands there */
	uint32_t msr_reason; /* KVM_MSR_EXIT_REASON_* of the MSR exit to come */
	uint8_t eoi_vector;
	bool tpr_write;
	uint64_t tpr_rip;

	sigset_t sigmask;
	bool sigmask_set;

	struct kvm_cpuid_entry2 *cpuid;
	unsigned nr_cpuid;
	uint32_t xsave_size;  /* bytes of the image by KVM_GET_XSAVE2 and KVM_SET_XSAVE */
	uint32_t pv_features; /* EAX of the guest's KVM_CPUID_FEATURES leaf, as it was last found */
	uint32_t kvm_base;    /* first of KVM's CPUID leaves, or 0 */
	bool pv_enforce;
	uint64_t tsc_offset; /* guest TSC = the VM's, scaled, plus this */
	uint64_t tsc_ratio;  /* with VCPU_TSC_FRACTION bits behind the point */
	uint32_t tsc_khz;
	uint32_t tsc_generation; /* clock_tsc_write()'s */
	uint32_t guest_debug;	 /* KVM_GUESTDBG_* */
	bool tpr_access_reporting;
	gpa_t vapic_addr;
	uint8_t sipi_vector;
	int interrupt_injected; /* KVM_INTERRUPT's vector waiting, or -1 */
	struct pv *pv;
	struct vmx vmx;		    /* hangs from cpu.virt on models that have VMX */
	struct service_timer alarm; /* of the preemption timer */
	bool judge_guest; /* segments were set in guest mode: VMX may not go on with them */
	bool evmcs;	  /* KVM_CAP_HYPERV_ENLIGHTENED_VMCS */
	struct stats_block *stats;
	struct vcpu_watch watch;
};

/* ---- vcpu.c: kvm/api, vm->lock held for create ---- */

/*
 * A new vCPU in its reset state; run: VCPU_MMAP_SIZE zeroed bytes, which outlive it, as vm does. The caller checks the id, publishes it in vm->vcpus and sets ->index before it runs. 0 or -ENOMEM.
 */
int vcpu_create(struct vm *vm, uint32_t id, const struct cpu_model *model, void *run,
		struct vcpu **ret);
/*
 * Before it runs: own is the page of its file where it is watched (watch.h); session: what is mapped of the session's file
 * at session_path, or NULL. Both outlive the vCPU.
 */
void vcpu_watch_create(struct vcpu *vcpu, void *own, struct watch_session *session,
		       const char *session_path);
/* No thread is inside and nobody reaches it any more. */
void vcpu_destroy(struct vcpu *vcpu);
/* Call handler work of a vCPU that is not in KVM_RUN: RESET's state (init: INIT's). */
void vcpu_reset(struct vcpu *vcpu, bool init);
/* struct vm_ops for vm_create(). */
extern const struct vm_ops vcpu_vm_ops;

/* ---- request.c ---- */

/* Any thread. Raise a request and make the vCPU look. */
void vcpu_request(struct vcpu *vcpu, enum vcpu_request req);
/* The same for what says nothing of others' doings, or where they were told of already (cpu_tell()). */
void vcpu_request_own(struct vcpu *vcpu, enum vcpu_request req);
/* Any thread. Make the vCPU look: out of guest code before the next instruction, out of HLT. */
void vcpu_kick(struct vcpu *vcpu);
/*
 * Any thread, no vcpu->mutex of a running vCPU held. wait: returns after each vCPU inside
 * KVM_RUN passed a safepoint.
 */
void vcpu_request_all(struct vm *vm, enum vcpu_request req, bool wait);
/* The calling thread's KVM_RUN, if it is in one, will answer EINTR. Async-signal-safe. */
bool vcpu_run_interrupted(void);

/* ---- yield.c: the vCPU's thread ---- */

/* Let another vCPU run that waits for a processor; to may be NULL. False: it needs no help, or could not be helped. */
bool vcpu_yield_to(struct vcpu *vcpu, struct vcpu *to);
/* The guest spins: let a vCPU run that does not, or anybody. */
void vcpu_on_spin(struct vcpu *vcpu);

/* ---- Ioctl handlers, see kvm/vm/ioctl.h. (RAW): arg is the program's pointer ---- */

long vcpu_run(struct vcpu *vcpu, void *arg);
long vcpu_get_regs(struct vcpu *vcpu, void *arg);
long vcpu_set_regs(struct vcpu *vcpu, void *arg);
long vcpu_get_sregs(struct vcpu *vcpu, void *arg);
long vcpu_set_sregs(struct vcpu *vcpu, void *arg); /* VCPU_SLOTS */
long vcpu_get_sregs2(struct vcpu *vcpu, void *arg);
long vcpu_set_sregs2(struct vcpu *vcpu, void *arg); /* VCPU_SLOTS */
long vcpu_get_debugregs(struct vcpu *vcpu, void *arg);
long vcpu_set_debugregs(struct vcpu *vcpu, void *arg);
long vcpu_get_fpu(struct vcpu *vcpu, void *arg);
long vcpu_set_fpu(struct vcpu *vcpu, void *arg);
long vcpu_get_xsave(struct vcpu *vcpu, void *arg);
long vcpu_get_xsave2(struct vcpu *vcpu, void *arg); /* RAW */
long vcpu_set_xsave(struct vcpu *vcpu, void *arg);
long vcpu_get_xcrs(struct vcpu *vcpu, void *arg);
long vcpu_set_xcrs(struct vcpu *vcpu, void *arg);
long vcpu_get_events(struct vcpu *vcpu, void *arg);
long vcpu_set_events(struct vcpu *vcpu, void *arg);
long vcpu_get_mp_state(struct vcpu *vcpu, void *arg);
long vcpu_set_mp_state(struct vcpu *vcpu, void *arg);
long vcpu_get_lapic(struct vcpu *vcpu, void *arg);
long vcpu_set_lapic(struct vcpu *vcpu, void *arg);
long vcpu_get_msrs(struct vcpu *vcpu, void *arg);   /* RAW, VCPU_SLOTS */
long vcpu_set_msrs(struct vcpu *vcpu, void *arg);   /* RAW, VCPU_SLOTS */
long vcpu_set_cpuid(struct vcpu *vcpu, void *arg);  /* RAW */
long vcpu_set_cpuid2(struct vcpu *vcpu, void *arg); /* RAW */
long vcpu_get_cpuid2(struct vcpu *vcpu, void *arg); /* RAW */
#define VCPU_TSC_FRACTION 48
/* Any thread that may read the vCPU. The guest's cycles for the VM's. */
static inline uint64_t vcpu_tsc_scaled(const struct vcpu *vcpu, uint64_t tsc)
{
	return (unsigned __int128)tsc * vcpu->tsc_ratio >> VCPU_TSC_FRACTION;
}

static inline uint64_t vcpu_tsc_at(const struct vcpu *vcpu, uint64_t tsc)
{
	return vcpu_tsc_scaled(vcpu, tsc) + vcpu->tsc_offset;
}

/* Cycles in a millisecond, as the TSC really runs: not less than 1. tsc_khz is what was asked for. */
static inline uint64_t vcpu_tsc_rate(const struct vcpu *vcpu)
{
	uint64_t rate = vcpu_tsc_scaled(vcpu, host_tsc_khz());

	return rate ? rate : 1;
}

long vcpu_get_tsc_khz(struct vcpu *vcpu, void *arg);
long vcpu_set_tsc_khz(struct vcpu *vcpu, void *arg);
long vcpu_set_guest_debug(struct vcpu *vcpu, void *arg);
long vcpu_translate(struct vcpu *vcpu, void *arg); /* VCPU_SLOTS */
long vcpu_interrupt(struct vcpu *vcpu, void *arg);
long vcpu_nmi(struct vcpu *vcpu, void *arg);
long vcpu_smi(struct vcpu *vcpu, void *arg);
long vcpu_set_signal_mask(struct vcpu *vcpu, void *arg); /* RAW */
long vcpu_setup_mce(struct vcpu *vcpu, void *arg);
long vcpu_set_mce(struct vcpu *vcpu, void *arg);
long vcpu_tpr_access_reporting(struct vcpu *vcpu, void *arg);
long vcpu_set_vapic_addr(struct vcpu *vcpu, void *arg); /* VCPU_SLOTS */
long vcpu_reset_dirty_rings(struct vm *vm, void *arg);
long vcpu_pre_fault_memory(struct vcpu *vcpu, void *arg); /* VCPU_SLOTS */
long vcpu_kvmclock_ctrl(struct vcpu *vcpu, void *arg);
long vcpu_has_device_attr(struct vcpu *vcpu, void *arg);
long vcpu_get_device_attr(struct vcpu *vcpu, void *arg);
long vcpu_set_device_attr(struct vcpu *vcpu, void *arg);
long vcpu_enable_cap(struct vcpu *vcpu, void *arg);
long vcpu_get_stats_fd(struct vcpu *vcpu, void *arg);
long vcpu_get_nested_state(struct vcpu *vcpu, void *arg); /* RAW, VCPU_SLOTS */
long vcpu_set_nested_state(struct vcpu *vcpu, void *arg); /* RAW, VCPU_SLOTS */
long vcpu_get_hv_cpuid(struct vcpu *vcpu, void *arg);	  /* RAW */

/* ---- cpuid.c: system ioctls; user is the program's struct kvm_cpuid2. 0 or -errno ---- */

/* permitted: dynamic components that the process has asked for (struct vm_ops). */
long cpuid_get_supported(const struct cpu_model *model, uint64_t permitted, void *user);
/* Bytes of KVM_GET_XSAVE2's image at most: KVM_CAP_XSAVE2. */
uint32_t cpuid_xsave_size(const struct cpu_model *model, uint64_t permitted);
long cpuid_get_emulated(const struct cpu_model *model, void *user);

/* ---- msrs.c ---- */

/* KVM_X86_GET_MCE_CAP_SUPPORTED. */
uint64_t vcpu_mce_cap_supported(const struct cpu_model *model);

#endif
