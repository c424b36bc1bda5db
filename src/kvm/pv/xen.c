/* SPDX-License-Identifier: MIT */
/*
 * Xen's state of VMs and vCPUs, the places in guest memory that it has, and the hypercall page.
 *
 * A place is looked up anew each time, so it may be unmapped, moved to another slot or come back.
 */
#include "host/guard.h"
#include "host/host.h"
#include "kvm/pv/xen_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int pv_xen_vm_create(struct vm *vm)
{
	vm->pv->xen = calloc(1, sizeof(*vm->pv->xen));
	return vm->pv->xen ? 0 : -ENOMEM;
}

void pv_xen_vm_destroy(struct vm *vm)
{
	if (!vm->pv->xen)
		return;
	xen_ports_free(vm);
	free(vm->pv->xen);
}

int pv_xen_create(struct vcpu *vcpu)
{
	struct xen *xen = calloc(1, sizeof(*xen));

	if (!xen)
		return -ENOMEM;
	vcpu->pv->xen = xen;
	xen->vcpu = vcpu;
	xen->vcpu_id = vm_nr_vcpus(vcpu->vm); /* the place that it is going to have */
	xen_timers_init(vcpu);
	return 0;
}

void pv_xen_destroy(struct vcpu *vcpu)
{
	struct xen *xen = vcpu->pv->xen;

	if (!xen)
		return;
	if (vcpu->vm->service) {
		service_timer_stop(vcpu->vm->service, &xen->timer);
		service_timer_stop(vcpu->vm->service, &xen->poll_timer);
	}
	free(xen);
}

const struct xen_layout *xen_layout(const struct vm *vm)
{
	static const struct xen_layout layouts[2] = {
		{.pending = 0x800,
		 .mask = 0x880,
		 .wall_clock = 0x900,
		 .wall_sec_high = 0x924,
		 .ports = 1024,
		 .word_shift = 5,
		 .selector = 4,
		 .runstate = 0x2c,
		 .runstate_pad = 4},
		{.pending = 0x800,
		 .mask = 0xa00,
		 .wall_clock = 0xc00,
		 .wall_sec_high = 0xc0c,
		 .ports = 4096,
		 .word_shift = 6,
		 .selector = 8,
		 .runstate = 0x30,
		 .runstate_pad = 8},
	};

	return &layouts[__atomic_load_n(&xen_vm_of(vm)->long_mode, __ATOMIC_RELAXED)];
}

/* ---- places ---- */

uint8_t *xen_pointer(const struct vm *vm, const struct xen_place *place, unsigned off,
		     unsigned size)
{
	if (!place->active)
		return NULL;
	if (place->by_hva)
		return (uint8_t *)(uintptr_t)place->addr + off;
	return vm_hva_writable(vm, place->addr + off, size);
}

int xen_place_check(const struct vm *vm, const struct xen_place *place, unsigned size)
{
	uint8_t *p, val;

	if ((place->addr & ~PAGE_MASK) + size > PAGE_SIZE)
		return -EINVAL;
	if (place->by_hva && place->addr + size > BIT(47))
		return -EINVAL;
	p = xen_pointer(vm, place, 0, size);
	/* Written to with what is there: the program's mapping may be read-only. */
	return p && host_load_8(p, &val) && host_cmpxchg_8(p, &val, val) ? 0 : -EFAULT;
}

/* ---- wall clock ---- */

int xen_write_wall_clock(struct vm *vm)
{
	const struct xen_layout *at = xen_layout(vm);
	uint64_t ns = clock_boot_wall_ns(vm);
	uint64_t sec = ns / 1000000000;
	uint8_t *p = xen_pointer(vm, &xen_vm_of(vm)->shared_info, 0, PAGE_SIZE);
	uint32_t version;

	if (!p || !host_load_32(p + at->wall_clock, &version))
		return -EFAULT;
	version = (version + 1) | 1;
	return host_store_32(p + at->wall_clock, version) &&
			       host_store_32(p + at->wall_clock + 4, (uint32_t)sec) &&
			       host_store_32(p + at->wall_clock + 8, ns % 1000000000) &&
			       host_store_32(p + at->wall_sec_high, sec >> 32) &&
			       host_store_32(p + at->wall_clock, version + 1)
		       ? 0
		       : -EFAULT;
}

/* ---- the hypercall page ---- */

bool pv_xen_is_page_msr(const struct vm *vm, uint32_t index)
{
	return index && index == __atomic_load_n(&xen_vm_of(vm)->config.msr, __ATOMIC_RELAXED);
}

bool pv_xen_calls_enabled(const struct vm *vm)
{
	const struct kvm_xen_hvm_config *config = &xen_vm_of(vm)->config;

	return __atomic_load_n(&config->msr, __ATOMIC_RELAXED) &&
	       __atomic_load_n(&config->flags, __ATOMIC_RELAXED) &
		       KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL;
}

#define STUB_SIZE 32

/* mov $number, %eax; vmcall; ret for each hypercall. */
static bool write_stubs(struct vcpu *vcpu, gpa_t gpa)
{
	uint8_t stub[STUB_SIZE];

	memset(stub, 0xcc, sizeof(stub));
	stub[0] = 0xb8;
	pv_hypercall_insn(vcpu, stub + 5);
	stub[8] = 0xc3;
	for (uint32_t i = 0; i < PAGE_SIZE / STUB_SIZE; i++) {
		memcpy(stub + 1, &i, sizeof(i));
		if (vm_write_guest(vcpu->vm, gpa + i * STUB_SIZE, stub, sizeof(stub)))
			return false;
	}
	return true;
}

/* The program's own stubs, a page of them. */
static bool write_blob(struct vcpu *vcpu, gpa_t gpa, unsigned page, bool long_mode)
{
	struct kvm_xen_hvm_config config;
	uint8_t code[PAGE_SIZE];
	uint64_t from;

	vm_slots_claim(vcpu->vm);
	config = xen_vm_of(vcpu->vm)->config;
	vm_slots_unclaim(vcpu->vm);
	if (page >= (long_mode ? config.blob_size_64 : config.blob_size_32))
		return false;
	from = (long_mode ? config.blob_addr_64 : config.blob_addr_32) + page * PAGE_SIZE;
	return host_copy_guarded(code, (const void *)(uintptr_t)from, sizeof(code)) &&
	       !vm_write_guest(vcpu->vm, gpa, code, sizeof(code));
}

/* The guest tells its width by the mode that it writes the MSR in. */
static bool follow_mode(struct vm *vm, bool long_mode)
{
	struct xen_vm *xen = xen_vm_of(vm);
	bool changed, ok = true;

	vm_slots_claim(vm);
	changed = xen->long_mode != long_mode;
	__atomic_store_n(&xen->long_mode, long_mode, __ATOMIC_RELAXED);
	if (changed && xen->shared_info.active)
		ok = !xen_write_wall_clock(vm);
	vm_slots_unclaim(vm);
	return ok;
}

enum pv_result pv_xen_write_page(struct vcpu *vcpu, uint64_t val)
{
	bool long_mode = cpu_long_mode(&vcpu->cpu);
	unsigned page = val & ~PAGE_MASK;
	gpa_t gpa = val & PAGE_MASK;
	bool ok;

	if (!follow_mode(vcpu->vm, long_mode))
		return PV_DENIED;
	if (pv_xen_calls_enabled(vcpu->vm))
		ok = !page && write_stubs(vcpu, gpa);
	else
		ok = write_blob(vcpu, gpa, page, long_mode);
	return ok ? PV_OK : PV_DENIED;
}
