/* SPDX-License-Identifier: MIT */
/*
 * Hypercalls that reach other virtual processors: TLB flushes and IPIs to sets of them. A set names processors by
 * VP index, in banks of 64 of which only those marked valid are there.
 *
 * A flush leaves pages in each target's list and a request; the caller runs guest code again when every target has
 * passed a safepoint (vcpu->wait_flush).
 */
#include "kvm/pv/hv_internal.h"
#include "silicon/mmu/mmu.h"

#include <string.h>

#define NR_BANKS (VM_MAX_VCPUS / 64)

struct target_set {
	bool all;
	uint64_t valid_banks;
	uint64_t bank[NR_BANKS]; /* packed: one for each valid bit */
};

static bool in_set(const struct target_set *set, uint32_t vp_index)
{
	unsigned bank = vp_index / 64, place;

	if (set->all)
		return true;
	if (bank >= 64 || !(set->valid_banks >> bank & 1))
		return false;
	place = __builtin_popcountll(set->valid_banks & (BIT(bank) - 1));
	return place < NR_BANKS && (set->bank[place] >> (vp_index % 64) & 1);
}

/* The banks of a sparse set, which the input goes on with. False: bad input. */
static bool read_set(struct vcpu *vcpu, struct hv_call *call, const struct hv_vp_set *from,
		     struct target_set *ret)
{
	if (call->var_cnt != __builtin_popcountll(from->valid_banks))
		return false;
	ret->valid_banks = from->valid_banks;
	if (ret->all)
		return true;
	return call->var_cnt <= 64 && hv_call_words(vcpu, call, call->var_cnt, NR_BANKS, ret->bank);
}

/* ---- TLB flush ---- */

/* What the vCPU has to flush; more than there is room for becomes everything. */
static void enqueue(struct vcpu *vcpu, const uint64_t *pages, unsigned nr)
{
	struct hv *hv = hv_of(vcpu);

	pthread_mutex_lock(&hv->flush_lock);
	if (nr && nr < HV_FLUSH_ROOM - hv->nr_flush) {
		memcpy(&hv->flush[hv->nr_flush], pages, nr * sizeof(*pages));
		hv->nr_flush += nr;
	} else if (hv->nr_flush < HV_FLUSH_ROOM) {
		hv->flush[hv->nr_flush++] = HV_FLUSH_ALL;
	}
	pthread_mutex_unlock(&hv->flush_lock);
}

/*
 * Whatever the address space: with PCIDs one that is not in force may have the page, too, and in guest mode it is not the
 * caller's that is in force.
 */
static bool flush_range(struct cpu *cpu, uint64_t range)
{
	if (range == HV_FLUSH_ALL || cpu->cr4 & CR4_PCIDE || cpu_guest(cpu))
		return false;
	if (!gva_canonical(cpu, range))
		return true;
	for (uint64_t i = 0; i <= (range & ~PAGE_MASK); i++)
		mmu_flush_page(cpu, (range & PAGE_MASK) + i * PAGE_SIZE);
	return true;
}

void pv_hv_flush(struct vcpu *vcpu)
{
	struct hv *hv = hv_of(vcpu);
	uint64_t ranges[HV_FLUSH_ROOM];
	unsigned nr;

	pthread_mutex_lock(&hv->flush_lock);
	nr = hv->nr_flush;
	memcpy(ranges, hv->flush, nr * sizeof(ranges[0]));
	hv->nr_flush = 0;
	pthread_mutex_unlock(&hv->flush_lock);
	stats_add(vcpu->stats, STAT_VCPU_tlb_flush, 1);
	for (unsigned i = 0; i < nr; i++)
		if (!flush_range(&vcpu->cpu, ranges[i])) {
			mmu_flush_all(&vcpu->cpu);
			return;
		}
}

/* Some guests name no processor when they mean all. */
static bool read_plain(struct vcpu *vcpu, struct hv_call *call, struct target_set *ret)
{
	struct hv_flush in = {.address_space = call->in, .flags = call->out};

	if (call->fast) {
		in.processor_mask = call->xmm[0];
		call->consumed = 1;
	} else {
		if (vm_read_guest(vcpu->vm, call->in, &in, sizeof(in)))
			return false;
		call->consumed = sizeof(in);
	}
	ret->all = in.flags & HV_FLUSH_ALL_PROCESSORS || !in.processor_mask;
	ret->valid_banks = 1;
	ret->bank[0] = in.processor_mask;
	return true;
}

static bool read_ex(struct vcpu *vcpu, struct hv_call *call, struct target_set *ret)
{
	struct hv_flush_ex in;

	if (call->fast) {
		memcpy(&in.set, call->xmm, sizeof(in.set));
		call->consumed = 2;
	} else {
		if (vm_read_guest(vcpu->vm, call->in, &in, sizeof(in)))
			return false;
		call->consumed = sizeof(in);
	}
	ret->all = in.set.format != HV_SET_SPARSE;
	if (!read_set(vcpu, call, &in.set, ret))
		return false;
	/* Banks may be there, and be meaningless, with "all". */
	call->consumed += call->var_cnt * (call->fast ? 1 : 8);
	return true;
}

static bool in_nested_set(const struct vcpu *vcpu, const struct vcpu *to,
			  const struct target_set *set)
{
	const struct hv *hv = hv_of(to);

	return __atomic_load_n(&hv->nested.vm_id, __ATOMIC_RELAXED) == hv_of(vcpu)->nested.vm_id &&
	       in_set(set, __atomic_load_n(&hv->nested.vp_id, __ATOMIC_RELAXED));
}

/*
 * A nested guest names virtual processors as its hypervisor numbers them, of its own machine. Its addresses mean nothing
 * to those that run something else by now, so that all that they have goes.
 */
static void flush_targets(struct vcpu *vcpu, const struct target_set *set, const uint64_t *pages,
			  unsigned nr)
{
	unsigned nr_vcpus = vm_nr_vcpus(vcpu->vm);
	bool nested = cpu_guest(&vcpu->cpu);

	for (unsigned i = 0; i < nr_vcpus; i++) {
		struct vcpu *to = vcpu->vm->vcpus[i];

		if (nested ? !in_nested_set(vcpu, to, set) : !in_set(set, hv_vp_index(to)))
			continue;
		enqueue(to, pages, nested ? 0 : nr);
		vcpu_request(to, REQ_HV_FLUSH);
	}
	vcpu->wait_flush = true;
	vcpu->leave = true;
	cpu_raise(&vcpu->cpu, ATTN_REQUEST);
}

uint64_t hv_flush_call(struct vcpu *vcpu, struct hv_call *call)
{
	bool plain = call->code == HV_CALL_FLUSH_LIST || call->code == HV_CALL_FLUSH_SPACE;
	bool list = call->code == HV_CALL_FLUSH_LIST || call->code == HV_CALL_FLUSH_LIST_EX;
	uint64_t done = HV_STATUS_SUCCESS | (uint64_t)call->rep_cnt << HV_CALL_REP_SHIFT;
	uint64_t pages[HV_FLUSH_ROOM - 1];
	struct target_set set = {0};
	unsigned nr = 0;

	if ((!call->fast && !hv_nested_input(vcpu, &call->in)) ||
	    !(plain ? read_plain : read_ex)(vcpu, call, &set))
		return HV_STATUS_INVALID_INPUT;
	if (!set.all && !set.valid_banks)
		return done;
	if (list && call->rep_cnt <= ARRAY_SIZE(pages)) {
		if (!hv_call_words(vcpu, call, call->rep_cnt, call->rep_cnt, pages))
			return HV_STATUS_INVALID_INPUT;
		nr = call->rep_cnt;
	}
	flush_targets(vcpu, &set, pages, nr);
	return done;
}

/* ---- IPIs ---- */

static bool ipi_plain(struct vcpu *vcpu, struct hv_call *call, uint32_t *ret_vector,
		      struct target_set *ret)
{
	struct hv_send_ipi in = {.vector = call->in, .cpu_mask = call->out};

	if (call->fast && call->in >> 32)
		return false;
	if (!call->fast && vm_read_guest(vcpu->vm, call->in, &in, sizeof(in)))
		return false;
	*ret_vector = in.vector;
	ret->valid_banks = 1;
	ret->bank[0] = in.cpu_mask;
	return true;
}

static bool ipi_ex(struct vcpu *vcpu, struct hv_call *call, uint32_t *ret_vector,
		   struct target_set *ret)
{
	struct hv_send_ipi_ex in = {.vector = call->in};

	if (call->fast) {
		in.set.format = call->out;
		in.set.valid_banks = call->xmm[0];
		call->consumed = 1;
	} else {
		if (vm_read_guest(vcpu->vm, call->in, &in, sizeof(in)))
			return false;
		call->consumed = sizeof(in);
	}
	*ret_vector = in.vector;
	ret->all = in.set.format == HV_SET_ALL;
	return read_set(vcpu, call, &in.set, ret);
}

uint64_t hv_ipi_call(struct vcpu *vcpu, struct hv_call *call)
{
	bool plain = call->code == HV_CALL_SEND_IPI;
	unsigned nr_vcpus = vm_nr_vcpus(vcpu->vm);
	struct target_set set = {0};
	uint32_t vector;

	if (!vcpu->lapic || !(plain ? ipi_plain : ipi_ex)(vcpu, call, &vector, &set))
		return HV_STATUS_INVALID_INPUT;
	if (!set.all && !set.valid_banks)
		return HV_STATUS_SUCCESS;
	if (vector < HV_FIRST_SINT_VECTOR || vector > 255)
		return HV_STATUS_INVALID_INPUT;
	for (unsigned i = 0; i < nr_vcpus; i++)
		if (in_set(&set, hv_vp_index(vcpu->vm->vcpus[i])))
			pv_interrupt(vcpu->vm->vcpus[i], vector);
	return HV_STATUS_SUCCESS;
}
