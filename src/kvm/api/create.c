/* SPDX-License-Identifier: MIT */
/*
 * Making and unmaking the objects: the system, VMs (KVM_CREATE_VM), vCPUs (KVM_CREATE_VCPU). A vCPU's
 * file is its kvm_run page, its port data page and the ring of coalesced writes, so the program
 * maps it like any other file.
 */
#include "kvm/api/api_internal.h"
#include "kvm/vcpu/watch.h"
#include "silicon/exec/exec.h"
#include "silicon/models/model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void release(struct vm *vm);

#define DEFAULT_TEMPO "run" /* where the host can: exec.h */

/* Set once at start; read-only afterwards. */
static struct system the_system;
static const char *tempo_wanted = DEFAULT_TEMPO;
static struct {
	bool deterministic;
	uint64_t seed;
} seed_wanted;
static struct watch_session *the_session;
static char session_path[48];

static bool session_valid(const struct watch_session *s, uint64_t size)
{
	return size > PAGE_SIZE && s->magic == WATCH_MAGIC && s->version == WATCH_VERSION &&
	       s->max_slots && s->max_slots <= 1 << 16 && !(s->ring_size & (s->ring_size - 1)) &&
	       s->ring_size <= 1 << 30 && watch_session_size(s) <= size;
}

int api_set_session(const char *path)
{
	int fd = strlen(path) < sizeof(session_path) ? open(path, O_RDWR | O_CLOEXEC) : -1;
	off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
	void *map = MAP_FAILED;

	if (size > 0)
		map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (map == MAP_FAILED || !session_valid(map, size)) {
		host_log("cannot be watched by %s: not there, or of another version", path);
		return -EINVAL;
	}
	the_session = map;
	strcpy(session_path, path);
	return 0;
}

int api_set_tempo(const char *tempo)
{
	if (tempo && !exec_tempo_known(tempo)) {
		host_log("tempo '%s': not known; step, run and lockstep are", tempo);
		return -EINVAL;
	}
	tempo_wanted = tempo ? tempo : DEFAULT_TEMPO;
	return 0;
}

int api_set_deterministic(const char *seed)
{
	char *end;

	seed_wanted.deterministic = seed;
	if (!seed)
		return 0;
	errno = 0;
	seed_wanted.seed = strtoull(seed, &end, 0);
	if (*seed < '0' || *seed > '9' || *end || errno) {
		host_log("seed '%s': not a number of at most 64 bits", seed);
		return -EINVAL;
	}
	return 0;
}

/* Guests may be hypervisors if the model and the parameters say so. */
static void init_nested(struct system *sys, const struct cpu_model *model)
{
	struct vmx_options opt;
	bool vmx = model_intel(model) && api_params_vmx(&opt);

	sys->own = *model;
	api_params_hide(&sys->own);
	feature_put(sys->own.features, FEAT_VMX, vmx);
	if (vmx) {
		vmx_caps_default(model, &opt, &sys->vmx);
		sys->ops.params.vmx = &sys->vmx;
	}
	sys->model = &sys->own;
}

int api_init(const char *cpu_model, const char *params)
{
	const struct cpu_model *model;
	const char *why = NULL;

	if (params && api_params_set(params))
		return -EINVAL;
	model = model_find(cpu_model, &why);
	if (!model) {
		host_log("CPU model '%s': %s", cpu_model ? cpu_model : "default",
			 why ? why : "unknown");
		return -EINVAL;
	}
	registry_init();
	the_system.ops = vcpu_vm_ops;
	the_system.ops.tempo = tempo_wanted;
	the_system.ops.deterministic = seed_wanted.deterministic;
	the_system.ops.seed = seed_wanted.seed;
	api_params_apply(&the_system.ops.params, model_intel(model));
	init_nested(&the_system, model);
	the_system.ops.gmem = api_gmem_of;
	the_system.ops.release = release;
	return 0;
}

struct system *api_system(void)
{
	return &the_system;
}

int api_open(int flags)
{
	struct object object;
	int fd;

	if (!the_system.model && api_init(NULL, NULL))
		return -ENOENT;
	fd = registry_file("anykvm:kvm", 0, &object);
	if (fd >= 0 && !(flags & O_CLOEXEC))
		fcntl(fd, F_SETFD, 0);
	return fd;
}

/* ---- VM ---- */

long api_create_vm(struct system *sys, void *arg)
{
	struct object object = {.kind = OBJECT_VM};
	int fd, r;

	unsigned long type = (unsigned long)arg;

	if (type != KVM_X86_DEFAULT_VM && type != KVM_X86_SW_PROTECTED_VM)
		return -EINVAL;
	fd = registry_file("anykvm:vm", 0, &object);
	if (fd < 0)
		return fd;
	r = vm_create(&sys->ops, &object.vm);
	if (!r) {
		object.vm->dev = object.dev;
		object.vm->inode = object.inode;
		object.vm->private_mem = type == KVM_X86_SW_PROTECTED_VM;
		object.vm->witness = fd;
		r = registry_add(&object);
		if (r)
			vm_put(object.vm);
	}
	if (r) {
		close(fd);
		return r;
	}
	return fd;
}

/* Bytes of a vCPU's file. */
static size_t vcpu_file_size(const struct vm *vm)
{
	if (!vm->dirty_ring_size)
		return (WATCH_PAGE + 1) * PAGE_SIZE;
	return VCPU_DIRTY_RING_PAGE * PAGE_SIZE + vm->dirty_ring_size;
}

/* The last reference is gone: no thread is inside any of its vCPUs. */
static void release(struct vm *vm)
{
	vm_quiesce(vm);
	for (unsigned i = 0; i < vm->nr_vcpus; i++) {
		void *run = vm->vcpus[i]->run;

		vcpu_destroy(vm->vcpus[i]);
		munmap(run, vcpu_file_size(vm));
	}
	vm_destroy(vm);
}

long api_vm_stats_fd(struct vm *vm, void *arg)
{
	return stats_open_fd(vm->stats);
}

/* ---- vCPU ---- */

static bool id_taken(const struct vm *vm, uint32_t id)
{
	for (unsigned i = 0; i < vm->nr_vcpus; i++)
		if (vm->vcpus[i]->id == id)
			return true;
	return false;
}

static int check_vcpu_id(struct vm *vm, unsigned long id)
{
	if (id >= VM_MAX_VCPU_ID || vm->created_vcpus >= VM_MAX_VCPUS)
		return -EINVAL;
	if (!vm->max_vcpu_ids)
		vm->max_vcpu_ids = VM_MAX_VCPU_ID;
	if (id >= vm->max_vcpu_ids)
		return -EINVAL;
	return id_taken(vm, id) ? -EEXIST : 0;
}

/* Reachable from here on: by the other vCPUs, and by its fd. */
static int publish_vcpu(struct vm *vm, struct vcpu *vcpu, struct object *object)
{
	int r;

	object->vcpu = vcpu;
	vcpu->index = vm->nr_vcpus;
	vcpu->inode = object->inode;
	r = registry_add(object);
	if (r)
		return r;
	vm->vcpus[vm->nr_vcpus] = vcpu;
	__atomic_store_n(&vm->nr_vcpus, vm->nr_vcpus + 1, __ATOMIC_RELEASE);
	vm->created_vcpus++;
	if (vm->nr_vcpus == 1)
		__atomic_store_n(&vm->ring,
				 (void *)((char *)vcpu->run + VCPU_RING_PAGE * PAGE_SIZE),
				 __ATOMIC_RELEASE);
	return 0;
}

static void add_dirty_ring(struct vm *vm, struct vcpu *vcpu)
{
	struct dirty_ring *ring = &vcpu->dirty_ring;

	if (!vm->dirty_ring_size)
		return;
	ring->v = (void *)((char *)vcpu->run + VCPU_DIRTY_RING_PAGE * PAGE_SIZE);
	ring->size = vm->dirty_ring_size / sizeof(ring->v[0]);
	ring->limit = ring->size - caps_ring_reserved(&the_system);
}

bool api_map_refused(int fd, int64_t offset, size_t size)
{
	struct object object = {0};
	uint64_t first = offset >> PAGE_SHIFT;
	uint64_t last = first + ALIGN_UP(size, PAGE_SIZE) / PAGE_SIZE - 1;
	uint64_t pages;

	if (registry_find(fd, &object) != FIND_OBJECT)
		return false;
	pages = object.vm->dirty_ring_size / PAGE_SIZE;
	vm_put(object.vm);
	return object.kind == OBJECT_VCPU &&
	       (first - VCPU_DIRTY_RING_PAGE < pages || last - VCPU_DIRTY_RING_PAGE < pages);
}

static int create_on_file(struct vm *vm, uint32_t id, int fd, struct object *object)
{
	size_t size = vcpu_file_size(vm);
	struct vcpu *vcpu;
	void *run;
	int r;

	run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (run == MAP_FAILED)
		return -ENOMEM;
	api_permission_fix(&the_system);
	r = vcpu_create(vm, id, the_system.model, run, &vcpu);
	if (!r) {
		vcpu_watch_create(vcpu, (char *)run + WATCH_PAGE * PAGE_SIZE, the_session,
				  session_path);
		add_dirty_ring(vm, vcpu);
		r = publish_vcpu(vm, vcpu, object);
		if (r)
			vcpu_destroy(vcpu);
	}
	if (r)
		munmap(run, size);
	return r;
}

long api_create_vcpu(struct vm *vm, void *arg)
{
	struct object object = {.kind = OBJECT_VCPU, .vm = vm};
	unsigned long id = (unsigned long)arg;
	int fd = -1, r;

	pthread_mutex_lock(&vm->lock);
	r = check_vcpu_id(vm, id);
	if (!r) {
		fd = registry_file("anykvm:vcpu", vcpu_file_size(vm), &object);
		r = fd < 0 ? fd : create_on_file(vm, id, fd, &object);
	}
	pthread_mutex_unlock(&vm->lock);
	if (!r)
		return fd;
	if (fd >= 0)
		close(fd);
	return r;
}
