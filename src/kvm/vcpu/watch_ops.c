/* SPDX-License-Identifier: MIT */
/*
 * The platform's operations as they are while somebody watches: each tells what it does, and calls the plain one. Where
 * KVM would have left the guest for it, guest code is taken to be left for as long as it takes.
 */
#include "kvm/vcpu/watch_internal.h"
#include "silicon/sys/sys.h"

#include <stdlib.h>

/* What goes to user space stays open until KVM_RUN enters the guest again. */
static enum platform_answer answered(struct vcpu *vcpu, enum platform_answer answer)
{
	if (answer == PLATFORM_DONE)
		watch_close(vcpu);
	return answer;
}

#define CHUNK_SHIFT 18 /* pages of a chunk of the bitmap: 1 GiB */

/*
 * The first lookup of a page by this vCPU while it is watched; later ones are a full TLB's. Hardware would fault at
 * the first access, too, in the same sense: once per mapping. Pages above 4 TiB and those without memory for a
 * bitmap are not told.
 */
static bool first_touch(struct vcpu_watch *w, gfn_t gfn)
{
	uint64_t **chunk = &w->touched[gfn >> CHUNK_SHIFT & (WATCH_CHUNKS - 1)];
	uint64_t bit = BIT(gfn % 64), *word;

	if (gfn >> CHUNK_SHIFT >= WATCH_CHUNKS)
		return false;
	if (!*chunk)
		*chunk = calloc(1, 1 << (CHUNK_SHIFT - 3));
	if (!*chunk)
		return false;
	word = &(*chunk)[gfn / 64 % (1 << (CHUNK_SHIFT - 6))];
	if (*word & bit)
		return false;
	*word |= bit;
	return true;
}

void watch_forget_touched(struct vcpu_watch *w)
{
	for (unsigned i = 0; w->touched && i < WATCH_CHUNKS; i++)
		free(w->touched[i]);
	free(w->touched);
	w->touched = NULL;
}

static void op_memory(void *opaque, gpa_t gpa, struct ram_page *ret)
{
	struct vcpu *vcpu = opaque;
	struct ev_kvm_page_fault ev = {
		.vcpu_id = vcpu->id,
		.guest_rip = vcpu->cpu.rip,
		.fault_address = gpa,
	};
	bool inside = !vcpu->watch.open;

	vcpu_platform.memory(opaque, gpa, ret);
	if (!ret->hva || !inside || !vcpu->watch.touched ||
	    !first_touch(&vcpu->watch, gpa >> PAGE_SHIFT))
		return;
	watch_open(vcpu, WATCH_PAGE_FAULT, 0, gpa);
	watch_event(vcpu, EV_kvm_page_fault, &ev, sizeof(ev));
	watch_close(vcpu);
}

/* ---- devices ---- */

static void mmio_event(struct vcpu *vcpu, uint32_t type, gpa_t gpa, unsigned size, uint64_t val)
{
	struct ev_kvm_mmio ev = {.type = type, .len = size, .gpa = gpa, .val = val};

	watch_event(vcpu, EV_kvm_mmio, &ev, sizeof(ev));
}

static enum platform_answer op_mmio_read(void *opaque, gpa_t gpa, unsigned size, uint64_t *ret)
{
	enum platform_answer answer;

	watch_open(opaque, WATCH_MMIO, 0, gpa);
	answer = vcpu_platform.mmio_read(opaque, gpa, size, ret);
	mmio_event(opaque, answer == PLATFORM_DONE, gpa, size, answer == PLATFORM_DONE ? *ret : 0);
	return answered(opaque, answer);
}

static enum platform_answer op_mmio_write(void *opaque, gpa_t gpa, unsigned size, uint64_t val)
{
	watch_open(opaque, WATCH_MMIO, 1, gpa);
	mmio_event(opaque, 2, gpa, size, val);
	return answered(opaque, vcpu_platform.mmio_write(opaque, gpa, size, val));
}

/* Size, direction, port: as the SDM's exit qualification, or the APM's EXITINFO1 has them. */
static uint64_t io_info(const struct vcpu *vcpu, bool in, uint16_t port, unsigned size)
{
	if (vcpu->watch.page->isa == 1)
		return (size - 1) | (in ? 8 : 0) | (uint64_t)port << 16;
	return (in ? 1 : 0) | size << 4 | (uint64_t)port << 16;
}

static enum platform_answer op_pio_read(void *opaque, uint16_t port, unsigned size, uint64_t *ret)
{
	enum platform_answer answer;

	watch_open(opaque, WATCH_IO_INSTRUCTION, io_info(opaque, true, port, size), 0);
	answer = vcpu_platform.pio_read(opaque, port, size, ret);
	if (answer == PLATFORM_DONE)
		vcpu_watch_read(opaque, true, port, size, 1, *ret);
	return answered(opaque, answer);
}

static enum platform_answer op_pio_write(void *opaque, uint16_t port, unsigned size, uint64_t val)
{
	struct ev_kvm_pio ev = {.rw = 1, .port = port, .size = size, .count = 1, .val = val};

	watch_open(opaque, WATCH_IO_INSTRUCTION, io_info(opaque, false, port, size), 0);
	watch_event(opaque, EV_kvm_pio, &ev, sizeof(ev));
	return answered(opaque, vcpu_platform.pio_write(opaque, port, size, val));
}

/* ---- MSRs ---- */

static void msr_event(struct vcpu *vcpu, uint32_t index, bool write, bool refused)
{
	struct ev_kvm_msr ev = {.write = write, .ecx = index, .exception = refused};

	if (write)
		ev.data = (uint32_t)vcpu->cpu.gpr[RAX] | vcpu->cpu.gpr[RDX] << 32;
	else if (!refused && sys_msr_get(&vcpu->cpu, index, MSR_GUEST, &ev.data) != MSR_OK)
		ev.exception = 1;
	watch_event(vcpu, EV_kvm_msr, &ev, sizeof(ev));
}

static enum platform_answer op_msr_gate(void *opaque, uint32_t index, bool write)
{
	enum platform_answer answer;

	watch_open(opaque, write ? WATCH_MSR_WRITE : WATCH_MSR_READ, 0, index);
	answer = vcpu_platform.msr_gate(opaque, index, write);
	msr_event(opaque, index, write, answer != PLATFORM_DONE);
	return answered(opaque, answer);
}

/* Rows of silicon's have no place to be timed at; those that come here take the time. */
static enum platform_answer op_msr_write(void *opaque, uint32_t index, uint64_t val)
{
	uint64_t since = host_rdtsc();
	enum platform_answer answer = vcpu_platform.msr_write(opaque, index, val);

	watch_more_time(opaque, WATCH_MSR_WRITE, since);
	return answer;
}

/* ---- the rest ---- */

static void op_cpuid(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	struct ev_kvm_cpuid ev = {.function = leaf, .index = subleaf, .found = 1};

	watch_open(opaque, WATCH_CPUID, 0, 0);
	vcpu_platform.cpuid(opaque, leaf, subleaf, ret);
	ev.rax = ret[CPUID_EAX];
	ev.rbx = ret[CPUID_EBX];
	ev.rcx = ret[CPUID_ECX];
	ev.rdx = ret[CPUID_EDX];
	watch_event(opaque, EV_kvm_cpuid, &ev, sizeof(ev));
	watch_close(opaque);
}

static int op_interrupt_ack(void *opaque)
{
	int vector = vcpu_platform.interrupt_ack(opaque);
	struct ev_kvm_inj_virq ev = {.vector = vector};

	if (vector >= 0)
		watch_event(opaque, EV_kvm_inj_virq, &ev, sizeof(ev));
	return vector;
}

static void op_set_tpr(void *opaque, uint8_t tpr)
{
	watch_open(opaque, WATCH_CR8_WRITE, 8, 0);
	vcpu_platform.set_tpr(opaque, tpr);
	watch_close(opaque);
}

static enum platform_answer op_hypercall(void *opaque, bool foreign, uint64_t *ret)
{
	const uint64_t *gpr = ((struct vcpu *)opaque)->cpu.gpr;
	struct ev_kvm_hypercall ev = {
		.nr = gpr[RAX],
		.a0 = gpr[RBX],
		.a1 = gpr[RCX],
		.a2 = gpr[RDX],
		.a3 = gpr[RSI],
	};

	watch_open(opaque, WATCH_HYPERCALL, 0, 0);
	watch_event(opaque, EV_kvm_hypercall, &ev, sizeof(ev));
	return answered(opaque, vcpu_platform.hypercall(opaque, foreign, ret));
}

static bool op_service(void *opaque)
{
	struct vcpu *vcpu = opaque;
	bool leave;

	watch_open(vcpu, WATCH_EXTERNAL_INTERRUPT, 0, 0);
	leave = vcpu_platform.service(vcpu);
	watch_sample(vcpu);
	if (vcpu_watch_changed(vcpu))
		leave = true;
	if (!leave)
		watch_close(vcpu);
	return leave;
}

static void nested_enter(struct vcpu *vcpu, const struct virt_note *n)
{
	struct ev_kvm_nested_vmenter ev = {
		.rip = n->rip,
		.vmcb = n->control,
		.nested_rip = n->guest_rip,
		.int_ctl = n->int_ctl,
		.event_inj = n->injects,
		.tdp_enabled = n->stage2,
		.guest_pgd = n->tables,
		.isa = vcpu->watch.page->isa,
	};

	watch_event(vcpu, EV_kvm_nested_vmenter, &ev, sizeof(ev));
}

static void nested_interrupt(struct vcpu *vcpu, const struct virt_note *n)
{
	struct ev_kvm_nested_intr_vmexit ev = {.rip = n->rip};

	if (n->by_interrupt)
		watch_event(vcpu, EV_kvm_nested_intr_vmexit, &ev, sizeof(ev));
}

/* Only exits to the guest hypervisor are exits of guest mode here, so each is injected. */
static void nested_exit(struct vcpu *vcpu, const struct virt_note *n)
{
	struct ev_kvm_nested_vmexit ev = {
		.exit_reason = n->reason,
		.guest_rip = n->rip,
		.isa = vcpu->watch.page->isa,
		.info1 = n->info[0],
		.info2 = n->info[1],
		.intr_info = n->int_info,
		.error_code = n->int_error,
		.vcpu_id = vcpu->id,
	};
	struct ev_kvm_nested_vmexit_inject inject = {
		.exit_code = n->reason,
		.exit_info1 = n->info[0],
		.exit_info2 = n->info[1],
		.exit_int_info = n->int_info,
		.exit_int_info_err = n->int_error,
		.isa = vcpu->watch.page->isa,
	};

	watch_event(vcpu, EV_kvm_nested_vmexit, &ev, sizeof(ev));
	nested_interrupt(vcpu, n);
	watch_event(vcpu, EV_kvm_nested_vmexit_inject, &inject, sizeof(inject));
}

static void nested_flush(struct vcpu *vcpu, const struct virt_note *n)
{
	struct ev_kvm_invlpga ev = {.rip = n->rip, .asid = n->info[1], .address = n->info[0]};

	watch_event(vcpu, EV_kvm_invlpga, &ev, sizeof(ev));
}

static void op_guest_mode(void *opaque, const struct virt_note *note)
{
	static void (*const tell[])(struct vcpu * vcpu, const struct virt_note *n) = {
		[VIRT_ENTERED] = nested_enter,
		[VIRT_LEFT] = nested_exit,
		[VIRT_FLUSHED] = nested_flush,
	};

	tell[note->event](opaque, note);
}

/* What is of no interest to who watches stays the plain one. */
void watch_platform(struct platform *ret)
{
	*ret = vcpu_platform;
	ret->memory = op_memory;
	ret->mmio_read = op_mmio_read;
	ret->mmio_write = op_mmio_write;
	ret->pio_read = op_pio_read;
	ret->pio_write = op_pio_write;
	ret->msr_gate = op_msr_gate;
	ret->msr_write = op_msr_write;
	ret->cpuid = op_cpuid;
	ret->interrupt_ack = op_interrupt_ack;
	ret->set_tpr = op_set_tpr;
	ret->hypercall = op_hypercall;
	ret->service = op_service;
	ret->guest_mode = op_guest_mode;
}
