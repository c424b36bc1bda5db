/* SPDX-License-Identifier: MIT */
/* A VM's birth, references and end, and the small settings that only have to be kept. */
#include "kvm/vm/vm.h"
#include "kvm/vm/bus.h"
#include "kvm/vm/clock.h"
#include "kvm/vm/eventfd.h"
#include "kvm/vm/ioctl.h"
#include "kvm/vm/irqchip.h"
#include "kvm/vm/msr_filter.h"
#include "kvm/vm/private.h"
#include "kvm/vm/service.h"
#include "kvm/vm/slot_array.h"
#include "kvm/vm/turns.h"
#include "silicon/mmu/codemap.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MIN_MMU_PAGES 64 /* KVM_MIN_ALLOC_MMU_PAGES */
/* Highest base for the three pages of a real-mode TSS under 4 GiB. */
#define MAX_TSS_ADDR ((uint32_t)(-3 * 4096))

static void init_locks(struct vm *vm)
{
	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->slots_lock, NULL);
	pthread_mutex_init(&vm->irq_lock, NULL);
	pthread_mutex_init(&vm->ring_lock, NULL);
	pthread_mutex_init(&vm->claim, NULL);
}

static bool create_turns(struct vm *vm)
{
	if (!vm->ops->deterministic)
		return true;
	vm->turns = calloc(1, sizeof(*vm->turns));
	if (vm->turns)
		vm->turns->random = vm->ops->seed;
	return vm->turns;
}

static bool create_parts(struct vm *vm)
{
	char id[32];

	snprintf(id, sizeof(id), "kvm-%d", vm->pid);
	if (!slots_create(vm))
		return false;
	vm->mmio_bus = bus_create();
	vm->port_bus = bus_create();
	vm->clock = clock_create(vm->ops->deterministic);
	vm->stats = stats_create(STATS_VM, id);
	if (!vm->mmio_bus || !vm->port_bus || !vm->clock || !vm->stats || !create_turns(vm))
		return false;
	vm->tsc_khz = clock_tsc_khz(vm);
	return !irqchip_create(vm) && !(vm->ops->create && vm->ops->create(vm));
}

static unsigned host_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
}

int vm_create(const struct vm_ops *ops, struct vm **ret)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return -ENOMEM;
	vm->pid = getpid();
	vm->refs = 1;
	vm->ops = ops;
	vm->apic_bus_cycle_ns = 1;
	vm->host_cpus = host_cpus();
	init_locks(vm);
	if (!create_parts(vm)) {
		vm_destroy(vm);
		return -ENOMEM;
	}
	vm->service = service_create(vm->turns ? vm->ops->timer_armed : NULL, vm);
	if (!vm->service) {
		vm_destroy(vm);
		return -EAGAIN;
	}
	*ret = vm;
	return 0;
}

void vm_get(struct vm *vm)
{
	__atomic_fetch_add(&vm->refs, 1, __ATOMIC_RELAXED);
}

void vm_put(struct vm *vm)
{
	if (__atomic_sub_fetch(&vm->refs, 1, __ATOMIC_ACQ_REL) == 0)
		vm->ops->release(vm);
}

void vm_quiesce(struct vm *vm)
{
	if (!vm->service)
		return;
	irqfd_release_all(vm);
	service_destroy(vm->service);
	vm->service = NULL;
}

void vm_destroy(struct vm *vm)
{
	vm_quiesce(vm);
	if (vm->ops->destroy)
		vm->ops->destroy(vm);
	irqchip_destroy(vm);
	ioeventfd_release_all(vm);
	coalesced_free_all(vm);
	msr_filter_free(vm->msr_filter);
	clock_destroy(vm->clock);
	free(vm->turns);
	codemap_destroy(vm->codemap);
	stats_destroy(vm->stats);
	slots_destroy(vm);
	gmem_free_all(vm);
	free(vm->private_gfns);
	free(vm->mmio_bus);
	free(vm->port_bus);
	free(vm);
}

/*
 * Both addresses are where KVM keeps pages of its own on processors that cannot run real mode;
 * this processor can, and nobody can ask for them: they are judged, and that is all.
 */
long vm_set_tss_addr(struct vm *vm, void *arg)
{
	unsigned long addr = (unsigned long)arg;

	if (addr > MAX_TSS_ADDR)
		return -EINVAL;
	return 0;
}

long vm_set_identity_map_addr(struct vm *vm, void *arg)
{
	uint64_t addr;
	int r = -EINVAL;

	pthread_mutex_lock(&vm->lock);
	if (!vm->created_vcpus)
		r = ioctl_copy_in(&addr, arg, sizeof(addr));
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/* A limit on shadow pages: there are none, so any legal number is honoured. */
long vm_set_nr_mmu_pages(struct vm *vm, void *arg)
{
	return (unsigned long)arg < MIN_MMU_PAGES ? -EINVAL : 0;
}

long vm_set_boot_cpu_id(struct vm *vm, void *arg)
{
	unsigned long id = (unsigned long)arg;
	long r = 0;

	pthread_mutex_lock(&vm->lock);
	if (vm->created_vcpus)
		r = -EBUSY;
	else if (id > VM_MAX_VCPU_ID || (vm->max_vcpu_ids && id > vm->max_vcpu_ids))
		r = -EINVAL;
	else
		vm->boot_cpu_id = id;
	pthread_mutex_unlock(&vm->lock);
	return r;
}

uint32_t vm_tsc_khz_limit(const struct vm *vm)
{
	uint64_t ratio = (clock_tsc_khz(vm) << vm->ops->params.tsc_ratio_bits) - 1;

	return min(ratio, (uint64_t)INT32_MAX);
}

/* For new vCPUs. */
long vm_set_tsc_khz(struct vm *vm, void *arg)
{
	uint32_t khz = (uint32_t)(unsigned long)arg;

	if (khz >= vm_tsc_khz_limit(vm))
		return -EINVAL;
	__atomic_store_n(&vm->tsc_khz, khz ? khz : (uint32_t)clock_tsc_khz(vm), __ATOMIC_RELAXED);
	return 0;
}

long vm_get_tsc_khz(struct vm *vm, void *arg)
{
	return (int)__atomic_load_n(&vm->tsc_khz, __ATOMIC_RELAXED);
}
