/* SPDX-License-Identifier: MIT */
/*
 * Which file is which object (decisions: the door). An object is recognised by device and inode of
 * its memfd, whatever fd names it. /dev/kvm's own file is recognised by its link name, so it
 * works after exec and over sockets too; a VM's or vCPU's file that this process did not make is
 * foreign, as with KVM when the mm differs.
 *
 * The table is the one thing of kvm/ that belongs to the process and not to a VM: fds do.
 */
#include "kvm/api/api_internal.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NR_BUCKETS 256

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct object *buckets[NR_BUCKETS];

static struct object **bucket_of(uint64_t inode)
{
	return &buckets[inode % NR_BUCKETS];
}

static void lock_for_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void unlock_after_fork(void)
{
	pthread_mutex_unlock(&lock);
}

/*
 * The process's pid, or 0 if it is not known yet: in a page that a forked child finds empty, so that it need not
 * be asked for each time. Who shares the memory is the same process to KVM, too.
 */
static pid_t *own_pid;

static pid_t own_process(void)
{
	pid_t pid;

	if (!own_pid)
		return getpid();
	pid = __atomic_load_n(own_pid, __ATOMIC_RELAXED);
	if (unlikely(!pid)) {
		pid = getpid();
		__atomic_store_n(own_pid, pid, __ATOMIC_RELAXED);
	}
	return pid;
}

static void find_own_process(void)
{
	void *page =
		mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return;
	if (madvise(page, PAGE_SIZE, MADV_WIPEONFORK))
		munmap(page, PAGE_SIZE);
	else
		own_pid = page;
}

void registry_init(void)
{
	find_own_process();
	pthread_atfork(lock_for_fork, unlock_after_fork, unlock_after_fork);
}

int registry_file(const char *name, size_t size, struct object *ret)
{
	int fd = host_memfd(name, size, true);
	struct stat st;

	if (fd < 0)
		return fd;
	if (host_memfd_keep_size(fd) || fstat(fd, &st)) {
		close(fd);
		return -EIO;
	}
	ret->dev = st.st_dev;
	ret->inode = st.st_ino;
	return fd;
}

int registry_add(const struct object *object)
{
	struct object *copy = malloc(sizeof(*copy));
	struct object **bucket = bucket_of(object->inode);

	if (!copy)
		return -ENOMEM;
	*copy = *object;
	copy->pid = own_process();
	pthread_mutex_lock(&lock);
	copy->next = *bucket;
	*bucket = copy;
	pthread_mutex_unlock(&lock);
	return 0;
}

/* Forget all objects of vm. */
static void remove_vm_locked(const struct vm *vm)
{
	for (unsigned i = 0; i < NR_BUCKETS; i++)
		for (struct object **at = &buckets[i]; *at;) {
			struct object *object = *at;

			if (object->vm != vm) {
				at = &object->next;
				continue;
			}
			*at = object->next;
			free(object);
		}
}

static struct object *find_locked(const struct stat *st)
{
	struct object *object = *bucket_of(st->st_ino);

	while (object && (object->inode != st->st_ino || object->dev != st->st_dev))
		object = object->next;
	return object;
}

/* By the name of a file that is not in the table. */
static enum find find_by_name(int fd)
{
	char path[32], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return FIND_NONE;
	link[n] = 0;
	if (!strcmp(link, "/memfd:anykvm:kvm (deleted)"))
		return FIND_SYS;
	if (!strcmp(link, "/memfd:anykvm:vm (deleted)") ||
	    !strcmp(link, "/memfd:anykvm:vcpu (deleted)"))
		return FIND_FOREIGN;
	return FIND_NONE;
}

/* The C library's goes by newfstatat(2), which takes twice as long. */
static bool file_of(int fd, struct stat *ret)
{
	return !host_syscall(SYS_fstat, fd, (long)ret, 0, 0, 0, 0);
}

enum find registry_find(int fd, struct object *ret)
{
	struct object *object;
	enum find what = FIND_NONE;
	struct stat st;

	if (!file_of(fd, &st) || !S_ISREG(st.st_mode) || st.st_nlink)
		return FIND_NONE;
	pthread_mutex_lock(&lock);
	object = find_locked(&st);
	if (object && object->pid == own_process()) {
		*ret = *object;
		vm_get(object->vm);
		what = FIND_OBJECT;
	} else if (object) {
		what = FIND_FOREIGN; /* a forked child's copy */
	}
	pthread_mutex_unlock(&lock);
	return what == FIND_NONE ? find_by_name(fd) : what;
}

/* ---- reaping ---- */

static void mark_locked(int fd, void (*found)(int fd))
{
	struct object *object;
	struct stat st;

	if (!file_of(fd, &st))
		return;
	object = find_locked(&st);
	if (!object)
		return;
	found(fd);
	object->open = true;
	if (object->vm->witness < 0)
		object->vm->witness = fd;
}

/* The fd that named one of the VM's files does so still: no need to look at all fds. */
static bool witness_stands_locked(const struct vm *vm)
{
	const struct object *object;
	struct stat st;

	if (vm->witness < 0 || !file_of(vm->witness, &st))
		return false;
	object = find_locked(&st);
	return object && object->vm == vm;
}

/* A guest_memfd's own close matters, too: it has no witness. */
static bool all_have_witness_locked(void)
{
	bool all = true;

	for (unsigned i = 0; i < NR_BUCKETS; i++)
		for (struct object *o = buckets[i]; o; o = o->next) {
			if (o->kind == OBJECT_GMEM)
				all = false;
			if (o->kind != OBJECT_VM || o->pid != getpid())
				continue;
			if (!witness_stands_locked(o->vm)) {
				o->vm->witness = -1;
				all = false;
			}
		}
	return all;
}

static void for_each_locked(void (*call)(struct object *object))
{
	for (unsigned i = 0; i < NR_BUCKETS; i++)
		for (struct object *o = buckets[i]; o; o = o->next)
			call(o);
}

static void clear_open(struct object *object)
{
	object->open = false;
}

/* Mark every object that an fd names. False: unknown, /proc is not there. */
static bool scan_locked(void (*found)(int fd))
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	if (!dir)
		return false;
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			mark_locked(atoi(entry->d_name), found);
	closedir(dir);
	return true;
}

static bool vm_open_locked(const struct vm *vm)
{
	for (unsigned i = 0; i < NR_BUCKETS; i++)
		for (struct object *o = buckets[i]; o; o = o->next)
			if (o->vm == vm && o->open)
				return true;
	return false;
}

/* A VM of this process that no fd names, taken out of the table; or NULL. */
static struct vm *take_orphan_locked(void)
{
	for (unsigned i = 0; i < NR_BUCKETS; i++)
		for (struct object *o = buckets[i]; o; o = o->next)
			if (o->pid == getpid() && !vm_open_locked(o->vm)) {
				struct vm *vm = o->vm;

				remove_vm_locked(vm);
				return vm;
			}
	return NULL;
}

/*
 * A guest_memfd that no fd names while its VM lives on, taken out of the table into *ret, with a reference
 * to the VM.
 */
static bool take_closed_gmem_locked(struct object *ret)
{
	for (unsigned i = 0; i < NR_BUCKETS; i++)
		for (struct object **at = &buckets[i]; *at; at = &(*at)->next) {
			struct object *o = *at;

			if (o->kind != OBJECT_GMEM || o->open || o->pid != getpid())
				continue;
			*ret = *o;
			vm_get(o->vm);
			*at = o->next;
			free(o);
			return true;
		}
	return false;
}

/* True: something was torn down, look again. */
static bool reap_one(void (*found)(int fd))
{
	struct object gmem = {0};
	struct vm *vm = NULL;
	bool closed = false;

	pthread_mutex_lock(&lock);
	if (!all_have_witness_locked()) {
		for_each_locked(clear_open);
		if (scan_locked(found) && scan_locked(found)) {
			vm = take_orphan_locked();
			closed = !vm && take_closed_gmem_locked(&gmem);
		}
	}
	pthread_mutex_unlock(&lock);
	if (closed) {
		gmem_release(gmem.vm, gmem.gmem);
		vm = gmem.vm;
	}
	if (vm)
		vm_put(vm);
	return vm;
}

/*
 * A VM's witness, whose close is noticed because it was found, tells of most closes that the VM lives on. Two scans: one could miss an fd that another thread moves to a lower number meanwhile. The locks
 * order: nothing is called that takes a VM's lock; the last reference is dropped without this one.
 */
void api_reap(void (*found)(int fd))
{
	while (reap_one(found))
		;
}
