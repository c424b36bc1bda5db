/* SPDX-License-Identifier: MIT */
/*
 * x87 and vector state by ioctl. cpu->fpu.area has XSAVE's standard layout, which is the one of
 * struct kvm_xsave, too; what differs is the x87 instruction pointers, kept beside it, and the tiles, which are no state of
 * the host's.
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "silicon/cpu/amx.h"

#include <stdlib.h>
#include <string.h>

/* The legacy region and the header of an XSAVE image (SDM, XSAVE area). */
struct legacy {
	uint16_t fcw, fsw;
	uint8_t ftw, reserved;
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	uint8_t st[128];
	uint8_t xmm[256];
	uint8_t unused[96];
	uint64_t xstate_bv, xcomp_bv, header_reserved[6];
};

_Static_assert(sizeof(struct legacy) == 576, "XSAVE legacy region and header");

#define FCW_DEFAULT 0x37f
#define MXCSR_INIT  0x1f80
#define MXCSR_MASK  0xffff
#define X_FP_SSE    (XCR0_X87 | XCR0_SSE)

static struct legacy *legacy(struct vcpu *vcpu)
{
	return (struct legacy *)vcpu->cpu.fpu.area;
}

long vcpu_get_fpu(struct vcpu *vcpu, void *arg)
{
	const struct legacy *l = legacy(vcpu);
	struct kvm_fpu *f = arg;

	memset(f, 0, sizeof(*f));
	memcpy(f->fpr, l->st, sizeof(f->fpr));
	memcpy(f->xmm, l->xmm, sizeof(f->xmm));
	f->fcw = l->fcw;
	f->fsw = l->fsw;
	f->ftwx = l->ftw;
	f->last_opcode = vcpu->cpu.fpu.fop;
	f->last_ip = vcpu->cpu.fpu.fip;
	f->last_dp = vcpu->cpu.fpu.fdp;
	return 0;
}

long vcpu_set_fpu(struct vcpu *vcpu, void *arg)
{
	const struct kvm_fpu *f = arg;
	struct legacy *l = legacy(vcpu);

	memcpy(l->st, f->fpr, sizeof(f->fpr));
	memcpy(l->xmm, f->xmm, sizeof(f->xmm));
	l->fcw = f->fcw;
	l->fsw = f->fsw;
	l->ftw = f->ftwx;
	l->xstate_bv |= X_FP_SSE;
	vcpu->cpu.fpu.fop = f->last_opcode;
	vcpu->cpu.fpu.fip = f->last_ip;
	vcpu->cpu.fpu.fdp = f->last_dp;
	return 0;
}

/* The standard layout's place of component i >= 2: false if the model has none. */
static bool component(const struct vcpu *vcpu, unsigned i, uint32_t *ret_off, uint32_t *ret_size)
{
	const struct cpuid_row *row = model_cpuid(vcpu->cpu.model, 0xd, i);

	if (!row)
		return false;
	*ret_off = row->reg[CPUID_EBX];
	*ret_size = row->reg[CPUID_EAX];
	return *ret_size && *ret_off + *ret_size <= FPU_AREA_SIZE;
}

/* Put components that keep is without into their initial state, so that the image has no stale bytes. */
static void init_components(struct vcpu *vcpu, uint8_t *image, uint64_t keep)
{
	struct legacy *l = (struct legacy *)image;
	uint32_t off, size;

	if (!(keep & XCR0_X87)) {
		memset(l, 0, offsetof(struct legacy, mxcsr));
		memset(l->st, 0, sizeof(l->st));
		l->fcw = FCW_DEFAULT;
	}
	if (!(keep & XCR0_SSE))
		memset(l->xmm, 0, sizeof(l->xmm));
	for (unsigned i = 2; i < 63; i++)
		if (!(keep & BIT(i)) && component(vcpu, i, &off, &size))
			memset(image + off, 0, size);
}

/* Where the component of this bit is in the image, or NULL: the image has no room for it. */
static uint8_t *tiles_in(const struct vcpu *vcpu, uint8_t *image, uint64_t bit)
{
	const struct cpuid_row *row = model_cpuid(vcpu->cpu.model, 0xd, __builtin_ctzll(bit));
	uint32_t end = row ? row->reg[CPUID_EBX] + row->reg[CPUID_EAX] : UINT32_MAX;

	return end <= vcpu->xsave_size ? image + row->reg[CPUID_EBX] : NULL;
}

/* Where the part of the image ends that is ->fpu.area's, too: tiles are behind all others. */
static uint32_t area_size(const struct vcpu *vcpu)
{
	const struct cpuid_row *row =
		model_cpuid(vcpu->cpu.model, 0xd, __builtin_ctzll(XCR0_TILECFG));

	return row ? min(row->reg[CPUID_EBX], (uint32_t)FPU_AREA_SIZE) : FPU_AREA_SIZE;
}

/* What IA32_XFD disables is shown as initial. */
static void get_tiles(struct vcpu *vcpu, uint8_t *image)
{
	uint64_t shown = vcpu->cpu.xcr0_allowed & ~vcpu->cpu.msr.xfd;
	uint64_t use = amx_xinuse(vcpu->cpu.amx) & shown;
	uint8_t *config = tiles_in(vcpu, image, XCR0_TILECFG);
	uint8_t *data = tiles_in(vcpu, image, XCR0_TILEDATA);

	if (use & XCR0_TILECFG && config)
		memcpy(config, vcpu->cpu.amx->config, AMX_CONFIG_SIZE);
	if (use & XCR0_TILEDATA && data)
		memcpy(data, vcpu->cpu.amx->tile, AMX_DATA_SIZE);
	((struct legacy *)image)->xstate_bv |= use & vcpu->cpu.model->xcr0;
}

static void set_tiles(struct vcpu *vcpu, uint64_t bv, uint8_t *image)
{
	uint8_t *config = tiles_in(vcpu, image, XCR0_TILECFG);
	uint8_t *data = tiles_in(vcpu, image, XCR0_TILEDATA);

	if (!vcpu->cpu.amx)
		return;
	amx_load_config(vcpu->cpu.amx, bv & XCR0_TILECFG ? config : NULL);
	amx_load_data(vcpu->cpu.amx, bv & XCR0_TILEDATA ? data : NULL);
}

/* image has ->xsave_size bytes, zeroed. */
static void get_image(struct vcpu *vcpu, uint8_t *image)
{
	const struct fpu *fpu = &vcpu->cpu.fpu;
	uint64_t keep = vcpu->cpu.xcr0_allowed | X_FP_SSE;
	struct legacy *l = (struct legacy *)image;

	memcpy(image, fpu->area, area_size(vcpu));
	memset(l->unused, 0, sizeof(l->unused));
	l->fop = fpu->fop;
	l->fip = fpu->fip;
	l->fdp = fpu->fdp;
	l->mxcsr_mask = MXCSR_MASK;
	l->xstate_bv &= keep & ~XCR0_AMX;
	/* FXSAVE keeps no account of what is in use. */
	if (!fpu->xfeatures)
		l->xstate_bv = X_FP_SSE;
	/* The host's bits know neither; without them KVM_SET_XSAVE would not take the values. */
	if (l->mxcsr != MXCSR_INIT)
		l->xstate_bv |= XCR0_SSE;
	if (l->fop || l->fip || l->fdp)
		l->xstate_bv |= XCR0_X87;
	l->xcomp_bv = 0;
	init_components(vcpu, image, keep & (l->xstate_bv | X_FP_SSE));
	get_tiles(vcpu, image);
}

/* Not where the image is larger: as in KVM. */
long vcpu_get_xsave(struct vcpu *vcpu, void *arg)
{
	if (vcpu->xsave_size > sizeof(struct kvm_xsave))
		return -EINVAL;
	memset(arg, 0, sizeof(struct kvm_xsave));
	get_image(vcpu, arg);
	return 0;
}

long vcpu_get_xsave2(struct vcpu *vcpu, void *arg)
{
	uint8_t *image = calloc(1, vcpu->xsave_size);
	long r;

	if (!image)
		return -ENOMEM;
	get_image(vcpu, image);
	r = ioctl_copy_out(arg, image, vcpu->xsave_size);
	free(image);
	return r;
}

static bool image_valid(const struct vcpu *vcpu, const struct legacy *l)
{
	uint64_t allowed = vcpu->cpu.model->xcr0 | X_FP_SSE;

	if (vcpu->xsave_size == sizeof(struct kvm_xsave))
		allowed &= ~XCR0_TILEDATA;
	if ((l->xstate_bv & ~allowed) || l->xcomp_bv)
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(l->header_reserved); i++)
		if (l->header_reserved[i])
			return false;
	return !(l->xstate_bv & (X_FP_SSE | XCR0_AVX)) || !(l->mxcsr & ~MXCSR_MASK);
}

static long set_image(struct vcpu *vcpu, uint8_t *image)
{
	struct fpu *fpu = &vcpu->cpu.fpu;
	struct legacy *l = (struct legacy *)fpu->area, *new = (struct legacy *)image;

	new->xstate_bv &= ~vcpu->cpu.msr.xfd;
	if (!image_valid(vcpu, new))
		return -EINVAL;
	set_tiles(vcpu, new->xstate_bv, image);
	memcpy(fpu->area, image, area_size(vcpu));
	l->xstate_bv &= ~XCR0_AMX;
	init_components(vcpu, fpu->area, l->xstate_bv);
	if (!(l->xstate_bv & (XCR0_SSE | XCR0_AVX)))
		l->mxcsr = MXCSR_INIT;
	l->mxcsr_mask = MXCSR_MASK;
	fpu->fop = l->fop;
	fpu->fip = l->fip;
	fpu->fdp = l->fdp;
	fpu->fcs = 0;
	fpu->fds = 0;
	return 0;
}

long vcpu_set_xsave(struct vcpu *vcpu, void *arg)
{
	uint8_t *image = malloc(vcpu->xsave_size);
	long r;

	if (!image)
		return -ENOMEM;
	r = ioctl_copy_in(image, arg, vcpu->xsave_size);
	if (!r)
		r = set_image(vcpu, image);
	free(image);
	return r;
}
