/* SPDX-License-Identifier: MIT */
/*
 * From the processor's exits to kvm_run, and back: one handler per row of tables/exits.def. The only
 * file that fills the exit's part of kvm_run.
 *
 * A read leaves the instruction undone: the answer is recorded at re-entry (answers_add()) and the
 * instruction starts anew. If the program has moved RIP meanwhile, the answer is dropped, as KVM does.
 * Writes are handed out one by one after the instruction retired; their continuation keeps count. OUT shows RIP
 * at itself, as KVM does, and goes on behind itself if the program leaves RIP there.
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/vm/private.h"
#include "kvm/pv/pv.h"
#include "silicon/exec/exec.h"

#include <string.h>

/* ---- reads ---- */

static bool still_there(const struct vcpu *vcpu)
{
	return vcpu->exit_rip == vcpu_linear_rip(vcpu);
}

static void remember_place(struct vcpu *vcpu)
{
	vcpu->exit_rip = vcpu_linear_rip(vcpu);
}

static uint64_t read_data(const void *from, unsigned size)
{
	uint64_t data = 0;

	memcpy(&data, from, min(size, 8u));
	return data;
}

static int complete_mmio_read(struct vcpu *vcpu)
{
	const struct cpu_exit *exit = &vcpu->cpu.exit;

	uint64_t data = read_data(vcpu->run->mmio.data, exit->size);

	if (still_there(vcpu))
		answers_add(&vcpu->cpu, ANSWER_MMIO, exit->addr, exit->size, data, false);
	if (unlikely(vcpu->watch.on))
		vcpu_watch_read(vcpu, false, exit->addr, exit->size, 1, data);
	return RUN_AGAIN;
}

static int exit_mmio_read(struct vcpu *vcpu)
{
	const struct cpu_exit *exit = &vcpu->cpu.exit;
	struct kvm_run *run = vcpu->run;

	vcpu_count(vcpu, mmio_exits);
	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = exit->addr;
	run->mmio.len = exit->size;
	run->mmio.is_write = 0;
	remember_place(vcpu);
	vcpu->complete = complete_mmio_read;
	return RUN_EXIT;
}

static void fill_io(struct vcpu *vcpu, uint8_t direction, uint16_t port, unsigned size,
		    unsigned count)
{
	struct kvm_run *run = vcpu->run;

	vcpu_count(vcpu, io_exits);
	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = direction;
	run->io.size = size;
	run->io.port = port;
	run->io.count = count;
	run->io.data_offset = VCPU_PIO_PAGE * PAGE_SIZE;
}

static int complete_io_read(struct vcpu *vcpu)
{
	const struct cpu_exit *exit = &vcpu->cpu.exit;
	uint64_t data = read_data(vcpu->pio_data, exit->size);

	if (unlikely(vcpu->watch.on))
		vcpu_watch_read(vcpu, true, exit->addr, exit->size, exit->count, data);
	if (!still_there(vcpu))
		return RUN_AGAIN;
	answers_add(&vcpu->cpu, ANSWER_IO, exit->addr, exit->size, data, false);
	answers_batch(&vcpu->cpu, vcpu->pio_data, exit->count);
	return RUN_AGAIN;
}

static int exit_io_read(struct vcpu *vcpu)
{
	const struct cpu_exit *exit = &vcpu->cpu.exit;

	fill_io(vcpu, KVM_EXIT_IO_IN, exit->addr, exit->size, exit->count);
	remember_place(vcpu);
	vcpu->complete = complete_io_read;
	return RUN_EXIT;
}

/* ---- debugging ---- */

static int exit_debug(struct vcpu *vcpu)
{
	const struct cpu_exit *exit = &vcpu->cpu.exit;
	struct kvm_debug_exit_arch *arch = &vcpu->run->debug.arch;

	vcpu->run->exit_reason = KVM_EXIT_DEBUG;
	arch->exception = exit->exception;
	arch->pc = exit->pc;
	arch->dr6 = exit->dr6;
	arch->dr7 = exit->dr7;
	return RUN_EXIT;
}

/* The instruction that was single-stepped came with an exit of its own, which went first. */
static int debug_or_again(struct vcpu *vcpu)
{
	return vcpu->cpu.exit.kind == CPU_EXIT_DEBUG ? exit_debug(vcpu) : RUN_AGAIN;
}

/* ---- writes ---- */

static int send_writes(struct vcpu *vcpu);

static int complete_writes(struct vcpu *vcpu)
{
	vcpu->next_write += vcpu->nr_write;
	return send_writes(vcpu);
}

static void send_mmio(struct vcpu *vcpu, const struct out_write *w)
{
	struct kvm_run *run = vcpu->run;

	vcpu_count(vcpu, mmio_exits);
	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = w->addr;
	run->mmio.len = w->size;
	run->mmio.is_write = 1;
	memcpy(run->mmio.data, &w->data, sizeof(run->mmio.data));
	vcpu->nr_write = 1;
	vcpu->complete = complete_writes;
}

static int complete_out(struct vcpu *vcpu)
{
	if (still_there(vcpu))
		vcpu->cpu.rip = vcpu->rip_behind;
	return complete_writes(vcpu);
}

/* Port 7EH: programs know from older KVMs that RIP is behind the OUT (KVM_X86_QUIRK_OUT_7E_INC_RIP). */
static bool shows_itself(const struct vcpu *vcpu, const struct out_write *w)
{
	uint64_t disabled = __atomic_load_n(&vcpu->vm->disabled_quirks, __ATOMIC_RELAXED);

	return w->is_out && (w->addr != 0x7e || disabled & KVM_X86_QUIRK_OUT_7E_INC_RIP);
}

/* Writes to one port in a row (OUTS) go out together. */
static void send_io(struct vcpu *vcpu, const struct out_write *w, unsigned left)
{
	unsigned n = 0;

	while (n < left && w[n].is_port && w[n].addr == w->addr && w[n].size == w->size) {
		memcpy(vcpu->pio_data + n * w->size, &w[n].data, w->size);
		n++;
	}
	fill_io(vcpu, KVM_EXIT_IO_OUT, w->addr, w->size, n);
	vcpu->nr_write = n;
	vcpu->complete = complete_writes;
	if (!shows_itself(vcpu, w))
		return;
	vcpu->rip_behind = vcpu->cpu.rip;
	vcpu->cpu.rip = w->from;
	remember_place(vcpu);
	vcpu->complete = complete_out;
}

static int send_writes(struct vcpu *vcpu)
{
	struct out_writes *out = &vcpu->cpu.out;
	const struct out_write *w = &out->v[vcpu->next_write];

	if (vcpu->next_write >= out->nr) {
		out->nr = 0;
		return debug_or_again(vcpu);
	}
	if (w->is_port)
		send_io(vcpu, w, out->nr - vcpu->next_write);
	else
		send_mmio(vcpu, w);
	return RUN_EXIT;
}

static int exit_writes(struct vcpu *vcpu)
{
	vcpu->next_write = 0;
	return send_writes(vcpu);
}

/* ---- MSRs: KVM_CAP_X86_USER_SPACE_MSR ---- */

static int complete_msr_read(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;

	if (still_there(vcpu))
		answers_add(&vcpu->cpu, ANSWER_MSR_READ, vcpu->cpu.exit.addr, 8, run->msr.data,
			    run->msr.error);
	return RUN_AGAIN;
}

static int complete_msr_write(struct vcpu *vcpu)
{
	if (still_there(vcpu))
		answers_add(&vcpu->cpu, ANSWER_MSR_WRITE, vcpu->cpu.exit.addr, 8, 0,
			    vcpu->run->msr.error);
	return RUN_AGAIN;
}

static int fill_msr(struct vcpu *vcpu, uint32_t reason, uint64_t data,
		    int (*complete)(struct vcpu *vcpu))
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = reason;
	run->msr.error = 0;
	memset(run->msr.pad, 0, sizeof(run->msr.pad));
	run->msr.reason = vcpu->msr_reason;
	run->msr.index = vcpu->cpu.exit.addr;
	run->msr.data = data;
	remember_place(vcpu);
	vcpu->complete = complete;
	return RUN_EXIT;
}

static int exit_msr_read(struct vcpu *vcpu)
{
	return fill_msr(vcpu, KVM_EXIT_X86_RDMSR, 0, complete_msr_read);
}

static int exit_msr_write(struct vcpu *vcpu)
{
	return fill_msr(vcpu, KVM_EXIT_X86_WRMSR, vcpu->cpu.exit.data, complete_msr_write);
}

/* ---- hypercalls: what kvm/pv leaves to user space ---- */

static int complete_hypercall(struct vcpu *vcpu)
{
	if (still_there(vcpu))
		answers_add(&vcpu->cpu, ANSWER_HYPERCALL, 0, 8,
			    pv_hypercall_result(vcpu, vcpu->run), false);
	return RUN_AGAIN;
}

static void fill_kvm_hypercall(struct kvm_run *run, const struct pv_exit *exit)
{
	run->hypercall.nr = exit->hypercall.nr;
	memcpy(run->hypercall.args, exit->hypercall.args, sizeof(run->hypercall.args));
	/* Called longmode in older headers: 64 bits of flags since. */
	memcpy(&run->hypercall.longmode, &exit->hypercall.flags, sizeof(exit->hypercall.flags));
}

static int exit_hypercall(struct vcpu *vcpu)
{
	const struct pv_exit *exit = pv_hypercall_exit(vcpu);
	struct kvm_run *run = vcpu->run;

	run->exit_reason = exit->reason;
	if (exit->reason == KVM_EXIT_HYPERV)
		run->hyperv = exit->hyperv;
	else if (exit->reason == KVM_EXIT_XEN)
		run->xen = exit->xen;
	else
		fill_kvm_hypercall(run, exit);
	remember_place(vcpu);
	vcpu->complete = complete_hypercall;
	return RUN_EXIT;
}

/* ---- the rest ---- */

static int exit_request(struct vcpu *vcpu)
{
	return RUN_AGAIN;
}

static bool hlt_in_guest(const struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->vm->disabled_exits, __ATOMIC_RELAXED) &
	       KVM_X86_DISABLE_EXITS_HLT;
}

static int exit_shutdown(struct vcpu *vcpu)
{
	vcpu->cpu.activity = ACTIVITY_RUN;
	vcpu->run->exit_reason = KVM_EXIT_SHUTDOWN;
	return RUN_EXIT;
}

static int exit_hlt(struct vcpu *vcpu)
{
	if (vcpu->cpu.activity == ACTIVITY_HLT && hlt_in_guest(vcpu)) {
		vcpu->cpu.activity = ACTIVITY_RUN;
		vcpu->halted_in_guest = true;
		return debug_or_again(vcpu);
	}
	vcpu_count(vcpu, halt_exits);
	/* A trap on HLT itself (single-step) woke it at once. */
	if (vcpu->cpu.activity == ACTIVITY_RUN)
		return RUN_AGAIN;
	/* A VMX abort: a processor that has stopped. */
	if (vcpu->cpu.activity == ACTIVITY_SHUTDOWN && !cpu_guest(&vcpu->cpu))
		return exit_shutdown(vcpu);
	if (vcpu->cpu.activity == ACTIVITY_WAIT_SIPI) {
		vcpu->mp_state = KVM_MP_STATE_INIT_RECEIVED;
		return debug_or_again(vcpu);
	}
	/* A guest's guest that is shut down stays so. */
	if (vcpu->cpu.activity == ACTIVITY_HLT)
		vcpu->cpu.activity = ACTIVITY_RUN;
	if (vcpu->lapic) {
		vcpu->mp_state = KVM_MP_STATE_HALTED;
		return debug_or_again(vcpu);
	}
	vcpu->run->exit_reason = KVM_EXIT_HLT;
	return RUN_EXIT;
}

/* No vCPU of the VM can go on, and no ioctl but closing is served any more. */
static int exit_dead(struct vcpu *vcpu)
{
	__atomic_store_n(&vcpu->vm->dead, true, __ATOMIC_RELAXED);
	vcpu_request_all(vcpu->vm, REQ_VM_DEAD, false);
	return -EIO;
}

/* The layout of KVM_INTERNAL_ERROR_EMULATION: flags, then length and bytes of the instruction. */
static int exit_emulation(struct vcpu *vcpu)
{
	const struct cpu_exit *exit = &vcpu->cpu.exit;
	struct kvm_run *run = vcpu->run;

	memset(&run->emulation_failure, 0, sizeof(run->emulation_failure));
	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	run->emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
	run->emulation_failure.ndata = 1;
	if (exit->nr_bytes) {
		run->emulation_failure.ndata = 3;
		run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
		run->emulation_failure.insn_size = exit->nr_bytes;
		memset(run->emulation_failure.insn_bytes, 0x90,
		       sizeof(run->emulation_failure.insn_bytes));
		memcpy(run->emulation_failure.insn_bytes, exit->bytes,
		       min((size_t)exit->nr_bytes, sizeof(exit->bytes)));
	}
	return RUN_EXIT;
}

/* KVM_EXIT_MEMORY_FAULT comes beside EFAULT, for what the program can mend by making memory private or shared. */
static void tell_private_fault(struct vcpu *vcpu)
{
	gpa_t gpa = vcpu->cpu.exit.addr;
	struct kvm_run_memory_fault *fault = (void *)vcpu->run->padding;

	if (gpa == GPA_NONE || !vm_gfn_private(vcpu->vm, gpa >> PAGE_SHIFT))
		return;
	vcpu->run->exit_reason = KVM_EXIT_MEMORY_FAULT;
	*fault = (struct kvm_run_memory_fault){
		.flags = KVM_MEMORY_EXIT_FLAG_PRIVATE,
		.gpa = gpa & PAGE_MASK,
		.size = PAGE_SIZE,
	};
}

/* Nothing is committed: the instruction starts anew, here or when KVM_RUN is entered again. */
static int exit_memory(struct vcpu *vcpu)
{
	if (__atomic_exchange_n(&vcpu->restarted, false, __ATOMIC_RELAXED))
		return RUN_AGAIN;
	tell_private_fault(vcpu);
	return -EFAULT;
}

static int exit_internal(struct vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	vcpu->run->internal.suberror = KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON;
	vcpu->run->internal.ndata = 1;
	vcpu->run->internal.data[0] = vcpu->cpu.exit.kind;
	return RUN_EXIT;
}

static int (*const handlers[])(struct vcpu *vcpu) = {
#define EXIT(kind, handler) [CPU_EXIT_##kind] = handler,
#include "exits.def"
#undef EXIT
};

int vcpu_handle_exit(struct vcpu *vcpu, enum cpu_exit_kind kind)
{
	vcpu_count(vcpu, exits);
	if ((unsigned)kind < ARRAY_SIZE(handlers) && handlers[kind])
		return handlers[kind](vcpu);
	return exit_internal(vcpu);
}
