/* SPDX-License-Identifier: MIT */
/* Private to sys/: between events.c (how an event is delivered) and attend.c (which one, when). */
#ifndef SILICON_SYS_DELIVER_H
#define SILICON_SYS_DELIVER_H

#include "silicon/sys/sys.h"

/* True where a guest hypervisor takes the exception. */
bool event_intercepted(struct cpu *cpu, const struct event *ev, const struct event *cause);
/* sys_deliver() without the program's debugger in between. */
enum result deliver_event(struct cpu *cpu, const struct event *ev);

#endif
