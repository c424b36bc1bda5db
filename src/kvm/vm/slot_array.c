/* SPDX-License-Identifier: MIT */
/*
 * Two arrays for each address space: the published one, and the one before it, which nobody reads any more. A
 * change makes the old one good for the change that came since, makes the new change in it, and publishes
 * it: so a VM with thousands of slots does not copy them all each time. Slots are found by address
 * in the sorted array, and their addresses by id in an index.
 */
#include "kvm/vm/slot_array.h"

#include <stdlib.h>
#include <string.h>

/* A change, to be made again in the other array. */
struct slot_edit {
	bool removes, adds;
	gfn_t gfn; /* of the slot to be removed */
	struct slot_ref new;
};

struct slot_table {
	struct memslots *spare; /* as it was before ->last; or NULL */
	unsigned spare_room;	/* slots that fit in */
	unsigned room;		/* the same of the published array */
	struct slot_edit last;
	struct memslot *dead; /* of the change under way: nobody's once it is published */
	gfn_t *where;	      /* by slot number: gfn + 1, or 0 */
};

/* Index of the first slot at gfn or above. */
static unsigned lower_bound(const struct memslots *slots, gfn_t gfn)
{
	unsigned low = 0, high = slots->nr;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (slots->v[mid].gfn < gfn)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct memslot *slot_by_id(const struct vm *vm, uint32_t id)
{
	const struct slot_table *table = vm->slot_tables[id >> 16];
	struct memslots *slots = vm->slots[id >> 16];
	gfn_t at = table->where[(uint16_t)id];

	return at ? slots->v[lower_bound(slots, at - 1)].slot : NULL;
}

bool slots_overlap(const struct vm *vm, const struct memslot *new)
{
	const struct memslots *slots = vm->slots[new->id >> 16];
	unsigned i = lower_bound(slots, new->gfn);
	const struct memslot *below = i ? slots->v[i - 1].slot : NULL;

	/* The one below may reach up to it, the one above may begin in it: what is its own goes. */
	if (below && below->id != new->id && below->gfn + below->nr_pages > new->gfn)
		return true;
	if (i < slots->nr && slots->v[i].slot->id == new->id)
		i++;
	return i < slots->nr && slots->v[i].gfn < new->gfn + new->nr_pages;
}

static void edit_remove(struct memslots *slots, gfn_t gfn)
{
	unsigned i = lower_bound(slots, gfn);

	slots->nr--;
	memmove(&slots->v[i], &slots->v[i + 1], (slots->nr - i) * sizeof(slots->v[0]));
}

static void edit_add(struct memslots *slots, const struct slot_ref *new)
{
	unsigned i = lower_bound(slots, new->gfn);

	memmove(&slots->v[i + 1], &slots->v[i], (slots->nr - i) * sizeof(slots->v[0]));
	slots->v[i] = *new;
	slots->nr++;
}

static void edit_apply(struct memslots *slots, const struct slot_edit *edit)
{
	if (edit->removes)
		edit_remove(slots, edit->gfn);
	if (edit->adds)
		edit_add(slots, &edit->new);
}

/* A copy of the published array, with room for more, in the spare one's place. */
static bool spare_copy(struct vm *vm, unsigned space)
{
	struct slot_table *table = vm->slot_tables[space];
	const struct memslots *now = vm->slots[space];
	unsigned room = now->nr + now->nr / 2 + 8;
	struct memslots *copy = malloc(sizeof(*copy) + room * sizeof(copy->v[0]));

	if (!copy)
		return false;
	memcpy(copy, now, sizeof(*now) + now->nr * sizeof(now->v[0]));
	free(table->spare);
	table->spare = copy;
	table->spare_room = room;
	return true;
}

/* Make the spare array level with the published one, with room for one slot more. */
static bool spare_ready(struct vm *vm, unsigned space)
{
	struct slot_table *table = vm->slot_tables[space];

	if (!table->spare || table->spare_room < vm->slots[space]->nr + 1) {
		if (!spare_copy(vm, space))
			return false;
	} else {
		edit_apply(table->spare, &table->last);
	}
	memset(&table->last, 0, sizeof(table->last));
	return true;
}

struct memslots *slots_edit(struct vm *vm, unsigned space, struct memslot *old,
			    const struct memslot *new)
{
	struct slot_table *table = vm->slot_tables[space];
	struct memslot *copy = new ? malloc(sizeof(*copy)) : NULL;

	if ((new && !copy) || !spare_ready(vm, space)) {
		free(copy);
		return NULL;
	}
	if (old) {
		table->last.removes = true;
		table->last.gfn = old->gfn;
		table->where[(uint16_t)old->id] = 0;
	}
	if (new) {
		*copy = *new;
		table->last.adds = true;
		table->last.new = (struct slot_ref){copy->gfn, copy};
		table->where[(uint16_t)copy->id] = copy->gfn + 1;
	}
	table->dead = old;
	edit_apply(table->spare, &table->last);
	return table->spare;
}

void slots_publish(struct vm *vm, unsigned space, struct memslots *next)
{
	struct slot_table *table = vm->slot_tables[space];
	struct memslots *before = vm->slots[space];
	unsigned room = table->room;

	next->generation = before->generation + 1;
	__atomic_store_n(&vm->slots[space], next, __ATOMIC_RELEASE);
	vm->ops->request_all(vm, VM_REQUEST_FLUSH, true);
	/* Who has a claim may have found the array before. */
	vm_slots_claim(vm);
	vm_slots_unclaim(vm);
	table->spare = before;
	table->room = table->spare_room;
	table->spare_room = room;
	free(table->dead);
	table->dead = NULL;
}

bool slots_create(struct vm *vm)
{
	for (unsigned i = 0; i < VM_ADDRESS_SPACES; i++) {
		vm->slots[i] = calloc(1, sizeof(*vm->slots[i]));
		vm->slot_tables[i] = calloc(1, sizeof(*vm->slot_tables[i]));
		if (!vm->slots[i] || !vm->slot_tables[i])
			return false;
		vm->slot_tables[i]->where = calloc(VM_MAX_SLOTS, sizeof(gfn_t));
		if (!vm->slot_tables[i]->where)
			return false;
	}
	return true;
}

static void array_destroy(struct memslots *slots)
{
	for (unsigned i = 0; slots && i < slots->nr; i++) {
		free(slots->v[i].slot->dirty);
		free(slots->v[i].slot);
	}
	free(slots);
}

void slots_destroy(struct vm *vm)
{
	for (unsigned i = 0; i < VM_ADDRESS_SPACES; i++) {
		array_destroy(vm->slots[i]);
		if (!vm->slot_tables[i])
			continue;
		free(vm->slot_tables[i]->spare);
		free(vm->slot_tables[i]->where);
		free(vm->slot_tables[i]);
	}
}
