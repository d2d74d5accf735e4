/* op_glu.c — gated activations (Shazeer 2020). */
#include "op.h"

/* y = act(gate) up:  dgate = dy up act'(gate), dup = dy act(gate). */

static int run(am_tensor *out, const am_tensor *gate, const am_tensor *up, const am_attrs *at)
{
    if (am_tensor_numel(gate) == 0)
        return AM_OK;
    return am_launch_glu(gate->device, &(am_glu_args){.out = am_tensor_ptr(out),
                                                      .gate = am_tensor_ptr(gate),
                                                      .up = am_tensor_ptr(up),
                                                      .act = at->glu.act,
                                                      .dtype = gate->dtype,
                                                      .n = am_tensor_numel(gate)});
}

static int glu_recompute(const am_bwd *b, am_tensor *out)
{
    return run(out, b->saved[0], b->saved[1], b->attrs);
}

static int glu_forward(am_call *c)
{
    am_tensor *gate, *up;
    AM_TRY(am_check_float(c, 0));
    AM_TRY(am_check_same_dtype(c, 0, 1));
    if (!am_shape_equal(c->in[0], c->in[1]))
        return am_fail(AM_ESHAPE, "glu: gate and up differ in shape");
    if (c->attrs.glu.act < 0 || c->attrs.glu.act >= AM_ACT_COUNT)
        return am_fail(AM_EINVAL, "glu: activation %d does not exist", c->attrs.glu.act);
    AM_TRY(am_temp_dense(&c->temps, &gate, c->in[0]));
    AM_TRY(am_temp_dense(&c->temps, &up, c->in[1]));
    AM_TRY(am_out(c, gate->dtype, gate->ndim, gate->shape));
    AM_TRY(run(c->out[0], gate, up, &c->attrs));
    AM_TRY(am_save(c, 0, gate));
    return am_save(c, 1, up);
}

static int glu_backward(am_bwd *b)
{
    am_tensor *gate = b->saved[0], *up = b->saved[1];
    am_grad gg = {0}, gu = {0};
    if (b->needs[0])
        AM_TRY(am_grad_begin(b, 0, false, &gg));
    if (b->needs[1])
        AM_TRY(am_grad_begin(b, 1, false, &gu));
    if (am_tensor_numel(gate) > 0)
        AM_TRY(am_launch_glu_bwd(b->device,
                                 &(am_glu_bwd_args){.dgate = gg.t ? am_tensor_ptr(gg.t) : NULL,
                                                    .dup = gu.t ? am_tensor_ptr(gu.t) : NULL,
                                                    .dout = am_tensor_ptr(b->dout),
                                                    .gate = am_tensor_ptr(gate),
                                                    .up = am_tensor_ptr(up),
                                                    .act = b->attrs->glu.act,
                                                    .dtype = gate->dtype,
                                                    .n = am_tensor_numel(gate)}));
    if (b->needs[0])
        AM_TRY(am_grad_end(b, 0, &gg));
    return b->needs[1] ? am_grad_end(b, 1, &gu) : AM_OK;
}

AM_OP(glu, .forward = glu_forward, .backward = glu_backward, .recompute = glu_recompute,
      .kernels = {AM_KERNEL(glu), AM_KERNEL(glu_bwd)});
