/* SPDX-License-Identifier: MIT */
/*
 * Routing, irqfds, ioeventfds, coalesced zones, MSR filter and clock of a VM, with local APICs of
 * silicon/chips standing in for vCPUs. Expected answers: KVM api.rst and Linux's irqchip.c, eventfd.c.
 */
#include "vm_fake.h"

#include "kvm/vm/bus.h"
#include "kvm/vm/clock.h"
#include "kvm/vm/eventfd.h"
#include "kvm/vm/irqchip.h"
#include "kvm/vm/msr_filter.h"
#include "silicon/chips/lapic.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct lapic apic __attribute__((aligned(64)));

static void no_send(void *opaque, const struct apic_message *msg)
{
}

static void apic_eoi(void *opaque, uint8_t vector, bool level)
{
	vm_apic_eoi(opaque, &apic, vector, level);
}

static void no_timer(void *opaque, uint64_t expiry)
{
}

static uint64_t zero(void *opaque)
{
	return 0;
}

static void no_raised(void *opaque)
{
}

static bool no_event(void *opaque, enum apic_delivery what, uint8_t vector)
{
	return true;
}

static const struct lapic_ops apic_ops = {
	.send = no_send,
	.eoi = apic_eoi,
	.timer = no_timer,
	.now = zero,
	.tsc = zero,
	.raised = no_raised,
	.event = no_event,
};

static void add_apic(struct vm *vm)
{
	struct lapic_config config = {.id = 0, .bsp = true, .tsc_khz = 1000000};
	uint64_t val = LAPIC_SVR_ENABLED | 0xff;

	lapic_init(&apic, &apic_ops, vm, &config);
	assert_true(lapic_mmio_write(&apic, LAPIC_SVR, 4, val));
	vm->vcpus[0] = (struct vcpu *)&apic;
	vm->nr_vcpus = 1;
}

static struct kvm_irq_routing_entry chip(uint32_t gsi, uint32_t irqchip, uint32_t pin)
{
	struct kvm_irq_routing_entry e = {.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP};

	e.u.irqchip.irqchip = irqchip;
	e.u.irqchip.pin = pin;
	return e;
}

static struct kvm_irq_routing_entry msi(uint32_t gsi, uint32_t addr, uint32_t data)
{
	struct kvm_irq_routing_entry e = {.gsi = gsi, .type = KVM_IRQ_ROUTING_MSI};

	e.u.msi.address_lo = addr;
	e.u.msi.data = data;
	return e;
}

static long set_routing(struct vm *vm, unsigned nr, const struct kvm_irq_routing_entry *v)
{
	struct kvm_irq_routing *arg = calloc(1, sizeof(*arg) + nr * sizeof(*v));
	long r;

	arg->nr = nr;
	if (nr)
		memcpy(arg->entries, v, nr * sizeof(*v));
	r = vm_set_gsi_routing(vm, arg);
	free(arg);
	return r;
}

static void test_irqchip_creation(void **state)
{
	struct vm *vm = *state;
	struct kvm_irq_level line = {.irq = 4};
	struct kvm_irqchip state_arg = {.chip_id = 3};
	struct kvm_pit_config pit = {0};
	struct kvm_pit_state2 pit_state;

	assert_int_equal(set_routing(vm, 0, NULL), -EINVAL);
	assert_int_equal(vm_irq_line(vm, &line), -ENXIO);
	assert_int_equal(vm_get_irqchip(vm, &state_arg), -ENXIO);
	assert_int_equal(vm_create_pit2(vm, &pit), -ENOENT);
	assert_int_equal(vm_get_pit2(vm, &pit_state), -ENXIO);
	vm->created_vcpus = 1;
	assert_int_equal(vm_create_irqchip(vm, NULL), -EINVAL);
	vm->created_vcpus = 0;
	assert_int_equal(vm_create_irqchip(vm, NULL), 0);
	assert_int_equal(vm_create_irqchip(vm, NULL), -EEXIST);
	assert_int_equal(irqchip_split(vm, 24), -EEXIST);
	assert_int_equal(vm_get_irqchip(vm, &state_arg), -EINVAL);
	assert_int_equal(vm_set_irqchip(vm, &state_arg), -EINVAL);
	state_arg.chip_id = KVM_IRQCHIP_IOAPIC;
	assert_int_equal(vm_get_irqchip(vm, &state_arg), 0);
	assert_int_equal(state_arg.chip.ioapic.base_address, 0xfec00000);
	assert_int_equal(vm_create_pit2(vm, &pit), 0);
	assert_int_equal(vm_create_pit2(vm, &pit), -EEXIST);
	assert_int_equal(vm_get_pit2(vm, &pit_state), 0);
	/* Default routes: GSI 4 reaches PIC and I/O APIC; both are masked or unprogrammed. */
	assert_int_equal(vm_irq_line(vm, &line), 0);
}

static void test_split(void **state)
{
	struct vm *vm = *state;
	struct kvm_irq_routing_entry bad = chip(0, KVM_IRQCHIP_IOAPIC, 0), good = msi(0, 0, 0);

	assert_int_equal(irqchip_split(vm, 4097), -EINVAL);
	assert_int_equal(irqchip_split(vm, 24), 0);
	assert_int_equal(irqchip_split(vm, 24), -EEXIST);
	assert_int_equal(vm_create_irqchip(vm, NULL), -EEXIST);
	assert_int_equal(set_routing(vm, 1, &bad), -EINVAL);
	assert_int_equal(set_routing(vm, 1, &good), 0);
}

static void test_routing_checks(void **state)
{
	struct vm *vm = *state;
	struct kvm_irq_routing_entry v[3];

	assert_int_equal(vm_create_irqchip(vm, NULL), 0);
	v[0] = chip(4096, KVM_IRQCHIP_IOAPIC, 0);
	assert_int_equal(set_routing(vm, 1, v), -EINVAL);
	v[0] = chip(0, KVM_IRQCHIP_IOAPIC, 24);
	assert_int_equal(set_routing(vm, 1, v), -EINVAL);
	v[0] = chip(0, KVM_IRQCHIP_PIC_SLAVE, 8);
	assert_int_equal(set_routing(vm, 1, v), -EINVAL);
	v[0] = chip(0, 3, 0);
	assert_int_equal(set_routing(vm, 1, v), -EINVAL);
	v[0] = chip(7, KVM_IRQCHIP_IOAPIC, 0);
	v[1] = chip(7, KVM_IRQCHIP_IOAPIC, 1);
	assert_int_equal(set_routing(vm, 2, v), -EINVAL);
	v[1] = msi(7, 0xfee00000, 0x40);
	assert_int_equal(set_routing(vm, 2, v), -EINVAL);
	v[1] = chip(7, KVM_IRQCHIP_PIC_MASTER, 1);
	assert_int_equal(set_routing(vm, 2, v), 0);
	v[0].flags = 1;
	assert_int_equal(set_routing(vm, 2, v), -EINVAL);
	v[0] = msi(9, 0xfee00000, 0x40);
	v[0].type = 77;
	assert_int_equal(set_routing(vm, 1, v), -EINVAL);
}

static void test_msi(void **state)
{
	struct vm *vm = *state;
	struct kvm_msi arg = {.address_lo = 0xfee00000, .data = 0x51};
	struct kvm_irq_routing_entry route = msi(30, 0xfee00000, 0x52);

	assert_int_equal(vm_signal_msi(vm, &arg), -EINVAL);
	assert_int_equal(vm_create_irqchip(vm, NULL), 0);
	add_apic(vm);
	assert_int_equal(vm_signal_msi(vm, &arg), 1);
	assert_int_equal(lapic_pending_vector(&apic), 0x51);
	assert_int_equal(vm_signal_msi(vm, &arg), 1); /* a local APIC never says coalesced */
	arg.address_lo = 0xfee05000;
	assert_int_equal(vm_signal_msi(vm, &arg), 0); /* nobody has ID 5: blocked, as Linux says */
	arg.flags = 2;
	assert_int_equal(vm_signal_msi(vm, &arg), -EINVAL);
	assert_int_equal(set_routing(vm, 1, &route), 0);
	assert_int_equal(vm_set_irq(vm, 30, 0, IRQ_SOURCE_USER), -1);
	assert_int_equal(vm_set_irq(vm, 30, 1, IRQ_SOURCE_USER), 1);
	assert_int_equal(lapic_pending_vector(&apic), 0x52);
	assert_int_equal(vm_set_irq(vm, 31, 1, IRQ_SOURCE_USER), -1);
	assert_int_equal(vm_set_irq(vm, 1u << 31, 1, IRQ_SOURCE_USER), -1);
	vm->nr_vcpus = 0;
}

static bool poll_vector(int want)
{
	for (int i = 0; i < 1000 && lapic_pending_vector(&apic) != want; i++)
		usleep(1000);
	return lapic_pending_vector(&apic) == want;
}

static void test_irqfd(void **state)
{
	struct vm *vm = *state;
	struct kvm_irq_routing_entry route = msi(24, 0xfee00000, 0x61);
	struct kvm_irqfd arg = {.fd = eventfd(0, 0), .gsi = 24};
	int notfd = memfd_create("x", 0);
	uint64_t one = 1;

	assert_int_equal(vm_irqfd(vm, &arg), -EAGAIN);
	assert_int_equal(vm_create_irqchip(vm, NULL), 0);
	add_apic(vm);
	assert_int_equal(set_routing(vm, 1, &route), 0);
	arg.flags = 4;
	assert_int_equal(vm_irqfd(vm, &arg), -EINVAL);
	arg.flags = 0;
	assert_int_equal(vm_irqfd(vm, &arg), 0);
	assert_int_equal(vm_irqfd(vm, &arg), -EBUSY);
	assert_int_equal(write(arg.fd, &one, 8), 8);
	assert_true(poll_vector(0x61));
	arg.flags = KVM_IRQFD_FLAG_DEASSIGN;
	assert_int_equal(vm_irqfd(vm, &arg), 0);
	assert_int_equal(vm_irqfd(vm, &arg), 0); /* none left: no error, as in Linux */
	arg.flags = 0;
	assert_int_equal(vm_irqfd(vm, &(struct kvm_irqfd){.fd = 9999}), -EBADF);
	assert_int_equal(vm_irqfd(vm, &(struct kvm_irqfd){.fd = notfd}), -EINVAL);
	close(notfd);
	close(arg.fd);
	vm->nr_vcpus = 0;
}

static uint64_t counter(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

/* Level by a resampling irqfd: high until the guest's EOI, then the program is told. */
static void test_irqfd_resample(void **state)
{
	struct vm *vm = *state;
	struct kvm_irqfd arg = {.fd = eventfd(0, 0), .gsi = 10, .flags = KVM_IRQFD_FLAG_RESAMPLE};
	struct kvm_irqchip chips = {.chip_id = KVM_IRQCHIP_IOAPIC};
	uint64_t one = 1;

	arg.resamplefd = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(vm_create_irqchip(vm, NULL), 0);
	add_apic(vm);
	assert_int_equal(vm_get_irqchip(vm, &chips), 0);
	chips.chip.ioapic.redirtbl[10].bits = 0x71 | 1 << 15; /* level, to APIC 0, unmasked */
	assert_int_equal(vm_set_irqchip(vm, &chips), 0);
	assert_int_equal(vm_irqfd(vm, &arg), 0);
	assert_int_equal(write(arg.fd, &one, 8), 8);
	assert_true(poll_vector(0x71));
	assert_int_equal(lapic_ack(&apic), 0x71);
	assert_int_equal(counter(arg.resamplefd), 0);
	assert_true(lapic_mmio_write(&apic, LAPIC_EOI, 4, 0));
	assert_int_equal(counter(arg.resamplefd), 1);
	/* The line went low with the EOI: no second interrupt. */
	assert_int_equal(lapic_pending_vector(&apic), -1);
	close(arg.fd);
	close(arg.resamplefd);
	vm->nr_vcpus = 0;
}

static void test_resample_needs_full_irqchip(void **state)
{
	struct vm *vm = *state;
	struct kvm_irqfd arg = {.fd = eventfd(0, 0), .gsi = 1, .flags = KVM_IRQFD_FLAG_RESAMPLE};

	assert_int_equal(irqchip_split(vm, 24), 0);
	assert_int_equal(vm_irqfd(vm, &arg), -EINVAL);
	close(arg.fd);
}

static void test_ioeventfd(void **state)
{
	struct vm *vm = *state;
	int fd = eventfd(0, EFD_NONBLOCK), other = eventfd(0, EFD_NONBLOCK);
	struct kvm_ioeventfd arg = {.addr = 0x100, .len = 2, .fd = fd, .datamatch = 5};

	arg.flags = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH;
	assert_int_equal(vm_ioeventfd(vm, &arg), 0);
	assert_int_equal(vm_ioeventfd(vm, &arg), -EEXIST);
	assert_false(vm_bus_write(vm, NULL, true, 0x100, 2, 6));
	assert_false(vm_bus_write(vm, NULL, true, 0x100, 4, 5));
	assert_false(vm_bus_write(vm, NULL, false, 0x100, 2, 5));
	assert_false(vm_bus_write(vm, NULL, true, 0x101, 1, 5));
	assert_true(vm_bus_write(vm, NULL, true, 0x100, 2, 5));
	assert_int_equal(counter(fd), 1);
	arg.datamatch = 6;
	arg.fd = other;
	assert_int_equal(vm_ioeventfd(vm, &arg), 0);
	assert_true(vm_bus_write(vm, NULL, true, 0x100, 2, 6));
	assert_int_equal(counter(other), 1);
	assert_int_equal(counter(fd), 0);
	arg.flags = KVM_IOEVENTFD_FLAG_PIO; /* a wildcard collides with both */
	assert_int_equal(vm_ioeventfd(vm, &arg), -EEXIST);
	arg.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	assert_int_equal(vm_ioeventfd(vm, &arg), -ENOENT);
	arg.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
	assert_int_equal(vm_ioeventfd(vm, &arg), 0);
	assert_false(vm_bus_write(vm, NULL, true, 0x100, 2, 6));
	/* Length 0: any access to the address. */
	arg = (struct kvm_ioeventfd){.addr = 0xfe000000, .fd = other};
	assert_int_equal(vm_ioeventfd(vm, &arg), 0);
	assert_true(vm_bus_write(vm, NULL, false, 0xfe000000, 1, 1));
	assert_true(vm_bus_write(vm, NULL, false, 0xfe000000, 8, 2));
	assert_int_equal(counter(other), 2);
	close(fd);
	close(other);
}

static void test_ioeventfd_checks(void **state)
{
	struct vm *vm = *state;
	int fd = eventfd(0, 0);
	struct kvm_ioeventfd arg = {.addr = 0x100, .len = 3, .fd = fd};

	assert_int_equal(vm_ioeventfd(vm, &arg), -EINVAL);
	arg.len = 16;
	assert_int_equal(vm_ioeventfd(vm, &arg), -EINVAL);
	arg.len = 8;
	arg.addr = -4ull;
	assert_int_equal(vm_ioeventfd(vm, &arg), -EINVAL);
	arg.addr = 0;
	arg.flags = 1 << 4;
	assert_int_equal(vm_ioeventfd(vm, &arg), -EINVAL);
	arg.len = 0;
	arg.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
	assert_int_equal(vm_ioeventfd(vm, &arg), -EINVAL);
	arg.flags = 0;
	arg.fd = 9999;
	assert_int_equal(vm_ioeventfd(vm, &arg), -EBADF);
	close(fd);
}

static void test_coalesced(void **state)
{
	struct vm *vm = *state;
	struct kvm_coalesced_mmio_zone zone = {.addr = 0xa0000, .size = 0x1000};
	struct kvm_coalesced_mmio_ring *ring = (void *)fake_ram(4096);

	assert_int_equal(vm_register_coalesced(vm, &zone), 0);
	assert_false(vm_bus_write(vm, NULL, false, 0xa0000, 4, 1)); /* no ring yet */
	vm->ring = ring;
	assert_true(vm_bus_write(vm, NULL, false, 0xa0010, 4, 0x11223344));
	assert_int_equal(ring->last, 1);
	assert_int_equal(ring->coalesced_mmio[0].phys_addr, 0xa0010);
	assert_int_equal(ring->coalesced_mmio[0].len, 4);
	assert_int_equal(*(uint32_t *)ring->coalesced_mmio[0].data, 0x11223344);
	assert_false(vm_bus_write(vm, NULL, false, 0xa0ffe, 4, 1)); /* sticks out */
	assert_false(vm_bus_write(vm, NULL, true, 0xa0000, 4, 1));
	/* (4096 - 8) / 24 entries, one of which stays free. */
	for (int i = 1; i < 169; i++)
		assert_true(vm_bus_write(vm, NULL, false, 0xa0000, 1, i));
	assert_false(vm_bus_write(vm, NULL, false, 0xa0000, 1, 0));
	ring->first = 1;
	assert_true(vm_bus_write(vm, NULL, false, 0xa0000, 1, 0));
	ring->last = 4000; /* a program's nonsense */
	assert_false(vm_bus_write(vm, NULL, false, 0xa0000, 1, 0));
	ring->last = 0;
	zone.pio = 2;
	assert_int_equal(vm_register_coalesced(vm, &zone), -EINVAL);
	zone.pio = 0;
	zone.addr += 8; /* unregistering names a part: the zone around it goes */
	zone.size = 8;
	assert_int_equal(vm_unregister_coalesced(vm, &zone), 0);
	assert_false(vm_bus_write(vm, NULL, false, 0xa0010, 4, 1));
	munmap(ring, 4096);
}

static void test_msr_filter(void **state)
{
	struct vm *vm = *state;
	uint8_t bits[8] = {0xfe, 0xff};
	struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};

	fake_faults();
	assert_true(vm_msr_allowed(vm, 0x35, false));
	assert_int_equal(vm_set_msr_filter(vm, &filter), -EINVAL); /* deny all: refused */
	filter.flags = 2;
	assert_int_equal(vm_set_msr_filter(vm, &filter), -EINVAL);
	filter.flags = 0;
	filter.ranges[2] = (struct kvm_msr_filter_range){
		.flags = KVM_MSR_FILTER_READ, .nmsrs = 9, .base = 0x35, .bitmap = bits};
	assert_int_equal(vm_set_msr_filter(vm, &filter), 0);
	assert_false(vm_msr_allowed(vm, 0x35, false));
	assert_true(vm_msr_allowed(vm, 0x35, true));
	assert_true(vm_msr_allowed(vm, 0x36, false));
	filter.flags = KVM_MSR_FILTER_DEFAULT_DENY;
	assert_int_equal(vm_set_msr_filter(vm, &filter), 0);
	assert_true(vm_msr_allowed(vm, 0x36, false));
	assert_false(vm_msr_allowed(vm, 0x36, true));
	assert_true(vm_msr_allowed(vm, 0x800, true)); /* x2APIC: never filtered */
	assert_true(vm_msr_allowed(vm, 0x8ff, false));
	assert_false(vm_msr_allowed(vm, 0x900, false));
	filter.ranges[2].bitmap = NULL;
	assert_int_equal(vm_set_msr_filter(vm, &filter), -EFAULT);
	filter.ranges[2].flags = 0;
	assert_int_equal(vm_set_msr_filter(vm, &filter), -EINVAL);
	filter.ranges[2].flags = 4;
	assert_int_equal(vm_set_msr_filter(vm, &filter), -EINVAL);
	filter.ranges[2].flags = KVM_MSR_FILTER_READ;
	filter.ranges[2].nmsrs = 0x600 * 8 + 1;
	assert_int_equal(vm_set_msr_filter(vm, &filter), -EINVAL);
	assert_true(vm_msr_allowed(vm, 0x36, false)); /* what failed changed nothing */
}

static void test_clock(void **state)
{
	struct vm *vm = *state;
	struct kvm_clock_data data = {0}, later = {0};
	uint64_t before = host_monotonic_ns();

	assert_int_equal(vm_get_clock(vm, &data), 0);
	assert_int_equal(data.flags, 2 | 4 | 8);
	usleep(20000);
	assert_int_equal(vm_get_clock(vm, &later), 0);
	/* The clock runs at the rate of real time, within a percent and the time of two calls. */
	assert_in_range(later.clock - data.clock, 19800000,
			(host_monotonic_ns() - before) * 101 / 100 + 1000000);
	data.flags = 1;
	assert_int_equal(vm_set_clock(vm, &data), -EINVAL);
	data.flags = 0;
	data.clock = 5000000000000;
	assert_int_equal(vm_set_clock(vm, &data), 0);
	assert_int_equal(vm_get_clock(vm, &later), 0);
	assert_in_range(later.clock, 5000000000000, 5000000000000 + 1000000000);
	/* With realtime: the time that passed since is added. */
	data.flags = KVM_CLOCK_REALTIME;
	data.realtime = later.realtime - 7000000000;
	assert_int_equal(vm_set_clock(vm, &data), 0);
	assert_int_equal(vm_get_clock(vm, &later), 0);
	assert_in_range(later.clock, 5007000000000, 5007000000000 + 1000000000);
}

static void test_clock_scale(void **state)
{
	static const uint64_t khz[] = {100000, 999999, 1000000, 1000001, 2596122, 5000000};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(khz); i++) {
		uint32_t mul;
		int8_t shift;
		uint64_t second;

		clock_scale(khz[i], &mul, &shift);
		/* The pvclock formula over one second's cycles gives one second, to 1 in 10^7. */
		second = khz[i] * 1000;
		second = shift < 0 ? second >> -shift : second << shift;
		second = ((unsigned __int128)second * mul) >> 32;
		assert_in_range(second, 999999900, 1000000100);
	}
}

static void test_small_settings(void **state)
{
	struct vm *vm = *state;
	uint64_t addr = 0xfeffc000;

	fake_faults();
	assert_int_equal(vm_set_tss_addr(vm, (void *)0xfffbd000), 0);
	assert_int_equal(vm_set_tss_addr(vm, (void *)0xffffd000), 0);
	assert_int_equal(vm_set_tss_addr(vm, (void *)0xffffd001), -EINVAL);
	assert_int_equal(vm_set_identity_map_addr(vm, &addr), 0);
	assert_int_equal(vm_set_identity_map_addr(vm, NULL), -EFAULT);
	assert_int_equal(vm_set_nr_mmu_pages(vm, (void *)63), -EINVAL);
	assert_int_equal(vm_set_nr_mmu_pages(vm, (void *)64), 0);
	assert_int_equal(vm_set_boot_cpu_id(vm, (void *)4096), 0);
	assert_int_equal(vm_set_boot_cpu_id(vm, (void *)4097), -EINVAL);
	vm->created_vcpus = 1;
	assert_int_equal(vm_set_boot_cpu_id(vm, (void *)0), -EBUSY);
	assert_int_equal(vm_set_identity_map_addr(vm, &addr), -EINVAL);
	assert_int_equal(vm_set_tsc_khz(vm, (void *)1234567), 0);
	assert_int_equal(vm_get_tsc_khz(vm, NULL), 1234567);
	assert_int_equal(vm_set_tsc_khz(vm, 0), 0);
	assert_int_equal(vm_get_tsc_khz(vm, NULL), host_tsc_khz());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(test_irqchip_creation),
		fake_test(test_split),
		fake_test(test_routing_checks),
		fake_test(test_msi),
		fake_test(test_irqfd),
		fake_test(test_irqfd_resample),
		fake_test(test_resample_needs_full_irqchip),
		fake_test(test_ioeventfd),
		fake_test(test_ioeventfd_checks),
		fake_test(test_coalesced),
		fake_test(test_msr_filter),
		fake_test(test_clock),
		fake_test(test_clock_scale),
		fake_test(test_small_settings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
