/* SPDX-License-Identifier: MIT */
/* KVM_X86_SET_MSR_FILTER: which MSRs a guest may touch without asking. */
#ifndef KVM_VM_MSR_FILTER_H
#define KVM_VM_MSR_FILTER_H

#include "kvm/vm/vm.h"

/* vCPU thread in KVM_RUN. False: the filter denies (x2APIC MSRs are never filtered). */
bool vm_msr_allowed(const struct vm *vm, uint32_t index, bool write);

long vm_set_msr_filter(struct vm *vm, void *arg);
void msr_filter_free(struct msr_filter *filter);

#endif
