/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V hypercalls: registers to a struct hv_call, checks in the order of KVM, then by table. What is the
 * program's (messages, extended hypercalls, the debugger's) leaves with KVM_EXIT_HYPERV.
 *
 * Fast calls have their input in registers, RDX and R8 first, then XMM0 to XMM5 for those that take so much.
 */
#include "kvm/pv/hv_internal.h"
#include "silicon/models/model.h"

#include <string.h>

bool pv_hv_calls_enabled(const struct vcpu *vcpu)
{
	return hv_of(vcpu)->enabled &&
	       __atomic_load_n(&hv_vm_of(vcpu->vm)->guest_os_id, __ATOMIC_RELAXED);
}

/* ---- input ---- */

bool hv_call_words(struct vcpu *vcpu, struct hv_call *call, unsigned nr, unsigned room,
		   uint64_t *ret)
{
	unsigned take = min(nr, room);

	if (!call->fast)
		return !vm_read_guest(vcpu->vm, call->in + call->consumed, ret,
				      take * sizeof(*ret));
	if (nr > ARRAY_SIZE(call->xmm) - call->consumed)
		return false;
	memcpy(ret, &call->xmm[call->consumed], take * sizeof(*ret));
	return true;
}

#define XSAVE_XMM 160
#define XSAVE_BV  512

/* The registers were put away; those in their initial state may not stand in the image. */
static void read_xmm(const struct vcpu *vcpu, struct hv_call *call)
{
	const uint8_t *area = vcpu->cpu.fpu.area;
	uint64_t present;

	memcpy(&present, area + XSAVE_BV, sizeof(present));
	if (present & 2 || !vcpu->cpu.fpu.xfeatures)
		memcpy(call->xmm, area + XSAVE_XMM, sizeof(call->xmm));
	else
		memset(call->xmm, 0, sizeof(call->xmm));
}

static uint64_t pair(const struct cpu *cpu, unsigned high, unsigned low)
{
	return cpu->gpr[high] << 32 | (uint32_t)cpu->gpr[low];
}

static void read_call(const struct vcpu *vcpu, struct hv_call *call)
{
	const struct cpu *cpu = &vcpu->cpu;

	*call = (struct hv_call){0};
	if (pv_hypercall_64bit(vcpu)) {
		call->param = cpu->gpr[RCX];
		call->in = cpu->gpr[RDX];
		call->out = cpu->gpr[R8];
	} else {
		call->param = pair(cpu, RDX, RAX);
		call->in = pair(cpu, RBX, RCX);
		call->out = pair(cpu, RDI, RSI);
	}
	call->code = call->param;
	call->var_cnt = call->param >> HV_CALL_VAR_SHIFT & HV_CALL_VAR_MASK;
	call->fast = call->param & HV_CALL_FAST;
	call->rep_cnt = call->param >> HV_CALL_REP_SHIFT & HV_CALL_REP_MASK;
	call->rep_idx = call->param >> HV_CALL_REP_START_SHIFT & HV_CALL_REP_MASK;
}

/* ---- who may call what; asked only if CPUID is enforced ---- */

static bool may_spin(const struct vcpu *vcpu)
{
	uint32_t retries = hv_of(vcpu)->cpuid.enlightenments_ebx;

	return retries && retries != UINT32_MAX;
}

static bool may_post(const struct vcpu *vcpu)
{
	return hv_of(vcpu)->cpuid.features_ebx & HV_POST_MESSAGES;
}

static bool may_signal(const struct vcpu *vcpu)
{
	return hv_of(vcpu)->cpuid.features_ebx & HV_SIGNAL_EVENTS;
}

/* Without the debugger at all the call does not exist, which is another answer. */
static bool may_debug(const struct vcpu *vcpu)
{
	return !hv_syndbg_enabled(vcpu) || hv_of(vcpu)->cpuid.features_ebx & HV_DEBUGGING;
}

static bool has_all(const struct vcpu *vcpu, uint32_t bits)
{
	return (hv_of(vcpu)->cpuid.enlightenments_eax & bits) == bits;
}

static bool may_flush(const struct vcpu *vcpu)
{
	return has_all(vcpu, HV_USE_REMOTE_FLUSH);
}

static bool may_flush_ex(const struct vcpu *vcpu)
{
	return has_all(vcpu, HV_USE_REMOTE_FLUSH | HV_USE_EX_MASKS);
}

static bool may_ipi(const struct vcpu *vcpu)
{
	return has_all(vcpu, HV_USE_CLUSTER_IPI);
}

static bool may_ipi_ex(const struct vcpu *vcpu)
{
	return has_all(vcpu, HV_USE_CLUSTER_IPI | HV_USE_EX_MASKS);
}

static bool may_extend(const struct vcpu *vcpu)
{
	return hv_of(vcpu)->cpuid.features_ebx & HV_EXTENDED_CALLS;
}

/* ---- calls ---- */

static uint64_t spin_call(struct vcpu *vcpu, struct hv_call *call)
{
	vcpu_on_spin(vcpu);
	return HV_STATUS_SUCCESS;
}

/* A program without a SynIC cannot take messages. */
static uint64_t post_call(struct vcpu *vcpu, struct hv_call *call)
{
	return hv_of(vcpu)->synic ? HV_TO_USER : HV_STATUS_INVALID_INPUT;
}

/* A port that no eventfd stands for may be one that the program knows. */
static uint64_t event_call(struct vcpu *vcpu, struct hv_call *call)
{
	uint64_t status = hv_signal_call(vcpu, call);

	return status == HV_STATUS_INVALID_PORT_ID ? post_call(vcpu, call) : status;
}

static uint64_t debug_call(struct vcpu *vcpu, struct hv_call *call)
{
	return hv_syndbg_call(vcpu);
}

static uint64_t extended_call(struct vcpu *vcpu, struct hv_call *call)
{
	return HV_TO_USER;
}

enum shape {
	NO_VAR = 1,   /* no variable header */
	NO_REP = 2,   /* not a repeated call */
	ONLY_REP = 4, /* repeated, from the first element on */
	NO_FAST = 8,
	XMM = 16, /* fast input goes on in XMM registers */
};

static const struct row {
	uint16_t first, last;
	uint8_t shape;
	bool (*may)(const struct vcpu *vcpu);
	uint64_t (*call)(struct vcpu *vcpu, struct hv_call *call);
} rows[] = {
	{HV_CALL_FLUSH_SPACE, HV_CALL_FLUSH_SPACE, NO_VAR | NO_REP | XMM, may_flush, hv_flush_call},
	{HV_CALL_FLUSH_LIST, HV_CALL_FLUSH_LIST, NO_VAR | ONLY_REP | XMM, may_flush, hv_flush_call},
	{HV_CALL_LONG_SPIN_WAIT, HV_CALL_LONG_SPIN_WAIT, NO_VAR | NO_REP, may_spin, spin_call},
	{HV_CALL_SEND_IPI, HV_CALL_SEND_IPI, NO_VAR | NO_REP, may_ipi, hv_ipi_call},
	{HV_CALL_FLUSH_SPACE_EX, HV_CALL_FLUSH_SPACE_EX, NO_REP | XMM, may_flush_ex, hv_flush_call},
	{HV_CALL_FLUSH_LIST_EX, HV_CALL_FLUSH_LIST_EX, ONLY_REP | XMM, may_flush_ex, hv_flush_call},
	{HV_CALL_SEND_IPI_EX, HV_CALL_SEND_IPI_EX, NO_REP | XMM, may_ipi_ex, hv_ipi_call},
	{HV_CALL_POST_MESSAGE, HV_CALL_POST_MESSAGE, NO_VAR | NO_REP, may_post, post_call},
	{HV_CALL_SIGNAL_EVENT, HV_CALL_SIGNAL_EVENT, NO_VAR | NO_REP, may_signal, event_call},
	{HV_CALL_POST_DEBUG_DATA, HV_CALL_RETRIEVE_DEBUG_DATA, NO_FAST, may_debug, debug_call},
	{HV_CALL_RESET_DEBUG_SESSION, HV_CALL_RESET_DEBUG_SESSION, 0, may_debug, debug_call},
	{HV_CALL_EXT_FIRST, HV_CALL_EXT_LAST, NO_FAST, may_extend, extended_call},
};

static const struct row *find_row(uint16_t code)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (code >= rows[i].first && code <= rows[i].last)
			return &rows[i];
	return NULL;
}

static enum hv_status check_shape(const struct row *row, const struct hv_call *call)
{
	bool rep = call->rep_cnt || call->rep_idx;

	if ((row->shape & NO_VAR && call->var_cnt) || (row->shape & NO_REP && rep) ||
	    (row->shape & ONLY_REP && (!call->rep_cnt || call->rep_idx)))
		return HV_STATUS_INVALID_INPUT;
	return row->shape & NO_FAST && call->fast ? HV_STATUS_INVALID_PARAMETER : HV_STATUS_SUCCESS;
}

/* False: #UD, for the guest was not offered input in XMM registers. */
static bool take_xmm(struct vcpu *vcpu, const struct row *row, struct hv_call *call)
{
	const struct hv *hv = hv_of(vcpu);

	if (!row || !call->fast || !(row->shape & XMM))
		return true;
	if (hv->enforce && !(hv->cpuid.features_edx & HV_XMM_INPUT))
		return false;
	read_xmm(vcpu, call);
	return true;
}

bool hv_call_flushes(uint16_t code)
{
	const struct row *row = find_row(code);

	return row && row->call == hv_flush_call;
}

static uint64_t run_call(struct vcpu *vcpu, const struct row *row, struct hv_call *call)
{
	enum hv_status status;

	if (!row)
		return HV_STATUS_INVALID_CODE;
	status = check_shape(row, call);
	if (status)
		return status;
	/* Of a nested guest's calls only these come here. */
	if (cpu_guest(&vcpu->cpu) && row->call == hv_flush_call)
		return hv_nested_flushed(vcpu, row->call(vcpu, call));
	return row->call(vcpu, call);
}

static enum platform_answer to_user(struct vcpu *vcpu, const struct hv_call *call)
{
	struct pv_exit *exit = &vcpu->pv->exit;

	*exit = (struct pv_exit){.reason = KVM_EXIT_HYPERV};
	exit->hyperv.type = KVM_EXIT_HYPERV_HCALL;
	exit->hyperv.u.hcall.input = call->param;
	exit->hyperv.u.hcall.params[0] = call->in;
	exit->hyperv.u.hcall.params[1] = call->out;
	return PLATFORM_USER;
}

/* In 32-bit code the result is in EDX:EAX. */
static enum platform_answer done(struct vcpu *vcpu, uint64_t result, uint64_t *ret)
{
	stats_add(vcpu->stats, STAT_VCPU_hypercalls, 1);
	if (!pv_hypercall_64bit(vcpu))
		vcpu->cpu.gpr[RDX] = result >> 32;
	*ret = result;
	return PLATFORM_DONE;
}

enum platform_answer pv_hv_call(struct vcpu *vcpu, uint64_t *ret)
{
	struct cpu *cpu = &vcpu->cpu;
	const struct row *row;
	struct hv_call call;
	uint64_t result;

	if (cpu->mode.cpl || cpu->mode.real) {
		fault_ud(cpu);
		return PLATFORM_FAULT;
	}
	read_call(vcpu, &call);
	row = find_row(call.code);
	if (row && hv_of(vcpu)->enforce && !row->may(vcpu))
		return done(vcpu, HV_STATUS_ACCESS_DENIED, ret);
	if (call.param & HV_CALL_RESERVED)
		return done(vcpu, HV_STATUS_INVALID_INPUT, ret);
	if (!take_xmm(vcpu, row, &call)) {
		fault_ud(cpu);
		return PLATFORM_FAULT;
	}
	result = run_call(vcpu, row, &call);
	return result == HV_TO_USER ? to_user(vcpu, &call) : done(vcpu, result, ret);
}
