/* SPDX-License-Identifier: MIT */
/*
 * The 8259A pair, after its data sheet.
 *
 * Each input has a request bit (IRR, set by an edge, or by the level where ELCR says so), a mask
 * bit (IMR) and an in-service bit (ISR). request() is the whole priority logic; everything else
 * moves bits and then calls update(), which forwards the slave's request to input 2 of the master
 * and drives INTR.
 *
 * Two choices follow KVM, for they show in saved state: the cascade is a latch (the slave pulses
 * input 2, a withdrawn request ends as the slave's spurious vector), and ICW1 keeps ISR but for
 * the inputs whose edge it forgets.
 */
#include "silicon/chips/pic.h"

#define NO_PRIORITY 8
#define CASCADE	    2
#define SPURIOUS    7

static unsigned offset_of(const struct pic *pic, const struct pic_state *s)
{
	return s == &pic->half[1] ? 8 : 0;
}

/* The best rank in mask: 0 is the highest priority, NO_PRIORITY means an empty mask. */
static unsigned rank(const struct pic_state *s, uint8_t mask)
{
	unsigned turn = s->priority_add & 7;
	unsigned rotated = (mask >> turn | mask << (8 - turn)) & 0xff;

	return rotated ? (unsigned)__builtin_ctz(rotated) : NO_PRIORITY;
}

static unsigned input_of_rank(const struct pic_state *s, unsigned r)
{
	return (r + s->priority_add) & 7;
}

/* In-service bits that hold lower priorities back. */
static uint8_t holding(const struct pic *pic, const struct pic_state *s)
{
	uint8_t isr = s->isr;

	if (s->special_mask)
		isr &= ~s->imr;
	/* Special fully nested mode: the slave's second request passes its first. */
	if (s->special_fully_nested_mode && s == &pic->half[0])
		isr &= ~(1u << CASCADE);
	return isr;
}

/* The input that this half requests service for, or -1. */
static int request(const struct pic *pic, const struct pic_state *s)
{
	unsigned r = rank(s, s->irr & ~s->imr);

	if (r == NO_PRIORITY || r >= rank(s, holding(pic, s)))
		return -1;
	return (int)input_of_rank(s, r);
}

static void set_output(struct pic *pic, bool level)
{
	if (pic->output == level)
		return;
	__atomic_store_n(&pic->output, level, __ATOMIC_RELAXED);
	pic->ops->intr(pic->opaque, level);
}

static void update(struct pic *pic)
{
	if (request(pic, &pic->half[1]) >= 0) {
		struct pic_state *master = &pic->half[0];

		if (!(master->last_irr & 1u << CASCADE))
			master->irr |= 1u << CASCADE;
		master->last_irr &= ~(1u << CASCADE);
	}
	set_output(pic, request(pic, &pic->half[0]) >= 0);
}

static void end_service(struct pic *pic, struct pic_state *s, unsigned irq)
{
	s->isr &= ~(1u << irq);
	if (pic->ops->eoi)
		pic->ops->eoi(pic->opaque, irq + offset_of(pic, s));
}

/* Move one input: 1 = new request, 0 = one was pending already. */
static int drive(struct pic_state *s, unsigned irq, bool level)
{
	uint8_t mask = 1u << irq;
	bool edge = !(s->elcr & mask);
	int ret = 1;

	if (level && !(edge && s->last_irr & mask)) {
		ret = !(s->irr & mask);
		s->irr |= mask;
	} else if (!level && !edge) {
		s->irr &= ~mask;
	}
	s->last_irr = level ? s->last_irr | mask : s->last_irr & ~mask;
	return s->imr & mask ? -1 : ret;
}

int pic_set_irq_from(struct pic *pic, unsigned irq, unsigned source, bool level)
{
	int ret;

	if (level)
		pic->lines[irq] |= 1u << source;
	else
		pic->lines[irq] &= ~(1u << source);
	ret = drive(&pic->half[irq >> 3], irq & 7, pic->lines[irq] != 0);
	update(pic);
	return ret;
}

static void acknowledge(struct pic *pic, struct pic_state *s, unsigned irq)
{
	uint8_t mask = 1u << irq;

	s->isr |= mask;
	if (!(s->elcr & mask))
		s->irr &= ~mask;
	if (!s->auto_eoi)
		return;
	if (s->rotate_on_auto_eoi)
		s->priority_add = (irq + 1) & 7;
	end_service(pic, s, irq);
}

/* INTA at one half: its input, or the spurious one. */
static unsigned take(struct pic *pic, struct pic_state *s)
{
	int irq = request(pic, s);

	if (irq < 0)
		return SPURIOUS;
	acknowledge(pic, s, (unsigned)irq);
	return (unsigned)irq;
}

uint8_t pic_read_irq(struct pic *pic)
{
	struct pic_state *s = &pic->half[0];
	unsigned irq;

	/* INTA drops INTR; a request that remains raises it anew. */
	__atomic_store_n(&pic->output, false, __ATOMIC_RELAXED);
	irq = take(pic, s);
	if (irq == CASCADE) {
		s = &pic->half[1];
		irq = take(pic, s);
	}
	update(pic);
	return s->irq_base + irq;
}

/* ICW1. */
static void start_init(struct pic *pic, struct pic_state *s, uint8_t val)
{
	uint8_t edges = s->irr & ~s->elcr;

	s->init4 = val & 1;
	s->last_irr = 0;
	s->irr &= s->elcr;
	s->imr = 0;
	s->priority_add = 0;
	s->special_mask = 0;
	s->read_reg_select = 0;
	if (!s->init4) {
		s->special_fully_nested_mode = 0;
		s->auto_eoi = 0;
	}
	s->init_state = 1;
	for (unsigned irq = 0; irq < 8; irq++)
		if (edges & 1u << irq)
			end_service(pic, s, irq);
	/* New requests wait for the end of initialisation, forgotten ones do not. */
	if (request(pic, &pic->half[0]) < 0)
		set_output(pic, false);
}

static void write_ocw3(struct pic_state *s, uint8_t val)
{
	if (val & 0x04)
		s->poll = 1;
	if (val & 0x02)
		s->read_reg_select = val & 1;
	if (val & 0x40)
		s->special_mask = val >> 5 & 1;
}

/* Non-specific EOI; rotate: the input becomes the lowest priority. */
static void end_highest(struct pic *pic, struct pic_state *s, bool rotate)
{
	unsigned r = rank(s, s->special_mask ? s->isr & ~s->imr : s->isr);
	unsigned irq = input_of_rank(s, r);

	if (r == NO_PRIORITY)
		return;
	if (rotate)
		s->priority_add = (irq + 1) & 7;
	end_service(pic, s, irq);
	update(pic);
}

static void end_specific(struct pic *pic, struct pic_state *s, unsigned irq, bool rotate)
{
	if (rotate)
		s->priority_add = (irq + 1) & 7;
	end_service(pic, s, irq);
	update(pic);
}

/* OCW2: bits R, SL and EOI. */
static void write_ocw2(struct pic *pic, struct pic_state *s, uint8_t val)
{
	bool rotate = val & 0x80, specific = val & 0x40, eoi = val & 0x20;
	unsigned irq = val & 7;

	if (eoi && specific) {
		end_specific(pic, s, irq, rotate);
	} else if (eoi) {
		end_highest(pic, s, rotate);
	} else if (!specific) {
		s->rotate_on_auto_eoi = rotate;
	} else if (rotate) {
		s->priority_add = (irq + 1) & 7;
		update(pic);
	}
}

static void write_command(struct pic *pic, struct pic_state *s, uint8_t val)
{
	if (val & 0x10)
		start_init(pic, s, val);
	else if (val & 0x08)
		write_ocw3(s, val);
	else
		write_ocw2(pic, s, val);
}

static void write_mask(struct pic *pic, struct pic_state *s, uint8_t val)
{
	uint8_t changed = s->imr ^ val;

	s->imr = val;
	for (unsigned irq = 0; pic->ops->mask && irq < 8; irq++)
		if (changed & 1u << irq)
			pic->ops->mask(pic->opaque, irq + offset_of(pic, s), val & 1u << irq);
	update(pic);
}

/* Port 1: ICW2, ICW3 and ICW4 while initialising, else OCW1. */
static void write_data(struct pic *pic, struct pic_state *s, uint8_t val)
{
	switch (s->init_state) {
	case 0:
		write_mask(pic, s, val);
		break;
	case 1:
		s->irq_base = val & 0xf8;
		s->init_state = 2;
		break;
	case 2:
		/* The PC's wiring of the cascade is fixed. */
		s->init_state = s->init4 ? 3 : 0;
		break;
	case 3:
		s->special_fully_nested_mode = val >> 4 & 1;
		s->auto_eoi = val >> 1 & 1;
		s->init_state = 0;
		break;
	}
}

/* A read after the poll command acts as INTA: bit 7 says that bits 2:0 are a request. */
static uint8_t read_poll(struct pic *pic, struct pic_state *s)
{
	struct pic_state *master = &pic->half[0];
	int irq = request(pic, s);

	s->poll = 0;
	if (irq < 0) {
		update(pic);
		return SPURIOUS;
	}
	if (s != master) {
		master->isr &= ~(1u << CASCADE);
		master->irr &= ~(1u << CASCADE);
	}
	s->irr &= ~(1u << irq);
	end_service(pic, s, (unsigned)irq);
	if (s != master || irq != CASCADE)
		update(pic);
	return 0x80 | (uint8_t)irq;
}

static uint8_t read_port(struct pic *pic, struct pic_state *s, bool data)
{
	if (s->poll)
		return read_poll(pic, s);
	if (data)
		return s->imr;
	return s->read_reg_select ? s->isr : s->irr;
}

/* The half that answers at port, or NULL; elcr tells its edge/level register. */
static struct pic_state *decode(struct pic *pic, uint16_t port, bool *ret_elcr)
{
	*ret_elcr = (port & ~1) == 0x4d0;
	if (*ret_elcr)
		return &pic->half[port & 1];
	if ((port & ~1) == 0x20)
		return &pic->half[0];
	return (port & ~1) == 0xa0 ? &pic->half[1] : NULL;
}

bool pic_io_read(struct pic *pic, uint16_t port, uint8_t *ret)
{
	bool elcr;
	struct pic_state *s = decode(pic, port, &elcr);

	if (!s)
		return false;
	*ret = elcr ? s->elcr : read_port(pic, s, port & 1);
	return true;
}

bool pic_io_write(struct pic *pic, uint16_t port, uint8_t val)
{
	bool elcr;
	struct pic_state *s = decode(pic, port, &elcr);

	if (!s)
		return false;
	if (elcr)
		s->elcr = val & s->elcr_mask;
	else if (port & 1)
		write_data(pic, s, val);
	else
		write_command(pic, s, val);
	return true;
}

void pic_get_state(const struct pic *pic, unsigned half, struct pic_state *ret)
{
	*ret = pic->half[half];
}

void pic_set_state(struct pic *pic, unsigned half, const struct pic_state *state)
{
	pic->half[half] = *state;
	update(pic);
}

void pic_init(struct pic *pic, const struct pic_ops *ops, void *opaque)
{
	/* Inputs 0, 1, 2, 8 and 13 are always edge triggered on a PC. */
	*pic = (struct pic){
		.half = {{.elcr_mask = 0xf8}, {.elcr_mask = 0xde}},
		.ops = ops,
		.opaque = opaque,
	};
}
