/* SPDX-License-Identifier: MIT */
/*
 * VMX's own instructions (SDM, VMX instruction reference).
 *
 * Each goes the SDM's way: #UD by mode, exit in guest mode, #GP by privilege, operands, then VMsucceed,
 * VMfailInvalid or VMfailValid, which are flags and no faults. VMREAD and VMWRITE in guest mode reach the shadow VMCS where
 * the bitmaps let them.
 */
#include "silicon/vmx/vmx_internal.h"

/* ---- the ends of an instruction ---- */

static void advance(struct cpu *cpu, const struct virt_insn *insn)
{
	cpu->rip += insn->len;
	if (cpu->mode.code != CODE_64)
		cpu->rip = (uint32_t)cpu->rip;
}

static enum result succeed(struct cpu *cpu, const struct virt_insn *insn)
{
	cpu->aflags = flags_to_arith(0);
	advance(cpu, insn);
	return RESULT_OK;
}

static enum result fail_invalid(struct cpu *cpu, const struct virt_insn *insn)
{
	cpu->aflags = flags_to_arith(FLAG_CF);
	advance(cpu, insn);
	return RESULT_OK;
}

/* VMfail: with a current VMCS its error field tells why. In guest mode that field is the hypervisor's. */
static enum result fail(struct cpu *cpu, const struct virt_insn *insn, enum vmx_error error)
{
	struct vmx *v = vmx_of(cpu);

	if (v->current == GPA_NONE && !form_active(v) && !v->virt.guest)
		return fail_invalid(cpu, insn);
	if (v->virt.guest) {
		v->link[VMCS_INSN_ERROR] = error;
	} else {
		put(v, VMCS_INSN_ERROR, error);
		form_write_error(cpu);
	}
	cpu->aflags = flags_to_arith(FLAG_ZF);
	advance(cpu, insn);
	return RESULT_OK;
}

/* ---- operands ---- */

static bool mode_allows(const struct cpu *cpu)
{
	return !cpu->mode.real && !cpu->mode.v86 && (!cpu->mode.lma || cpu->mode.code == CODE_64);
}

static enum result read_memory(struct cpu *cpu, const struct virt_insn *insn, void *dst,
			       uint32_t size)
{
	gva_t addr;
	enum result r;

	r = seg_linear(cpu, insn->seg, insn->off, size, ACCESS_READ, &addr);
	return r ? r : mmu_read_bytes(cpu, addr, dst, size);
}

/*
 * The operand of VMXON, VMCLEAR and VMPTRLD: a page of the processor's width that is not the VMXON region. False: the
 * instruction has ended, with *ret_end.
 */
static bool take_pointer(struct cpu *cpu, const struct virt_insn *insn, enum vmx_error misplaced,
			 enum vmx_error vmxon, gpa_t *ret, enum result *ret_end)
{
	*ret_end = read_memory(cpu, insn, ret, sizeof(*ret));
	if (*ret_end)
		return false;
	if (!gpa_ok(cpu, *ret, VMCS_SIZE))
		*ret_end = fail(cpu, insn, misplaced);
	else if (*ret == vmx_of(cpu)->vmxon_ptr)
		*ret_end = fail(cpu, insn, vmxon);
	else
		return true;
	return false;
}

static unsigned native(const struct cpu *cpu)
{
	return cpu->mode.code == CODE_64 ? 8 : 4;
}

static uint64_t reg_value(const struct cpu *cpu, uint8_t reg)
{
	return native(cpu) == 8 ? cpu->gpr[reg] : (uint32_t)cpu->gpr[reg];
}

/* The exit qualification; RIP-relative operands give their address. */
static uint64_t displacement(const struct cpu *cpu, const struct virt_insn *insn)
{
	if (!insn->mem)
		return 0;
	if (insn->base == VIRT_NO_REG && insn->index == VIRT_NO_REG && cpu_64bit(cpu))
		return insn->off;
	return insn->disp;
}

/* ---- VMXON, VMXOFF ---- */

static bool fixed_ok(uint64_t val, uint64_t fixed0, uint64_t fixed1)
{
	return (val & fixed0) == fixed0 && !(val & ~fixed1);
}

static bool vmxon_allowed(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	uint64_t want = FEATURE_LOCK | FEATURE_VMX;

	if (cpu->mode.cpl || (cpu->msr.feat_ctl & want) != want)
		return false;
	return fixed_ok(cpu->cr0, vmx_caps_read(cpu, &v->caps, VMX_CR0_FIXED0),
			vmx_caps_read(cpu, &v->caps, VMX_CR0_FIXED1)) &&
	       fixed_ok(cpu->cr4, vmx_caps_read(cpu, &v->caps, VMX_CR4_FIXED0),
			vmx_caps_read(cpu, &v->caps, VMX_CR4_FIXED1));
}

static enum result enter_operation(struct cpu *cpu, const struct virt_insn *insn)
{
	struct vmx *v = vmx_of(cpu);
	uint32_t revision;
	gpa_t addr;
	enum result r;

	/* There is neither a VMXON region nor a VMCS yet: VMfailInvalid. */
	if (!take_pointer(cpu, insn, VMX_ERR_NONE, VMX_ERR_NONE, &addr, &r))
		return r;
	r = mmu_read_phys_bytes(cpu, addr, &revision, sizeof(revision));
	if (r == RESULT_EXIT)
		return r;
	if (r || revision != VMX_REVISION)
		return fail_invalid(cpu, insn);
	v->on = true;
	v->virt.blocks_init = true;
	v->vmxon_ptr = addr;
	v->current = GPA_NONE;
	vmx_fix_control(cpu);
	return succeed(cpu, insn);
}

static enum result do_vmxon(struct cpu *cpu, const struct virt_insn *insn)
{
	struct vmx *v = vmx_of(cpu);

	if (!insn->mem || !mode_allows(cpu) || !(cpu->cr4 & CR4_VMXE))
		return fault_ud(cpu);
	if (v->virt.guest) {
		vmx_exit_insn(cpu, REASON_VMXON, displacement(cpu, insn), info_memory(insn, 0));
		return RESULT_AGAIN;
	}
	if (v->on)
		return cpu->mode.cpl ? fault_gp(cpu, 0) : fail(cpu, insn, VMX_ERR_VMXON_ROOT);
	return vmxon_allowed(cpu) ? enter_operation(cpu, insn) : fault_gp(cpu, 0);
}

static enum result do_vmxoff(struct cpu *cpu, const struct virt_insn *insn)
{
	enum result r = vmcs_flush(cpu);

	if (r == RESULT_EXIT)
		return r;
	vmx_off(cpu);
	cpu_raise(cpu, ATTN_EVENTS | ATTN_REQUEST);
	return succeed(cpu, insn);
}

/* ---- VMCLEAR, VMPTRLD, VMPTRST ---- */

static enum result clear_launched(struct cpu *cpu, gpa_t addr)
{
	uint32_t state = 0;

	return mmu_write_phys_bytes(cpu, addr + offsetof(struct vmcs_image, launched), &state,
				    sizeof(state));
}

static enum result do_vmclear(struct cpu *cpu, const struct virt_insn *insn)
{
	struct vmx *v = vmx_of(cpu);
	gpa_t addr;
	enum result r;

	if (!take_pointer(cpu, insn, VMX_ERR_VMCLEAR_ADDR, VMX_ERR_VMCLEAR_VMXON, &addr, &r))
		return r;
	if (form_clears(cpu, addr))
		return succeed(cpu, insn);
	if (addr == v->current) {
		v->launched = false;
		r = vmcs_flush(cpu);
	} else {
		r = clear_launched(cpu, addr);
	}
	if (r == RESULT_EXIT)
		return r;
	if (addr == v->current)
		v->current = GPA_NONE;
	return succeed(cpu, insn);
}

/* False: no VMCS of this processor, or a shadow VMCS where there is none. */
static bool revision_ok(const struct vmx *v, uint32_t revision)
{
	if ((revision & ~(uint32_t)VMCS_SHADOW_BIT) != VMX_REVISION)
		return false;
	return !(revision & VMCS_SHADOW_BIT) || (cap_high(v, VMX_CPU2) & CPU2_SHADOW);
}

static enum result make_current(struct cpu *cpu, const struct virt_insn *insn, gpa_t addr)
{
	struct vmx *v = vmx_of(cpu);
	struct vmcs_image image;
	enum result r;

	r = vmcs_load(cpu, addr, &image);
	if (r == RESULT_EXIT)
		return r;
	if (r || !revision_ok(v, image.revision))
		return fail(cpu, insn, VMX_ERR_VMPTRLD_REVISION);
	r = vmcs_flush(cpu);
	if (r == RESULT_EXIT)
		return r;
	v->current = addr;
	v->current_shadow = image.revision & VMCS_SHADOW_BIT;
	v->launched = image.launched;
	memcpy(v->vmcs, image.f, sizeof(v->vmcs));
	return succeed(cpu, insn);
}

static enum result do_vmptrld(struct cpu *cpu, const struct virt_insn *insn)
{
	struct vmx *v = vmx_of(cpu);
	gpa_t addr;
	enum result r;

	if (!take_pointer(cpu, insn, VMX_ERR_VMPTRLD_ADDR, VMX_ERR_VMPTRLD_VMXON, &addr, &r))
		return r;
	/* As Linux's KVM has it, neither this nor VMPTRST ever ends then. */
	if (form_active(v))
		return RESULT_AGAIN;
	return addr == v->current ? succeed(cpu, insn) : make_current(cpu, insn, addr);
}

static enum result do_vmptrst(struct cpu *cpu, const struct virt_insn *insn)
{
	struct vmx *v = vmx_of(cpu);
	enum result r;

	if (form_active(v))
		return RESULT_AGAIN;
	r = seg_write(cpu, insn->seg, insn->off, 8, v->current);
	return r ? r : succeed(cpu, insn);
}

/* ---- VMREAD, VMWRITE ---- */

/* The fields meant: the current VMCS, or in guest mode the shadow; NULL: there is none. */
static uint64_t *fields_of(struct vmx *v)
{
	if (v->virt.guest)
		return v->linked ? v->link : NULL;
	return v->current == GPA_NONE ? NULL : v->vmcs;
}

/* In guest mode: the bitmap sends this field to the hypervisor. Memory that is none reads as ones. */
static bool bitmap_exits(struct cpu *cpu, enum vmcs_field bitmap, uint64_t encoding)
{
	uint8_t byte = 0xff;

	if (!ctl2(vmx_of(cpu), CPU2_SHADOW) || encoding >> 15)
		return true;
	if (mmu_read_phys_bytes(cpu, get(vmx_of(cpu), bitmap) + encoding / 8, &byte, 1))
		return true;
	return byte >> (encoding & 7) & 1;
}

static bool read_field(struct cpu *cpu, uint64_t encoding, uint64_t *ret)
{
	struct vmx *v = vmx_of(cpu);
	int f;

	if (!v->virt.guest && form_active(v))
		return form_read_field(cpu, encoding, ret);
	f = vmcs_find(&v->caps, encoding);
	if (f >= 0)
		*ret = vmcs_read(fields_of(v), f, encoding);
	return f >= 0;
}

static enum result do_vmread(struct cpu *cpu, const struct virt_insn *insn)
{
	struct vmx *v = vmx_of(cpu);
	enum result r = RESULT_OK;
	uint64_t val;

	if (!fields_of(v) && (v->virt.guest || !form_active(v)))
		return fail_invalid(cpu, insn);
	if (!read_field(cpu, reg_value(cpu, insn->reg), &val))
		return fail(cpu, insn, VMX_ERR_FIELD);
	if (insn->mem)
		r = seg_write(cpu, insn->seg, insn->off, native(cpu), val);
	else
		cpu->gpr[insn->rm] = native(cpu) == 8 ? val : (uint32_t)val;
	return r ? r : succeed(cpu, insn);
}

static enum result do_vmwrite(struct cpu *cpu, const struct virt_insn *insn)
{
	struct vmx *v = vmx_of(cpu);
	uint64_t encoding = reg_value(cpu, insn->reg), *fields = fields_of(v), val;
	enum result r = RESULT_OK;
	int f;

	if (!fields)
		return fail_invalid(cpu, insn);
	if (insn->mem)
		r = seg_read(cpu, insn->seg, insn->off, native(cpu), &val);
	else
		val = reg_value(cpu, insn->rm);
	if (r)
		return r;
	f = vmcs_find(&v->caps, encoding);
	if (f < 0)
		return fail(cpu, insn, VMX_ERR_FIELD);
	if (vmcs_type(encoding) == TYPE_READ_ONLY && !(v->caps.msr[VMX_MISC] & MISC_WRITE_EXIT))
		return fail(cpu, insn, VMX_ERR_READ_ONLY);
	vmcs_write(fields, f, encoding, val);
	return succeed(cpu, insn);
}

/* ---- INVEPT, INVVPID ---- */

static enum result do_invept(struct cpu *cpu, const struct virt_insn *insn)
{
	struct vmx *v = vmx_of(cpu);
	uint64_t type = reg_value(cpu, insn->reg), desc[2];
	enum result r;

	if (type != 1 && type != 2)
		return fail(cpu, insn, VMX_ERR_INV_OPERAND);
	if (!(v->caps.msr[VMX_EPT_VPID] & (type == 1 ? EPT_INVEPT_SINGLE : EPT_INVEPT_ALL)))
		return fail(cpu, insn, VMX_ERR_INV_OPERAND);
	r = read_memory(cpu, insn, desc, sizeof(desc));
	if (r)
		return r;
	if (type == 1 && !eptp_ok(cpu, desc[0]))
		return fail(cpu, insn, VMX_ERR_INV_OPERAND);
	mmu_flush_worlds(cpu, 0, type == 1 ? desc[0] & GENMASK(51, 12) : 0);
	return succeed(cpu, insn);
}

enum invvpid_type { INVVPID_ADDR, INVVPID_SINGLE, INVVPID_ALL, INVVPID_GLOBALS };

static bool invvpid_ok(const struct cpu *cpu, uint64_t type, const uint64_t desc[2])
{
	static const uint64_t cap[] = {VPID_INVVPID_ADDR, VPID_INVVPID_SINGLE, VPID_INVVPID_ALL,
				       VPID_INVVPID_GLOBALS};

	if (!(vmx_of(cpu)->caps.msr[VMX_EPT_VPID] & cap[type]) || desc[0] >> 16)
		return false;
	if (type != INVVPID_ALL && !desc[0])
		return false;
	return type != INVVPID_ADDR || gva_canonical(cpu, desc[1]);
}

static enum result do_invvpid(struct cpu *cpu, const struct virt_insn *insn)
{
	uint64_t type = reg_value(cpu, insn->reg), desc[2];
	enum result r;

	if (type > INVVPID_GLOBALS)
		return fail(cpu, insn, VMX_ERR_INV_OPERAND);
	r = read_memory(cpu, insn, desc, sizeof(desc));
	if (r)
		return r;
	if (!invvpid_ok(cpu, type, desc))
		return fail(cpu, insn, VMX_ERR_INV_OPERAND);
	if (type == INVVPID_ADDR)
		mmu_flush_world_page(cpu, desc[0], desc[1]);
	else
		mmu_flush_worlds(cpu, type == INVVPID_ALL ? 0 : desc[0], 0);
	return succeed(cpu, insn);
}

/* ---- VMFUNC ---- */

static enum result vmfunc_exit(struct cpu *cpu)
{
	vmx_exit_insn(cpu, REASON_VMFUNC, 0, 0);
	return RESULT_AGAIN;
}

/* Any privilege; #UD outside of guest mode or where it is not enabled. */
static enum result do_vmfunc(struct cpu *cpu, const struct virt_insn *insn)
{
	struct vmx *v = vmx_of(cpu);
	uint32_t leaf = cpu->gpr[RAX], index = cpu->gpr[RCX];
	uint64_t eptp;

	if (!v->virt.guest || !ctl2(v, CPU2_VMFUNC))
		return fault_ud(cpu);
	if (leaf >= 64 || !(get(v, VMCS_VMFUNC_CTLS) & BIT(leaf)) || index >= 512)
		return vmfunc_exit(cpu);
	if (mmu_read_phys_bytes(cpu, get(v, VMCS_EPTP_LIST) + 8 * index, &eptp, 8))
		return vmfunc_exit(cpu);
	if (!eptp_ok(cpu, eptp))
		return vmfunc_exit(cpu);
	put(v, VMCS_EPTP, eptp);
	mmu_switch_world(cpu);
	advance(cpu, insn);
	return RESULT_OK;
}

/* ---- all ---- */

static bool refuses(struct cpu *cpu, enum check_stage stage)
{
	const struct entry_check *row = check_stage(cpu, stage);

	if (row)
		check_report(cpu, row);
	return row;
}

static enum result do_entry(struct cpu *cpu, const struct virt_insn *insn, bool launch)
{
	struct vmx *v = vmx_of(cpu);
	bool known;
	enum result r = form_select(cpu, launch, &known);

	if (r)
		return r;
	if (!known || (v->current == GPA_NONE && !form_active(v)) || v->current_shadow)
		return fail_invalid(cpu, insn);
	if (cpu->shadow & SHADOW_MOV_SS)
		return fail(cpu, insn, VMX_ERR_ENTRY_MOV_SS);
	if (launch == v->launched)
		return fail(cpu, insn, launch ? VMX_ERR_VMLAUNCH_CLEAR : VMX_ERR_VMRESUME_LAUNCHED);
	if (refuses(cpu, CHECK_CONTROL))
		return fail(cpu, insn, VMX_ERR_CONTROLS);
	if (refuses(cpu, CHECK_HOST))
		return fail(cpu, insn, VMX_ERR_HOST);
	return vmx_entry(cpu, launch);
}

static enum result do_vmlaunch(struct cpu *cpu, const struct virt_insn *insn)
{
	return do_entry(cpu, insn, true);
}

static enum result do_vmresume(struct cpu *cpu, const struct virt_insn *insn)
{
	return do_entry(cpu, insn, false);
}

static const struct op {
	enum result (*run)(struct cpu *cpu, const struct virt_insn *insn);
	uint8_t reason;
	bool memory, reg; /* its operand is memory only; it has a second one in a register */
	enum vmcs_field bitmap;
	uint64_t needs; /* of IA32_VMX_EPT_VPID_CAP */
} ops[NR_VIRT_OPS] = {
	[VIRT_VMXOFF] = {do_vmxoff, REASON_VMXOFF},
	[VIRT_VMCLEAR] = {do_vmclear, REASON_VMCLEAR, .memory = true},
	[VIRT_VMPTRLD] = {do_vmptrld, REASON_VMPTRLD, .memory = true},
	[VIRT_VMPTRST] = {do_vmptrst, REASON_VMPTRST, .memory = true},
	[VIRT_VMREAD] = {do_vmread, REASON_VMREAD, .bitmap = VMCS_VMREAD_BITMAP},
	[VIRT_VMWRITE] = {do_vmwrite, REASON_VMWRITE, .bitmap = VMCS_VMWRITE_BITMAP},
	[VIRT_VMLAUNCH] = {do_vmlaunch, REASON_VMLAUNCH},
	[VIRT_VMRESUME] = {do_vmresume, REASON_VMRESUME},
	[VIRT_INVEPT] = {do_invept, REASON_INVEPT, .memory = true, .reg = true,
			 .needs = EPT_INVEPT},
	[VIRT_INVVPID] = {do_invvpid, REASON_INVVPID, .memory = true, .reg = true,
			  .needs = VPID_INVVPID},
};

/* In guest mode, all of them exit but VMREAD and VMWRITE of what the bitmaps let through. */
static bool exits(struct cpu *cpu, const struct op *op, const struct virt_insn *insn)
{
	uint32_t info = 0;
	bool operand = op->memory || op->bitmap;

	if (op->bitmap && !bitmap_exits(cpu, op->bitmap, reg_value(cpu, insn->reg)))
		return false;
	if (op->bitmap)
		info = info_vmread(insn);
	else if (op->memory)
		info = info_memory(insn, op->reg ? insn->reg : 0);
	vmx_exit_insn(cpu, op->reason, operand ? displacement(cpu, insn) : 0, info);
	return true;
}

enum result vmx_insn(struct cpu *cpu, enum virt_op n, const struct virt_insn *insn)
{
	const struct op *op = &ops[n];
	struct vmx *v = vmx_of(cpu);

	if (n == VIRT_VMXON)
		return do_vmxon(cpu, insn);
	if (n == VIRT_VMFUNC)
		return do_vmfunc(cpu, insn);
	if (!op->run || (op->memory && !insn->mem) || !v->on || !mode_allows(cpu))
		return fault_ud(cpu);
	if (op->needs && !(v->caps.msr[VMX_EPT_VPID] & op->needs))
		return fault_ud(cpu);
	if (v->virt.guest && exits(cpu, op, insn))
		return RESULT_AGAIN;
	if (cpu->mode.cpl)
		return fault_gp(cpu, 0);
	return op->run(cpu, insn);
}
