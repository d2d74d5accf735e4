/* op_packed.c — weights in few bits: packing and unpacking, which are no ops and not recorded, and
 * packed_linear. Holds no kernel and no format: bytes are laid out in backend.h. */
#include "op_packed.h"

#include <string.h>

int am_packed_bytes(const am_packing *p, int64_t *bytes)
{
    if (p->type <= AM_PACK_NONE || p->type >= AM_PACK_COUNT)
        return am_fail(AM_EINVAL, "packing %d does not exist", (int)p->type);
    if (p->rows < 1 || p->cols < 1 || p->rows > INT64_MAX / 16 / p->cols)
        return am_fail(AM_ESHAPE, "a weight of %lld x %lld can't be packed", (long long)p->rows,
                       (long long)p->cols);
    *bytes = 4 * am_packing_scales(p) + am_packing_nested(p) + am_packing_codes(p);
    return AM_OK;
}

static int check_packed(const am_tensor *w, const am_packing *p)
{
    int64_t bytes;
    AM_TRY(am_packed_bytes(p, &bytes));
    if (w->dtype != AM_U8 || w->ndim != 1 || w->shape[0] != bytes)
        return am_fail(AM_ESHAPE, "a weight packed from [%lld, %lld] is uint8 [%lld]",
                       (long long)p->rows, (long long)p->cols, (long long)bytes);
    return AM_OK;
}

int am_pack(am_tensor **out, am_tensor *weight, am_packing *p)
{
    int64_t bytes, blocks;
    am_temps temps = {0};
    am_tensor *dense, *work = NULL, *made;
    AM_TRY(am_tensor_check_alive(weight, "weight"));
    if (weight->ndim != 2 || !am_dtype_is_float(weight->dtype))
        return am_fail(AM_EINVAL, "a matrix of a floating dtype is packed, not %s with %d dims",
                       am_dtype_name(weight->dtype), weight->ndim);
    p->rows = weight->shape[0];
    p->cols = weight->shape[1];
    AM_TRY(am_packed_bytes(p, &bytes));
    AM_TRY(am_tensor_make_exact(&made, AM_U8, 1, &bytes, weight->device));
    am_scope_register(made);
    int rc = am_temp_dense(&temps, &dense, weight);
    blocks = am_packing_blocks(p);
    if (rc == AM_OK && am_packing_nested(p))
        rc = am_temp_new(&temps, &work, AM_F32, 1, &blocks, weight->device);
    if (rc == AM_OK)
        rc = am_launch_pack(weight->device,
                            &(am_pack_args){.packed = am_tensor_ptr(made),
                                            .work = work ? am_tensor_ptr(work) : NULL,
                                            .a = am_tensor_ptr(dense),
                                            .dtype = weight->dtype,
                                            .packing = *p});
    am_temps_free(&temps);
    if (rc == AM_OK)
        *out = made;
    else
        am_tensor_release(made);
    return rc;
}

int am_unpack(am_tensor **out, am_tensor *packed, const am_packing *p, int dtype)
{
    am_temps temps = {0};
    am_tensor *dense, *made;
    AM_TRY(am_tensor_check_alive(packed, "weight"));
    AM_TRY(check_packed(packed, p));
    if (!am_dtype_is_float(dtype))
        return am_fail(AM_EINVAL, "a weight is unpacked to a floating dtype, not %s",
                       am_dtype_name(dtype));
    int64_t shape[] = {p->rows, p->cols};
    AM_TRY(am_tensor_new(&made, dtype, 2, shape, packed->device));
    int rc = am_temp_dense(&temps, &dense, packed);
    if (rc == AM_OK)
        rc = am_launch_unpack(packed->device, &(am_unpack_args){.out = am_tensor_ptr(made),
                                                                .packed = am_tensor_ptr(dense),
                                                                .dtype = dtype,
                                                                .packing = *p,
                                                                .rows = p->rows,
                                                                .cols = p->cols});
    am_temps_free(&temps);
    if (rc == AM_OK)
        *out = made;
    else
        am_tensor_release(made);
    return rc;
}

/* ---- products ---------------------------------------------------------------------------- */

int am_packed_check(const am_call *c, const am_packing *p)
{
    am_tensor *x = c->in[0];
    AM_TRY(am_check_float(c, 0));
    AM_TRY(check_packed(c->in[1], p));
    if (x->ndim < 1 || x->shape[x->ndim - 1] != p->cols)
        return am_fail(AM_ESHAPE, "%s: x's last dim must be the weight's second, %lld",
                       am_op_name(c->op), (long long)p->cols);
    return AM_OK;
}

int am_packed_product(am_tensor *y, am_tensor *x, am_tensor *w, const am_packing *p, bool trans,
                      am_tensor *bias, int64_t m, int accumulate)
{
    if (m == 0)
        return AM_OK;
    bool few = trans && am_grad_mode() == AM_GRAD_INFERENCE && m <= AM_FEW_ROWS;
    return am_launch_packed_gemm(y->device,
                                 &(am_packed_gemm_args){.c = am_tensor_ptr(y),
                                                        .a = am_tensor_ptr(x),
                                                        .w = am_tensor_ptr(w),
                                                        .bias = bias ? am_tensor_ptr(bias) : NULL,
                                                        .dtype = x->dtype,
                                                        .dtype_c = y->dtype,
                                                        .trans = trans,
                                                        .few = few,
                                                        .accumulate = accumulate,
                                                        .packing = *p,
                                                        .m = m});
}

/* y = x W^T + b; dx = dy W; db = sum of dy over rows. */
static int packed_linear_forward(am_call *c)
{
    am_tensor *x, *w, *bias = NULL;
    const am_packing *p = &c->attrs.packing;
    AM_TRY(am_packed_check(c, p));
    AM_TRY(am_temp_dense(&c->temps, &x, c->in[0]));
    AM_TRY(am_temp_dense(&c->temps, &w, c->in[1]));
    AM_TRY(am_check_bias(c, 2, p->rows));
    if (c->n_in > 2 && c->in[2])
        AM_TRY(am_temp_dense(&c->temps, &bias, c->in[2]));
    int64_t shape[AM_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = p->rows;
    AM_TRY(am_out(c, x->dtype, x->ndim, shape));
    AM_TRY(am_packed_product(c->out[0], x, w, p, true, bias, am_rows_of(x), 0));
    return c->needs[0] ? am_save(c, 0, w) : AM_OK;
}

static int packed_linear_backward(am_bwd *b)
{
    am_grad g;
    const am_packing *p = &b->attrs->packing;
    if (b->needs[0]) {
        AM_TRY(am_grad_begin(b, 0, true, &g));
        AM_TRY(am_packed_product(g.t, b->dout, b->saved[0], p, false, NULL, am_rows_of(b->dout),
                                 g.accumulate));
        AM_TRY(am_grad_end(b, 0, &g));
    }
    if (b->n_in > 2 && b->needs[2]) {
        AM_TRY(am_grad_begin(b, 2, true, &g));
        AM_TRY(am_launch_reduce(b->device, &(am_reduce_args){.out = am_tensor_ptr(g.t),
                                                             .a = am_tensor_ptr(b->dout),
                                                             .op = AM_R_SUM,
                                                             .dtype = b->dout->dtype,
                                                             .dtype_out = g.t->dtype,
                                                             .accumulate = g.accumulate,
                                                             .scale = 1,
                                                             .outer = 1,
                                                             .n = am_rows_of(b->dout),
                                                             .inner = p->rows}));
        AM_TRY(am_grad_end(b, 2, &g));
    }
    return AM_OK;
}

AM_OP(packed_linear, .forward = packed_linear_forward, .backward = packed_linear_backward,
      .kernels = {AM_KERNEL(packed_gemm), AM_KERNEL(reduce)});
