/* op_shape.c — views, joins, index picks and their inverses. Views share their input's storage;
 * nothing is copied unless reshape has to. */
#include "op.h"

#include <string.h>

#include "tape.h"

/* ---- views ------------------------------------------------------------------------------- */

static int view_out(am_call *c, int ndim, const int64_t *shape, const int64_t *stride,
                    int64_t offset)
{
    return am_tensor_view(&c->out[0], c->in[0], ndim, shape, stride, offset);
}

static int infer_shape(am_call *c, int64_t *shape)
{
    char ta[96], tb[96];
    am_tensor *x = c->in[0];
    int ndim = c->attrs.view.ndim, hole = -1;
    int64_t n = am_tensor_numel(x), known = 1;
    if (ndim < 0 || ndim > AM_MAX_DIMS)
        return am_fail(AM_ESHAPE, "reshape: %d dims, but at most %d are possible", ndim,
                       AM_MAX_DIMS);
    for (int d = 0; d < ndim; d++) {
        shape[d] = c->attrs.view.shape[d];
        if (shape[d] == -1 && hole < 0)
            hole = d;
        else if (shape[d] < 0 || __builtin_mul_overflow(known, shape[d], &known))
            return am_fail(AM_ESHAPE, "reshape: size %lld in the shape", (long long)shape[d]);
    }
    if (hole >= 0 && known > 0 && n % known == 0)
        shape[hole] = n / known;
    if (hole >= 0 ? known == 0 || n % known != 0 : n != known)
        return am_fail(AM_ESHAPE, "reshape: %s does not fit into %s",
                       am_shape_text(ta, x->ndim, x->shape),
                       am_shape_text(tb, ndim, c->attrs.view.shape));
    return AM_OK;
}

/* A dense strides array for shape. */
static void dense_strides(int ndim, const int64_t *shape, int64_t *stride)
{
    int64_t n = 1;
    for (int d = ndim - 1; d >= 0; d--) {
        stride[d] = n;
        n *= shape[d];
    }
}

/* Strides that show x in another shape without copying, if there are any. Dims of x that lie evenly
 * one within the other form a block; each block must be filled exactly by new dims. */
static bool view_strides(const am_tensor *x, int ndim, const int64_t *shape, int64_t *stride)
{
    if (am_tensor_dense(x)) {
        dense_strides(ndim, shape, stride);
        return true;
    }
    int to = ndim - 1;
    int64_t step = x->stride[x->ndim - 1], block = 1, filled = 1;
    for (int d = x->ndim - 1; d >= 0; d--) {
        block *= x->shape[d];
        if (d > 0 && (x->shape[d - 1] == 1 || x->stride[d - 1] == block * step))
            continue; /* the dim before belongs to this block, too */
        for (; to >= 0 && (filled < block || shape[to] == 1); to--) {
            stride[to] = filled * step;
            filled *= shape[to];
        }
        if (filled != block)
            return false;
        block = filled = 1;
        step = d > 0 ? x->stride[d - 1] : 0;
    }
    return to < 0;
}

static int reshape_forward(am_call *c)
{
    int64_t shape[AM_MAX_DIMS], stride[AM_MAX_DIMS];
    AM_TRY(infer_shape(c, shape));
    int ndim = c->attrs.view.ndim;
    if (!view_strides(c->in[0], ndim, shape, stride)) {
        /* A copy with the input's shape, then seen with the new one. */
        am_tensor *dense;
        dense_strides(ndim, shape, stride);
        AM_TRY(am_temp_dense(&c->temps, &dense, c->in[0]));
        return am_tensor_view(&c->out[0], dense, ndim, shape, stride, 0);
    }
    return view_out(c, ndim, shape, stride, 0);
}

static int reshape_backward(am_bwd *b)
{
    const am_var *x = b->in[0];
    int64_t stride[AM_MAX_DIMS];
    am_tensor *view;
    dense_strides(x->ndim, x->shape, stride);
    AM_TRY(am_tensor_view(&view, b->dout, x->ndim, x->shape, stride, 0));
    int rc = am_grad_give(b, 0, view);
    am_tensor_release(view);
    return rc;
}

AM_OP(reshape, .forward = reshape_forward, .backward = reshape_backward,
      .kernels = {AM_KERNEL(copy)});

static int expand_forward(am_call *c)
{
    char ta[96], tb[96];
    am_tensor *x = c->in[0];
    int ndim = c->attrs.view.ndim;
    int64_t shape[AM_MAX_DIMS], stride[AM_MAX_DIMS];
    bool fits = ndim >= x->ndim && ndim <= AM_MAX_DIMS;
    for (int d = 0; fits && d < ndim; d++) {
        int dx = d - (ndim - x->ndim);
        int64_t have = dx < 0 ? 1 : x->shape[dx], want = c->attrs.view.shape[d];
        shape[d] = want == -1 && dx >= 0 ? have : want;
        stride[d] = dx >= 0 && have == shape[d] ? x->stride[dx] : 0;
        fits = shape[d] >= 0 && (have == shape[d] || have == 1);
    }
    if (!fits)
        return am_fail(
            AM_ESHAPE, "expand: %s to %s", am_shape_text(ta, x->ndim, x->shape),
            am_shape_text(tb, ndim > AM_MAX_DIMS ? AM_MAX_DIMS : ndim, c->attrs.view.shape));
    return view_out(c, ndim, shape, stride, 0);
}

static int expand_backward(am_bwd *b)
{
    return am_grad_give_summed(b, 0, b->dout);
}

AM_OP(expand, .forward = expand_forward, .backward = expand_backward,
      .kernels = {AM_KERNEL(reduce)});

static int permute_forward(am_call *c)
{
    am_tensor *x = c->in[0];
    int ndim = c->attrs.permute.ndim;
    int64_t shape[AM_MAX_DIMS], stride[AM_MAX_DIMS];
    bool used[AM_MAX_DIMS] = {false};
    if (ndim != x->ndim)
        return am_fail(AM_ESHAPE, "permute: %d dims named for a tensor with %d", ndim, x->ndim);
    for (int d = 0; d < ndim; d++) {
        int from;
        AM_TRY(am_check_dim(c, ndim, c->attrs.permute.dims[d], &from));
        if (used[from])
            return am_fail(AM_ESHAPE, "permute: dim %d is named twice", from);
        used[from] = true;
        c->attrs.permute.dims[d] = from;
        shape[d] = x->shape[from];
        stride[d] = x->stride[from];
    }
    return view_out(c, ndim, shape, stride, 0);
}

/* The inverse order, applied to dout. */
static int permute_backward(am_bwd *b)
{
    int64_t shape[AM_MAX_DIMS], stride[AM_MAX_DIMS];
    for (int d = 0; d < b->dout->ndim; d++) {
        shape[b->attrs->permute.dims[d]] = b->dout->shape[d];
        stride[b->attrs->permute.dims[d]] = b->dout->stride[d];
    }
    am_tensor *view;
    AM_TRY(am_tensor_view(&view, b->dout, b->dout->ndim, shape, stride, 0));
    int rc = am_grad_give(b, 0, view);
    am_tensor_release(view);
    return rc;
}

AM_OP(permute, .forward = permute_forward, .backward = permute_backward);

static int transpose_forward(am_call *c)
{
    am_tensor *x = c->in[0];
    int a, b;
    AM_TRY(am_check_dim(c, x->ndim, c->attrs.transpose.dim0, &a));
    AM_TRY(am_check_dim(c, x->ndim, c->attrs.transpose.dim1, &b));
    am_attrs at = {.permute = {.ndim = x->ndim}};
    for (int d = 0; d < x->ndim; d++)
        at.permute.dims[d] = d == a ? b : d == b ? a : d;
    c->attrs = at;
    return permute_forward(c);
}

AM_OP(transpose, .forward = transpose_forward, .backward = permute_backward);

static int narrow_forward(am_call *c)
{
    am_tensor *x = c->in[0];
    int dim;
    int64_t shape[AM_MAX_DIMS], stride[AM_MAX_DIMS];
    int64_t start = c->attrs.narrow.start, length = c->attrs.narrow.length;
    int64_t step = c->attrs.narrow.step ? c->attrs.narrow.step : 1;
    AM_TRY(am_check_dim(c, x->ndim, c->attrs.narrow.dim, &dim));
    int64_t size = x->shape[dim];
    if (start < 0)
        start += size;
    bool fits = step > 0 && start >= 0 && length >= 0 && start <= size;
    if (!fits || (length > 0 && (start == size || length - 1 > (size - 1 - start) / step)))
        return am_fail(
            AM_ESHAPE, "narrow: %lld elements from %lld in steps of %lld of a dim of %lld",
            (long long)length, (long long)c->attrs.narrow.start, (long long)step, (long long)size);
    memcpy(shape, x->shape, sizeof shape);
    memcpy(stride, x->stride, sizeof stride);
    shape[dim] = length;
    if (length > 1) /* then step is below size */
        stride[dim] *= step;
    c->attrs.narrow.dim = dim;
    c->attrs.narrow.start = start;
    c->attrs.narrow.step = length > 1 ? step : 1;
    return view_out(c, x->ndim, shape, stride, start * x->stride[dim]);
}

static int narrow_backward(am_bwd *b)
{
    const am_var *x = b->in[0];
    int dim = b->attrs->narrow.dim;
    int64_t stride[AM_MAX_DIMS];
    am_tensor *d, *part;
    AM_TRY(am_temp_new(&b->temps, &d, x->dtype, x->ndim, x->shape, b->device));
    AM_TRY(am_tensor_fill(d, 0));
    memcpy(stride, d->stride, sizeof stride);
    stride[dim] *= b->attrs->narrow.step;
    AM_TRY(am_tensor_view(&part, d, x->ndim, b->dout->shape, stride,
                          b->attrs->narrow.start * d->stride[dim]));
    int rc = am_copy_kernel(part, b->dout, 0);
    am_tensor_release(part);
    AM_TRY(rc);
    return am_grad_give(b, 0, d);
}

AM_OP(narrow, .forward = narrow_forward, .backward = narrow_backward,
      .kernels = {AM_KERNEL(fill), AM_KERNEL(copy)});

static int contiguous_forward(am_call *c)
{
    am_tensor *x = c->in[0];
    if (am_tensor_dense(x))
        return view_out(c, x->ndim, x->shape, x->stride, 0);
    AM_TRY(am_out(c, x->dtype, x->ndim, x->shape));
    return am_copy_kernel(c->out[0], x, 0);
}

static int contiguous_backward(am_bwd *b)
{
    return am_grad_give(b, 0, b->dout);
}

AM_OP(contiguous, .forward = contiguous_forward, .backward = contiguous_backward,
      .kernels = {AM_KERNEL(copy)});

/* ---- cat --------------------------------------------------------------------------------- */

static int cat_forward(am_call *c)
{
    char ta[96], tb[96];
    am_tensor *x = c->in[0];
    int dim;
    int64_t shape[AM_MAX_DIMS], total = 0;
    AM_TRY(am_check_dim(c, x->ndim, c->attrs.dim.dim, &dim));
    memcpy(shape, x->shape, sizeof shape);
    for (int i = 0; i < c->n_in; i++) {
        AM_TRY(am_check_same_dtype(c, 0, i));
        shape[dim] = c->in[i]->ndim == x->ndim ? c->in[i]->shape[dim] : 0;
        if (c->in[i]->ndim != x->ndim ||
            memcmp(shape, c->in[i]->shape, (size_t)x->ndim * sizeof *shape) != 0)
            return am_fail(AM_ESHAPE, "cat: %s and %s differ outside dim %d",
                           am_shape_text(ta, x->ndim, x->shape),
                           am_shape_text(tb, c->in[i]->ndim, c->in[i]->shape), dim);
        total += shape[dim];
    }
    shape[dim] = total;
    c->attrs.dim.dim = dim;
    AM_TRY(am_out(c, x->dtype, x->ndim, shape));
    int64_t at = 0;
    for (int i = 0; i < c->n_in; i++) {
        am_tensor *part;
        AM_TRY(am_tensor_view(&part, c->out[0], x->ndim, c->in[i]->shape, c->out[0]->stride,
                              at * c->out[0]->stride[dim]));
        int rc = am_copy_kernel(part, c->in[i], 0);
        am_tensor_release(part);
        AM_TRY(rc);
        at += c->in[i]->shape[dim];
        /* backward needs the sizes of all inputs, also of those without a gradient */
        AM_TRY(i < AM_OP_SAVED ? am_save(c, i, c->in[i]) : AM_OK);
    }
    return AM_OK;
}

static int cat_backward(am_bwd *b)
{
    int dim = b->attrs->dim.dim;
    int64_t at = 0;
    for (int i = 0; i < b->n_in; i++) {
        const int64_t *shape = b->needs[i] ? b->in[i]->shape : b->saved[i]->shape;
        if (b->needs[i]) {
            am_tensor *part;
            AM_TRY(am_tensor_view(&part, b->dout, b->dout->ndim, shape, b->dout->stride,
                                  at * b->dout->stride[dim]));
            int rc = am_grad_give(b, i, part);
            am_tensor_release(part);
            AM_TRY(rc);
        }
        at += shape[dim];
    }
    return AM_OK;
}

AM_OP(cat, .forward = cat_forward, .backward = cat_backward, .kernels = {AM_KERNEL(copy)});

/* ---- index_select, gather, embedding ----------------------------------------------------- */

typedef struct pick {
    int64_t outer, n, inner, m;
    int per_element, has_padding;
    int64_t padding;
} pick;

static int pick_kernel(am_tensor *out, am_tensor *a, am_tensor *index, const pick *p)
{
    if (p->outer * p->m * p->inner == 0)
        return AM_OK;
    return am_launch_gather(a->device, &(am_gather_args){.out = am_tensor_ptr(out),
                                                         .a = am_tensor_ptr(a),
                                                         .index = am_tensor_ptr(index),
                                                         .dtype = a->dtype,
                                                         .dtype_index = index->dtype,
                                                         .per_element = p->per_element,
                                                         .outer = p->outer,
                                                         .n = p->n,
                                                         .inner = p->inner,
                                                         .m = p->m});
}

static int pick_forward(am_call *c, am_tensor *a, am_tensor *index, const pick *p)
{
    AM_TRY(pick_kernel(c->out[0], a, index, p));
    return am_save(c, 0, index);
}

/* da[index] += dout for input i. */
static int pick_backward(am_bwd *b, int i, const pick *p)
{
    am_tensor *index = b->saved[0];
    am_grad g;
    AM_TRY(am_grad_begin(b, i, true, &g));
    if (!g.accumulate)
        AM_TRY(am_tensor_fill(g.t, 0));
    if (p->outer * p->m * p->inner > 0)
        AM_TRY(am_launch_gather_bwd(b->device, &(am_gather_bwd_args){.da = am_tensor_ptr(g.t),
                                                                     .dout = am_tensor_ptr(b->dout),
                                                                     .index = am_tensor_ptr(index),
                                                                     .dtype = b->dout->dtype,
                                                                     .dtype_da = g.t->dtype,
                                                                     .dtype_index = index->dtype,
                                                                     .per_element = p->per_element,
                                                                     .has_padding = p->has_padding,
                                                                     .padding = p->padding,
                                                                     .outer = p->outer,
                                                                     .n = p->n,
                                                                     .inner = p->inner,
                                                                     .m = p->m}));
    return am_grad_end(b, i, &g);
}

static pick pick_of(int dim, int ndim, const int64_t *shape, int64_t m, int per_element)
{
    return (pick){.outer = am_shape_numel(dim, shape),
                  .n = shape[dim],
                  .inner = am_shape_numel(ndim - dim - 1, shape + dim + 1),
                  .m = m,
                  .per_element = per_element};
}

static int index_select_forward(am_call *c)
{
    am_tensor *a, *index;
    int dim;
    int64_t shape[AM_MAX_DIMS];
    AM_TRY(am_check_dim(c, c->in[0]->ndim, c->attrs.dim.dim, &dim));
    AM_TRY(am_check_int(c, 1));
    if (c->in[1]->ndim != 1)
        return am_fail(AM_ESHAPE, "index_select: the index must have one dim");
    AM_TRY(am_temp_dense(&c->temps, &a, c->in[0]));
    AM_TRY(am_temp_dense(&c->temps, &index, c->in[1]));
    memcpy(shape, a->shape, sizeof shape);
    shape[dim] = index->shape[0];
    c->attrs.dim.dim = dim;
    AM_TRY(am_out(c, a->dtype, a->ndim, shape));
    pick p = pick_of(dim, a->ndim, a->shape, shape[dim], 0);
    return pick_forward(c, a, index, &p);
}

static int index_select_backward(am_bwd *b)
{
    pick p = pick_of(b->attrs->dim.dim, b->in[0]->ndim, b->in[0]->shape, b->saved[0]->shape[0], 0);
    return pick_backward(b, 0, &p);
}

#define PICK_KERNELS                                                                               \
    {                                                                                              \
        AM_KERNEL(gather), AM_KERNEL(gather_bwd), AM_KERNEL(fill)                                  \
    }
AM_OP(index_select, .forward = index_select_forward, .backward = index_select_backward,
      .kernels = PICK_KERNELS);

static int gather_forward(am_call *c)
{
    char ta[96], tb[96];
    am_tensor *a, *index;
    int dim;
    AM_TRY(am_check_dim(c, c->in[0]->ndim, c->attrs.dim.dim, &dim));
    AM_TRY(am_check_int(c, 1));
    AM_TRY(am_temp_dense(&c->temps, &a, c->in[0]));
    AM_TRY(am_temp_dense(&c->temps, &index, c->in[1]));
    bool fits = index->ndim == a->ndim;
    for (int d = 0; fits && d < a->ndim; d++)
        fits = d == dim || index->shape[d] == a->shape[d];
    if (!fits)
        return am_fail(AM_ESHAPE, "gather: index %s must equal %s outside dim %d",
                       am_shape_text(ta, index->ndim, index->shape),
                       am_shape_text(tb, a->ndim, a->shape), dim);
    c->attrs.dim.dim = dim;
    AM_TRY(am_out(c, a->dtype, a->ndim, index->shape));
    pick p = pick_of(dim, a->ndim, a->shape, index->shape[dim], 1);
    return pick_forward(c, a, index, &p);
}

static int gather_backward(am_bwd *b)
{
    int dim = b->attrs->dim.dim;
    pick p = pick_of(dim, b->in[0]->ndim, b->in[0]->shape, b->saved[0]->shape[dim], 1);
    return pick_backward(b, 0, &p);
}

AM_OP(gather, .forward = gather_forward, .backward = gather_backward, .kernels = PICK_KERNELS);

static int embedding_forward(am_call *c)
{
    am_tensor *index, *w;
    int64_t shape[AM_MAX_DIMS];
    AM_TRY(am_check_int(c, 0));
    AM_TRY(am_check_float(c, 1));
    if (c->in[1]->ndim != 2 || c->in[0]->ndim >= AM_MAX_DIMS)
        return am_fail(AM_ESHAPE, "embedding: the weight must be [V, C]");
    AM_TRY(am_temp_dense(&c->temps, &index, c->in[0]));
    AM_TRY(am_temp_dense(&c->temps, &w, c->in[1]));
    memcpy(shape, index->shape, sizeof shape);
    shape[index->ndim] = w->shape[1];
    AM_TRY(am_out(c, w->dtype, index->ndim + 1, shape));
    pick p = pick_of(0, 2, w->shape, am_tensor_numel(index), 0);
    return pick_forward(c, w, index, &p);
}

static int embedding_backward(am_bwd *b)
{
    pick p = pick_of(0, 2, b->in[1]->shape, am_tensor_numel(b->saved[0]), 0);
    p.padding = b->attrs->embedding.padding_idx;
    p.has_padding = p.padding >= 0;
    return pick_backward(b, 1, &p);
}

AM_OP(embedding, .forward = embedding_forward, .backward = embedding_backward,
      .kernels = PICK_KERNELS);

/* ---- index_add, scatter_add: a with src added where the picks above would read --------------- */

static int add_forward(am_call *c, int per_element)
{
    char ta[96], tb[96], tc[96];
    am_tensor *a = c->in[0], *index, *src;
    int dim;
    AM_TRY(am_check_dim(c, a->ndim, c->attrs.dim.dim, &dim));
    AM_TRY(am_check_int(c, 1));
    AM_TRY(am_check_same_dtype(c, 0, 2));
    if (a->dtype == AM_BOOL)
        return am_fail(AM_EINVAL, "%s: bool has no arithmetic; cast first", am_op_name(c->op));
    AM_TRY(am_temp_dense(&c->temps, &index, c->in[1]));
    AM_TRY(am_temp_dense(&c->temps, &src, c->in[2]));
    bool fits = src->ndim == a->ndim &&
                (per_element ? am_shape_equal(index, src)
                             : index->ndim == 1 && index->shape[0] == src->shape[dim]);
    for (int d = 0; fits && d < a->ndim; d++)
        fits = d == dim || src->shape[d] == a->shape[d];
    if (!fits)
        return am_fail(AM_ESHAPE, "%s: index %s and src %s do not fit into dim %d of %s",
                       am_op_name(c->op), am_shape_text(ta, index->ndim, index->shape),
                       am_shape_text(tb, src->ndim, src->shape), dim,
                       am_shape_text(tc, a->ndim, a->shape));
    c->attrs.dim.dim = dim;
    AM_TRY(am_out(c, a->dtype, a->ndim, a->shape));
    AM_TRY(am_copy_kernel(c->out[0], a, 0));
    AM_TRY(am_save(c, 0, index));
    pick p = pick_of(dim, a->ndim, a->shape, src->shape[dim], per_element);
    if (p.outer * p.m * p.inner == 0)
        return AM_OK;
    return am_launch_gather_bwd(c->device, &(am_gather_bwd_args){.da = am_tensor_ptr(c->out[0]),
                                                                 .dout = am_tensor_ptr(src),
                                                                 .index = am_tensor_ptr(index),
                                                                 .dtype = src->dtype,
                                                                 .dtype_da = src->dtype,
                                                                 .dtype_index = index->dtype,
                                                                 .per_element = per_element,
                                                                 .outer = p.outer,
                                                                 .n = p.n,
                                                                 .inner = p.inner,
                                                                 .m = p.m});
}

/* da = dout; dsrc = dout picked at index. */
static int add_backward(am_bwd *b, int per_element)
{
    if (b->needs[0])
        AM_TRY(am_grad_give(b, 0, b->dout));
    if (!b->needs[2])
        return AM_OK;
    am_tensor *index = b->saved[0], *dout = b->dout;
    int dim = b->attrs->dim.dim;
    pick p = pick_of(dim, dout->ndim, dout->shape, b->in[2]->shape[dim], per_element);
    am_grad g;
    AM_TRY(am_grad_begin(b, 2, false, &g));
    AM_TRY(pick_kernel(g.t, dout, index, &p));
    return am_grad_end(b, 2, &g);
}

static int index_add_forward(am_call *c)
{
    return add_forward(c, 0);
}

static int index_add_backward(am_bwd *b)
{
    return add_backward(b, 0);
}

AM_OP(index_add, .forward = index_add_forward, .backward = index_add_backward,
      .kernels = PICK_KERNELS);

static int scatter_add_forward(am_call *c)
{
    return add_forward(c, 1);
}

static int scatter_add_backward(am_bwd *b)
{
    return add_backward(b, 1);
}

AM_OP(scatter_add, .forward = scatter_add_forward, .backward = scatter_add_backward,
      .kernels = PICK_KERNELS);
