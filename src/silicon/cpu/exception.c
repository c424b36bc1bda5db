/* SPDX-License-Identifier: MIT */
/*
 * Faults as values: each function fills cpu->fault and returns RESULT_FAULT.
 *
 * Nothing is delivered here, and CR2 and DR6 are untouched: the payload reaches them with the
 * delivery (sys/), so that a fault that is abandoned leaves no trace.
 */
#include "silicon/cpu/cpu.h"

static struct event *new_fault(struct cpu *cpu, uint8_t vector)
{
	cpu->fault = (struct event){
		.valid = true,
		.type = EVENT_EXCEPTION,
		.vector = vector,
	};
	return &cpu->fault;
}

enum result fault_raise(struct cpu *cpu, uint8_t vector)
{
	new_fault(cpu, vector);
	return RESULT_FAULT;
}

enum result fault_raise_error(struct cpu *cpu, uint8_t vector, uint32_t error)
{
	struct event *ev = new_fault(cpu, vector);

	ev->has_error = true;
	ev->error = error;
	return RESULT_FAULT;
}

enum result fault_page(struct cpu *cpu, gva_t addr, uint32_t error)
{
	fault_raise_error(cpu, VEC_PF, error);
	cpu->fault.has_payload = true;
	cpu->fault.payload = addr;
	return RESULT_FAULT;
}

enum result fault_debug(struct cpu *cpu, uint64_t dr6_bits)
{
	struct event *ev = new_fault(cpu, VEC_DB);

	ev->has_payload = true;
	ev->payload = dr6_bits;
	return RESULT_FAULT;
}

void virt_begun(struct cpu *cpu, gpa_t msr_map)
{
	struct virt *v = cpu->virt;

	v->msr_map = NULL;
	if (!v->owner)
		return;
	fpu_save(cpu);
	v->msr_map = v->owner->begun(cpu, msr_map);
}

bool virt_takes_call(struct cpu *cpu, bool foreign)
{
	if (!cpu_guest(cpu) || !cpu->virt->owner)
		return false;
	fpu_save(cpu);
	return cpu->virt->owner->takes_call(cpu, foreign);
}

enum result virt_refuse(struct cpu *cpu, uint64_t reason, uint64_t info0, uint64_t info1)
{
	cpu->virt->refused_reason = reason;
	cpu->virt->refused_info[0] = info0;
	cpu->virt->refused_info[1] = info1;
	cpu->fault = (struct event){.valid = true, .type = EVENT_VMEXIT};
	return RESULT_FAULT;
}
