/* SPDX-License-Identifier: MIT */
/*
 * vhost NAME: a virtqueue of the guest's served outside of KVM_RUN, kicked by an ioeventfd and answered by an irqfd.
 *
 * NAME: kernel (/dev/vhost-net, its other end a packet socket on the loopback device, where the frames must come out: it
 * needs the device and CAP_NET_RAW, and is skipped without), program (the same by a thread of this program, which shows that guest and queue
 * are right where there is no vhost). The guest makes one frame of two descriptors available at a time.
 */
#include "pv.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/vhost.h>
#include <linux/virtio_ring.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define QUEUE	   1 /* vhost-net's of frames to send */
#define SIZE	   8 /* descriptors */
#define DESC	   0x4000
#define AVAIL	   0x5000
#define USED	   0x6000
#define HEADER	   0x7000 /* struct virtio_net_hdr: zeroes */
#define FRAME	   0x8000
#define FRAME_SIZE 64u
#define TYPE	   0x88b5 /* for experiments */
#define NUMBER	   20	  /* in the frame: which it is */
#define DOORBELL   0x90
#define VECTOR	   0x41
#define GSI	   24
#define ROUNDS	   500u
#define HEADER_LEN 10

struct stand {
	struct machine m;
	int kick, call;
	int wire;		 /* kernel: where the frames come out */
	volatile uint32_t taken; /* program: number in the frame that was taken last */
};

/* incw AVAIL+2; sti; out %al,$DOORBELL; 1: hlt; jmp 1b */
static void make_guest(struct stand *s)
{
	static const uint8_t handler[] = {0xe6, 0x80, 0xf4};
	const uint32_t entry = HANDLER_GPA;

	s->m = machine_irqchip();
	memcpy(s->m.ram + HANDLER_GPA, handler, sizeof(handler));
	memcpy(s->m.ram + 4 * VECTOR, &entry, sizeof(entry));
	MACHINE_CODE(&s->m, 0xff, 0x06, (AVAIL + 2) & 0xff, (AVAIL + 2) >> 8, 0xfb, 0xe6, DOORBELL,
		     0xf4, 0xeb, 0xfd);
	lapic_enable(&s->m);
}

static void make_queue(struct stand *s)
{
	struct vring_desc desc[2] = {
		{.addr = HEADER, .len = HEADER_LEN, .flags = VRING_DESC_F_NEXT, .next = 1},
		{.addr = FRAME, .len = FRAME_SIZE},
	};
	const uint16_t type = htons(TYPE);

	memcpy(s->m.ram + DESC, desc, sizeof(desc));
	memcpy(s->m.ram + FRAME + 12, &type, sizeof(type));
}

static void make_eventfds(struct stand *s)
{
	struct kvm_ioeventfd doorbell = {
		.addr = DOORBELL, .len = 1, .flags = KVM_IOEVENTFD_FLAG_PIO};
	struct kvm_irqfd irq = {.gsi = GSI};
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry v[1];
	} r = {.head.nr = 1, .v[0] = {.gsi = GSI, .type = KVM_IRQ_ROUTING_MSI}};

	r.v[0].u.msi.address_lo = 0xfee00000;
	r.v[0].u.msi.data = VECTOR;
	doorbell.fd = s->kick = eventfd(0, EFD_CLOEXEC);
	irq.fd = s->call = eventfd(0, EFD_CLOEXEC);
	CHECK(s->kick >= 0 && s->call >= 0);
	CHECK_EQ(ioctl(s->m.vm, KVM_SET_GSI_ROUTING, &r), 0);
	CHECK_EQ(ioctl(s->m.vm, KVM_IOEVENTFD, &doorbell), 0);
	CHECK_EQ(ioctl(s->m.vm, KVM_IRQFD, &irq), 0);
}

/* ---- by this program ---- */

static void *serve(void *opaque)
{
	struct stand *s = opaque;
	uint64_t count, one = 1;

	for (uint16_t done = 0; read(s->kick, &count, sizeof(count)) == sizeof(count);) {
		struct vring_used *used = (void *)(s->m.ram + USED);
		struct vring_avail *avail = (void *)(s->m.ram + AVAIL);

		CHECK_EQ(__atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE), (uint16_t)(done + 1));
		used->ring[done % SIZE] = (struct vring_used_elem){0};
		s->taken = ram32(&s->m, FRAME + NUMBER);
		__atomic_store_n(&used->idx, ++done, __ATOMIC_RELEASE);
		CHECK_EQ(write(s->call, &one, sizeof(one)), sizeof(one));
	}
	return NULL;
}

static void begin_program(struct stand *s)
{
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, serve, s), 0);
}

/* ---- by the kernel ---- */

static void skip(const char *why)
{
	printf("vhost: %s: %s\n", why, strerror(errno));
	exit(77);
}

static int packet_socket(void)
{
	struct sockaddr_ll addr = {.sll_family = AF_PACKET, .sll_protocol = htons(TYPE)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(TYPE));

	if (fd < 0)
		skip("no packet socket");
	addr.sll_ifindex = if_nametoindex("lo");
	CHECK_EQ(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static int open_vhost(void)
{
	int fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		skip("/dev/vhost-net cannot be opened");
	return fd;
}

static void tell_memory(const struct stand *s, int vhost)
{
	struct {
		struct vhost_memory head;
		struct vhost_memory_region v[1];
	} memory = {.head.nregions = 1};

	memory.v[0].memory_size = RAM_SIZE;
	memory.v[0].userspace_addr = (uintptr_t)s->m.ram;
	CHECK_EQ(ioctl(vhost, VHOST_SET_MEM_TABLE, &memory), 0);
}

static void tell_queue(const struct stand *s, int vhost)
{
	struct vhost_vring_state size = {.index = QUEUE, .num = SIZE}, base = {.index = QUEUE};
	struct vhost_vring_addr addr = {
		.index = QUEUE,
		.desc_user_addr = (uintptr_t)s->m.ram + DESC,
		.avail_user_addr = (uintptr_t)s->m.ram + AVAIL,
		.used_user_addr = (uintptr_t)s->m.ram + USED,
	};
	struct vhost_vring_file kick = {.index = QUEUE, .fd = s->kick};
	struct vhost_vring_file call = {.index = QUEUE, .fd = s->call};

	CHECK_EQ(ioctl(vhost, VHOST_SET_VRING_NUM, &size), 0);
	CHECK_EQ(ioctl(vhost, VHOST_SET_VRING_BASE, &base), 0);
	CHECK_EQ(ioctl(vhost, VHOST_SET_VRING_ADDR, &addr), 0);
	CHECK_EQ(ioctl(vhost, VHOST_SET_VRING_KICK, &kick), 0);
	CHECK_EQ(ioctl(vhost, VHOST_SET_VRING_CALL, &call), 0);
}

static void begin_kernel(struct stand *s)
{
	struct vhost_vring_file backend = {.index = QUEUE};
	uint64_t features = 1ull << VHOST_NET_F_VIRTIO_NET_HDR;
	int vhost = open_vhost();

	s->wire = packet_socket();
	backend.fd = packet_socket();
	CHECK_EQ(ioctl(vhost, VHOST_SET_OWNER, 0), 0);
	CHECK_EQ(ioctl(vhost, VHOST_SET_FEATURES, &features), 0);
	tell_memory(s, vhost);
	tell_queue(s, vhost);
	CHECK_EQ(ioctl(vhost, VHOST_NET_SET_BACKEND, &backend), 0);
}

/* The frame comes out of the loopback device, perhaps behind copies of the one before. */
static void check_wire(const struct stand *s, uint32_t number)
{
	uint8_t frame[2048];
	uint32_t came = 0;

	while (came != number) {
		struct pollfd wait = {.fd = s->wire, .events = POLLIN};

		CHECK_EQ(poll(&wait, 1, 60000), 1);
		CHECK(recv(s->wire, frame, sizeof(frame), 0) >= (ssize_t)FRAME_SIZE);
		memcpy(&came, frame + NUMBER, sizeof(came));
	}
}

/* ---- a frame ---- */

static void send_one(struct stand *s, uint32_t number)
{
	uint16_t used;

	memcpy(s->m.ram + FRAME + NUMBER, &number, sizeof(number));
	machine_start(&s->m);
	RUN_TO(&s->m, KVM_EXIT_IO);
	CHECK_EQ(s->m.run->io.port, 0x80);
	CHECK(in_service(&s->m, VECTOR));
	memcpy(&used, s->m.ram + USED + 2, sizeof(used));
	CHECK_EQ(used, (uint16_t)number);
	if (s->wire)
		check_wire(s, number);
	else
		CHECK_EQ(s->taken, number);
}

/* As the guest's end of interrupt. */
static void end_interrupt(const struct stand *s)
{
	struct kvm_lapic_state state;

	CHECK_EQ(ioctl(s->m.vcpu, KVM_GET_LAPIC, &state), 0);
	memset(state.regs + LAPIC_ISR, 0, 0x80);
	CHECK_EQ(ioctl(s->m.vcpu, KVM_SET_LAPIC, &state), 0);
}

int main(int argc, char **argv)
{
	struct stand s = {0};

	CHECK_EQ(argc, 2);
	make_guest(&s);
	make_queue(&s);
	make_eventfds(&s);
	if (!strcmp(argv[1], "kernel"))
		begin_kernel(&s);
	else
		begin_program(&s);
	for (uint32_t i = 1; i <= ROUNDS; i++) {
		send_one(&s, i);
		end_interrupt(&s);
	}
	return 0;
}
