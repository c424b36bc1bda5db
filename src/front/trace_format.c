/* SPDX-License-Identifier: MIT */
/* Format files of the trace events, made of tables/events.def as the kernel makes its own below tracefs. */
#include "front/trace.h"

#include <asm/kvm.h>
#include <asm/svm.h>
#include <asm/vmx.h>
#include <stdlib.h>
#include <string.h>

struct field {
	const char *type, *name, *suffix; /* suffix: of an array */
	uint16_t offset, size;
	bool is_signed;
};

#define FIELD(event, ctype, text, fname) \
	{text, #fname, "", offsetof(struct ev_##event, fname), sizeof(ctype), (ctype)-1 < (ctype)1},
#define EVENT(name, fmt, args, fields) static const struct field fields_##name[] = {fields};
#include "events.def"
#undef EVENT
#undef FIELD

#define REGISTER(name, nr)                                                                    \
	{                                                                                     \
		"unsigned long", name, "", offsetof(struct ev_insn, gpr) + 8 * (nr), 8, false \
	}
static const struct field fields_insn[] = {
	{"unsigned int", "vcpu_id", "", offsetof(struct ev_insn, vcpu_id), 4, false},
	{"unsigned int", "nr_bytes", "", offsetof(struct ev_insn, nr_bytes), 4, false},
	{"unsigned long", "retired", "", offsetof(struct ev_insn, retired), 8, false},
	{"unsigned long", "rip", "", offsetof(struct ev_insn, rip), 8, false},
	{"unsigned long", "rflags", "", offsetof(struct ev_insn, rflags), 8, false},
	{"unsigned long", "cr3", "", offsetof(struct ev_insn, cr3), 8, false},
	REGISTER("rax", 0),
	REGISTER("rcx", 1),
	REGISTER("rdx", 2),
	REGISTER("rbx", 3),
	REGISTER("rsp", 4),
	REGISTER("rbp", 5),
	REGISTER("rsi", 6),
	REGISTER("rdi", 7),
	REGISTER("r8", 8),
	REGISTER("r9", 9),
	REGISTER("r10", 10),
	REGISTER("r11", 11),
	REGISTER("r12", 12),
	REGISTER("r13", 13),
	REGISTER("r14", 14),
	REGISTER("r15", 15),
	{"unsigned char", "bytes", "[16]", offsetof(struct ev_insn, bytes), 16, false},
};

#define INSN_FORMAT                                                                                \
	"vcpu %u #%lu rip 0x%lx [%s] rflags 0x%lx rax 0x%lx rbx 0x%lx rcx 0x%lx rdx 0x%lx rsi "    \
	"0x%lx "                                                                                   \
	"rdi 0x%lx rbp 0x%lx rsp 0x%lx r8 0x%lx r9 0x%lx r10 0x%lx r11 0x%lx r12 0x%lx r13 0x%lx " \
	"r14 "                                                                                     \
	"0x%lx r15 0x%lx cr3 0x%lx"
#define INSN_ARGS                                                                          \
	"REC->vcpu_id, REC->retired, REC->rip, __print_hex(REC->bytes, REC->nr_bytes), "   \
	"REC->rflags, "                                                                    \
	"REC->rax, REC->rbx, REC->rcx, REC->rdx, REC->rsi, REC->rdi, REC->rbp, REC->rsp, " \
	"REC->r8, "                                                                        \
	"REC->r9, REC->r10, REC->r11, REC->r12, REC->r13, REC->r14, REC->r15, REC->cr3"

static const struct event_format {
	const char *system, *name, *format, *args;
	const struct field *fields;
	unsigned nr_fields;
} formats[] = {
#define FIELD(event, ctype, text, name)
#define EVENT(name, fmt, args, fields) \
	[EV_##name] = {"kvm", #name, fmt, args, fields_##name, ARRAY_SIZE(fields_##name)},
#include "events.def"
#undef EVENT
#undef FIELD
	[EV_insn] = {"anykvm", "insn", INSN_FORMAT, INSN_ARGS, fields_insn,
		     ARRAY_SIZE(fields_insn)},
};

int trace_event_named(const char *name, size_t len)
{
	for (unsigned i = 0; i < NR_WATCH_EVENTS; i++)
		if (strlen(formats[i].name) == len && !memcmp(formats[i].name, name, len))
			return i;
	return -1;
}

static void print_field(FILE *f, const struct field *field)
{
	size_t len = strlen(field->name);

	/* A name that C has taken has an underscore behind it here. */
	len -= field->name[len - 1] == '_';
	fprintf(f, "\tfield:%s %.*s%s;\toffset:%u;\tsize:%u;\tsigned:%d;\n", field->type, (int)len,
		field->name, field->suffix, field->offset, field->size, field->is_signed);
}

/* ---- the text ---- */

static const struct reason {
	uint32_t code;
	const char *name;
} vmx_reasons[] = {VMX_EXIT_REASONS}, svm_reasons[] = {SVM_EXIT_REASONS};

static void print_reasons(FILE *f, const char *field, int len, const struct reason *row,
			  unsigned nr)
{
	fprintf(f, "__print_symbolic(REC->%.*s", len, field);
	for (; nr--; row++)
		fprintf(f, ", { 0x%x, \"%s\" }", row->code, row->name);
	fputc(')', f);
}

/* @FIELD@ becomes what Linux has there: the reasons of VMX or SVM by name, for readers without a plugin for KVM. */
static void print_args(FILE *f, const char *args)
{
	const char *at = strchr(args, '@'), *field = at ? at + 1 : NULL;
	int len = field ? (int)strcspn(field, "@") : 0;

	if (!at) {
		fputs(args, f);
		return;
	}
	fprintf(f, "%.*s(REC->isa == 1) ? ", (int)(at - args), args);
	print_reasons(f, field, len, vmx_reasons, ARRAY_SIZE(vmx_reasons));
	fputs(" : ", f);
	print_reasons(f, field, len, svm_reasons, ARRAY_SIZE(svm_reasons));
	fputs(field + len + 1, f);
}

static void print_format(FILE *f, unsigned event)
{
	static const struct field common[] = {
		{"unsigned short", "common_type", "", 0, 2, false},
		{"unsigned char", "common_flags", "", 2, 1, false},
		{"unsigned char", "common_preempt_count", "", 3, 1, false},
		{"int", "common_pid", "", 4, 4, true},
	};
	const struct event_format *e = &formats[event];

	fprintf(f, "name: %s\nID: %u\nformat:\n", e->name, WATCH_EVENT_ID(event));
	for (unsigned i = 0; i < ARRAY_SIZE(common); i++)
		print_field(f, &common[i]);
	fputc('\n', f);
	for (unsigned i = 0; i < e->nr_fields; i++)
		print_field(f, &e->fields[i]);
	fprintf(f, "\nprint fmt: \"%s\", ", e->format);
	print_args(f, e->args);
	fputc('\n', f);
}

char *trace_format(unsigned event, const char **ret_system)
{
	char *text = NULL;
	size_t size;
	FILE *f;

	if (event >= ARRAY_SIZE(formats))
		return NULL;
	f = open_memstream(&text, &size);
	if (!f)
		exit(launcher_error("out of memory"));
	print_format(f, event);
	fclose(f);
	*ret_system = formats[event].system;
	return text;
}
