/* SPDX-License-Identifier: MIT */
/*
 * From an fd and a number to a handler: the rows of tables/ioctls.def. Copies the argument by the
 * number's size and direction, takes the row's locks, answers what Linux answers where there is no
 * row.
 */
#include "kvm/api/api_internal.h"

#include <stdio.h>
#include <sys/ioctl.h>

#define ARG_MAX_SIZE 4096

enum locks { LOCKS_NONE, LOCKS_VCPU, LOCKS_VCPU_SLOTS };
enum flags { RAW = 1, IN = 2, NO_OUT = 4 };

struct row {
	const char *name;
	enum object_kind kind;
	uint32_t number;
	uint8_t locks;
	uint8_t flags;
	union {
		long (*SYS)(struct system *sys, void *arg);
		long (*VM)(struct vm *vm, void *arg);
		long (*VCPU)(struct vcpu *vcpu, void *arg);
	} call;
};

static const struct row rows[] = {
#define IOCTL(fd, nr, lock, flag, handler) \
	{.name = #nr,                      \
	 .kind = OBJECT_##fd,              \
	 .number = (uint32_t)(nr),         \
	 .locks = LOCKS_##lock,            \
	 .flags = flag,                    \
	 .call.fd = handler},
#include "ioctls.def"
#undef IOCTL
};

#define IOCTL(fd, nr, lock, flag, handler) \
	_Static_assert((flag)&RAW || _IOC_SIZE(nr) <= ARG_MAX_SIZE, #nr " has a larger argument");
#include "ioctls.def"
#undef IOCTL

static const struct row *find_row(enum object_kind kind, uint32_t number)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].number == number && rows[i].kind == kind)
			return &rows[i];
	return NULL;
}

bool api_ioctl_nth(unsigned nr, struct api_row *ret)
{
	static const char *const kinds[] = {
		[OBJECT_SYS] = "system", [OBJECT_VM] = "vm", [OBJECT_VCPU] = "vcpu"};

	if (nr >= ARRAY_SIZE(rows))
		return api_refused_nth(nr - ARRAY_SIZE(rows), false, ret);
	*ret = (struct api_row){
		.name = rows[nr].name,
		.fd = kinds[rows[nr].kind],
		.number = rows[nr].number,
	};
	return true;
}

static long call_vcpu(const struct row *row, struct vcpu *vcpu, void *arg)
{
	long r;

	pthread_mutex_lock(&vcpu->mutex);
	if (row->locks == LOCKS_VCPU_SLOTS)
		pthread_mutex_lock(&vcpu->vm->slots_lock);
	r = row->call.VCPU(vcpu, arg);
	if (row->locks == LOCKS_VCPU_SLOTS)
		pthread_mutex_unlock(&vcpu->vm->slots_lock);
	pthread_mutex_unlock(&vcpu->mutex);
	return r;
}

static long call_handler(const struct row *row, const struct object *object, void *arg)
{
	switch (row->kind) {
	case OBJECT_VCPU:
		return call_vcpu(row, object->vcpu, arg);
	case OBJECT_VM:
		return row->call.VM(object->vm, arg);
	default:
		return row->call.SYS(api_system(), arg);
	}
}

/* With the argument's copy in between. */
static long call_copied(const struct row *row, const struct object *object, void *user)
{
	uint8_t buf[ARG_MAX_SIZE] __aligned_(64);
	unsigned size = _IOC_SIZE(row->number), dir = _IOC_DIR(row->number);
	long r;

	if (dir & _IOC_WRITE || row->flags & IN) {
		if (ioctl_copy_in(buf, user, size))
			return -EFAULT;
	} else {
		__builtin_memset(buf, 0, size);
	}
	r = call_handler(row, object, buf);
	if (r >= 0 && dir & _IOC_READ && !(row->flags & NO_OUT) && ioctl_copy_out(user, buf, size))
		return -EFAULT;
	return r;
}

static long call_row(const struct row *row, const struct object *object, unsigned long arg)
{
	if (row->flags & RAW || !_IOC_SIZE(row->number))
		return call_handler(row, object, (void *)arg);
	return call_copied(row, object, (void *)arg);
}

/* What Linux answers to a number that it does not know. */
static long unknown(enum object_kind kind, uint32_t number)
{
	return kind == OBJECT_VM || kind == OBJECT_GMEM ? -ENOTTY : -EINVAL;
}

static long dispatch(const struct object *object, uint32_t number, unsigned long arg)
{
	const struct row *row;

	if (object->vm && __atomic_load_n(&object->vm->dead, __ATOMIC_RELAXED))
		return -EIO;
	if (object->vm)
		stats_add(object->vm->stats, STAT_VM_ioctls, 1);
	else
		__atomic_fetch_add(&api_system()->ioctls, 1, __ATOMIC_RELAXED);
	row = find_row(object->kind, number);
	return row ? call_row(row, object, arg) : unknown(object->kind, number);
}

/* Numbers that the kernel serves for every file, before the file's own. */
static bool is_generic(uint32_t number)
{
	return number == FIOCLEX || number == FIONCLEX || number == FIONBIO || number == FIOASYNC ||
	       number == FIOQSIZE;
}

long api_ioctl(int fd, unsigned long request, unsigned long arg, bool *ret_ours)
{
	struct object object = {.kind = OBJECT_SYS};
	uint32_t number = (uint32_t)request;
	enum find what = FIND_NONE;
	long r = -ENOTTY;

	if (!is_generic(number))
		what = registry_find(fd, &object);
	*ret_ours = what != FIND_NONE;
	if (what == FIND_FOREIGN)
		return -EIO;
	if (what == FIND_NONE)
		return -ENOTTY;
	host_fault_thread_init();
	r = dispatch(&object, number, arg);
	if (object.vm)
		vm_put(object.vm);
	return r;
}

__in_handler bool api_run_interrupted(void)
{
	return vcpu_run_interrupted();
}

void api_stats_dump(FILE *to)
{
	fprintf(to, "system_ioctls %llu\n", (unsigned long long)api_system()->ioctls);
	stats_dump(to);
}
