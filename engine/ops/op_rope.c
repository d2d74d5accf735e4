/* op_rope.c — rotary position embedding (Su et al. 2021). The frequencies of each scaling type are
 * computed in lua/am/nn/rope.lua; here they are turned into a table and applied. */
#include "op.h"

static int rope_table_forward(am_call *c)
{
    am_tensor *pos = c->in[0], *freq = c->in[1];
    if (pos->ndim != 2 || freq->ndim != 1 || pos->dtype != AM_I32 || freq->dtype != AM_F32)
        return am_fail(AM_ESHAPE, "rope_table: needs int32 positions [B, T] and float32 inverse "
                                  "frequencies [R/2]");
    AM_TRY(am_temp_dense(&c->temps, &pos, pos));
    AM_TRY(am_temp_dense(&c->temps, &freq, freq));
    int64_t shape[] = {pos->shape[0], pos->shape[1], 2 * freq->shape[0]};
    AM_TRY(am_out(c, AM_F32, 3, shape));
    if (am_tensor_numel(c->out[0]) == 0)
        return AM_OK;
    return am_launch_rope_table(c->device,
                                &(am_rope_table_args){.out = am_tensor_ptr(c->out[0]),
                                                      .pos = am_tensor_ptr(pos),
                                                      .inv_freq = am_tensor_ptr(freq),
                                                      .scaling = c->attrs.rope_table.scaling,
                                                      .n = shape[0] * shape[1],
                                                      .half = freq->shape[0]});
}

AM_OP(rope_table, .forward = rope_table_forward, .kernels = {AM_KERNEL(rope_table)});

/* A rotation is orthogonal, so its gradient is the rotation back. */
static int rotate(am_tensor *out, am_tensor *x, am_tensor *table, int interleaved, int inverse)
{
    if (am_tensor_numel(x) == 0)
        return AM_OK;
    return am_launch_rope(out->device, &(am_rope_args){.out = am_tensor_ptr(out),
                                                       .x = am_tensor_ptr(x),
                                                       .table = am_tensor_ptr(table),
                                                       .dtype = x->dtype,
                                                       .table_batched = table->shape[0] > 1,
                                                       .inverse = inverse,
                                                       .interleaved = interleaved,
                                                       .b = x->shape[0],
                                                       .t = x->shape[1],
                                                       .h = x->shape[2],
                                                       .d = x->shape[3],
                                                       .r = table->shape[2]});
}

static int rope_forward(am_call *c)
{
    char ta[96], tb[96];
    am_tensor *x = c->in[0], *table = c->in[1];
    AM_TRY(am_check_float(c, 0));
    if (c->needs[1])
        return am_fail(AM_EUNSUP, "rope: the table requires grad, but gets none; detach it");
    if (x->ndim != 4 || table->ndim != 3 || table->dtype != AM_F32 ||
        (table->shape[0] != 1 && table->shape[0] != x->shape[0]) ||
        table->shape[1] != x->shape[1] || table->shape[2] > x->shape[3] || table->shape[2] % 2)
        return am_fail(AM_ESHAPE, "rope: x %s and table %s", am_shape_text(ta, x->ndim, x->shape),
                       am_shape_text(tb, table->ndim, table->shape));
    AM_TRY(am_temp_dense(&c->temps, &x, x));
    AM_TRY(am_temp_dense(&c->temps, &table, table));
    AM_TRY(am_out(c, x->dtype, 4, x->shape));
    AM_TRY(rotate(c->out[0], x, table, c->attrs.rope.interleaved, 0));
    return am_save(c, 0, table);
}

static int rope_backward(am_bwd *b)
{
    am_grad g;
    AM_TRY(am_grad_begin(b, 0, false, &g));
    AM_TRY(rotate(g.t, b->dout, b->saved[0], b->attrs->rope.interleaved, 1));
    return am_grad_end(b, 0, &g);
}

AM_OP(rope, .forward = rope_forward, .backward = rope_backward, .kernels = {AM_KERNEL(rope)});
