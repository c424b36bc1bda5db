/* SPDX-License-Identifier: MIT */
/*
 * Synthetic timers, four to a vCPU: one-shot or periodic, telling of their expiry by a message of the SynIC or
 * (direct mode) by an interrupt. Counts are in reference time.
 *
 * The service thread's timers only mark a timer as pending; the vCPU's thread (REQ_HV_STIMER) looks what is due,
 * and starts what is enabled. A message whose slot is still taken waits for the guest's EOM or EOI; a periodic
 * timer's is left out instead.
 */
#include "kvm/pv/hv_internal.h"

#include <errno.h>

static void mark_pending(struct hv_stimer *t)
{
	__atomic_fetch_or(&hv_of(t->vcpu)->stimers_pending, 1u << t->index, __ATOMIC_SEQ_CST);
	vcpu_request(t->vcpu, REQ_HV_STIMER);
}

static void expired(struct service_timer *timer)
{
	mark_pending(container_of(timer, struct hv_stimer, timer));
}

void hv_stimer_init(struct vcpu *vcpu)
{
	for (unsigned i = 0; i < HV_NR_STIMERS; i++) {
		struct hv_stimer *t = &hv_of(vcpu)->stimer[i];

		t->vcpu = vcpu;
		t->index = i;
		t->timer.expire = expired;
	}
}

void hv_stimer_stop(struct vcpu *vcpu)
{
	for (unsigned i = 0; i < HV_NR_STIMERS && vcpu->vm->service; i++)
		service_timer_stop(vcpu->vm->service, &hv_of(vcpu)->stimer[i].timer);
}

static void cleanup(struct hv_stimer *t)
{
	service_timer_cancel(t->vcpu->vm->service, &t->timer);
	__atomic_fetch_and(&hv_of(t->vcpu)->stimers_pending, ~(1u << t->index), __ATOMIC_SEQ_CST);
	t->undelivered = false;
	t->expiry = 0;
}

/* ---- starting ---- */

static void arm(struct hv_stimer *t, uint64_t delta)
{
	struct vm *vm = t->vcpu->vm;
	uint64_t now = clock_monotonic_ns(vm);

	/* Never is as good as in centuries. */
	delta = min(delta, (uint64_t)INT64_MAX / 200);
	service_timer_arm(vm->service, &t->timer, now + delta * 100);
}

static uint64_t next_period(const struct hv_stimer *t, uint64_t now)
{
	if (!t->expiry)
		return now + t->count;
	if (now < t->expiry)
		return t->expiry;
	return now + t->count - (now - t->expiry) % t->count;
}

static void start(struct hv_stimer *t)
{
	uint64_t now = hv_time_ref(t->vcpu);

	if (t->config & HV_STIMER_PERIODIC) {
		t->expiry = next_period(t, now);
		arm(t, t->expiry - now);
		return;
	}
	t->expiry = t->count;
	if (now >= t->count)
		mark_pending(t);
	else
		arm(t, t->count - now);
}

/* ---- expiry ---- */

/* 0: delivered, or given up. */
static int deliver_message(struct vcpu *vcpu, unsigned sint, const struct hv_timer_message *msg,
			   bool give_up)
{
	const struct hv *hv = hv_of(vcpu);
	gpa_t slot = (hv->simp & PAGE_MASK) + sint * HV_MESSAGE_SIZE;
	uint8_t flag = HV_MESSAGE_FLAG_PENDING;
	uint32_t type;
	int r;

	if (!(hv->simp & HV_PAGE_ENABLE))
		return -ENOENT;
	if (vm_read_guest(vcpu->vm, slot, &type, sizeof(type)))
		return -EFAULT;
	if (type) {
		if (give_up)
			return 0;
		r = vm_write_guest(vcpu->vm, slot + offsetof(struct hv_timer_message, flags), &flag,
				   sizeof(flag));
		return r ? r : -EAGAIN;
	}
	if (vm_write_guest(vcpu->vm, slot, msg, sizeof(*msg)))
		return -EFAULT;
	r = hv_synic_interrupt(vcpu, sint);
	return r > 0 ? 0 : r ? r : -EFAULT;
}

static int send_message(struct hv_stimer *t)
{
	const struct hv_timer_message msg = {
		.type = HV_MESSAGE_TIMER,
		.payload_size = sizeof(msg) - offsetof(struct hv_timer_message, timer_index),
		.timer_index = t->index,
		.expiration_time = t->expiry,
		.delivery_time = hv_time_ref(t->vcpu),
	};

	return deliver_message(t->vcpu, HV_STIMER_SINT(t->config), &msg,
			       t->config & HV_STIMER_PERIODIC);
}

static void expire(struct hv_stimer *t)
{
	int r = 0;

	t->undelivered = true;
	if (!(t->config & HV_STIMER_DIRECT))
		r = send_message(t);
	else if (t->vcpu->lapic)
		r = !pv_interrupt(t->vcpu, HV_STIMER_VECTOR(t->config));
	if (r)
		return;
	t->undelivered = false;
	if (!(t->config & HV_STIMER_PERIODIC))
		t->config &= ~HV_STIMER_ENABLE;
}

static void process(struct hv_stimer *t)
{
	if (!(t->config & HV_STIMER_ENABLE))
		return;
	if (t->expiry && hv_time_ref(t->vcpu) >= t->expiry)
		expire(t);
	if (!(t->config & HV_STIMER_ENABLE) || !t->count)
		cleanup(t);
	else if (!t->undelivered)
		start(t);
}

void pv_hv_stimers(struct vcpu *vcpu)
{
	struct hv *hv = hv_of(vcpu);
	uint32_t pending = __atomic_exchange_n(&hv->stimers_pending, 0, __ATOMIC_SEQ_CST);

	for (unsigned i = 0; i < HV_NR_STIMERS; i++)
		if (pending >> i & 1)
			process(&hv->stimer[i]);
}

void hv_stimer_acked(struct vcpu *vcpu, unsigned sint)
{
	for (unsigned i = 0; i < HV_NR_STIMERS; i++) {
		struct hv_stimer *t = &hv_of(vcpu)->stimer[i];

		if (t->undelivered && t->config & HV_STIMER_ENABLE &&
		    !(t->config & HV_STIMER_DIRECT) && HV_STIMER_SINT(t->config) == sint)
			mark_pending(t);
	}
}

/* ---- MSRs: CONFIG and COUNT by turns ---- */

static struct hv_stimer *timer_of(struct vcpu *vcpu, uint32_t index)
{
	return &hv_of(vcpu)->stimer[(index - HV_MSR_STIMER0_CONFIG) / 2];
}

static bool is_count(uint32_t index)
{
	return (index - HV_MSR_STIMER0_CONFIG) & 1;
}

enum pv_result hv_stimer_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	const struct hv_stimer *t = timer_of(vcpu, index);

	*ret = is_count(index) ? t->count : t->config;
	return PV_OK;
}

static enum pv_result set_config(struct hv_stimer *t, bool host, uint64_t val)
{
	const struct hv *hv = hv_of(t->vcpu);

	if (!host && hv->enforce && val & HV_STIMER_DIRECT &&
	    !(hv->cpuid.features_edx & HV_STIMER_DIRECT_MODE))
		return PV_DENIED;
	cleanup(t);
	/* A message needs a source: source 0 is none. */
	if (t->config & HV_STIMER_ENABLE && !(val & HV_STIMER_DIRECT) && !HV_STIMER_SINT(val))
		val &= ~HV_STIMER_ENABLE;
	t->config = val;
	return PV_OK;
}

static void set_count(struct hv_stimer *t, bool host, uint64_t val)
{
	cleanup(t);
	t->count = val;
	if (host)
		return;
	if (!val)
		t->config &= ~HV_STIMER_ENABLE;
	else if (t->config & HV_STIMER_AUTO_ENABLE)
		t->config |= HV_STIMER_ENABLE;
}

enum pv_result hv_stimer_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	struct hv_stimer *t = timer_of(vcpu, index);
	enum pv_result r = PV_OK;

	if (!hv_of(vcpu)->synic && (!host || val))
		return PV_DENIED;
	if (is_count(index))
		set_count(t, host, val);
	else
		r = set_config(t, host, val);
	if (r == PV_OK && t->config & HV_STIMER_ENABLE)
		mark_pending(t);
	return r;
}
