/* SPDX-License-Identifier: MIT */
/*
 * The platform's operations as they are while somebody watches: each tells what it does, and calls the plain one. Where
 * KVM would have left the guest for it, guest code is taken to be left for as long as it takes.
 */
#include "kvm/vcpu/probes.h"
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
	bool inside = !vcpu->watch.open;
	uint64_t tsc;

	vcpu_platform.memory(opaque, gpa, ret);
	if (!ret->hva || !inside || !vcpu->watch.touched ||
	    !first_touch(&vcpu->watch, gpa >> PAGE_SHIFT))
		return;
	tsc = watch_open(vcpu, WATCH_PAGE_FAULT, 0, gpa);
	watch_event(vcpu, kvm_page_fault, tsc, .vcpu_id = vcpu->id, .guest_rip = vcpu->cpu.rip,
		    .fault_address = gpa);
	watch_close(vcpu);
}

/* ---- devices ---- */

static enum platform_answer op_mmio_read(void *opaque, gpa_t gpa, unsigned size, uint64_t *ret)
{
	enum platform_answer answer;
	bool done;

	watch_open(opaque, WATCH_MMIO, 0, gpa);
	answer = vcpu_platform.mmio_read(opaque, gpa, size, ret);
	done = answer == PLATFORM_DONE;
	watch_event((struct vcpu *)opaque, kvm_mmio, 0, .type = done, .len = size, .gpa = gpa,
		    .val = done ? *ret : 0);
	return answered(opaque, answer);
}

static enum platform_answer op_mmio_write(void *opaque, gpa_t gpa, unsigned size, uint64_t val)
{
	struct vcpu *vcpu = opaque;
	uint64_t tsc = watch_open(vcpu, WATCH_MMIO, 1, gpa);

	watch_event(vcpu, kvm_mmio, tsc, .type = 2, .len = size, .gpa = gpa, .val = val);
	return answered(vcpu, vcpu_platform.mmio_write(vcpu, gpa, size, val));
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
	struct vcpu *vcpu = opaque;
	uint64_t tsc;

	tsc = watch_open(vcpu, WATCH_IO_INSTRUCTION, io_info(vcpu, false, port, size), 0);
	watch_event(vcpu, kvm_pio, tsc, .rw = 1, .port = port, .size = size, .count = 1,
		    .val = val);
	return answered(vcpu, vcpu_platform.pio_write(vcpu, port, size, val));
}

/* ---- MSRs ---- */

static void msr_told(struct vcpu *vcpu, uint32_t index, bool write, bool refused)
{
	uint64_t data = 0;

	if (write)
		data = (uint32_t)vcpu->cpu.gpr[RAX] | vcpu->cpu.gpr[RDX] << 32;
	else if (!refused && sys_msr_get(&vcpu->cpu, index, MSR_GUEST, &data) != MSR_OK)
		refused = true;
	watch_event_tell(vcpu, kvm_msr, 0, .write = write, .ecx = index, .data = data,
			 .exception = refused);
}

static enum platform_answer op_msr_gate(void *opaque, uint32_t index, bool write)
{
	struct vcpu *vcpu = opaque;
	enum platform_answer answer;

	watch_open(vcpu, write ? WATCH_MSR_WRITE : WATCH_MSR_READ, 0, index);
	answer = vcpu_platform.msr_gate(vcpu, index, write);
	if (watch_event_count(vcpu, EV_kvm_msr))
		msr_told(vcpu, index, write, answer != PLATFORM_DONE);
	return answered(vcpu, answer);
}

/* Rows of silicon's have no place to be timed at; those that come here take the time, if the exit was timed. */
static enum platform_answer op_msr_write(void *opaque, uint32_t index, uint64_t val)
{
	const struct vcpu_watch *w = &((struct vcpu *)opaque)->watch;
	uint64_t since = w->stands ? host_rdtsc() : 0;
	enum platform_answer answer = vcpu_platform.msr_write(opaque, index, val);

	if (since && w->reason == WATCH_MSR_WRITE)
		watch_clock_more(&w->page->costs[WATCH_MSR_WRITE], host_rdtsc() - since, w->stands);
	return answer;
}

/* ---- the rest ---- */

/* All three go to the ring, and nothing else wants them. */
static bool told_at_once(const struct vcpu *vcpu)
{
	const uint64_t all = BIT(EV_kvm_exit) | BIT(EV_kvm_cpuid) | BIT(EV_kvm_entry);
	const struct vcpu_watch *w = &vcpu->watch;

	return w->ring && !probes_wanted() && (w->session->events & all) == all && !w->open &&
	       !vcpu->cpu.inject.valid;
}

/*
 * A guest that does nothing else has 16 million such exits in a second, and what they leave goes from one processor's cache to
 * another's: so it is one line of it.
 */
static void cpuid_at_once(struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	struct vcpu_watch *w = &vcpu->watch;
	uint64_t left = host_rdtsc(), took;
	struct ev_cpuid *ev;

	w->stands = watch_clock_due(&w->clocks[WATCH_CPUID]);
	vcpu_platform.cpuid(vcpu, leaf, subleaf, ret);
	took = host_rdtsc() - left;
	watch_count_whole(w->page, WATCH_CPUID, EV_kvm_cpuid);
	if (w->stands)
		watch_clock_add(&w->clocks[WATCH_CPUID], &w->page->costs[WATCH_CPUID], took,
				&w->random);
	ev = watch_event_begin(vcpu, EV_cpuid, sizeof(*ev), left);
	*ev = (struct ev_cpuid){
		.c = watch_event_common(vcpu, EV_cpuid),
		.rip = vcpu->cpu.rip,
		.function = leaf,
		.index = subleaf,
		.regs = {ret[CPUID_EAX], ret[CPUID_EBX], ret[CPUID_ECX], ret[CPUID_EDX]},
		.took = w->page->counted ? 0 : min(took, (uint64_t)UINT32_MAX),
		.exit_reason = watch_reason_code(vcpu, WATCH_CPUID),
	};
	watch_event_end(vcpu, EV_cpuid, ev);
}

static __noinline void cpuid_looked_at(struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf,
				       uint32_t ret[4])
{
	uint64_t tsc;

	if (told_at_once(vcpu)) {
		cpuid_at_once(vcpu, leaf, subleaf, ret);
		return;
	}
	tsc = watch_open(vcpu, WATCH_CPUID, 0, 0);
	vcpu_platform.cpuid(vcpu, leaf, subleaf, ret);
	watch_event(vcpu, kvm_cpuid, tsc, .function = leaf, .index = subleaf, .rax = ret[CPUID_EAX],
		    .rbx = ret[CPUID_EBX], .rcx = ret[CPUID_ECX], .rdx = ret[CPUID_EDX],
		    .found = 1);
	watch_close(vcpu);
}

static void op_cpuid(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	struct vcpu *vcpu = opaque;

	if (watch_pass(vcpu, WATCH_CPUID, EV_kvm_cpuid))
		vcpu_platform.cpuid(vcpu, leaf, subleaf, ret);
	else
		cpuid_looked_at(vcpu, leaf, subleaf, ret);
}

static int op_interrupt_ack(void *opaque)
{
	int vector = vcpu_platform.interrupt_ack(opaque);

	if (vector >= 0)
		watch_event((struct vcpu *)opaque, kvm_inj_virq, 0, .vector = vector);
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
	struct vcpu *vcpu = opaque;
	const uint64_t *gpr = vcpu->cpu.gpr;
	uint64_t tsc = watch_open(vcpu, WATCH_HYPERCALL, 0, 0);

	watch_event(vcpu, kvm_hypercall, tsc, .nr = gpr[RAX], .a0 = gpr[RBX], .a1 = gpr[RCX],
		    .a2 = gpr[RDX], .a3 = gpr[RSI]);
	return answered(vcpu, vcpu_platform.hypercall(vcpu, foreign, ret));
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
	watch_event(vcpu, kvm_nested_vmenter, 0, .rip = n->rip, .vmcb = n->control,
		    .nested_rip = n->guest_rip, .int_ctl = n->int_ctl, .event_inj = n->injects,
		    .tdp_enabled = n->stage2, .guest_pgd = n->tables, .isa = vcpu->watch.page->isa);
}

/* Only exits to the guest hypervisor are exits of guest mode here, so each is injected. */
static void nested_exit(struct vcpu *vcpu, const struct virt_note *n)
{
	uint32_t isa = vcpu->watch.page->isa;

	watch_event(vcpu, kvm_nested_vmexit, 0, .exit_reason = n->reason, .guest_rip = n->rip,
		    .isa = isa, .info1 = n->info[0], .info2 = n->info[1], .intr_info = n->int_info,
		    .error_code = n->int_error, .vcpu_id = vcpu->id);
	if (n->by_interrupt)
		watch_event(vcpu, kvm_nested_intr_vmexit, 0, .rip = n->rip);
	watch_event(vcpu, kvm_nested_vmexit_inject, 0, .exit_code = n->reason,
		    .exit_info1 = n->info[0], .exit_info2 = n->info[1],
		    .exit_int_info = n->int_info, .exit_int_info_err = n->int_error, .isa = isa);
}

static void nested_flush(struct vcpu *vcpu, const struct virt_note *n)
{
	watch_event(vcpu, kvm_invlpga, 0, .rip = n->rip, .asid = n->info[1], .address = n->info[0]);
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
