/* SPDX-License-Identifier: MIT */
/*
 * Steal time (Documentation/virt/kvm/x86/msr.rst, MSR_KVM_STEAL_TIME): how long the vCPU's thread was ready to run
 * and had to wait, which the host's scheduler tells in /proc/thread-self/schedstat.
 *
 * A vCPU is shown as preempted while its thread sleeps in HLT, so that others leave a TLB flush to it in memory; else
 * never, for the process is not told when it is.
 */
#include "host/guard.h"
#include "host/host.h"
#include "kvm/pv/pv_internal.h"
#include "kvm/pv/xen.h"
#include "kvm/vm/service.h"
#include "silicon/mmu/mmu.h"

#include <fcntl.h>
#include <linux/kvm_para.h>
#include <stdlib.h>
#include <unistd.h>

#define SCHEDSTAT   "/proc/thread-self/schedstat"
#define STEAL_TICKS (1u << 17) /* of the TSC between two looks: some 50 us */

/* By the system calls that reading it takes: a program's own filter has to allow no more of them for a guest that asks. */
bool pv_steal_available(void)
{
	int fd = open(SCHEDSTAT, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* The file names the thread that opened it. */
static int schedstat_of(struct pv *pv, int tid)
{
	if (pv->schedstat >= 0 && pv->schedstat_tid == tid)
		return pv->schedstat;
	if (pv->schedstat >= 0)
		close(pv->schedstat);
	pv->schedstat = service_fd_hide(open(SCHEDSTAT, O_RDONLY | O_CLOEXEC));
	pv->schedstat_tid = tid;
	return pv->schedstat;
}

/* "time on a processor, time waiting for one, slices" */
uint64_t pv_run_delay(struct vcpu *vcpu)
{
	char text[64], *end;
	ssize_t n;
	int fd;

	/* Where time is counted, none of it is spent waiting for the host. */
	if (vcpu->vm->turns)
		return 0;
	fd = schedstat_of(vcpu->pv, host_gettid());
	if (fd < 0)
		return 0;
	n = pread(fd, text, sizeof(text) - 1, 0);
	if (n <= 0)
		return 0;
	text[n] = 0;
	strtoull(text, &end, 10);
	return strtoull(end, NULL, 10);
}

/* The guest sets KVM_VCPU_FLUSH_TLB instead of interrupting a vCPU that does not run. */
static bool take_preempted(struct vcpu *vcpu, uint8_t *hva, gpa_t gpa)
{
	uint8_t old;

	if (!host_load_8(hva, &old))
		return false;
	while (old) {
		uint8_t seen = old;

		if (!host_cmpxchg_8(hva, &seen, 0))
			return false;
		if (seen == old)
			break;
		old = seen;
	}
	if (old & KVM_VCPU_FLUSH_TLB && pv_has(vcpu, KVM_FEATURE_PV_TLB_FLUSH))
		mmu_flush_all(&vcpu->cpu);
	if (old)
		vm_mark_dirty(vcpu->vm, gpa);
	return true;
}

/* Found 0, it stays so unless set here: others write only to what is not 0. */
void pv_steal_preempted(struct vcpu *vcpu)
{
	struct pv *pv = vcpu->pv;
	gpa_t gpa =
		(pv->steal_msr & KVM_STEAL_VALID_BITS) + offsetof(struct kvm_steal_time, preempted);
	uint8_t *hva, none = 0;

	if (!(pv->steal_msr & KVM_MSR_ENABLED))
		return;
	hva = vm_hva_writable(vcpu->vm, gpa, 1);
	if (hva && host_cmpxchg_8(hva, &none, KVM_VCPU_PREEMPTED) && !none)
		vm_mark_dirty(vcpu->vm, gpa);
}

static bool write_version(struct vcpu *vcpu, gpa_t gpa, uint32_t version)
{
	return !vm_write_guest(vcpu->vm, gpa + offsetof(struct kvm_steal_time, version), &version,
			       sizeof(version));
}

/*
 * The time since the last look; another thread's clock may stand before it. A look costs as much as the rest of an exit to
 * the program, so what a busy vCPU lost is seen a little later.
 */
static uint64_t stolen_since(struct vcpu *vcpu)
{
	uint64_t ticks = __builtin_ia32_rdtsc(), now, ns;
	struct pv *pv = vcpu->pv;

	if (ticks - pv->steal_looked < STEAL_TICKS)
		return 0;
	now = pv_run_delay(vcpu);
	ns = now > pv->last_steal ? now - pv->last_steal : 0;
	pv->last_steal = now;
	pv->steal_looked = ticks;
	return ns;
}

void pv_steal_update(struct vcpu *vcpu)
{
	struct pv *pv = vcpu->pv;
	gpa_t gpa = pv->steal_msr & KVM_STEAL_VALID_BITS;
	struct kvm_steal_time st;
	uint8_t *hva;

	/* Xen's guests have run states instead. */
	if (pv_xen_entered(vcpu) || !(pv->steal_msr & KVM_MSR_ENABLED))
		return;
	hva = vm_hva_writable(vcpu->vm, gpa, sizeof(st));
	if (!hva || !take_preempted(vcpu, hva + offsetof(struct kvm_steal_time, preempted), gpa) ||
	    vm_read_guest(vcpu->vm, gpa, &st, sizeof(st)))
		return;
	st.version += (st.version & 1) + 1; /* first time: random junk */
	if (!write_version(vcpu, gpa, st.version))
		return;
	st.steal += stolen_since(vcpu);
	vm_write_guest(vcpu->vm, gpa + offsetof(struct kvm_steal_time, steal), &st.steal,
		       sizeof(st.steal));
	write_version(vcpu, gpa, st.version + 1);
}

enum pv_result pv_steal_set(struct vcpu *vcpu, uint64_t val)
{
	if (!pv_steal_available() || val & KVM_STEAL_RESERVED_MASK)
		return PV_DENIED;
	vcpu->pv->steal_msr = val;
	if (val & KVM_MSR_ENABLED)
		vcpu_request(vcpu, REQ_STEAL);
	return PV_OK;
}
