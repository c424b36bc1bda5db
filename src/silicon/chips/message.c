/* SPDX-License-Identifier: MIT */
/* Decoding of interrupt messages; see message.h. */
#include "silicon/chips/message.h"

void apic_message_from_msi(uint64_t address, uint32_t data, bool extended, struct apic_message *ret)
{
	*ret = (struct apic_message){
		.dest = address >> 12 & 0xff,
		.vector = data & 0xff,
		.delivery = data >> 8 & 7,
		.shorthand = APIC_TO_DEST,
		.logical = address & BIT(2),
		.redirect = address & BIT(3),
		.level = true,
		.trigger = data & BIT(15),
	};
	if (extended)
		ret->dest |= address >> 32 & 0xffffff00;
}
