/* SPDX-License-Identifier: MIT */
/*
 * The statistics file: layout by KVM api.rst (KVM_GET_STATS_FD), read as a program reads it.
 */
#include "vm_fake.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct kvm_stats_header read_header(int fd)
{
	struct kvm_stats_header h;

	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	return h;
}

/* Value of a counter by its name, through the descriptors. */
static uint64_t value_of(int fd, const char *name)
{
	struct kvm_stats_header h = read_header(fd);
	size_t size = sizeof(struct kvm_stats_desc) + h.name_size;
	struct kvm_stats_desc *desc = malloc(size);
	uint64_t val = ~0ull;

	for (unsigned i = 0; i < h.num_desc; i++) {
		assert_int_equal(pread(fd, desc, size, h.desc_offset + i * size), size);
		if (!strcmp(desc->name, name))
			assert_int_equal(pread(fd, &val, 8, h.data_offset + desc->offset), 8);
	}
	free(desc);
	return val;
}

static void test_layout(void **state)
{
	struct stats_block *block = stats_create(STATS_VCPU, "kvm-7/vcpu-3");
	struct kvm_stats_header h;
	char id[64] = "";
	uint64_t val;
	int fd, other;

	(void)state;
	stats_add(block, STAT_VCPU_exits, 3);
	fd = stats_open_fd(block);
	assert_true(fd >= 0);
	h = read_header(fd);
	assert_int_equal(h.flags, 0);
	assert_int_equal(h.num_desc, NR_STATS_VCPU);
	assert_true(h.id_offset >= sizeof(h));
	assert_int_equal(pread(fd, id, h.name_size, h.id_offset), h.name_size);
	assert_string_equal(id, "kvm-7/vcpu-3");
	/* Counted before the file was there, and after. */
	assert_int_equal(value_of(fd, "exits"), 3);
	stats_add(block, STAT_VCPU_exits, 4);
	assert_int_equal(value_of(fd, "exits"), 7);
	assert_int_equal(value_of(fd, "io_exits"), 0);
	/* Nothing behind the last value; nothing to be written. */
	assert_int_equal(pread(fd, &val, 8, h.data_offset + NR_STATS_VCPU * 8), 0);
	assert_int_equal(write(fd, "x", 1), -1);
	other = stats_open_fd(block);
	assert_true(other >= 0 && other != fd);
	close(fd);
	stats_add(block, STAT_VCPU_exits, 1);
	assert_int_equal(value_of(other, "exits"), 8);
	/* Readable after its owner is gone. */
	stats_destroy(block);
	assert_int_equal(value_of(other, "exits"), 8);
	close(other);
}

static void test_reopen_after_close(void **state)
{
	struct stats_block *block = stats_create(STATS_VM, "kvm-7");
	int fd = stats_open_fd(block);

	(void)state;
	stats_add(block, STAT_VM_remote_tlb_flush, 2);
	close(fd);
	stats_add(block, STAT_VM_remote_tlb_flush, 2);
	fd = stats_open_fd(block);
	assert_int_equal(value_of(fd, "remote_tlb_flush"), 4);
	close(fd);
	stats_destroy(block);
}

static unsigned long dumped(const char *name)
{
	char buf[4096] = "", *line;
	FILE *to = fmemopen(buf, sizeof(buf), "w");
	unsigned long val;

	stats_dump(to);
	assert_int_equal(fclose(to), 0);
	line = strstr(buf, name);
	assert_non_null(line);
	assert_int_equal(sscanf(line + strlen(name), " %lu", &val), 1);
	return val;
}

static void test_totals_count_the_dead(void **state)
{
	unsigned long before = dumped("\nhypercalls");
	struct stats_block *a = stats_create(STATS_VCPU, "a"), *b = stats_create(STATS_VCPU, "b");

	(void)state;
	stats_add(a, STAT_VCPU_hypercalls, 5);
	stats_add(b, STAT_VCPU_hypercalls, 6);
	stats_destroy(a);
	assert_int_equal(dumped("\nhypercalls"), before + 11);
	stats_destroy(b);
	assert_int_equal(dumped("\nhypercalls"), before + 11);
	stats_add(NULL, STAT_VCPU_hypercalls, 1);
	stats_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_reopen_after_close),
		cmocka_unit_test(test_totals_count_the_dead),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
