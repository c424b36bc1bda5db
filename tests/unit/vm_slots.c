/* SPDX-License-Identifier: MIT */
/*
 * Memory slots and the dirty log. Expected answers are those of KVM api.rst and of Linux's
 * __kvm_set_memory_region() and kvm_clear_dirty_log_protect(), read anew.
 */
#include "vm_fake.h"

#include <string.h>

#define MB 0x100000ull

static void test_create_find_delete(void **state)
{
	struct vm *vm = *state;
	uint8_t *ram = fake_ram(4 * MB);

	assert_int_equal(fake_region(vm, 3, 0, 2 * MB, MB, ram), 0);
	assert_int_equal(fake_region(vm, 1, 0, 0, MB, ram + MB), 0);
	assert_null(vm_hva(vm, MB, 1));
	assert_ptr_equal(vm_hva(vm, 0, 1), ram + MB);
	assert_ptr_equal(vm_hva(vm, MB - 1, 1), ram + 2 * MB - 1);
	assert_null(vm_hva(vm, MB - 1, 2));
	assert_ptr_equal(vm_hva(vm, 2 * MB + 5, 8), ram + 5);
	assert_null(vm_hva(vm, 3 * MB, 1));
	assert_null(vm_slot_find(vm, ~0ull >> 12));
	assert_int_equal(fake_region(vm, 3, 0, 0, 0, NULL), 0);
	assert_null(vm_hva(vm, 2 * MB, 1));
	assert_int_equal(fake_region(vm, 3, 0, 0, 0, NULL), -EINVAL);
	munmap(ram, 4 * MB);
}

static void test_bad_arguments(void **state)
{
	struct vm *vm = *state;
	uint8_t *ram = fake_ram(MB);

	assert_int_equal(fake_region(vm, 0, 0, 0, MB + 1, ram), -EINVAL);
	assert_int_equal(fake_region(vm, 0, 0, 1, MB, ram), -EINVAL);
	assert_int_equal(fake_region(vm, 0, 0, 0, MB, ram + 1), -EINVAL);
	assert_int_equal(fake_region(vm, 0, 4, 0, MB, ram), -EINVAL);
	assert_int_equal(fake_region(vm, 0, 1u << 31, 0, MB, ram), -EINVAL);
	assert_int_equal(fake_region(vm, 32764, 0, 0, MB, ram), -EINVAL);
	assert_int_equal(fake_region(vm, 2 << 16, 0, 0, MB, ram), -EINVAL);
	assert_int_equal(fake_region(vm, 0, 0, -MB, 2 * MB, ram), -EINVAL);
	assert_int_equal(fake_region(vm, 0, 0, 0, 1ull << 43, NULL), -EINVAL);
	assert_int_equal(fake_region(vm, 0, 0, 0, MB, (void *)0x7ffffffff000), -EINVAL);
	assert_int_equal(fake_region(vm, 0, 0, 0, MB, (void *)(1ull << 63)), -EINVAL);
	assert_int_equal(fake_region(vm, 0, 0, 1ull << 52, MB, ram), -EINVAL);
	assert_int_equal(vm->slots[0]->nr, 0);
	assert_int_equal(fake_region(vm, 32763, 0, (1ull << 52) - MB, MB, ram), 0);
	munmap(ram, MB);
}

static void test_overlap_and_move(void **state)
{
	struct vm *vm = *state;
	uint8_t *ram = fake_ram(2 * MB);

	assert_int_equal(fake_region(vm, 0, 0, MB, MB, ram), 0);
	assert_int_equal(fake_region(vm, 1, 0, MB, MB, ram + MB), -EEXIST);
	assert_int_equal(fake_region(vm, 1, 0, 2 * MB - 4096, MB, ram + MB), -EEXIST);
	assert_int_equal(fake_region(vm, 1, 0, 4096, MB, ram + MB), -EEXIST);
	assert_int_equal(fake_region(vm, 1, 0, 2 * MB, MB, ram + MB), 0);
	/* A slot may move over itself, not over another; it cannot change size, memory or READONLY. */
	assert_int_equal(fake_region(vm, 0, 0, MB + 4096, MB, ram), -EEXIST);
	assert_int_equal(fake_region(vm, 0, 0, MB - 4096, MB, ram), 0);
	assert_ptr_equal(vm_hva(vm, MB - 4096, 1), ram);
	assert_null(vm_hva(vm, 2 * MB - 4096, 1));
	assert_int_equal(fake_region(vm, 0, 0, MB - 4096, MB / 2, ram), -EINVAL);
	assert_int_equal(fake_region(vm, 0, 0, MB - 4096, MB, ram + 4096), -EINVAL);
	assert_int_equal(fake_region(vm, 0, KVM_MEM_READONLY, MB - 4096, MB, ram), -EINVAL);
	munmap(ram, 2 * MB);
}

static void test_change_waits_for_readers(void **state)
{
	struct vm *vm = *state;
	uint8_t *ram = fake_ram(MB);
	unsigned flushes = fake_requests[VM_REQUEST_FLUSH], waits = fake_waits;

	assert_int_equal(fake_region(vm, 0, 0, 0, MB, ram), 0);
	assert_int_equal(fake_requests[VM_REQUEST_FLUSH], flushes + 1);
	assert_int_equal(fake_waits, waits + 1);
	/* The same again changes nothing and reaches nobody. */
	assert_int_equal(fake_region(vm, 0, 0, 0, MB, ram), 0);
	assert_int_equal(fake_requests[VM_REQUEST_FLUSH], flushes + 1);
	munmap(ram, MB);
}

static void test_guest_copies(void **state)
{
	struct vm *vm = *state;
	uint8_t *ram = fake_ram(4 * 4096), buf[4096];

	assert_int_equal(fake_region(vm, 0, 0, 0, 4096, ram), 0);
	assert_int_equal(fake_region(vm, 1, 0, 4096, 4096, ram + 2 * 4096), 0);
	assert_int_equal(fake_region(vm, 2, KVM_MEM_READONLY, 0x10000, 4096, ram + 4096), 0);
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = i * 7;
	/* Across two slots that are not neighbours in memory. */
	assert_int_equal(vm_write_guest(vm, 4000, buf, 200), 0);
	assert_memory_equal(ram + 4000, buf, 96);
	assert_memory_equal(ram + 2 * 4096, buf + 96, 104);
	assert_int_equal(vm_read_guest(vm, 4000, buf + 1000, 200), 0);
	assert_memory_equal(buf, buf + 1000, 200);
	assert_int_equal(vm_write_guest(vm, 8190, buf, 4), -EFAULT);
	assert_int_equal(vm_write_guest(vm, 0x10000, buf, 4), -EFAULT);
	assert_int_equal(vm_read_guest(vm, 0x10000, buf, 4), 0);
	munmap(ram, 4 * 4096);
}

static long get_log(struct vm *vm, uint32_t slot, void *bitmap)
{
	struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bitmap};

	return vm_get_dirty_log(vm, &log);
}

static long clear_log(struct vm *vm, uint64_t first, uint32_t nr, void *bitmap)
{
	struct kvm_clear_dirty_log log = {
		.slot = 0, .first_page = first, .num_pages = nr, .dirty_bitmap = bitmap};

	return vm_clear_dirty_log(vm, &log);
}

static void test_dirty_log(void **state)
{
	struct vm *vm = *state;
	uint8_t *ram = fake_ram(MB);
	uint64_t map[4] = {0};
	unsigned flushes;

	fake_faults();
	assert_int_equal(fake_region(vm, 0, 0, 0, 100 * 4096, ram), 0);
	assert_int_equal(get_log(vm, 0, map), -ENOENT);
	assert_int_equal(get_log(vm, 5, map), -ENOENT);
	assert_int_equal(get_log(vm, 32764, map), -EINVAL);
	assert_int_equal(get_log(vm, 1 << 16, map), -ENOENT);
	assert_int_equal(get_log(vm, 2 << 16, map), -EINVAL);
	assert_int_equal(fake_region(vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, 100 * 4096, ram), 0);
	assert_int_equal(get_log(vm, 0, map), 0);
	assert_int_equal(map[0] | map[1], 0);
	vm_mark_dirty(vm, 3 * 4096 + 5);
	assert_int_equal(vm_write_guest(vm, 66 * 4096, "x", 1), 0);
	flushes = fake_requests[VM_REQUEST_FLUSH_WRITES];
	assert_int_equal(get_log(vm, 0, map), 0);
	assert_int_equal(map[0], 8);
	assert_int_equal(map[1], 4);
	assert_int_equal(fake_requests[VM_REQUEST_FLUSH_WRITES], flushes + 1);
	assert_int_equal(get_log(vm, 0, map), 0);
	assert_int_equal(map[0] | map[1], 0);
	vm_mark_dirty(vm, 0);
	assert_int_equal(get_log(vm, 0, NULL), -EFAULT);
	/* Turning the log off and on starts it anew. */
	vm_mark_dirty(vm, 0);
	assert_int_equal(fake_region(vm, 0, 0, 0, 100 * 4096, ram), 0);
	assert_int_equal(fake_region(vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, 100 * 4096, ram), 0);
	assert_int_equal(get_log(vm, 0, map), 0);
	assert_int_equal(map[0] | map[1], 0);
	munmap(ram, MB);
}

static void test_manual_clear(void **state)
{
	struct vm *vm = *state;
	uint8_t *ram = fake_ram(MB);
	uint64_t map[4] = {0}, one[2] = {8, 0};

	fake_faults();
	vm->manual_dirty_log = vm->manual_dirty_init_set = true;
	assert_int_equal(fake_region(vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, 100 * 4096, ram), 0);
	assert_int_equal(get_log(vm, 0, map), 0);
	assert_true(map[0] == ~0ull && map[1] == (1ull << 36) - 1);
	assert_int_equal(clear_log(vm, 0, 64, one), 0);
	assert_int_equal(get_log(vm, 0, map), 0);
	assert_true(map[0] == ~8ull && map[1] == (1ull << 36) - 1);
	/* The tail may be odd only if it ends the slot. */
	assert_int_equal(clear_log(vm, 64, 36, one), 0);
	assert_int_equal(clear_log(vm, 64, 35, one), -EINVAL);
	assert_int_equal(clear_log(vm, 1, 64, one), -EINVAL);
	assert_int_equal(clear_log(vm, 64, 37, one), -EINVAL);
	assert_int_equal(clear_log(vm, 128, 0, one), -EINVAL);
	assert_int_equal(clear_log(vm, 0, 64, NULL), -EFAULT);
	munmap(ram, MB);
}

/* Slots made, moved, changed and deleted at random, against a table that is looked through. */
static void test_many_slots(void **state)
{
	enum { IDS = 64, PLACES = 256, OPS = 20000 };
	static int32_t place[IDS]; /* in pages of 4 KiB, or -1 */
	struct vm *vm = *state;
	uint8_t *ram = fake_ram(IDS * 4096);
	uint32_t seed = 1;

	memset(place, 0xff, sizeof(place));
	for (unsigned op = 0; op < OPS; op++) {
		bool room = true;
		unsigned id, at;

		seed = seed * 1664525 + 1013904223;
		id = seed >> 8 & (IDS - 1);
		at = seed >> 16 & (PLACES - 1);
		for (unsigned i = 0; i < IDS; i++)
			room &= i == id || place[i] != (int32_t)at;
		if (seed >> 28 < 5) {
			assert_int_equal(fake_region(vm, id, 0, 0, 0, ram),
					 place[id] < 0 ? -EINVAL : 0);
			place[id] = -1;
		} else {
			assert_int_equal(fake_region(vm, id, seed >> 27 & 1, at * 4096ull, 4096,
						     ram + id * 4096),
					 room ? 0 : -EEXIST);
			place[id] = room ? (int32_t)at : place[id];
		}
		at = seed >> 20 & (PLACES - 1);
		for (id = 0; id < IDS && place[id] != (int32_t)at; id++)
			;
		assert_ptr_equal(vm_hva(vm, at * 4096ull, 1), id < IDS ? ram + id * 4096 : NULL);
	}
	munmap(ram, IDS * 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(test_create_find_delete), fake_test(test_bad_arguments),
		fake_test(test_overlap_and_move),   fake_test(test_change_waits_for_readers),
		fake_test(test_guest_copies),	    fake_test(test_dirty_log),
		fake_test(test_manual_clear),	    fake_test(test_many_slots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
