/* SPDX-License-Identifier: MIT */
/*
 * Ports: who may use them (SDM, I/O privilege level and permission bitmap), and one access.
 *
 * A read that nobody in the process answers becomes an exit and is taken from the recorded answers
 * when the instruction runs again; a write goes to cpu->out and the instruction commits.
 */
#include "silicon/sys/sys_internal.h"

static enum result check_bitmap(struct cpu *cpu, uint16_t port, unsigned size)
{
	const struct segment *tr = &cpu->seg[SEG_TR];
	uint64_t base, bits;
	enum result r;

	/* A 16-bit TSS has no map. */
	if ((tr->attr & SEG_UNUSABLE) || !(tr->attr & 8) || tr->limit < 103)
		return fault_gp(cpu, 0);
	r = mmu_read_sys(cpu, tr->base + 102, 2, &base);
	if (r)
		return r;
	base += port / 8;
	/* Two bytes are read, wherever the port's bits lie: the map ends with a byte of ones. */
	if (base + 1 > tr->limit)
		return fault_gp(cpu, 0);
	r = mmu_read_sys(cpu, tr->base + base, 2, &bits);
	if (r)
		return r;
	if (bits >> (port & 7) & (BIT(size) - 1))
		return fault_gp(cpu, 0);
	return RESULT_OK;
}

enum result sys_io_check(struct cpu *cpu, uint16_t port, unsigned size)
{
	unsigned iopl = (cpu->sflags & FLAG_IOPL) >> 12;

	if (cpu->mode.real || (!cpu->mode.v86 && cpu->mode.cpl <= iopl))
		return RESULT_OK;
	return check_bitmap(cpu, port, size);
}

static enum result io_read_exit(struct cpu *cpu, uint16_t port, unsigned size)
{
	cpu->exit = (struct cpu_exit){
		.kind = CPU_EXIT_IO_READ,
		.addr = port,
		.size = size,
		.count = 1,
	};
	return RESULT_EXIT;
}

enum result sys_io_read(struct cpu *cpu, uint16_t port, unsigned size, uint64_t *ret)
{
	const struct answer *a = answers_take(cpu, ANSWER_IO, port, size);

	if (a)
		*ret = a->data;
	else if (platform_call(cpu, pio_read, port, size, ret) != PLATFORM_DONE)
		return io_read_exit(cpu, port, size);
	sys_check_io_bp(cpu, port, size);
	return RESULT_OK;
}

enum result sys_io_write(struct cpu *cpu, uint16_t port, unsigned size, uint64_t val)
{
	struct out_writes *out = &cpu->out;

	if (platform_call(cpu, pio_write, port, size, val) != PLATFORM_DONE) {
		if (out->nr == MAX_WRITES)
			return RESULT_AGAIN;
		out->v[out->nr++] = (struct out_write){
			.is_port = true,
			.size = size,
			.addr = port,
			.data = val,
		};
	}
	sys_check_io_bp(cpu, port, size);
	return RESULT_OK;
}
