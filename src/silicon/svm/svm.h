/* SPDX-License-Identifier: MIT */
/*
 * SVM for a vCPU's guest: public header.
 *
 * vCPU thread, or nobody runs the vCPU.
 */
#ifndef SILICON_SVM_SVM_H
#define SILICON_SVM_SVM_H

#include "silicon/cpu/cpu.h"

/* cpu->virt becomes SVM; report: say on stderr which check refuses a VMRUN. False: no memory. */
bool svm_create(struct cpu *cpu, bool report);
void svm_destroy(struct cpu *cpu);

/* In guest mode: the bytes of the VMCB that are software's own, and its clean bits, as VMRUN read them. */
const uint8_t *svm_software_area(const struct cpu *cpu, uint64_t *ret_clean);
/* In guest mode: the guest hypervisor intercepts this exception. */
bool svm_intercepts_exception(const struct cpu *cpu, uint8_t vector);
/* In guest mode: #VMEXIT with a code of the owner's. */
void svm_exit_for_owner(struct cpu *cpu, uint64_t code, uint64_t info1);

/* ---- state as KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE have it ---- */

#define SVM_VMCB_SIZE 4096

/* In guest mode: the VMCB's address, its control area as cached and the host's state in place of its save area. */
gpa_t svm_get_guest(struct cpu *cpu, uint8_t vmcb[SVM_VMCB_SIZE]);
/* The control area, and the host's state in place of the save area, would be taken by VMRUN; L2's is in struct cpu. */
bool svm_guest_valid(struct cpu *cpu, const uint8_t vmcb[SVM_VMCB_SIZE]);
/* Enter guest mode, with the registers in struct cpu as the guest's; checks are svm_guest_valid()'s. */
void svm_set_guest(struct cpu *cpu, gpa_t gpa, const uint8_t vmcb[SVM_VMCB_SIZE]);
/* Out of guest mode, the host's state back, nothing written. */
void svm_leave(struct cpu *cpu);
void svm_set_gif(struct cpu *cpu, bool gif);

#endif
