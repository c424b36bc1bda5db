/* SPDX-License-Identifier: MIT */
/*
 * Lines to stderr. Formatted by hand into a buffer on the stack and written by one system call:
 * signal handlers log too, and libc's printf uses vector registers and locks.
 * Conversions: %s %c %d %i %u %x %p %%, with 0, #, a width, and the lengths l, ll, z, h.
 */
#include "host/host.h"

#include <stdarg.h>
#include <sys/syscall.h>

struct line {
	char text[512];
	size_t used;
};

struct spec {
	bool zero, alt, left;
	unsigned width, precision;
	bool has_precision;
	unsigned longs;
};

static void put(struct line *line, char c)
{
	/* The last byte is kept for the newline. */
	if (line->used < sizeof(line->text) - 1)
		line->text[line->used++] = c;
}

static void put_padded(struct line *line, const struct spec *spec, const char *s, size_t len)
{
	size_t pad = spec->width > len ? spec->width - len : 0;
	size_t i;

	for (i = 0; !spec->left && i < pad; i++)
		put(line, spec->zero ? '0' : ' ');
	while (len--)
		put(line, *s++);
	for (i = 0; spec->left && i < pad; i++)
		put(line, ' ');
}

static void put_string(struct line *line, const struct spec *spec, const char *s)
{
	size_t len = 0;

	if (!s)
		s = "(null)";
	while (s[len] && !(spec->has_precision && len == spec->precision))
		len++;
	put_padded(line, spec, s, len);
}

static void put_number(struct line *line, struct spec *spec, uint64_t val, unsigned base, bool neg)
{
	char digits[24];
	char *p = digits + sizeof(digits);
	bool nonzero = val;

	do
		*--p = "0123456789abcdef"[val % base];
	while (val /= base);
	if (neg)
		*--p = '-';
	if (spec->alt && base == 16 && nonzero) {
		put(line, '0');
		put(line, 'x');
		spec->width = spec->width > 2 ? spec->width - 2 : 0;
	}
	put_padded(line, spec, p, digits + sizeof(digits) - p);
}

static unsigned parse_number(const char **fmt)
{
	unsigned val = 0;

	while (**fmt >= '0' && **fmt <= '9')
		val = val * 10 + *(*fmt)++ - '0';
	return val;
}

static struct spec parse_spec(const char **fmt)
{
	struct spec spec = {0};

	for (;; (*fmt)++) {
		if (**fmt == '0')
			spec.zero = true;
		else if (**fmt == '#')
			spec.alt = true;
		else if (**fmt == '-')
			spec.left = true;
		else
			break;
	}
	spec.width = parse_number(fmt);
	if (**fmt == '.') {
		(*fmt)++;
		spec.has_precision = true;
		spec.precision = parse_number(fmt);
	}
	for (; **fmt == 'l' || **fmt == 'z' || **fmt == 'h'; (*fmt)++)
		spec.longs += **fmt != 'h';
	return spec;
}

static void put_conversion(struct line *line, struct spec *spec, char conv, va_list *ap)
{
	uint64_t val;
	int64_t sval;

	switch (conv) {
	case 's':
		put_string(line, spec, va_arg(*ap, const char *));
		return;
	case 'c':
		put(line, (char)va_arg(*ap, int));
		return;
	case 'd':
	case 'i':
		sval = spec->longs ? va_arg(*ap, int64_t) : va_arg(*ap, int);
		put_number(line, spec, sval < 0 ? -(uint64_t)sval : (uint64_t)sval, 10, sval < 0);
		return;
	case 'p':
		spec->alt = true;
		put_number(line, spec, (uintptr_t)va_arg(*ap, void *), 16, false);
		return;
	case 'u':
	case 'x':
		val = spec->longs ? va_arg(*ap, uint64_t) : va_arg(*ap, unsigned);
		put_number(line, spec, val, conv == 'x' ? 16 : 10, false);
		return;
	default:
		put(line, conv);
	}
}

void host_log(const char *fmt, ...)
{
	struct line line;
	struct spec spec;
	const char *p;
	va_list ap;

	line.used = 0;
	for (p = "anykvm: "; *p; p++)
		put(&line, *p);
	va_start(ap, fmt);
	for (p = fmt; *p; p++) {
		if (*p != '%') {
			put(&line, *p);
			continue;
		}
		p++;
		spec = parse_spec(&p);
		if (!*p)
			break;
		put_conversion(&line, &spec, *p, &ap);
	}
	va_end(ap);
	line.text[line.used++] = '\n';
	host_syscall(SYS_write, 2, (long)line.text, line.used, 0, 0, 0);
}
