/* SPDX-License-Identifier: MIT */
/*
 * Statistics blocks (KVM api.rst, KVM_GET_STATS_FD). Values are counted in a private page until the
 * first stats fd is asked for; then a memfd with the same page is mapped over it, so no
 * descriptor is held for blocks that nobody reads. The file outlives the VM for whoever has it open.
 */
#include "kvm/vm/stats.h"
#include "host/host.h"
#include "kvm/vm/uapi.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NAME_SIZE 48 /* KVM_STATS_NAME_SIZE */

struct row {
	const char *name;
	uint32_t flags;
};

#define ROW(n, type, unit) \
	{.name = #n, .flags = KVM_STATS_TYPE_##type | KVM_STATS_UNIT_##unit | KVM_STATS_BASE_POW10},
static const struct row vm_rows[] = {
#define STAT_VM ROW
#define STAT_VCPU(name, type, unit)
#include "stats.def"
#undef STAT_VM
#undef STAT_VCPU
};

static const struct row vcpu_rows[] = {
#define STAT_VM(name, type, unit)
#define STAT_VCPU ROW
#include "stats.def"
#undef STAT_VM
#undef STAT_VCPU
};

static const struct scope {
	const struct row *rows;
	unsigned nr;
} scopes[] = {
	[STATS_VM] = {vm_rows, NR_STATS_VM},
	[STATS_VCPU] = {vcpu_rows, NR_STATS_VCPU},
};

struct desc {
	struct kvm_stats_desc head;
	char name[NAME_SIZE];
};

struct stats_block {
	struct stats_block *next;
	enum stats_scope scope;
	pthread_mutex_t lock;
	uint8_t *page;	  /* the file's image */
	uint64_t *values; /* inside it */
	size_t size;	  /* bytes of the image that are readable */
	size_t map_size;
	dev_t dev; /* of the memfd behind page, or 0 */
	ino_t inode;
};

/* Bookkeeping of what was counted in this process; no guest state. */
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct stats_block *all;
static uint64_t dead_vm[NR_STATS_VM], dead_vcpu[NR_STATS_VCPU];

static uint64_t *dead_totals(enum stats_scope scope)
{
	return scope == STATS_VM ? dead_vm : dead_vcpu;
}

/* Header, id, descriptors, values. */
static void image_fill(struct stats_block *block, const char *id)
{
	const struct scope *scope = &scopes[block->scope];
	struct kvm_stats_header *header = (void *)block->page;
	struct desc *desc;

	header->name_size = NAME_SIZE;
	header->num_desc = scope->nr;
	header->id_offset = sizeof(*header);
	header->desc_offset = header->id_offset + NAME_SIZE;
	header->data_offset = header->desc_offset + scope->nr * sizeof(*desc);
	strncpy((char *)block->page + header->id_offset, id, NAME_SIZE - 1);
	desc = (void *)(block->page + header->desc_offset);
	for (unsigned i = 0; i < scope->nr; i++) {
		desc[i].head.flags = scope->rows[i].flags;
		if ((scope->rows[i].flags & KVM_STATS_UNIT_MASK) == KVM_STATS_UNIT_SECONDS)
			desc[i].head.exponent = -9;
		desc[i].head.size = 1;
		desc[i].head.offset = i * sizeof(uint64_t);
		strncpy(desc[i].name, scope->rows[i].name, NAME_SIZE - 1);
	}
	block->values = (void *)(block->page + header->data_offset);
}

struct stats_block *stats_create(enum stats_scope scope, const char *id)
{
	struct stats_block *block = calloc(1, sizeof(*block));

	if (!block)
		return NULL;
	block->scope = scope;
	block->size = sizeof(struct kvm_stats_header) + NAME_SIZE +
		      scopes[scope].nr * (sizeof(struct desc) + sizeof(uint64_t));
	block->map_size = ALIGN_UP(block->size, PAGE_SIZE);
	block->page = mmap(NULL, block->map_size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (block->page == MAP_FAILED) {
		free(block);
		return NULL;
	}
	pthread_mutex_init(&block->lock, NULL);
	image_fill(block, id);
	pthread_mutex_lock(&all_lock);
	block->next = all;
	all = block;
	pthread_mutex_unlock(&all_lock);
	return block;
}

void stats_destroy(struct stats_block *block)
{
	struct stats_block **at = &all;

	if (!block)
		return;
	pthread_mutex_lock(&all_lock);
	while (*at != block)
		at = &(*at)->next;
	*at = block->next;
	for (unsigned i = 0; i < scopes[block->scope].nr; i++)
		dead_totals(block->scope)[i] += block->values[i];
	pthread_mutex_unlock(&all_lock);
	munmap(block->page, block->map_size);
	free(block);
}

uint64_t *stats_values(struct stats_block *block)
{
	return block ? block->values : NULL;
}

/* A new fd of the same file: own offset, reading only. */
static int reopen(int fd)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Some fd of this process that names the block's file, or -1. */
static int find_fd(const struct stats_block *block)
{
	struct dirent *entry;
	int found = -1;
	DIR *dir;

	if (!block->inode)
		return -1;
	dir = opendir("/proc/self/fd");
	while (dir && found < 0 && (entry = readdir(dir))) {
		int fd = atoi(entry->d_name);
		struct stat st;

		if (!fstat(fd, &st) && st.st_dev == block->dev && st.st_ino == block->inode)
			found = fd;
	}
	if (dir)
		closedir(dir);
	return found;
}

/* Put the image into a memfd and map it where the image was. The memfd, or -errno. */
static int image_to_file(struct stats_block *block)
{
	int fd = host_memfd("anykvm:stats", block->map_size, true);
	struct stat st;
	long map;

	if (fd < 0)
		return fd;
	/* What other threads count between these two lines is lost to the sums. (Not the C library's calls, which ThreadSanitizer takes for
	 * reads and writes of all of it.) */
	if (host_syscall(SYS_pwrite64, fd, (long)block->page, block->size, 0, 0, 0) !=
		    (long)block->size ||
	    fstat(fd, &st))
		goto fail;
	map = host_syscall(SYS_mmap, (long)block->page, block->map_size, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_FIXED, fd, 0);
	if (map < 0 || ftruncate(fd, block->size))
		goto fail;
	block->dev = st.st_dev;
	block->inode = st.st_ino;
	return fd;
fail:
	close(fd);
	return -ENOMEM;
}

int stats_open_fd(struct stats_block *block)
{
	int file, fd;

	pthread_mutex_lock(&block->lock);
	file = find_fd(block);
	if (file >= 0) {
		fd = reopen(file);
	} else {
		file = image_to_file(block);
		fd = file < 0 ? file : reopen(file);
		if (file >= 0)
			close(file);
	}
	pthread_mutex_unlock(&block->lock);
	return fd;
}

static uint64_t total_locked(enum stats_scope scope, unsigned i)
{
	uint64_t sum = dead_totals(scope)[i];

	for (struct stats_block *b = all; b; b = b->next)
		if (b->scope == scope)
			sum += __atomic_load_n(&b->values[i], __ATOMIC_RELAXED);
	return sum;
}

void stats_dump(FILE *to)
{
	pthread_mutex_lock(&all_lock);
	for (unsigned s = 0; s < ARRAY_SIZE(scopes); s++)
		for (unsigned i = 0; i < scopes[s].nr; i++)
			fprintf(to, "%s %llu\n", scopes[s].rows[i].name,
				(unsigned long long)total_locked(s, i));
	pthread_mutex_unlock(&all_lock);
}
