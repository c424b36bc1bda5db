/* SPDX-License-Identifier: MIT */
/* A counter read as KVM api.rst describes KVM_GET_STATS_FD's file, every descriptor on the way held to it. */
#ifndef TESTS_API_STATS_FD_H
#define TESTS_API_STATS_FD_H

#include "api_test.h"

static inline uint64_t stat_value(int fd, const char *name)
{
	struct kvm_stats_header h;
	struct kvm_stats_desc *desc;
	uint64_t val = ~0ull;
	size_t size;

	CHECK_EQ(pread(fd, &h, sizeof(h), 0), sizeof(h));
	size = sizeof(*desc) + h.name_size;
	desc = malloc(size);
	for (unsigned i = 0; i < h.num_desc; i++) {
		CHECK_EQ(pread(fd, desc, size, h.desc_offset + i * size), size);
		CHECK(desc->size == 1 && desc->name[0] && memchr(desc->name, 0, h.name_size));
		CHECK((desc->flags & KVM_STATS_TYPE_MASK) <= KVM_STATS_TYPE_MAX);
		CHECK((desc->flags & KVM_STATS_UNIT_MASK) <= KVM_STATS_UNIT_MAX);
		if (!strcmp(desc->name, name))
			CHECK_EQ(pread(fd, &val, 8, h.data_offset + desc->offset), 8);
	}
	free(desc);
	CHECK(val != ~0ull);
	return val;
}

#endif
