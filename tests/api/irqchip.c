/* SPDX-License-Identifier: MIT */
/* In-kernel interrupt controllers and the PIT: order of creation, state, what is refused. */
#include "api_test.h"

static void test_absent(void)
{
	struct machine m = machine_open();
	struct kvm_irqchip chip = {0};
	struct kvm_irq_level line = {0};
	struct kvm_irq_routing routing = {0};
	struct kvm_pit_config pit = {0};
	struct kvm_pit_state2 state;
	struct kvm_reinject_control reinject = {0};
	struct kvm_msi msi = {0};

	CHECK_ERR(ioctl(m.vm, KVM_GET_IRQCHIP, &chip), ENXIO);
	CHECK_ERR(ioctl(m.vm, KVM_SET_IRQCHIP, &chip), ENXIO);
	CHECK_ERR(ioctl(m.vm, KVM_IRQ_LINE, &line), ENXIO);
	CHECK_ERR(ioctl(m.vm, KVM_SET_GSI_ROUTING, &routing), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_CREATE_PIT2, &pit), ENOENT);
	CHECK_ERR(ioctl(m.vm, KVM_GET_PIT2, &state), ENXIO);
	CHECK_ERR(ioctl(m.vm, KVM_SET_PIT2, &state), ENXIO);
	CHECK_ERR(ioctl(m.vm, KVM_REINJECT_CONTROL, &reinject), ENXIO);
	CHECK_ERR(ioctl(m.vm, KVM_REINJECT_CONTROL, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(m.vm, KVM_SIGNAL_MSI, &msi), EINVAL);
	CHECK(ioctl(m.vm, KVM_CREATE_VCPU, 0) >= 0);
	CHECK_ERR(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), EINVAL);
}

static void test_state(void)
{
	struct machine m = machine_open();
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_ERR(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), EEXIST);
	CHECK_ERR(enable_cap(m.vm, KVM_CAP_SPLIT_IRQCHIP, 24), EEXIST);
	CHECK_EQ(ioctl(m.vm, KVM_GET_IRQCHIP, &chip), 0);
	CHECK_EQ(chip.chip.ioapic.base_address, 0xfec00000);
	for (int i = 0; i < 24; i++)
		CHECK_EQ(chip.chip.ioapic.redirtbl[i].fields.mask, 1);
	chip.chip.ioapic.redirtbl[5].bits = 0x10077;
	CHECK_EQ(ioctl(m.vm, KVM_SET_IRQCHIP, &chip), 0);
	memset(&chip.chip, 0, sizeof(chip.chip));
	CHECK_EQ(ioctl(m.vm, KVM_GET_IRQCHIP, &chip), 0);
	CHECK_EQ(chip.chip.ioapic.redirtbl[5].bits, 0x10077);
	chip.chip_id = KVM_IRQCHIP_PIC_SLAVE;
	CHECK_EQ(ioctl(m.vm, KVM_GET_IRQCHIP, &chip), 0);
	chip.chip.pic.imr = 0xa5;
	CHECK_EQ(ioctl(m.vm, KVM_SET_IRQCHIP, &chip), 0);
	chip.chip.pic.imr = 0;
	CHECK_EQ(ioctl(m.vm, KVM_GET_IRQCHIP, &chip), 0);
	CHECK_EQ(chip.chip.pic.imr, 0xa5);
	chip.chip_id = 3;
	CHECK_ERR(ioctl(m.vm, KVM_GET_IRQCHIP, &chip), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_SET_IRQCHIP, &chip), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_GET_IRQCHIP, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(m.vm, KVM_SET_IRQCHIP, BAD_POINTER), EFAULT);
}

static void test_line_status(void)
{
	struct machine m = machine_open();
	struct kvm_irq_level line = {.irq = 3, .level = 1};

	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_EQ(ioctl(m.vm, KVM_IRQ_LINE, &line), 0);
	line.irq = 23; /* routed to the I/O APIC alone, which masks it */
	CHECK_EQ(ioctl(m.vm, KVM_IRQ_LINE_STATUS, &line), 0);
	CHECK(line.status <= 0);
	line.irq = 4000;
	CHECK_EQ(ioctl(m.vm, KVM_IRQ_LINE_STATUS, &line), 0);
	CHECK_EQ(line.status, -1);
	CHECK_ERR(ioctl(m.vm, KVM_IRQ_LINE_STATUS, BAD_POINTER), EFAULT);
}

static void test_pit(void)
{
	struct machine m = machine_open();
	struct kvm_pit_config config = {.flags = KVM_PIT_SPEAKER_DUMMY};
	struct kvm_pit_state2 state, back;
	struct kvm_pit_state old;
	struct kvm_reinject_control reinject = {.pit_reinject = 0};

	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_ERR(ioctl(m.vm, KVM_CREATE_PIT2, BAD_POINTER), EFAULT);
	CHECK_EQ(ioctl(m.vm, KVM_CREATE_PIT2, &config), 0);
	CHECK_ERR(ioctl(m.vm, KVM_CREATE_PIT2, &config), EEXIST);
	CHECK_ERR(ioctl(m.vm, KVM_CREATE_PIT, 0), EEXIST);
	CHECK_EQ(ioctl(m.vm, KVM_GET_PIT2, &state), 0);
	state.channels[2].count = 0x1234;
	state.channels[2].mode = 3;
	CHECK_EQ(ioctl(m.vm, KVM_SET_PIT2, &state), 0);
	CHECK_EQ(ioctl(m.vm, KVM_GET_PIT2, &back), 0);
	CHECK_EQ(back.channels[2].count, 0x1234);
	CHECK_EQ(back.channels[2].mode, 3);
	CHECK_EQ(ioctl(m.vm, KVM_GET_PIT, &old), 0);
	CHECK_EQ(old.channels[2].count, 0x1234);
	old.channels[2].count = 0x4321;
	CHECK_EQ(ioctl(m.vm, KVM_SET_PIT, &old), 0);
	CHECK_EQ(ioctl(m.vm, KVM_GET_PIT2, &back), 0);
	CHECK_EQ(back.channels[2].count, 0x4321);
	CHECK_EQ(ioctl(m.vm, KVM_REINJECT_CONTROL, &reinject), 0);
	CHECK_ERR(ioctl(m.vm, KVM_GET_PIT2, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(m.vm, KVM_SET_PIT2, BAD_POINTER), EFAULT);
}

static void test_routing(void)
{
	struct machine m = machine_open();
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry v[2];
	} r = {.head.nr = 1};

	CHECK_ERR(enable_cap(m.vm, KVM_CAP_SPLIT_IRQCHIP, 4097), EINVAL);
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_SPLIT_IRQCHIP, 24), 0);
	CHECK_ERR(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), EEXIST);
	CHECK_ERR(ioctl(m.vm, KVM_GET_IRQCHIP, &r), ENXIO);
	r.v[0].type = KVM_IRQ_ROUTING_IRQCHIP;
	CHECK_ERR(ioctl(m.vm, KVM_SET_GSI_ROUTING, &r), EINVAL);
	r.v[0].type = KVM_IRQ_ROUTING_MSI;
	CHECK_EQ(ioctl(m.vm, KVM_SET_GSI_ROUTING, &r), 0);
	r.v[0].gsi = 4096;
	CHECK_ERR(ioctl(m.vm, KVM_SET_GSI_ROUTING, &r), EINVAL);
	r.v[0].gsi = 0;
	r.head.flags = 1;
	CHECK_ERR(ioctl(m.vm, KVM_SET_GSI_ROUTING, &r), EINVAL);
	r.head.flags = 0;
	r.head.nr = 4097;
	CHECK_ERR(ioctl(m.vm, KVM_SET_GSI_ROUTING, &r), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_SET_GSI_ROUTING, BAD_POINTER), EFAULT);
}

int main(void)
{
	test_absent();
	test_state();
	test_line_status();
	test_pit();
	test_routing();
	return 0;
}
