/* SPDX-License-Identifier: MIT */
/* The arrays of memory slots and how they change. slots_lock held throughout. */
#ifndef KVM_VM_SLOT_ARRAY_H
#define KVM_VM_SLOT_ARRAY_H

#include "kvm/vm/vm.h"

/* The slot of this id (address space in the high half) as published, or NULL. */
struct memslot *slot_by_id(const struct vm *vm, uint32_t id);
/* True if a slot of another id has pages of new's. */
bool slots_overlap(const struct vm *vm, const struct memslot *new);
/*
 * The published array without old and with new (either may be NULL, both are of the same id), not published
 * yet; NULL: no memory, and nothing has changed.
 */
struct memslots *slots_edit(struct vm *vm, unsigned space, struct memslot *old,
			    const struct memslot *new);
/* Publish what slots_edit() gave, wait until nobody reads the array before, free the old slot. */
void slots_publish(struct vm *vm, unsigned space, struct memslots *next);
/* A VM's first arrays; false: no memory. */
bool slots_create(struct vm *vm);
/* The end: free the arrays and the slots' bitmaps. */
void slots_destroy(struct vm *vm);

#endif
