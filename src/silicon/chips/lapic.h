/* SPDX-License-Identifier: MIT */
/*
 * Local APIC: xAPIC and x2APIC (SDM, "Advanced programmable interrupt controller"; visible state
 * and vendor-neutral choices as in KVM: version 50014h, no error for EOI without ISR, x2APIC ID =
 * vCPU ID, lowest priority by vector).
 *
 * The register page is the state: regs[] is laid out as the guest sees it, and as KVM_GET_LAPIC
 * hands it out. Everything else in the struct is derived from it, or is configuration.
 *
 * Time comes by two callbacks, asked only when a timer register is touched: now() in nanoseconds
 * of any monotonic clock (the bus clock is config.bus_cycle_ns long), tsc() the guest's TSC.
 * The next expiry goes out by ops->timer() and lapic_timer_expiry().
 *
 * Threads: two groups, marked below. *Any thread*: lapic_accept() and all that matches and
 * delivers; they touch IRR, TMR and the error bits by atomic operations and read ID, LDR, DFR,
 * SVR and APIC base, which may change meanwhile, as on hardware. *Owner*: the vCPU's thread, or
 * whoever holds the vCPU's mutex while it is not running.
 */
#ifndef SILICON_CHIPS_LAPIC_H
#define SILICON_CHIPS_LAPIC_H

#include "silicon/chips/message.h"
#include "silicon/cpu/lapic_reg.h"

#define LAPIC_DEFAULT_BASE 0xfee00000ull
#define LAPIC_STATE_SIZE   0x400 /* sizeof(struct kvm_lapic_state) */
#define LAPIC_NEVER	   (~0ull)
#define LAPIC_MSR_FIRST	   0x800
#define LAPIC_MSR_LAST	   0x8ff

#define LAPIC_SVR_ENABLED      BIT(8)
#define LAPIC_SVR_NO_BROADCAST BIT(12)
#define LAPIC_LVT_MASKED       BIT(16)

struct lapic;

struct lapic_ops {
	/* Owner: an IPI by ICR or SELF IPI; the callee calls lapic_deliver(). */
	void (*send)(void *opaque, const struct apic_message *msg);
	/* Owner: an in-service interrupt ended. level: its TMR bit. */
	void (*eoi)(void *opaque, uint8_t vector, bool level);
	/*
	 * Owner: the timer was set or stopped; expiry in now()'s nanoseconds, or LAPIC_NEVER. It may
	 * be past already: call lapic_timer_fire() before the next instruction, then.
	 */
	void (*timer)(void *opaque, uint64_t expiry);
	uint64_t (*now)(void *opaque);
	uint64_t (*tsc)(void *opaque);
	/* Owner: base, ID, LDR, DFR, software enable or LVT LINT0 changed. May be NULL. */
	void (*changed)(void *opaque);
	/* Owner: TPR was accessed by MMIO (KVM_TPR_ACCESS_REPORTING). May be NULL. */
	void (*tpr_access)(void *opaque, bool write);

	/* Any thread: an IRR bit is about to be set, by others than the APIC's own timer. May be NULL. */
	void (*told)(void *opaque);
	/* Any thread: an IRR bit is set, look at lapic_pending_vector() again (request + kick). */
	void (*raised)(void *opaque);
	/*
	 * Any thread: SMI, NMI, INIT, STARTUP (vector = page) or REMOTE_READ (KVM's paravirtual
	 * unhalt) arrived. False: refused (no SMM, say).
	 */
	bool (*event)(void *opaque, enum apic_delivery what, uint8_t vector);
};

/* What the vCPU's CPUID, capabilities and VM say. May be changed by lapic_configure(). */
struct lapic_config {
	uint32_t id; /* x2APIC ID; low byte is the xAPIC ID at reset */
	bool bsp;
	bool x2apic; /* CPUID */
	bool tsc_deadline;
	bool cmci; /* MCG_CAP.CMCI_P: a seventh LVT entry */
	/* Offer suppression of EOI broadcasts, if x2apic too; never beside an ioapic. */
	bool directed_eoi;
	bool intel;	       /* LVT PC masks itself on delivery */
	bool lint0_reenabled;  /* KVM_X86_QUIRK_LINT0_REENABLED: LINT0 = ExtINT after reset */
	bool mmio_hole;	       /* KVM_X86_QUIRK_LAPIC_MMIO_HOLE: disabled page reads ones */
	bool x2apic_format;    /* KVM_X2APIC_API_USE_32BIT_IDS: state carries 32-bit ID */
	uint64_t reserved_gpa; /* bits of an address over MAXPHYADDR */
	uint64_t bus_cycle_ns; /* 1 by default */
	uint64_t
		tsc_khz; /* as exactly as a kHz tells; deadlines too far for it are armed more than once */
};

struct lapic {
	uint8_t regs[LAPIC_STATE_SIZE] __aligned_(64);
	uint64_t base;	     /* IA32_APIC_BASE; atomic reads by any thread */
	uint32_t errors;     /* ESR bits not latched yet; atomic */
	bool irr_hint;	     /* false: IRR is empty; atomic */
	uint32_t timer_mode; /* LVT timer bits 18:17 in force */
	uint32_t divide;
	uint64_t period;   /* ns; 0: stopped */
	uint64_t target;   /* ns; end of the current period */
	uint64_t deadline; /* IA32_TSC_DEADLINE */
	bool armed;
	struct lapic_config config;
	const struct lapic_ops *ops;
	void *opaque;
};

/* ---- Owner ---- */

/* Power-on state. config->bus_cycle_ns 0 means 1. */
void lapic_init(struct lapic *lapic, const struct lapic_ops *ops, void *opaque,
		const struct lapic_config *config);
/* New CPUID, capabilities or TSC frequency: version, LVT count and masks follow. */
void lapic_configure(struct lapic *lapic, const struct lapic_config *config);
/* RESET, or INIT (keeps APIC base and, in x2APIC mode, ID). */
void lapic_reset(struct lapic *lapic, bool init);

/* IA32_APIC_BASE. host: a state restore, which may take any transition. False: #GP, unchanged. */
bool lapic_set_base(struct lapic *lapic, uint64_t val, bool host);
/* Pure: that check, also for vCPUs without a local APIC. reserved: address bits and, w/o x2APIC, 10. */
bool lapic_base_valid(uint64_t old, uint64_t val, uint64_t reserved, bool host);
static inline uint64_t lapic_get_base(const struct lapic *lapic)
{
	return __atomic_load_n(&lapic->base, __ATOMIC_RELAXED);
}

/* Highest-priority deliverable vector (over PPR), or -1; also when disabled. */
int lapic_pending_vector(struct lapic *lapic);
/* Take it: IRR to ISR. Returns the vector, or -1. */
int lapic_ack(struct lapic *lapic);
/* The same for an interrupt that needs no EOI: it is never in service. */
int lapic_ack_ended(struct lapic *lapic);
/* EOI register written (also Hyper-V's, PV EOI): the vector that ended, or -1. */
int lapic_eoi(struct lapic *lapic);
/* True if INTR of the PIC reaches this processor (virtual wire mode, or APIC disabled). */
bool lapic_accepts_pic(const struct lapic *lapic);

/* CR8: TPR's upper four bits. lapic_set_tpr_reg() writes all eight. */
uint8_t lapic_get_tpr(const struct lapic *lapic);
void lapic_set_tpr(struct lapic *lapic, uint8_t cr8);
void lapic_set_tpr_reg(struct lapic *lapic, uint8_t tpr);

/* True if gpa is in the register page. */
static inline bool lapic_mmio_hit(const struct lapic *lapic, uint64_t gpa)
{
	return gpa >> 12 == lapic->base >> 12;
}
/*
 * xAPIC registers; offset in the page, size 1 to 8 bytes. False: the page is not there now
 * (disabled or x2APIC) and the access goes on to user space.
 */
bool lapic_mmio_read(struct lapic *lapic, unsigned offset, unsigned size, uint64_t *ret);
bool lapic_mmio_write(struct lapic *lapic, unsigned offset, unsigned size, uint64_t val);
/* x2APIC MSRs, index LAPIC_MSR_FIRST..LAST. False: #GP. */
bool lapic_msr_read(struct lapic *lapic, uint32_t index, uint64_t *ret);
bool lapic_msr_write(struct lapic *lapic, uint32_t index, uint64_t val);
/* Hyper-V's ICR: both halves in either mode. */
uint64_t lapic_get_icr(const struct lapic *lapic);
bool lapic_set_icr(struct lapic *lapic, uint64_t val);

/* IA32_TSC_DEADLINE: 0 and ignored in other timer modes. */
uint64_t lapic_get_deadline(const struct lapic *lapic);
void lapic_set_deadline(struct lapic *lapic, uint64_t tsc);
/* ops->tsc() jumped, or config.tsc_khz is another: a deadline is armed anew. */
void lapic_tsc_changed(struct lapic *lapic);
/* now()'s ns at which lapic_timer_fire() wants to be called, or LAPIC_NEVER; follows the TSC. */
uint64_t lapic_timer_expiry(struct lapic *lapic);
/* Deliver the timer's interrupt if it is due; an early call has it armed again. True if it was due. */
bool lapic_timer_fire(struct lapic *lapic);

/* An interrupt at an LVT entry (LAPIC_LVT_*): true if taken. LINT0, LINT1: any thread. */
bool lapic_local_deliver(struct lapic *lapic, enum lapic_reg lvt);

/* KVM_GET_LAPIC and KVM_SET_LAPIC: LAPIC_STATE_SIZE bytes. 0 or -EINVAL (ID mismatch). */
int lapic_get_state(struct lapic *lapic, void *regs);
int lapic_set_state(struct lapic *lapic, const void *regs);

/* Highest in-service and requested vector, or -1. */
int lapic_highest_isr(const struct lapic *lapic);
int lapic_highest_irr(const struct lapic *lapic);

/* ---- Any thread ---- */

static inline uint32_t lapic_reg(const struct lapic *lapic, enum lapic_reg reg)
{
	return __atomic_load_n((const uint32_t *)(lapic->regs + reg), __ATOMIC_RELAXED);
}
static inline bool lapic_hw_enabled(const struct lapic *lapic)
{
	return lapic_get_base(lapic) & APIC_BASE_ENABLED;
}
static inline bool lapic_sw_enabled(const struct lapic *lapic)
{
	return lapic_reg(lapic, LAPIC_SVR) & LAPIC_SVR_ENABLED;
}
static inline bool lapic_x2apic(const struct lapic *lapic)
{
	return lapic_get_base(lapic) & APIC_BASE_X2APIC;
}
/* LVT LINT0 is NMI and unmasked: PIT ticks are a watchdog's NMIs. */
bool lapic_lint0_is_nmi(const struct lapic *lapic);
/* The vector is requested or in service: its EOI is still to come. */
bool lapic_eoi_expected(const struct lapic *lapic, uint8_t vector);

/* Take a message that was matched before: true if accepted. Calls ->raised() or ->event(). */
bool lapic_accept(struct lapic *lapic, const struct apic_message *msg);

/*
 * Does msg concern this APIC? source: the sending APIC of an IPI, NULL for devices.
 * broadcast_quirk: device messages to FFh reach x2APICs too (KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK off).
 */
bool lapic_matches(const struct lapic *lapic, const struct lapic *source,
		   const struct apic_message *msg, bool broadcast_quirk);

/* The local APICs of a VM. at(i), i < nr, may be NULL for vCPUs without one. */
struct lapic_bus {
	struct lapic *(*at)(void *opaque, unsigned i);
	void *opaque;
	unsigned nr;
	bool broadcast_quirk;
};
/*
 * Find the destinations, arbitrate (lowest priority: the vector chooses among those that match,
 * as KVM does by default) and accept: number of APICs that took it.
 */
int lapic_deliver(const struct lapic_bus *bus, struct lapic *source,
		  const struct apic_message *msg);

#endif
