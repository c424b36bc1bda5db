/* SPDX-License-Identifier: MIT */
/* Private to the Hyper-V files of kvm/pv. Threads as in hv.h, unless a member says otherwise. */
#ifndef KVM_PV_HV_INTERNAL_H
#define KVM_PV_HV_INTERNAL_H

#include "kvm/pv/hv.h"
#include "kvm/pv/hv_abi.h"
#include "kvm/pv/pv_internal.h"

/* Pages to flush that wait for the vCPU; one place more than a hypercall may fill, for "all". */
#define HV_FLUSH_ROOM 16
#define HV_FLUSH_ALL  UINT64_MAX

struct hv_stimer {
	struct service_timer timer;
	struct vcpu *vcpu;
	unsigned index;
	uint64_t config, count; /* the MSRs */
	uint64_t expiry;	/* reference time, 100 ns; 0: not started */
	bool undelivered;	/* expired, but its message slot was taken */
};

struct hv {
	bool enabled; /* CPUID says Hyper-V */
	bool enforce; /* KVM_CAP_HYPERV_ENFORCE_CPUID */
	struct {
		uint32_t features_eax, features_ebx, features_edx;
		uint32_t enlightenments_eax, enlightenments_ebx;
		uint32_t syndbg_eax;
		uint32_t nested_eax, nested_ebx;
	} cpuid;
	uint32_t vp_index; /* atomic; read by any thread */
	uint64_t assist_page;
	uint64_t runtime_base; /* VP_RUNTIME is the thread's CPU time and this */

	bool synic; /* activated; atomic; read by any thread */
	bool synic_keep_pages;
	uint64_t scontrol, sversion, siefp, simp;
	uint64_t sint[HV_NR_SINTS]; /* atomic; read by any thread */
	uint64_t connected[4];	    /* vectors of the sints; atomic; read by any thread */
	uint64_t auto_eoi[4];

	struct hv_stimer stimer[HV_NR_STIMERS];
	uint32_t stimers_pending; /* atomic bits; any thread */

	struct kvm_hyperv_exit exit; /* REQ_HV_EXIT */

	pthread_mutex_t flush_lock; /* a leaf: protects the next two, any thread */
	unsigned nr_flush;
	uint64_t flush[HV_FLUSH_ROOM]; /* gva | pages - 1, or HV_FLUSH_ALL */

	/* What the last entry into a nested guest found (hv_nested.c). */
	struct {
		bool direct_calls, flush_calls;
		bool keep_map, map_unchanged;
		bool has_map;	 /* ->map is what the guest hypervisor's bitmaps were */
		gpa_t partition; /* the assist page of the partition */
		uint64_t vm_id;	 /* atomic; read by any thread */
		uint32_t vp_id;	 /* likewise */
		uint8_t map[0x1800];
	} nested;
};

enum hv_tsc_status {
	HV_TSC_UNSET,
	HV_TSC_GUEST_CHANGED, /* to be written: the guest asked for it */
	HV_TSC_HOST_CHANGED,  /* to be written: the program did, or the clock changed */
	HV_TSC_SET,
	HV_TSC_BROKEN,
};

/* An eventfd behind a connection (KVM_HYPERV_EVENTFD). */
struct hv_connection {
	struct hv_connection *next;
	uint32_t id;
	int fd;
};

struct hv_vm {
	pthread_mutex_t lock; /* all but the connections; under slots_lock, over nothing */
	uint64_t guest_os_id, hypercall;
	uint64_t tsc_msr;
	enum hv_tsc_status tsc_status;
	struct hv_tsc_page tsc;
	uint64_t crash[5], crash_ctl;
	uint64_t reenlightenment, tsc_emulation_control, tsc_emulation_status;
	uint64_t invtsc_control;
	struct {
		uint64_t control, status, send_page, recv_page, pending_page, options;
	} syndbg;

	pthread_mutex_t connections_lock; /* a leaf */
	struct hv_connection *connections;
};

static inline struct hv *hv_of(const struct vcpu *vcpu)
{
	return vcpu->pv->hv;
}

static inline struct hv_vm *hv_vm_of(const struct vm *vm)
{
	return vm->pv->hv;
}

static inline uint32_t hv_vp_index(const struct vcpu *vcpu)
{
	return __atomic_load_n(&hv_of(vcpu)->vp_index, __ATOMIC_RELAXED);
}

static inline bool hv_synic_active(const struct vcpu *vcpu)
{
	return __atomic_load_n(&hv_of(vcpu)->synic, __ATOMIC_ACQUIRE);
}

/* MSR accessors; a row of hv_msrs.c has checked access. */
typedef enum pv_result hv_get_fn(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret);
typedef enum pv_result hv_set_fn(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val);

/* hv_time.c */
uint64_t hv_time_ref(struct vcpu *vcpu); /* 100 ns; takes hv_vm's lock */
hv_get_fn hv_time_ref_get, hv_tsc_page_get, hv_frequency_get, hv_runtime_get, hv_tsc_emulation_get;
hv_set_fn hv_time_ref_set, hv_tsc_page_set, hv_frequency_set, hv_runtime_set, hv_tsc_emulation_set;

/* hv_synic.c */
hv_get_fn hv_synic_get;
hv_set_fn hv_synic_set;
void hv_synic_init(struct hv *hv);
/* An interrupt of sint: 0: not taken; > 0: taken; < 0: -errno. Any thread. */
int hv_synic_interrupt(struct vcpu *vcpu, unsigned sint);

/* hv_stimer.c */
hv_get_fn hv_stimer_get;
hv_set_fn hv_stimer_set;
void hv_stimer_init(struct vcpu *vcpu);
void hv_stimer_stop(struct vcpu *vcpu);
/* The guest took the messages of sint: those that waited go next. */
void hv_stimer_acked(struct vcpu *vcpu, unsigned sint);

/* hv_syndbg.c */
hv_get_fn hv_syndbg_get;
hv_set_fn hv_syndbg_set;
bool hv_syndbg_enabled(const struct vcpu *vcpu);
/* A hypercall of the debugger: a status, or HV_TO_USER. */
uint64_t hv_syndbg_call(struct vcpu *vcpu);

/* A hypercall on its way. */
#define HV_TO_USER UINT64_MAX
struct hv_call {
	uint64_t param, in, out;
	uint16_t code, var_cnt, rep_cnt, rep_idx;
	bool fast;
	uint64_t xmm[2 * HV_NR_XMM];
	unsigned consumed; /* next input: bytes behind ->in, or halves of ->xmm */
};

/* hv_call.c: the next nr words of input; takes those over room as read. False: they are not there. */
bool hv_call_words(struct vcpu *vcpu, struct hv_call *call, unsigned nr, unsigned room,
		   uint64_t *ret);

/* The code of a hypercall that flushes TLBs. */
bool hv_call_flushes(uint16_t code);

/* hv_nested.c */
/* The guest's CPUID, or what the program wants, changed. */
void hv_nested_offer(struct vcpu *vcpu);
/* The range of versions, or 0; vcpu NULL: what there is if it is enabled, on a model with VMX. */
uint16_t hv_evmcs_version(const struct vcpu *vcpu, bool vmx);
/* KVM_CAP_HYPERV_ENLIGHTENED_VMCS: 0 or -errno. */
int hv_evmcs_enable(struct vcpu *vcpu, void *ret_version);
/* A hypercall's address as the guest hypervisor's; false: it has none. */
bool hv_nested_input(struct vcpu *vcpu, gpa_t *gpa);
/* A nested guest's flush has this status: the status that it gets. */
uint64_t hv_nested_flushed(struct vcpu *vcpu, uint64_t status);

/* hv_flush.c, hv_signal.c: a status, or HV_TO_USER. */
uint64_t hv_flush_call(struct vcpu *vcpu, struct hv_call *call);
uint64_t hv_ipi_call(struct vcpu *vcpu, struct hv_call *call);
uint64_t hv_signal_call(struct vcpu *vcpu, struct hv_call *call);

#endif
