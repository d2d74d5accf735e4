/* op_fake_quantize.c — numbers rounded to what few bits hold, for training that knows of it. The
 * gradient is the straight-through estimator's (Bengio et al. 2013). */
#include "op.h"

/* out = x rounded, or with grad its gradient */
static int run(am_tensor *out, const am_tensor *x, const am_tensor *grad, const am_attrs *at)
{
    int64_t n = am_tensor_numel(x), c = x->shape[x->ndim - 1];
    int64_t size = at->fake_quantize.group ? at->fake_quantize.group : c;
    if (n == 0)
        return AM_OK;
    return am_launch_fake_quantize(
        x->device, &(am_fake_quantize_args){.out = am_tensor_ptr(out),
                                            .x = am_tensor_ptr(x),
                                            .grad = grad ? am_tensor_ptr(grad) : NULL,
                                            .kind = at->fake_quantize.kind,
                                            .dtype = x->dtype,
                                            .dtype_scale = at->fake_quantize.dtype_scale,
                                            .groups = n / size,
                                            .size = size});
}

static int fake_quantize_recompute(const am_bwd *b, am_tensor *out)
{
    return run(out, b->saved[0], NULL, b->attrs);
}

static int fake_quantize_forward(am_call *c)
{
    am_tensor *x = c->in[0];
    int kind = c->attrs.fake_quantize.kind, scale = c->attrs.fake_quantize.dtype_scale;
    int64_t group = c->attrs.fake_quantize.group;
    AM_TRY(am_check_float(c, 0));
    if (kind < 0 || kind >= AM_FQ_COUNT)
        return am_fail(AM_EINVAL, "fake_quantize: kind %d does not exist", kind);
    if (scale != AM_F32 && scale != AM_BF16)
        return am_fail(AM_EINVAL, "fake_quantize: scales can be float32 or bfloat16, not %s",
                       am_dtype_name(scale));
    if (x->ndim < 1 || group < 0 || (group > 0 && x->shape[x->ndim - 1] % group != 0)) {
        char text[96];
        return am_fail(AM_ESHAPE, "fake_quantize: rows of x %s are no groups of %lld",
                       am_shape_text(text, x->ndim, x->shape), (long long)group);
    }
    AM_TRY(am_temp_dense(&c->temps, &x, x));
    AM_TRY(am_out(c, x->dtype, x->ndim, x->shape));
    AM_TRY(run(c->out[0], x, NULL, &c->attrs));
    return am_save(c, 0, x);
}

static int fake_quantize_backward(am_bwd *b)
{
    am_grad g;
    AM_TRY(am_grad_begin(b, 0, false, &g));
    AM_TRY(run(g.t, b->saved[0], b->dout, b->attrs));
    return am_grad_end(b, 0, &g);
}

AM_OP(fake_quantize, .forward = fake_quantize_forward, .backward = fake_quantize_backward,
      .recompute = fake_quantize_recompute, .kernels = {AM_KERNEL(fake_quantize)});
