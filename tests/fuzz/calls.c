/* SPDX-License-Identifier: MIT */
/* The ioctls of KVM on x86 with random arguments: what calls.h promises. */
#include "calls.h"

#include <signal.h>
#include <sys/eventfd.h>

#define BUF	0x4000ul
#define RESERVE 0x40000000ul

#define E(name) (1ull << (name))

uint8_t *arena;
int kvm_fd;
struct round round_now;
static int eventfds[4], pipe_fds[2];

struct op {
	enum kind kind;
	unsigned long nr;
	uint64_t errors;
	unsigned long get; /* fills the argument first */
	void (*craft)(struct worker *w, uint8_t *arg);
};

/* ---- values ---- */

static uint64_t value(struct rng *r)
{
	static const uint64_t edges[] = {
		0,	    1,		0x7f,	     0x80,	 0xff,	     0xfff,
		0x1000,	    0xffff,	0x10000,     0xfee00000, 0xfec00000, 0x7fffffff,
		0x80000000, 0xffffffff, 0x100000000, 1ull << 52, 1ull << 63, ~0ull};

	switch (below(r, 4)) {
	case 0:
		return edges[below(r, sizeof(edges) / sizeof(*edges))];
	case 1:
		return below(r, 40);
	case 2:
		return 1ull << below(r, 64);
	default:
		return rnd(r);
	}
}

static int some_fd(struct worker *w)
{
	switch (below(&w->rng, 8)) {
	case 0:
		return -1;
	case 1:
		return 9999;
	case 2:
		return pipe_fds[0];
	case 3:
		return round_now.vm;
	default:
		return eventfds[below(&w->rng, 4)];
	}
}

/* ---- arguments made for a call ---- */

static void craft_region(struct worker *w, uint8_t *arg)
{
	struct kvm_userspace_memory_region *m = (void *)arg;
	unsigned pages = ARENA / PAGE_BYTES;

	m->slot = one_in(&w->rng, 8) ? value(&w->rng) : below(&w->rng, 6);
	m->slot |= one_in(&w->rng, 4) ? 1 << 16 : 0;
	m->flags = one_in(&w->rng, 4) ? below(&w->rng, 16) : below(&w->rng, 4);
	m->guest_phys_addr = below(&w->rng, 128) * PAGE_BYTES;
	if (one_in(&w->rng, 6))
		m->guest_phys_addr = value(&w->rng) & ~0xfffull;
	m->userspace_addr = (uintptr_t)arena + below(&w->rng, pages) * PAGE_BYTES;
	m->memory_size = below(&w->rng, 4) * PAGE_BYTES * (one_in(&w->rng, 4) ? 16 : 1);
	if (one_in(&w->rng, 16))
		m->userspace_addr += 1 + below(&w->rng, 4094);
	if (one_in(&w->rng, 16))
		m->memory_size = value(&w->rng) & 0xffffffff;
	if (one_in(&w->rng, 30))
		m->userspace_addr = value(&w->rng) | 1ull << 63;
}

/* With a guest_memfd of this VM now and then, or something else. */
static void craft_region2(struct worker *w, uint8_t *arg)
{
	struct kvm_userspace_memory_region2 *m = (void *)arg;

	craft_region(w, arg);
	if (one_in(&w->rng, 2))
		return;
	m->flags |= KVM_MEM_GUEST_MEMFD;
	m->guest_memfd = w->nr_fds ? w->fds[below(&w->rng, w->nr_fds)] : some_fd(w);
	m->guest_memfd_offset = one_in(&w->rng, 8) ? value(&w->rng)
						   : below(&w->rng, 8) * PAGE_BYTES;
}

static void craft_memfd(struct worker *w, uint8_t *arg)
{
	struct kvm_create_guest_memfd *c = (void *)arg;

	c->size = one_in(&w->rng, 4) ? value(&w->rng) & 0xffffffff
				     : (1 + below(&w->rng, 64)) * PAGE_BYTES;
	c->flags = one_in(&w->rng, 10);
}

static void craft_attributes(struct worker *w, uint8_t *arg)
{
	struct kvm_memory_attributes *a = (void *)arg;

	a->address = one_in(&w->rng, 6) ? value(&w->rng) : below(&w->rng, 128) * PAGE_BYTES;
	a->size = one_in(&w->rng, 6) ? value(&w->rng) : below(&w->rng, 8) * PAGE_BYTES;
	a->attributes = one_in(&w->rng, 8) ? value(&w->rng) : below(&w->rng, 2) * 8;
	a->flags = one_in(&w->rng, 10);
}

static void craft_pre_fault(struct worker *w, uint8_t *arg)
{
	struct kvm_pre_fault_memory *p = (void *)arg;

	p->gpa = one_in(&w->rng, 6) ? value(&w->rng) : below(&w->rng, 128) * PAGE_BYTES;
	p->size = one_in(&w->rng, 6) ? value(&w->rng) : below(&w->rng, 8) * PAGE_BYTES;
	p->flags = one_in(&w->rng, 10);
}

static void craft_dirty(struct worker *w, uint8_t *arg)
{
	struct kvm_dirty_log *log = (void *)arg;

	log->slot = below(&w->rng, 7);
	log->dirty_bitmap = one_in(&w->rng, 4) ? BAD_POINTER : w->buf + 0x1000;
}

static void craft_clear(struct worker *w, uint8_t *arg)
{
	struct kvm_clear_dirty_log *log = (void *)arg;

	log->slot = below(&w->rng, 7);
	log->num_pages = one_in(&w->rng, 2) ? value(&w->rng) : 64;
	log->first_page = one_in(&w->rng, 2) ? value(&w->rng) : 0;
	log->dirty_bitmap = one_in(&w->rng, 4) ? BAD_POINTER : w->buf + 0x1000;
}

static void craft_routing(struct worker *w, uint8_t *arg)
{
	struct kvm_irq_routing *t = (void *)arg;

	t->nr = one_in(&w->rng, 10) ? value(&w->rng) : below(&w->rng, 20);
	t->flags = one_in(&w->rng, 10) ? value(&w->rng) : 0;
	for (unsigned i = 0; i < 20; i++) {
		struct kvm_irq_routing_entry *e = &t->entries[i];

		memset(e, 0, sizeof(*e));
		e->gsi = one_in(&w->rng, 10) ? value(&w->rng) : below(&w->rng, 32);
		e->type = below(&w->rng, 6);
		e->flags = one_in(&w->rng, 10);
		e->u.irqchip.irqchip = below(&w->rng, 4);
		e->u.irqchip.pin = below(&w->rng, 26);
		if (e->type == KVM_IRQ_ROUTING_XEN_EVTCHN)
			e->u.xen_evtchn.priority = -1;
		if (e->type == KVM_IRQ_ROUTING_MSI)
			e->u.msi.address_lo = one_in(&w->rng, 2) ? 0xfee00000 : value(&w->rng);
	}
}

static void craft_irqfd(struct worker *w, uint8_t *arg)
{
	struct kvm_irqfd *i = (void *)arg;

	memset(i, 0, sizeof(*i));
	i->fd = some_fd(w);
	i->gsi = one_in(&w->rng, 6) ? value(&w->rng) : below(&w->rng, 26);
	i->flags = below(&w->rng, one_in(&w->rng, 8) ? 8 : 4);
	i->resamplefd = some_fd(w);
}

static void craft_ioeventfd(struct worker *w, uint8_t *arg)
{
	struct kvm_ioeventfd *i = (void *)arg;

	memset(i, 0, sizeof(*i));
	i->fd = some_fd(w);
	i->addr = one_in(&w->rng, 4) ? value(&w->rng) : below(&w->rng, 0x100);
	i->len = one_in(&w->rng, 4) ? below(&w->rng, 12) : 1u << below(&w->rng, 4);
	i->flags = below(&w->rng, one_in(&w->rng, 8) ? 32 : 8);
	i->datamatch = below(&w->rng, 3);
}

static void craft_msrs(struct worker *w, uint8_t *arg)
{
	static const uint32_t bases[] = {0x0,	     0x170,	 0x200,	     0x400,	 0x6e0,
					 0x800,	     0x40000000, 0x4b564d00, 0xc0000080, 0xc0000100,
					 0xc0010000, 0x40000080, 0x400000b0, 0x40000100};
	struct kvm_msrs *m = (void *)arg;

	m->nmsrs = one_in(&w->rng, 10) ? value(&w->rng) : below(&w->rng, 16);
	for (unsigned i = 0; i < 16; i++)
		m->entries[i] = (struct kvm_msr_entry){
			.index = bases[below(&w->rng, 14)] + below(&w->rng, 0x60),
			.data = value(&w->rng),
		};
}

static void craft_filter(struct worker *w, uint8_t *arg)
{
	struct kvm_msr_filter *f = (void *)arg;

	memset(f, 0, sizeof(*f));
	f->flags = one_in(&w->rng, 8) ? value(&w->rng) : below(&w->rng, 2);
	for (unsigned i = 0; i < below(&w->rng, 16); i++)
		f->ranges[i] = (struct kvm_msr_filter_range){
			.flags = below(&w->rng, one_in(&w->rng, 8) ? 8 : 4),
			.nmsrs = one_in(&w->rng, 8) ? value(&w->rng) : below(&w->rng, 64),
			.base = value(&w->rng),
			.bitmap = one_in(&w->rng, 8) ? BAD_POINTER : w->buf + 0x1000,
		};
}

static void craft_cpuid(struct worker *w, uint8_t *arg)
{
	struct kvm_cpuid2 *c = (void *)arg;

	c->nent = 200;
	ioctl(kvm_fd, one_in(&w->rng, 3) ? KVM_GET_SUPPORTED_HV_CPUID : KVM_GET_SUPPORTED_CPUID, c);
	for (unsigned n = below(&w->rng, 8); n--;)
		arg[8 + below(&w->rng, 60 * 40)] ^= 1 << below(&w->rng, 8);
	if (one_in(&w->rng, 8))
		c->nent = value(&w->rng);
	else if (one_in(&w->rng, 4))
		c->nent = below(&w->rng, c->nent + 1);
}

/* Whatever else, SIGUSR1 must get through. */
static void craft_mask(struct worker *w, uint8_t *arg)
{
	struct kvm_signal_mask *m = (void *)arg;
	uint64_t set = rnd(&w->rng) & ~(1ull << (SIGUSR1 - 1));

	m->len = one_in(&w->rng, 4) ? value(&w->rng) : 8;
	memcpy(m->sigset, &set, 8);
}

static void craft_attr(struct worker *w, uint8_t *arg)
{
	struct kvm_device_attr *a = (void *)arg;

	memset(a, 0, sizeof(*a));
	a->group = below(&w->rng, 3);
	a->attr = below(&w->rng, 3);
	a->addr = (uintptr_t)(one_in(&w->rng, 4) ? BAD_POINTER : w->buf + 0x1000);
}

static void craft_cap(struct worker *w, uint8_t *arg)
{
	struct kvm_enable_cap *c = (void *)arg;

	memset(c, 0, sizeof(*c));
	c->cap = below(&w->rng, 245);
	c->flags = one_in(&w->rng, 10);
	c->args[0] = one_in(&w->rng, 2) ? below(&w->rng, 16) : value(&w->rng);
}

static void craft_irqchip(struct worker *w, uint8_t *arg)
{
	struct kvm_irqchip *c = (void *)arg;

	c->chip_id = below(&w->rng, 4);
}

static void craft_list(struct worker *w, uint8_t *arg)
{
	((struct kvm_msr_list *)arg)->nmsrs = one_in(&w->rng, 2) ? below(&w->rng, 200)
								 : value(&w->rng);
}

static void craft_supported(struct worker *w, uint8_t *arg)
{
	((struct kvm_cpuid2 *)arg)->nent = one_in(&w->rng, 2) ? below(&w->rng, 200)
							      : value(&w->rng);
}

static void craft_debug(struct worker *w, uint8_t *arg)
{
	struct kvm_guest_debug *d = (void *)arg;

	d->control = rnd(&w->rng) & (one_in(&w->rng, 4) ? ~0u : 0xf0007u);
}

static void craft_zone(struct worker *w, uint8_t *arg)
{
	struct kvm_coalesced_mmio_zone *z = (void *)arg;

	z->addr = below(&w->rng, 0x100) * (one_in(&w->rng, 2) ? PAGE_BYTES : 1);
	z->size = one_in(&w->rng, 4) ? value(&w->rng) : 4;
	z->pio = one_in(&w->rng, 8) ? value(&w->rng) : below(&w->rng, 2);
}

/* Guest pages by gpa or as they stand in the program: nothing else of it is to be written. */
static uint64_t xen_place(struct worker *w, bool by_hva)
{
	uint64_t at = below(&w->rng, 0x20) * PAGE_BYTES +
		      (one_in(&w->rng, 2) ? 0 : value(&w->rng) % 4096);

	if (one_in(&w->rng, 6))
		return ~0ull;
	return by_hva ? (uintptr_t)arena + at : at;
}

static void craft_xen_config(struct worker *w, uint8_t *arg)
{
	struct kvm_xen_hvm_config *c = (void *)arg;

	memset(c, 0, sizeof(*c));
	c->flags = one_in(&w->rng, 4) ? value(&w->rng) : rnd(&w->rng) & 0xa2;
	c->msr = one_in(&w->rng, 2) ? 0x40000200 : value(&w->rng);
	c->blob_size_64 = one_in(&w->rng, 4);
	c->blob_addr_64 = value(&w->rng);
}

static void craft_xen_vm(struct worker *w, uint8_t *arg)
{
	struct kvm_xen_hvm_attr *a = (void *)arg;

	memset(a, 0, sizeof(*a));
	a->type = below(&w->rng, 8);
	if (a->type == KVM_XEN_ATTR_TYPE_EVTCHN) {
		a->u.evtchn.send_port = below(&w->rng, 8);
		a->u.evtchn.type = one_in(&w->rng, 4) ? below(&w->rng, 8) : 2;
		a->u.evtchn.flags = one_in(&w->rng, 2) ? below(&w->rng, 5) : 0;
		a->u.evtchn.deliver.port.port = below(&w->rng, 3) * 500;
		a->u.evtchn.deliver.port.vcpu =
			a->u.evtchn.deliver.port.port ? below(&w->rng, 3) : (uint32_t)some_fd(w);
		a->u.evtchn.deliver.port.priority = -(one_in(&w->rng, 8) ? 2 : 1);
	} else if (a->type == KVM_XEN_ATTR_TYPE_SHARED_INFO) {
		a->u.shared_info.gfn = one_in(&w->rng, 6) ? value(&w->rng) : below(&w->rng, 0x20);
	} else if (a->type == KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA) {
		a->u.shared_info.gfn = xen_place(w, true);
	} else {
		a->u.pad[0] = value(&w->rng);
	}
}

static void craft_xen_vcpu(struct worker *w, uint8_t *arg)
{
	struct kvm_xen_vcpu_attr *a = (void *)arg;

	memset(a, 0, sizeof(*a));
	a->type = below(&w->rng, 11);
	for (unsigned i = 0; i < 6; i++)
		a->u.pad[i] = value(&w->rng);
	if (a->type <= KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR)
		a->u.gpa = xen_place(w, false);
	else if (a->type == KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA)
		a->u.gpa = xen_place(w, true);
	else if (a->type == KVM_XEN_VCPU_ATTR_TYPE_TIMER)
		a->u.timer.priority = -(one_in(&w->rng, 8) ? 2 : 1);
}

static void craft_xen_send(struct worker *w, uint8_t *arg)
{
	struct kvm_irq_routing_xen_evtchn *e = (void *)arg;

	e->port = one_in(&w->rng, 8) ? value(&w->rng) : below(&w->rng, 1024);
	e->vcpu = below(&w->rng, 4);
	e->priority = -(one_in(&w->rng, 8) ? 2 : 1);
}

static void craft_hv_eventfd(struct worker *w, uint8_t *arg)
{
	struct kvm_hyperv_eventfd *e = (void *)arg;

	memset(e, 0, sizeof(*e));
	e->conn_id = one_in(&w->rng, 8) ? value(&w->rng) : below(&w->rng, 4);
	e->fd = some_fd(w);
	e->flags = below(&w->rng, one_in(&w->rng, 8) ? 8 : 2);
}

static void craft_vcpu_id(struct worker *w, uint8_t *arg)
{
	*(uint64_t *)arg = one_in(&w->rng, 2) ? value(&w->rng) : below(&w->rng, 4);
}

/* ---- the calls, and what may be said to them ---- */

#define V E(EINVAL)
#define F E(EFAULT)
#define X E(ENXIO)
#define P (V | F) /* a pointer to something that may be wrong */

static const struct op ops[] = {
	{SYS, KVM_GET_API_VERSION, V},
	{SYS, KVM_CREATE_VM, V},
	{SYS, KVM_CHECK_EXTENSION, 0},
	{SYS, KVM_GET_VCPU_MMAP_SIZE, V},
	{SYS, KVM_GET_SUPPORTED_CPUID, F | E(E2BIG) | E(ENOMEM), 0, craft_supported},
	{SYS, KVM_GET_EMULATED_CPUID, P | E(E2BIG) | E(ENOMEM), 0, craft_supported},
	{SYS, KVM_GET_SUPPORTED_HV_CPUID, F | E(E2BIG), 0, craft_supported},
	{SYS, KVM_X86_GET_MCE_CAP_SUPPORTED, F},
	{SYS, KVM_GET_MSR_INDEX_LIST, F | E(E2BIG), 0, craft_list},
	{SYS, KVM_GET_MSR_FEATURE_INDEX_LIST, F | E(E2BIG), 0, craft_list},
	{SYS, KVM_GET_MSRS, F | E(E2BIG), 0, craft_msrs},
	{SYS, KVM_GET_DEVICE_ATTR, F | X, 0, craft_attr},
	{SYS, KVM_HAS_DEVICE_ATTR, F | X, 0, craft_attr},
	{VM, KVM_CREATE_VCPU, V | E(EEXIST), 0, craft_vcpu_id},
	{VM, KVM_CHECK_EXTENSION, 0},
	{VM, KVM_ENABLE_CAP, P | X | E(EEXIST) | E(E2BIG), 0, craft_cap},
	{VM, KVM_CREATE_DEVICE, P | E(ENODEV)},
	{VM, KVM_RESET_DIRTY_RINGS, V},
	{VM, KVM_GET_STATS_FD, 0},
	{VM, KVM_SET_USER_MEMORY_REGION, P | E(EEXIST) | E(ENOMEM), 0, craft_region},
	{VM, KVM_SET_USER_MEMORY_REGION2, P | E(EEXIST) | E(ENOMEM) | E(EBADF), 0, craft_region2},
	{VM, KVM_CREATE_GUEST_MEMFD, P | E(ENOMEM), 0, craft_memfd},
	{VM, KVM_SET_MEMORY_ATTRIBUTES, P | E(ENOMEM), 0, craft_attributes},
	{VM, KVM_GET_DIRTY_LOG, P | E(ENOENT) | X, 0, craft_dirty},
	{VM, KVM_CLEAR_DIRTY_LOG, P | E(ENOENT) | X, 0, craft_clear},
	{VM, KVM_SET_TSS_ADDR, V},
	{VM, KVM_SET_IDENTITY_MAP_ADDR, P},
	{VM, KVM_SET_NR_MMU_PAGES, V},
	{VM, KVM_SET_BOOT_CPU_ID, V | E(EBUSY)},
	{VM, KVM_SET_TSC_KHZ, V},
	{VM, KVM_GET_TSC_KHZ, ~0ull}, /* whatever was set, as an int */
	{VM, KVM_REGISTER_COALESCED_MMIO, P | E(ENOSPC) | E(ENOMEM), 0, craft_zone},
	{VM, KVM_UNREGISTER_COALESCED_MMIO, P, 0, craft_zone},
	{VM, KVM_IRQFD, P | E(EBADF) | E(EBUSY) | E(EAGAIN), 0, craft_irqfd},
	{VM, KVM_IOEVENTFD, P | E(EBADF) | E(EEXIST) | E(ENOENT) | E(ENOSPC), 0, craft_ioeventfd},
	{VM, KVM_SIGNAL_MSI, P | E(EPERM)},
	{VM, KVM_IRQ_LINE, P | X},
	{VM, KVM_IRQ_LINE_STATUS, P | X},
	{VM, KVM_SET_GSI_ROUTING, P, 0, craft_routing},
	{VM, KVM_CREATE_IRQCHIP, V | E(EEXIST) | E(ENOMEM)},
	{VM, KVM_GET_IRQCHIP, P | X, 0, craft_irqchip},
	{VM, KVM_SET_IRQCHIP, P | X, KVM_GET_IRQCHIP},
	{VM, KVM_CREATE_PIT, E(ENOENT) | E(EEXIST) | E(ENOMEM)},
	{VM, KVM_CREATE_PIT2, F | E(ENOENT) | E(EEXIST) | E(ENOMEM)},
	{VM, KVM_GET_PIT, F | X},
	{VM, KVM_SET_PIT, F | X, KVM_GET_PIT},
	{VM, KVM_GET_PIT2, F | X},
	{VM, KVM_SET_PIT2, F | X, KVM_GET_PIT2},
	{VM, KVM_REINJECT_CONTROL, F | X},
	{VM, KVM_GET_CLOCK, F},
	{VM, KVM_SET_CLOCK, P, KVM_GET_CLOCK},
	{VM, KVM_X86_SET_MSR_FILTER, P | E(ENOMEM), 0, craft_filter},
	{VM, KVM_HYPERV_EVENTFD, P | E(EBADF) | E(EEXIST) | E(ENOENT), 0, craft_hv_eventfd},
	{VM, KVM_XEN_HVM_CONFIG, P, 0, craft_xen_config},
	{VM, KVM_XEN_HVM_GET_ATTR, P | E(ENOENT), 0, craft_xen_vm},
	{VM, KVM_XEN_HVM_SET_ATTR, P | E(ENOENT) | E(EBADF) | E(EEXIST), 0, craft_xen_vm},
	{VM, KVM_XEN_HVM_EVTCHN_SEND, P, 0, craft_xen_send},
	{VCPU, KVM_GET_REGS, F},
	{VCPU, KVM_SET_REGS, F, KVM_GET_REGS},
	{VCPU, KVM_GET_SREGS, F},
	{VCPU, KVM_SET_SREGS, P, KVM_GET_SREGS},
	{VCPU, KVM_GET_SREGS2, F},
	{VCPU, KVM_SET_SREGS2, P, KVM_GET_SREGS2},
	{VCPU, KVM_GET_DEBUGREGS, F},
	{VCPU, KVM_SET_DEBUGREGS, P, KVM_GET_DEBUGREGS},
	{VCPU, KVM_GET_FPU, F},
	{VCPU, KVM_SET_FPU, F, KVM_GET_FPU},
	{VCPU, KVM_GET_XSAVE, F},
	{VCPU, KVM_GET_XSAVE2, F},
	{VCPU, KVM_SET_XSAVE, P, KVM_GET_XSAVE},
	{VCPU, KVM_GET_XCRS, F},
	{VCPU, KVM_SET_XCRS, P, KVM_GET_XCRS},
	{VCPU, KVM_GET_VCPU_EVENTS, F},
	{VCPU, KVM_SET_VCPU_EVENTS, P, KVM_GET_VCPU_EVENTS},
	{VCPU, KVM_GET_MP_STATE, F},
	{VCPU, KVM_SET_MP_STATE, P, KVM_GET_MP_STATE},
	{VCPU, KVM_GET_LAPIC, P},
	{VCPU, KVM_SET_LAPIC, P, KVM_GET_LAPIC},
	{VCPU, KVM_GET_MSRS, F | E(E2BIG), 0, craft_msrs},
	{VCPU, KVM_SET_MSRS, F | E(E2BIG), 0, craft_msrs},
	{VCPU, KVM_SET_CPUID2, P | E(E2BIG) | E(ENOMEM) | E(EPERM), 0, craft_cpuid},
	{VCPU, KVM_SET_CPUID, P | E(E2BIG) | E(ENOMEM)},
	{VCPU, KVM_GET_CPUID2, F | E(E2BIG), 0, craft_supported},
	{VCPU, KVM_GET_TSC_KHZ, 0},
	{VCPU, KVM_SET_TSC_KHZ, V},
	{VCPU, KVM_SET_GUEST_DEBUG, P | E(EBUSY), 0, craft_debug},
	{VCPU, KVM_TRANSLATE, F},
	{VCPU, KVM_INTERRUPT, P | X | E(EEXIST)},
	{VCPU, KVM_NMI, 0},
	{VCPU, KVM_SMI, V},
	{VCPU, KVM_SET_SIGNAL_MASK, P, 0, craft_mask},
	{VCPU, KVM_X86_SETUP_MCE, P},
	{VCPU, KVM_X86_SET_MCE, P},
	{VCPU, KVM_TPR_ACCESS_REPORTING, P},
	{VCPU, KVM_SET_VAPIC_ADDR, P},
	{VCPU, KVM_KVMCLOCK_CTRL, V},
	{VCPU, KVM_HAS_DEVICE_ATTR, F | X, 0, craft_attr},
	{VCPU, KVM_GET_DEVICE_ATTR, F | X, 0, craft_attr},
	{VCPU, KVM_SET_DEVICE_ATTR, F | X, 0, craft_attr},
	{VCPU, KVM_PRE_FAULT_MEMORY, P | E(ENOENT), 0, craft_pre_fault},
	{VCPU, KVM_GET_SUPPORTED_HV_CPUID, F | E(E2BIG), 0, craft_supported},
	{VCPU, KVM_XEN_VCPU_GET_ATTR, P | E(ENOENT), 0, craft_xen_vcpu},
	{VCPU, KVM_XEN_VCPU_SET_ATTR, P | X | E(ENOENT), 0, craft_xen_vcpu},
	{VCPU, KVM_ENABLE_CAP, P, 0, craft_cap},
	{VCPU, KVM_GET_STATS_FD, 0},
};

#define NR_OPS (sizeof(ops) / sizeof(*ops))

/* ---- one call ---- */

bool vm_dead(void)
{
	return ioctl(round_now.vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM) < 0 && errno == EIO;
}

static struct answer check_result(const struct op *op, long r, int error)
{
	struct answer a = {.kind = op->kind, .nr = op->nr, .result = r, .error = error};

	if (r < 0 && error == EIO && op->kind != SYS && vm_dead())
		return a;
	if (r >= 0 || !~op->errors || (error < 64 && op->errors >> error & 1))
		return a;
	fprintf(stderr, "ioctls: number %#lx of kind %u fails with %d (%s)\n", op->nr, op->kind,
		error, strerror(error));
	fuzz_fail("an errno that Linux does not have for this call");
	return a;
}

static int target(struct worker *w, enum kind kind)
{
	if (kind == SYS)
		return kvm_fd;
	return kind == VM ? round_now.vm : round_now.vcpu[below(&w->rng, NR_VCPUS)];
}

static bool makes_fd(unsigned long nr)
{
	return nr == KVM_CREATE_VM || nr == KVM_CREATE_VCPU || nr == KVM_GET_STATS_FD ||
	       nr == KVM_CREATE_GUEST_MEMFD;
}

static void keep_fd(struct worker *w, long fd)
{
	if (fd < 0)
		return;
	if (w->nr_fds == MAX_FDS) {
		close(fd);
		return;
	}
	w->fds[w->nr_fds++] = fd;
}

void mutate(struct worker *w, uint8_t *arg, unsigned size)
{
	for (unsigned n = below(&w->rng, 6); size && n--;)
		switch (below(&w->rng, 3)) {
		case 0:
			arg[below(&w->rng, size)] ^= 1 << below(&w->rng, 8);
			break;
		case 1:
			arg[below(&w->rng, size)] = rnd(&w->rng);
			break;
		default:
			if (size >= 8) {
				uint64_t val = value(&w->rng);

				memcpy(arg + below(&w->rng, size / 8) * 8, &val, 8);
			}
		}
}

static void fill(struct worker *w, const struct op *op, int fd, uint8_t *arg)
{
	unsigned size = _IOC_SIZE(op->nr);

	if (op->craft) {
		memset(arg, 0, size);
		op->craft(w, arg);
		return;
	}
	memset(arg, 0, size);
	if (op->get && !one_in(&w->rng, 8)) {
		if (op->get == KVM_GET_IRQCHIP)
			craft_irqchip(w, arg);
		ioctl(fd, op->get, arg);
	}
	if (one_in(&w->rng, 12))
		for (unsigned i = 0; i < size; i++)
			arg[i] = rnd(&w->rng);
	else
		mutate(w, arg, size);
}

static void *place(struct worker *w, unsigned size)
{
	switch (below(&w->rng, 20)) {
	case 0:
		return w->buf + BUF - below(&w->rng, size + 1); /* runs off the end */
	default:
		return w->buf;
	}
}

static struct answer bad_pointer(struct worker *w, const struct op *op, int fd)
{
	static const uint64_t bad[] = {0, 8, 0x1000, ~0ull - 7, 1ull << 63, 0x800000000000};
	void *arg = (void *)(uintptr_t)bad[below(&w->rng, 6)];
	long r;

	if (op->nr == KVM_SET_SIGNAL_MASK && !arg)
		return (struct answer){0};
	r = ioctl(fd, op->nr, arg);
	return check_result(op, r, errno);
}

static struct answer unknown_number(struct worker *w)
{
	static const struct op none = {.kind = VM,
				       .errors = V | E(ENOTTY) | F | E(ENOENT) | E(EPERM)};
	unsigned long nr =
		_IOC(below(&w->rng, 4), KVMIO, 0xf0 + below(&w->rng, 16), below(&w->rng, 64));
	long r = ioctl(target(w, below(&w->rng, 3)), nr, w->buf);

	if (r >= 0)
		fuzz_fail("an unknown number is served");
	return check_result(&none, r, errno);
}

struct answer one_call(struct worker *w)
{
	const struct op *op = &ops[below(&w->rng, NR_OPS)];
	int fd = target(w, op->kind);
	unsigned size = _IOC_SIZE(op->nr);
	bool pointer = size || op->nr == KVM_REINJECT_CONTROL;
	int error;
	long r;

	if (one_in(&w->rng, 40))
		return unknown_number(w);
	if (pointer && one_in(&w->rng, 12))
		return bad_pointer(w, op, fd);
	fill(w, op, fd, w->buf);
	if (pointer) {
		uint8_t *at = place(w, size);

		if (at != w->buf)
			memmove(at, w->buf, w->buf + BUF - at < size ? w->buf + BUF - at : size);
		if (op->nr == KVM_SET_SIGNAL_MASK && at != w->buf)
			return (struct answer){0};
		r = ioctl(fd, op->nr, at);
	} else {
		r = ioctl(fd, op->nr, op->craft ? *(uint64_t *)w->buf : value(&w->rng));
	}
	error = errno;
	if (makes_fd(op->nr))
		keep_fd(w, r);
	return check_result(op, r, error);
}

struct answer call_run(int vcpu)
{
	static const struct op op = {
		.kind = VCPU,
		.nr = KVM_RUN,
		.errors = E(EINTR) | E(EAGAIN) | E(EINVAL) | E(EFAULT),
	};
	long r = ioctl(vcpu, KVM_RUN, 0);

	return check_result(&op, r, errno);
}

/* ---- workers and machines ---- */

void fuzz_prepare(void)
{
	uint8_t *reserve =
		mmap(NULL, RESERVE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	signal(SIGIO, SIG_IGN);
	CHECK(reserve != MAP_FAILED);
	arena = reserve + RESERVE / 2;
	CHECK_EQ(mprotect(arena, ARENA, PROT_READ | PROT_WRITE), 0);
	kvm_fd = open_kvm();
	for (unsigned i = 0; i < 4; i++)
		eventfds[i] = eventfd(0, EFD_NONBLOCK);
	CHECK_EQ(pipe(pipe_fds), 0);
}

void worker_init(struct worker *w, uint64_t seed)
{
	w->rng.state = seed;
	w->nr_fds = 0;
	if (w->buf)
		return;
	w->buf = mmap(NULL, BUF + PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	CHECK(w->buf != MAP_FAILED);
	CHECK_EQ(mprotect(w->buf + BUF, PAGE_BYTES, PROT_NONE), 0);
}

void close_all(struct worker *w)
{
	while (w->nr_fds)
		close(w->fds[--w->nr_fds]);
}

static void map_ring(void)
{
	round_now.ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			      round_now.vcpu[0], 64 * PAGE_BYTES);
	CHECK(round_now.ring != MAP_FAILED);
}

void make_vm(struct worker *w)
{
	bool ring;

	round_now.vm = ioctl(kvm_fd, KVM_CREATE_VM,
			     one_in(&w->rng, 3) ? KVM_X86_SW_PROTECTED_VM : KVM_X86_DEFAULT_VM);
	CHECK(round_now.vm >= 0);
	for (unsigned i = 0; i < ARENA / 8; i++)
		((uint64_t *)arena)[i] = rnd(&w->rng);
	CHECK_EQ(set_region(round_now.vm, 0, 0, 0, RAM_SIZE, arena), 0);
	/* Refused where memory may be private. */
	set_region(round_now.vm, 1 << 16, 0, 0, ARENA, arena);
	if (one_in(&w->rng, 2))
		CHECK_EQ(ioctl(round_now.vm, KVM_CREATE_IRQCHIP, 0), 0);
	else if (one_in(&w->rng, 2))
		CHECK_EQ(enable_cap(round_now.vm, KVM_CAP_SPLIT_IRQCHIP, 24), 0);
	round_now.ring = NULL;
	ring = one_in(&w->rng, 4);
	if (ring)
		CHECK_EQ(enable_cap(round_now.vm, KVM_CAP_DIRTY_LOG_RING, RING_BYTES), 0);
	for (unsigned i = 0; i < NR_VCPUS; i++) {
		struct kvm_regs regs = {.rip = CODE_GPA, .rsp = CODE_GPA, .rflags = 2};

		round_now.vcpu[i] = ioctl(round_now.vm, KVM_CREATE_VCPU, i);
		CHECK(round_now.vcpu[i] >= 0);
		round_now.run[i] = map_run(kvm_fd, round_now.vcpu[i]);
		CHECK_EQ(ioctl(round_now.vcpu[i], KVM_SET_REGS, &regs), 0);
	}
	if (ring)
		map_ring();
}

void end_vm(void)
{
	size_t size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	for (unsigned i = 0; i < NR_VCPUS; i++) {
		munmap(round_now.run[i], size);
		close(round_now.vcpu[i]);
	}
	if (round_now.ring)
		munmap(round_now.ring, RING_BYTES);
	close(round_now.vm);
}
