/* SPDX-License-Identifier: MIT */
/* Private to kvm/api: objects behind fds, and the handlers that stand in tables/ioctls.def. */
#ifndef KVM_API_API_INTERNAL_H
#define KVM_API_API_INTERNAL_H

#include "kvm/api/api.h"
#include "kvm/pv/hv.h"
#include "kvm/pv/pv.h"
#include "kvm/pv/xen.h"
#include "kvm/vcpu/vcpu.h"
#include "kvm/vm/ioctl.h"
#include "kvm/vm/bus.h"
#include "kvm/vm/clock.h"
#include "kvm/vm/eventfd.h"
#include "kvm/vm/irqchip.h"
#include "kvm/vm/msr_filter.h"
#include "kvm/vm/private.h"
#include "kvm/vm/vm.h"
#include "silicon/models/model.h"

/* What /dev/kvm itself stands for; one per process, set by api_init(), but the counter. */
struct system {
	const struct cpu_model *model; /* &own, once there is one */
	struct cpu_model own;	       /* the model, less what parameters take from it */
	struct vmx_caps vmx;	       /* VMX for guests, if the model has it */
	struct vm_ops ops;
	uint64_t ioctls; /* served; atomic */
};

/* A VM or vCPU file of this process. Never moves; freed with its VM. */
struct object {
	struct object *next;
	enum object_kind kind;
	uint64_t dev, inode;
	pid_t pid;
	struct vm *vm;
	struct vcpu *vcpu; /* OBJECT_VCPU */
	struct gmem *gmem; /* OBJECT_GMEM */
	bool open;	   /* api_reap(): some fd names it */
};

/* ---- registry.c; any thread ---- */

/* Once, before anything else: a forked child must find the table unlocked. */
void registry_init(void);

/* A new file with size bytes and its fd, close-on-exec; *ret's dev and inode are filled in. */
int registry_file(const char *name, size_t size, struct object *ret);
/* Make the object known. 0 or -ENOMEM. */
int registry_add(const struct object *object);

enum find { FIND_NONE, FIND_FOREIGN, FIND_SYS, FIND_OBJECT };
/*
 * What fd is. FIND_OBJECT: *ret is a copy, and its VM has one more reference. FIND_FOREIGN: a VM or
 * vCPU of another process.
 */
enum find registry_find(int fd, struct object *ret);

/* ---- create.c ---- */

/* The process's system object; api_init() with defaults if nobody called it. */
struct system *api_system(void);

/* ---- params.c ---- */

/* What kvm_intel's parameters leave of VMX for guests; false: nothing. */
bool api_params_vmx(struct vmx_options *ret);
/* Those that VMs follow. */
void api_params_apply(struct vm_params *ret, bool intel);
/* Take from the model's features what kvm_amd's parameters switch off. */
void api_params_hide(struct cpu_model *model);

/* ---- permission.c ---- */

/* There is a vCPU: no more permissions. */
void api_permission_fix(struct system *sys);

/* ---- gmem.c ---- */

/* struct vm_ops' gmem. */
int api_gmem_of(struct vm *vm, int fd, struct gmem **ret);

/* ---- caps.c ---- */

/* Entries of a dirty ring that are kept free. */
unsigned caps_ring_reserved(const struct system *sys);

/* The nr-th row of tables/refused.def, of the capabilities or of the ioctls; false past the end. */
bool api_refused_nth(unsigned nr, bool cap, struct api_row *ret);

/* ---- handlers ---- */

#define IOCTL(fd, number, locks, flags, handler) IOCTL_DECLARE_##fd(handler)
#define IOCTL_DECLARE_VCPU(handler)
#define IOCTL_DECLARE_VM(handler)
#define IOCTL_DECLARE_SYS(handler) long handler(struct system *sys, void *arg);
#include "ioctls.def"
#undef IOCTL
#undef IOCTL_DECLARE_VCPU
#undef IOCTL_DECLARE_VM
#undef IOCTL_DECLARE_SYS

long api_create_vcpu(struct vm *vm, void *arg);
long api_check_extension_vm(struct vm *vm, void *arg);
long api_enable_cap_vm(struct vm *vm, void *arg);
long api_create_guest_memfd(struct vm *vm, void *arg);
long api_create_device(struct vm *vm, void *arg);
long api_encrypt_region(struct vm *vm, void *arg);
long api_vm_stats_fd(struct vm *vm, void *arg);

#endif
