/* SPDX-License-Identifier: MIT */
/*
 * Xen's guest interface (KVM api.rst, KVM_XEN_HVM_CONFIG and the KVM_XEN ioctls; xen/include/public): attributes and what
 * they refuse, events in memory, upcalls, timers, hypercalls.
 */
#include "pv.h"

#include <pthread.h>

#include <sys/eventfd.h>

#define PAGE_MSR    0x40000200
#define SHARED_GPA  0x4000
#define INFO_GPA    0x5000
#define STATE_GPA   0x6000
#define TIME_GPA    0x7000
#define NOWHERE	    (~0ull)
#define TWO_LEVEL   KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL
#define PENDING	    (SHARED_GPA + 0x800)
#define MASK_64	    (SHARED_GPA + 0xa00)
#define INTERDOMAIN 2

static int config(int vm, uint32_t flags)
{
	struct kvm_xen_hvm_config c = {.flags = flags, .msr = PAGE_MSR};

	return ioctl(vm, KVM_XEN_HVM_CONFIG, &c);
}

static int vm_set(int vm, uint16_t type, uint64_t val)
{
	struct kvm_xen_hvm_attr a = {.type = type};

	a.u.pad[0] = val;
	return ioctl(vm, KVM_XEN_HVM_SET_ATTR, &a);
}

static uint64_t vm_get(int vm, uint16_t type)
{
	struct kvm_xen_hvm_attr a = {.type = type};

	CHECK_EQ(ioctl(vm, KVM_XEN_HVM_GET_ATTR, &a), 0);
	return a.u.pad[0];
}

static int vcpu_set(int vcpu, uint16_t type, uint64_t val)
{
	struct kvm_xen_vcpu_attr a = {.type = type, .u.gpa = val};

	return ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &a);
}

static uint64_t vcpu_get(int vcpu, uint16_t type)
{
	struct kvm_xen_vcpu_attr a = {.type = type};

	CHECK_EQ(ioctl(vcpu, KVM_XEN_VCPU_GET_ATTR, &a), 0);
	return a.u.gpa;
}

static void test_config(void)
{
	struct machine m = machine_irqchip();
	struct kvm_xen_hvm_config c = {.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
				       .blob_size_64 = 1};
	int caps = ioctl(m.kvm, KVM_CHECK_EXTENSION, KVM_CAP_XEN_HVM);

	CHECK_EQ(caps & 0x1b7, 0x1b7);
	CHECK_ERR(config(m.vm, KVM_XEN_HVM_CONFIG_SHARED_INFO), EINVAL);
	CHECK_ERR(config(m.vm, 1u << 9), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_XEN_HVM_CONFIG, &c), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_XEN_HVM_CONFIG, BAD_POINTER), EFAULT);
	CHECK_EQ(config(m.vm, KVM_XEN_HVM_CONFIG_EVTCHN_SEND), 0);
	CHECK_EQ(config(m.vm, KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE), 0);
}

static void test_vm_attrs(void)
{
	struct machine m = machine_irqchip();
	struct kvm_xen_hvm_attr a = {.type = 99};

	CHECK_ERR(ioctl(m.vm, KVM_XEN_HVM_SET_ATTR, &a), ENOENT);
	CHECK_ERR(ioctl(m.vm, KVM_XEN_HVM_GET_ATTR, &a), ENOENT);
	a.type = KVM_XEN_ATTR_TYPE_EVTCHN;
	CHECK_ERR(ioctl(m.vm, KVM_XEN_HVM_GET_ATTR, &a), ENOENT);
	CHECK_ERR(ioctl(m.vm, KVM_XEN_HVM_GET_ATTR, BAD_POINTER), EFAULT);
	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_LONG_MODE, 7), 0);
	CHECK_EQ(vm_get(m.vm, KVM_XEN_ATTR_TYPE_LONG_MODE), 1);
	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_UPCALL_VECTOR, 0x20), 0);
	CHECK_ERR(vm_set(m.vm, KVM_XEN_ATTR_TYPE_UPCALL_VECTOR, 0xf), EINVAL);
	CHECK_EQ(vm_get(m.vm, KVM_XEN_ATTR_TYPE_UPCALL_VECTOR), 0x20);
	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_XEN_VERSION, 0x4000a), 0);
	CHECK_EQ(vm_get(m.vm, KVM_XEN_ATTR_TYPE_XEN_VERSION), 0x4000a);
	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG, 1), 0);
	CHECK_EQ(vm_get(m.vm, KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG), 1);
}

/* The wall clock is written where the guest's width has it. */
static void test_shared_info(void)
{
	struct machine m = machine_irqchip();
	uint64_t hva = (uintptr_t)m.ram + SHARED_GPA;

	CHECK_EQ(vm_get(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO), NOWHERE);
	CHECK_EQ(vm_get(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA), 0);
	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, SHARED_GPA >> 12), 0);
	CHECK_EQ(ram32(&m, SHARED_GPA + 0x900), 2);
	CHECK(ram32(&m, SHARED_GPA + 0x904) > 1600000000);
	CHECK_EQ(ram32(&m, SHARED_GPA + 0xc00), 0);
	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_LONG_MODE, 1), 0);
	CHECK_EQ(ram32(&m, SHARED_GPA + 0xc00), 2);
	CHECK_ERR(vm_set(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, 0x7fff0), EFAULT);
	CHECK_EQ(vm_get(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO), SHARED_GPA >> 12);
	CHECK_ERR(vm_set(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA, hva + 8), EINVAL);
	CHECK_ERR(vm_set(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA, 0x1000), EFAULT);
	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA, hva), 0);
	CHECK_EQ(vm_get(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA), hva);
	CHECK_EQ(vm_get(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO), NOWHERE);
	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, NOWHERE), 0);
	CHECK_EQ(vm_get(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA), 0);
}

/* ---- vCPU attributes ---- */

static void test_places(const struct machine *m)
{
	const uint16_t info = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO;
	const uint16_t time = KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO;
	uint64_t hva = (uintptr_t)m->ram + INFO_GPA;

	CHECK_EQ(vcpu_get(m->vcpu, info), NOWHERE);
	CHECK_ERR(vcpu_set(m->vcpu, info, INFO_GPA + 2), ENXIO);
	CHECK_ERR(vcpu_set(m->vcpu, info, INFO_GPA + 0xfe0), EINVAL);
	CHECK_ERR(vcpu_set(m->vcpu, info, 0x7fff0000), EFAULT);
	CHECK_EQ(vcpu_get(m->vcpu, info), NOWHERE);
	CHECK_EQ(vcpu_set(m->vcpu, info, INFO_GPA), 0);
	CHECK_EQ(vcpu_get(m->vcpu, info), INFO_GPA);
	CHECK_EQ(vcpu_set(m->vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA, hva), 0);
	CHECK_EQ(vcpu_get(m->vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA), hva);
	CHECK_EQ(vcpu_get(m->vcpu, info), NOWHERE);
	CHECK_ERR(vcpu_set(m->vcpu, time, TIME_GPA + 0xff0), EINVAL);
	CHECK_ERR(vcpu_set(m->vcpu, time, 0x7fff0000), EFAULT);
	CHECK_EQ(vcpu_set(m->vcpu, time, TIME_GPA), 0);
	CHECK_EQ(vcpu_get(m->vcpu, time), TIME_GPA);
}

static void test_runstates(const struct machine *m)
{
	struct kvm_xen_vcpu_attr a = {.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR};

	CHECK_ERR(ioctl(m->vcpu, KVM_XEN_VCPU_GET_ATTR, &a), ENOENT);
	/* Over two pages. */
	CHECK_EQ(vcpu_set(m->vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, STATE_GPA + 0xff0), 0);
	CHECK_EQ(vcpu_get(m->vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR), STATE_GPA + 0xff0);
	CHECK_ERR(vcpu_set(m->vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT, 4), EINVAL);
	CHECK_EQ(vcpu_set(m->vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT, 2), 0);
	CHECK_EQ(vcpu_get(m->vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT), 2);
	CHECK_EQ(ram32(m, STATE_GPA + 0xff0), 2);
	a.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA;
	CHECK_EQ(ioctl(m->vcpu, KVM_XEN_VCPU_GET_ATTR, &a), 0);
	CHECK_EQ(a.u.runstate.state_entry_time,
		 a.u.runstate.time_running + a.u.runstate.time_runnable +
			 a.u.runstate.time_blocked + a.u.runstate.time_offline);
	CHECK_EQ(ioctl(m->vcpu, KVM_XEN_VCPU_SET_ATTR, &a), 0);
	a.u.runstate.time_offline++;
	CHECK_ERR(ioctl(m->vcpu, KVM_XEN_VCPU_SET_ATTR, &a), EINVAL);
	a.u.runstate.state_entry_time++;
	a.u.runstate.state = 4;
	CHECK_ERR(ioctl(m->vcpu, KVM_XEN_VCPU_SET_ATTR, &a), EINVAL);
	memset(&a.u, 0, sizeof(a.u));
	a.u.runstate.state_entry_time = a.u.runstate.time_blocked = 1ull << 60;
	CHECK_ERR(ioctl(m->vcpu, KVM_XEN_VCPU_SET_ATTR, &a), EINVAL); /* not yet */
	a.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST;
	CHECK_ERR(ioctl(m->vcpu, KVM_XEN_VCPU_SET_ATTR, &a), EINVAL);
	CHECK_ERR(ioctl(m->vcpu, KVM_XEN_VCPU_GET_ATTR, &a), EINVAL);
	CHECK_EQ(vcpu_get(m->vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT), 2);
	CHECK_ERR(vcpu_set(m->vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, 0x7fff0000), EFAULT);
}

static void test_vcpu_attrs(void)
{
	struct machine m = machine_irqchip();
	struct kvm_xen_vcpu_attr a = {.type = 99};

	MACHINE_CODE(&m, 0xf4);
	CHECK_ERR(ioctl(m.vcpu, KVM_XEN_VCPU_SET_ATTR, &a), ENOENT);
	CHECK_ERR(ioctl(m.vcpu, KVM_XEN_VCPU_GET_ATTR, &a), ENOENT);
	test_places(&m);
	if (ioctl(m.kvm, KVM_CHECK_EXTENSION, KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_RUNSTATE)
		test_runstates(&m);
	CHECK_EQ(vcpu_get(m.vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID), 0);
	CHECK_EQ(vcpu_set(m.vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID, 5), 0);
	CHECK_ERR(vcpu_set(m.vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID, 4096), EINVAL);
	CHECK_EQ(vcpu_get(m.vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID), 5);
	CHECK_EQ(vcpu_set(m.vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR, 0x30), 0);
	CHECK_ERR(vcpu_set(m.vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR, 1), EINVAL);
	CHECK_EQ(vcpu_get(m.vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR), 0x30);
	a = (struct kvm_xen_vcpu_attr){.type = KVM_XEN_VCPU_ATTR_TYPE_TIMER};
	a.u.timer.port = 3;
	CHECK_ERR(ioctl(m.vcpu, KVM_XEN_VCPU_SET_ATTR, &a), EINVAL);
	a.u.timer.priority = TWO_LEVEL;
	a.u.timer.expires_ns = 1ull << 60;
	CHECK_EQ(ioctl(m.vcpu, KVM_XEN_VCPU_SET_ATTR, &a), 0);
	memset(&a.u, 0, sizeof(a.u));
	CHECK_EQ(ioctl(m.vcpu, KVM_XEN_VCPU_GET_ATTR, &a), 0);
	CHECK_EQ(a.u.timer.port, 3);
	CHECK_EQ(a.u.timer.expires_ns, 1ull << 60);
}

/* ---- events ---- */

static int send(int vm, uint32_t port, uint32_t vcpu, uint32_t priority)
{
	struct kvm_irq_routing_xen_evtchn e = {.port = port, .vcpu = vcpu, .priority = priority};

	return ioctl(vm, KVM_XEN_HVM_EVTCHN_SEND, &e);
}

/* sti; hlt, with an upcall by vector; 64-bit layout. */
static struct machine machine_xen(uint8_t vector)
{
	struct machine m = machine_irqchip();

	machine_waiting(&m, vector);
	CHECK_EQ(config(m.vm, KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND),
		 0);
	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_LONG_MODE, 1), 0);
	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, SHARED_GPA >> 12), 0);
	CHECK_EQ(vcpu_set(m.vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, INFO_GPA), 0);
	return m;
}

static void test_send(void)
{
	struct machine m = machine_irqchip();

	MACHINE_CODE(&m, 0xf4);
	CHECK_ERR(send(m.vm, 0, 0, TWO_LEVEL), EINVAL);
	CHECK_ERR(send(m.vm, 3, 0, 0), EINVAL);
	CHECK_ERR(send(m.vm, 3, 0, TWO_LEVEL), EINVAL); /* no shared info */
	m = machine_xen(0x40);
	CHECK_ERR(send(m.vm, 4096, 0, TWO_LEVEL), EINVAL);
	CHECK_ERR(send(m.vm, 3, 9, TWO_LEVEL), EINVAL);
	m.ram[MASK_64 + 16] = 1 << 2;
	CHECK_EQ(send(m.vm, 130, 0, TWO_LEVEL), 0); /* masked: the first level alone */
	CHECK_EQ(ram64(&m, PENDING + 16), 1 << 2);
	CHECK_EQ(ram64(&m, INFO_GPA + 8), 0);
	CHECK_EQ(m.ram[INFO_GPA], 0);
	CHECK_EQ(send(m.vm, 129, 0, TWO_LEVEL), 0);
	CHECK_EQ(ram64(&m, PENDING + 16), 3 << 1);
	CHECK_EQ(ram64(&m, INFO_GPA + 8), 1 << 2);
	CHECK_EQ(m.ram[INFO_GPA], 1);
}

/* The flag stays until the guest takes it away, and so does the interrupt. */
static void test_vm_vector(void)
{
	struct machine m = machine_xen(0x40);
	struct kvm_regs regs;

	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_UPCALL_VECTOR, 0x40), 0);
	CHECK_EQ(send(m.vm, 5, 0, TWO_LEVEL), 0);
	INTERRUPTED(&m);
	CHECK(!in_service(&m, 0x40)); /* not the local APIC's */
	regs = get_regs(&m);
	restart(&m, &regs);
	INTERRUPTED(&m);
	/* The program, too, may set it. */
	m.ram[INFO_GPA] = 0;
	m.ram[INFO_GPA] = 1;
	restart(&m, &regs);
	INTERRUPTED(&m);
}

static void test_vcpu_vector(void)
{
	struct machine m = machine_xen(0x41);

	CHECK_EQ(vcpu_set(m.vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR, 0x41), 0);
	CHECK_EQ(send(m.vm, 5, 0, TWO_LEVEL), 0);
	INTERRUPTED(&m);
	CHECK(in_service(&m, 0x41));
}

static void test_timer(void)
{
	struct machine m = machine_xen(0x40);
	struct kvm_xen_vcpu_attr a = {.type = KVM_XEN_VCPU_ATTR_TYPE_TIMER};
	struct kvm_clock_data clock;

	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_UPCALL_VECTOR, 0x40), 0);
	CHECK_EQ(ioctl(m.vm, KVM_GET_CLOCK, &clock), 0);
	a.u.timer.port = 7;
	a.u.timer.priority = TWO_LEVEL;
	a.u.timer.expires_ns = clock.clock + 20000000;
	CHECK_EQ(ioctl(m.vcpu, KVM_XEN_VCPU_SET_ATTR, &a), 0);
	INTERRUPTED(&m);
	CHECK_EQ(ram64(&m, PENDING), 1 << 7);
	CHECK_EQ(ioctl(m.vm, KVM_GET_CLOCK, &clock), 0);
	CHECK(clock.clock >= a.u.timer.expires_ns);
	CHECK_EQ(ioctl(m.vcpu, KVM_XEN_VCPU_GET_ATTR, &a), 0);
	CHECK_EQ(a.u.timer.expires_ns, 0);
}

static void test_route(void)
{
	struct machine m = machine_xen(0x40);
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry v[1];
	} r = {.head.nr = 1, .v[0] = {.gsi = 30, .type = KVM_IRQ_ROUTING_XEN_EVTCHN}};
	struct kvm_irq_level line = {.irq = 30, .level = 1};

	r.v[0].u.xen_evtchn.port = 9;
	CHECK_ERR(ioctl(m.vm, KVM_SET_GSI_ROUTING, &r), EINVAL); /* priority */
	r.v[0].u.xen_evtchn.priority = TWO_LEVEL;
	r.v[0].flags = 1;
	CHECK_ERR(ioctl(m.vm, KVM_SET_GSI_ROUTING, &r), EINVAL);
	r.v[0].flags = 0;
	CHECK_EQ(ioctl(m.vm, KVM_SET_GSI_ROUTING, &r), 0);
	CHECK_EQ(ioctl(m.vm, KVM_IRQ_LINE_STATUS, &line), 0);
	CHECK_EQ(line.status, 1);
	CHECK_EQ(ram64(&m, PENDING), 1 << 9);
	line.status = line.irq = 30;
	CHECK_EQ(ioctl(m.vm, KVM_IRQ_LINE_STATUS, &line), 0);
	CHECK_EQ(line.status, 0); /* pending already */
}

static int port(int vm, uint32_t from, uint32_t type, uint32_t flags, uint32_t to, int32_t vcpu,
		uint32_t priority)
{
	struct kvm_xen_hvm_attr a = {.type = KVM_XEN_ATTR_TYPE_EVTCHN};

	a.u.evtchn.send_port = from;
	a.u.evtchn.type = type;
	a.u.evtchn.flags = flags;
	a.u.evtchn.deliver.port.port = to;
	a.u.evtchn.deliver.port.vcpu = vcpu; /* the fd, if there is no port */
	a.u.evtchn.deliver.port.priority = priority;
	return ioctl(vm, KVM_XEN_HVM_SET_ATTR, &a);
}

static void test_ports(void)
{
	struct machine m = machine_irqchip();
	int event = eventfd(0, EFD_NONBLOCK);

	CHECK_ERR(port(m.vm, 0, INTERDOMAIN, 0, 0, event, 0), EINVAL);
	CHECK_ERR(port(m.vm, 1024, INTERDOMAIN, 0, 0, event, 0), EINVAL);
	CHECK_ERR(port(m.vm, 4, 1, 0, 4, 0, TWO_LEVEL), EINVAL);
	CHECK_ERR(port(m.vm, 4, 5, 0, 5, 0, TWO_LEVEL), EINVAL); /* an IPI is to itself */
	CHECK_ERR(port(m.vm, 4, INTERDOMAIN, 0, 1024, 0, TWO_LEVEL), EINVAL);
	CHECK_ERR(port(m.vm, 4, INTERDOMAIN, 0, 5, 0, 0), EINVAL);
	CHECK_ERR(port(m.vm, 4, INTERDOMAIN, 0, 0, -1, 0), EBADF);
	CHECK_ERR(port(m.vm, 4, INTERDOMAIN, 0, 0, m.kvm, 0), EINVAL);
	CHECK_ERR(port(m.vm, 4, INTERDOMAIN, 8, 5, 0, TWO_LEVEL), EINVAL);
	CHECK_ERR(port(m.vm, 4, INTERDOMAIN, KVM_XEN_EVTCHN_DEASSIGN, 0, 0, 0), ENOENT);
	CHECK_ERR(port(m.vm, 4, INTERDOMAIN, KVM_XEN_EVTCHN_UPDATE, 5, 1, TWO_LEVEL), ENOENT);
	CHECK_EQ(port(m.vm, 4, INTERDOMAIN, 0, 5, 0, TWO_LEVEL), 0);
	CHECK_ERR(port(m.vm, 4, INTERDOMAIN, 0, 5, 0, TWO_LEVEL), EEXIST);
	CHECK_ERR(port(m.vm, 4, INTERDOMAIN, KVM_XEN_EVTCHN_UPDATE, 6, 1, TWO_LEVEL), EINVAL);
	CHECK_EQ(port(m.vm, 4, INTERDOMAIN, KVM_XEN_EVTCHN_UPDATE, 5, 1, TWO_LEVEL), 0);
	CHECK_EQ(port(m.vm, 4, INTERDOMAIN, KVM_XEN_EVTCHN_DEASSIGN, 0, 0, 0), 0);
	CHECK_EQ(port(m.vm, 4, INTERDOMAIN, 0, 0, event, 0), 0);
	CHECK_EQ(port(m.vm, 0, 0, KVM_XEN_EVTCHN_RESET, 0, 0, 0), 0);
	CHECK_EQ(port(m.vm, 4, INTERDOMAIN, 0, 5, 0, TWO_LEVEL), 0);
}

/* ---- hypercalls: vmcall; out %al,$0x80; hlt in 32-bit code ---- */

static struct machine machine_calling(void)
{
	struct machine m = machine_irqchip();

	MACHINE_CODE(&m, 0x0f, 0x01, 0xc1, 0xe6, 0x80, 0xf4);
	lapic_enable(&m);
	machine_protect(&m);
	CHECK_EQ(config(m.vm, KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND),
		 0);
	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, SHARED_GPA >> 12), 0);
	return m;
}

static uint32_t result_of(struct machine *m, uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	struct kvm_regs regs = {.rax = nr, .rbx = a, .rcx = b, .rdx = c};

	restart(m, &regs);
	RUN_TO(m, KVM_EXIT_IO);
	return get_regs(m).rax;
}

static void test_call_exit(void)
{
	struct machine m = machine_calling();
	struct kvm_regs regs = {
		.rax = 77, .rbx = 1, .rcx = 2, .rdx = 3, .rsi = 4, .rdi = 5, .rbp = 6};

	restart(&m, &regs);
	RUN_TO(&m, KVM_EXIT_XEN);
	CHECK_EQ(m.run->xen.type, KVM_EXIT_XEN_HCALL);
	CHECK_EQ(m.run->xen.u.hcall.longmode, 0);
	CHECK_EQ(m.run->xen.u.hcall.cpl, 0);
	CHECK_EQ(m.run->xen.u.hcall.input, 77);
	for (unsigned i = 0; i < 6; i++)
		CHECK_EQ(m.run->xen.u.hcall.params[i], i + 1);
	m.run->xen.u.hcall.result = 0x99;
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(get_regs(&m).rax, 0x99);
	/* Whoever moved on does not get the result. */
	restart(&m, &regs);
	RUN_TO(&m, KVM_EXIT_XEN);
	regs.rax = 5;
	restart(&m, &regs);
	regs = get_regs(&m);
	regs.rip = CODE_GPA + 3;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(get_regs(&m).rax, 5);
}

static void test_calls(void)
{
	struct machine m = machine_calling();
	uint32_t args[4] = {0};

	CHECK_EQ(vm_set(m.vm, KVM_XEN_ATTR_TYPE_XEN_VERSION, 0x4000b), 0);
	CHECK_EQ(result_of(&m, 17, 0, 0, 0), 0x4000b);
	CHECK_EQ(result_of(&m, 29, 0, 0, 0), 0); /* yield */
	/* Sent to the guest's own port 12. */
	CHECK_EQ(port(m.vm, 4, INTERDOMAIN, 0, 12, 0, TWO_LEVEL), 0);
	args[0] = 4;
	memcpy(m.ram + TIME_GPA, args, sizeof(args));
	CHECK_EQ(result_of(&m, 32, 4, TIME_GPA, 0), 0);
	CHECK_EQ(ram32(&m, PENDING), 1 << 12);
	/* Nothing is there to be read. */
	CHECK_EQ(result_of(&m, 32, 4, 0x7fff0000, 0), (uint32_t)-EFAULT);
}

/* SCHEDOP_poll: { ports, nr, timeout }. */
static void test_poll(void)
{
	struct machine m = machine_calling();
	uint32_t args[4] = {TIME_GPA + 0x100, 1, 20000000, 0}, ports[1] = {12};
	struct kvm_clock_data before, after;

	memcpy(m.ram + TIME_GPA, args, sizeof(args));
	memcpy(m.ram + TIME_GPA + 0x100, ports, sizeof(ports));
	CHECK_EQ(ioctl(m.vm, KVM_GET_CLOCK, &before), 0);
	CHECK_EQ(result_of(&m, 29, 3, TIME_GPA, 0), 0);
	CHECK_EQ(ioctl(m.vm, KVM_GET_CLOCK, &after), 0);
	CHECK(after.clock - before.clock >= 20000000);
	/* Pending: no wait, however long. */
	args[3] = 1;
	memcpy(m.ram + TIME_GPA, args, sizeof(args));
	m.ram[PENDING + 1] = 1 << 4;
	CHECK_EQ(result_of(&m, 29, 3, TIME_GPA, 0), 0);
	ports[0] = 1024;
	memcpy(m.ram + TIME_GPA + 0x100, ports, sizeof(ports));
	CHECK_EQ(result_of(&m, 29, 3, TIME_GPA, 0), (uint32_t)-EINVAL);
	args[1] = 129;
	memcpy(m.ram + TIME_GPA, args, sizeof(args));
	CHECK_EQ(result_of(&m, 29, 3, TIME_GPA, 0), (uint32_t)-EINVAL);
	CHECK_EQ(result_of(&m, 29, 3, 0x7fff0000, 0), (uint32_t)-EFAULT);
}

static struct {
	int vm;
	bool done;
} mover;

static void *move_shared_info(void *arg)
{
	while (!__atomic_load_n(&mover.done, __ATOMIC_ACQUIRE)) {
		usleep(10000);
		CHECK_EQ(vm_set(mover.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, NOWHERE), 0);
		CHECK_EQ(vm_set(mover.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, STATE_GPA >> 12), 0);
	}
	return NULL;
}

/* A poll without a time limit ends when the shared info goes, or is elsewhere: a timer's event may have been lost. */
static void test_poll_moved(void)
{
	struct machine m = machine_calling();
	uint32_t args[4] = {TIME_GPA + 0x100, 1, 0, 0}, ports[1] = {12};
	pthread_t thread;

	memcpy(m.ram + TIME_GPA, args, sizeof(args));
	memcpy(m.ram + TIME_GPA + 0x100, ports, sizeof(ports));
	mover.vm = m.vm;
	CHECK_EQ(pthread_create(&thread, NULL, move_shared_info, NULL), 0);
	CHECK_EQ(result_of(&m, 29, 3, TIME_GPA, 0), 0);
	__atomic_store_n(&mover.done, true, __ATOMIC_RELEASE);
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* The page of calls is made here, or comes from the program. */
static void test_page(void)
{
	struct machine m = machine_irqchip();
	struct kvm_xen_hvm_config c = {.msr = PAGE_MSR, .blob_size_32 = 1};
	uint8_t *blob = map_ram(4096);

	MACHINE_CODE(&m, 0xf4);
	CHECK_EQ(config(m.vm, KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL), 0);
	CHECK_EQ(msr_set(m.vcpu, PAGE_MSR, STATE_GPA), 1);
	CHECK_EQ(m.ram[STATE_GPA + 5 * 32], 0xb8);
	CHECK_EQ(ram32(&m, STATE_GPA + 5 * 32 + 1), 5);
	CHECK_EQ(m.ram[STATE_GPA + 5 * 32 + 8], 0xc3);
	CHECK_EQ(msr_set(m.vcpu, PAGE_MSR, STATE_GPA + 1), 0);
	CHECK_EQ(msr_set(m.vcpu, PAGE_MSR, 0x7fff0000), 0);
	memset(blob, 0x5a, 4096);
	c.blob_addr_32 = (uintptr_t)blob;
	CHECK_EQ(ioctl(m.vm, KVM_XEN_HVM_CONFIG, &c), 0);
	CHECK_EQ(msr_set(m.vcpu, PAGE_MSR, TIME_GPA), 1);
	CHECK(!memcmp(m.ram + TIME_GPA, blob, 4096));
	CHECK_EQ(msr_set(m.vcpu, PAGE_MSR, TIME_GPA + 1), 0);
	c.blob_addr_32 = 0x1000;
	CHECK_EQ(ioctl(m.vm, KVM_XEN_HVM_CONFIG, &c), 0);
	CHECK(msr_set(m.vcpu, PAGE_MSR, TIME_GPA) <= 0);
	CHECK(!memcmp(m.ram + TIME_GPA, blob, 4096));
}

int main(void)
{
	test_config();
	test_vm_attrs();
	test_shared_info();
	test_vcpu_attrs();
	test_send();
	test_vm_vector();
	test_vcpu_vector();
	test_timer();
	test_route();
	test_ports();
	test_call_exit();
	test_calls();
	test_poll();
	test_poll_moved();
	test_page();
	return 0;
}
