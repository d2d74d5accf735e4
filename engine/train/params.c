/* params.c — named parameters, and their move into flat buffers when training begins: one buffer of
 * weights and one of gradients a dtype, so that norm, clip, step and (later) sharding are a few
 * calls over everything. Holds no optimizer state: see optim.c. */
#include "params.h"

#include <math.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../ops/op.h"

enum { ALIGN_BYTES = 64 };

int am_params_new(am_params **out)
{
    void *p;
    AM_TRY(am_alloc(&p, sizeof(am_params)));
    *out = p;
    (*out)->refs = 1;
    return AM_OK;
}

static void drop_flats(am_params *p)
{
    for (size_t i = 0; i < p->n_flats; i++) {
        am_tensor_release(p->flats[i].weights);
        am_tensor_release(p->flats[i].grads);
    }
    p->n_flats = 0;
}

void am_params_release(am_params *p)
{
    if (!p || --p->refs > 0)
        return;
    for (size_t i = 0; i < p->n; i++) {
        am_free(p->items[i].name);
        am_tensor_release(p->items[i].t);
    }
    drop_flats(p);
    am_free(p->items);
    am_free(p->flats);
    am_free(p);
}

int am_params_add(am_params *p, const char *name, am_tensor *t)
{
    if (p->sealed)
        return am_fail(AM_ESTATE, "parameter %s was added after sealing", name);
    AM_TRY(am_tensor_check_alive(t, name));
    if (t->computed)
        return am_fail(AM_EINVAL, "parameter %s is the result of an op", name);
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->items[i].name, name) == 0)
            return am_fail(AM_EINVAL, "two parameters are named %s", name);
        else if (p->items[i].t == t)
            return am_fail(AM_EINVAL, "parameters %s and %s are the same tensor; add it once",
                           p->items[i].name, name);
    void *items = p->items;
    int rc = am_grow(&items, &p->cap, p->n + 1, sizeof *p->items);
    p->items = items;
    AM_TRY(rc);
    am_param *q = &p->items[p->n];
    AM_TRY(am_strdup(&q->name, name));
    am_tensor_retain(t);
    q->t = t;
    q->flat = -1;
    p->n++;
    return AM_OK;
}

/* ---- sealing ----------------------------------------------------------------------------- */

static int flat_for(am_params *p, const am_tensor *t, int *index)
{
    for (size_t i = 0; i < p->n_flats; i++)
        if (p->flats[i].dtype == t->dtype && p->flats[i].device == t->device) {
            *index = (int)i;
            return AM_OK;
        }
    void *flats = p->flats;
    int rc = am_grow(&flats, &p->cap_flats, p->n_flats + 1, sizeof *p->flats);
    p->flats = flats;
    AM_TRY(rc);
    p->flats[p->n_flats] = (am_flat){
        .dtype = t->dtype, .dtype_grad = t->dtype == AM_F64 ? AM_F64 : AM_F32, .device = t->device};
    *index = (int)p->n_flats++;
    return AM_OK;
}

/* Only the trainable parameters stay, in order. */
static void drop_frozen(am_params *p)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->items[i].t->requires_grad) {
            p->items[kept++] = p->items[i];
            continue;
        }
        am_free(p->items[i].name);
        am_tensor_release(p->items[i].t);
    }
    p->n = kept;
}

/* The parameter's gradient is a window of the flat one, if there is one. */
static int attach_grad(am_param *q, am_tensor *grads)
{
    int64_t stride[AM_MAX_DIMS], n = 1;
    for (int d = q->t->ndim - 1; d >= 0; d--) {
        stride[d] = n;
        n *= q->t->shape[d];
    }
    am_tensor *view;
    bool empty = !q->t->grad || q->t->grad_empty;
    q->t->grad_empty = empty;
    if (!grads)
        return AM_OK;
    AM_TRY(am_tensor_view(&view, grads, q->t->ndim, q->t->shape, stride, q->offset));
    int rc = empty ? AM_OK : am_copy_kernel(view, q->t->grad, 0);
    if (rc != AM_OK) {
        am_tensor_release(view);
        return rc;
    }
    am_tensor_release(q->t->grad);
    q->t->grad = view;
    return AM_OK;
}

int am_params_separate_grads(am_params *p)
{
    if (p->sealed)
        return am_fail(AM_ESTATE, "the parameters are sealed already");
    p->separate_grads = true;
    return AM_OK;
}

int am_params_seal(am_params *p)
{
    if (p->sealed)
        return am_fail(AM_ESTATE, "the parameters are sealed already");
    drop_frozen(p);
    drop_flats(p); /* of a seal that failed; tensors that had moved keep their storage */
    for (size_t i = 0; i < p->n; i++)
        AM_TRY(am_tensor_check_alive(p->items[i].t, p->items[i].name));
    for (size_t i = 0; i < p->n; i++) {
        am_param *q = &p->items[i];
        AM_TRY(flat_for(p, q->t, &q->flat));
        am_flat *f = &p->flats[q->flat];
        int64_t align = ALIGN_BYTES / am_dtype_size(f->dtype);
        q->offset = (f->n + align - 1) / align * align;
        f->n = q->offset + am_tensor_numel(q->t);
    }
    for (size_t i = 0; i < p->n_flats; i++) {
        am_flat *f = &p->flats[i];
        AM_TRY(am_tensor_make(&f->weights, f->dtype, 1, &f->n, f->device));
        /* the gaps between parameters stay zero, so that whole-buffer passes can ignore them */
        AM_TRY(am_tensor_fill(f->weights, 0));
        if (p->separate_grads)
            continue;
        AM_TRY(am_tensor_make(&f->grads, f->dtype_grad, 1, &f->n, f->device));
        AM_TRY(am_tensor_fill(f->grads, 0));
    }
    for (size_t i = 0; i < p->n; i++) {
        am_param *q = &p->items[i];
        am_flat *f = &p->flats[q->flat];
        int64_t stride[AM_MAX_DIMS], n = 1;
        for (int d = q->t->ndim - 1; d >= 0; d--) {
            stride[d] = n;
            n *= q->t->shape[d];
        }
        am_tensor *view;
        AM_TRY(am_tensor_view(&view, f->weights, q->t->ndim, q->t->shape, stride, q->offset));
        int rc = am_copy_kernel(view, q->t, 0);
        am_tensor_release(view);
        AM_TRY(rc);
        am_tensor_reseat(q->t, f->weights->storage, q->offset);
        AM_TRY(attach_grad(q, f->grads));
    }
    p->sealed = true;
    return AM_OK;
}

/* ---- getters ----------------------------------------------------------------------------- */

int64_t am_params_count(const am_params *p)
{
    return (int64_t)p->n;
}

const char *am_params_name(const am_params *p, int64_t i)
{
    return i >= 0 && (size_t)i < p->n ? p->items[i].name : NULL;
}

int am_params_tensor(am_tensor **out, am_params *p, int64_t i)
{
    if (i < 0 || (size_t)i >= p->n)
        return am_fail(AM_EINVAL, "parameter %lld of %zu", (long long)i, p->n);
    am_tensor_retain(p->items[i].t);
    *out = p->items[i].t;
    return AM_OK;
}

int64_t am_params_numel(const am_params *p)
{
    int64_t n = 0;
    for (size_t i = 0; i < p->n; i++)
        n += am_tensor_numel(p->items[i].t);
    return n;
}

void am_param_clear_grad(const am_params *p, am_param *q)
{
    q->t->grad_empty = true;
    if (!p->separate_grads)
        return;
    am_tensor_release(q->t->grad);
    q->t->grad = NULL;
}

int am_params_zero_grad(am_params *p)
{
    for (size_t i = 0; i < p->n; i++)
        am_param_clear_grad(p, &p->items[i]);
    return AM_OK;
}

int am_params_clear_grad(am_params *p, int64_t i)
{
    if (i < 0 || (size_t)i >= p->n)
        return am_fail(AM_EINVAL, "parameter %lld of %zu", (long long)i, p->n);
    am_param_clear_grad(p, &p->items[i]);
    return AM_OK;
}

int am_params_flat(const am_params *p, int64_t i)
{
    return i >= 0 && (size_t)i < p->n ? p->items[i].flat : -1;
}

int am_params_grad_empty(const am_params *p, int64_t i)
{
    return i < 0 || (size_t)i >= p->n || p->items[i].t->grad_empty;
}

int am_params_grads(am_tensor **out, am_params *p, int64_t i, int64_t n)
{
    if (i < 0 || n < 1 || (size_t)(i + n) > p->n)
        return am_fail(AM_EINVAL, "parameters %lld to %lld of %zu", (long long)i,
                       (long long)(i + n - 1), p->n);
    if (!p->sealed || p->separate_grads)
        return am_fail(AM_ESTATE, "gradients lie side by side in sealed parameters only, and not "
                                  "where each is freed at once");
    const am_param *first = &p->items[i], *last = &p->items[i + n - 1];
    if (first->flat != last->flat)
        return am_fail(AM_EINVAL, "%s and %s are in different buffers", first->name, last->name);
    for (int64_t k = i; k < i + n; k++) {
        am_tensor *t = p->items[k].t;
        if (!t->grad_empty)
            continue;
        AM_TRY(am_tensor_fill(t->grad, 0));
        t->grad_empty = false;
    }
    int64_t size = last->offset + am_tensor_numel(last->t) - first->offset, one = 1;
    AM_TRY(am_tensor_view(out, p->flats[first->flat].grads, 1, &size, &one, first->offset));
    am_scope_register(*out);
    return AM_OK;
}

/* ---- norms ------------------------------------------------------------------------------- */

/* What a sum of squares is of: n elements from offset of a tensor. */
typedef struct span {
    const am_tensor *t;
    int64_t offset, n;
} span;

static span grad_span(const am_param *q)
{
    return (span){q->t->grad, 0, q->t->grad_empty ? 0 : am_tensor_numel(q->t)};
}

static span weight_span(const am_params *p, const am_param *q)
{
    return (span){p->flats[q->flat].weights, q->offset, am_tensor_numel(q->t)};
}

static bool is_on(const span *s, int device)
{
    return s->n && s->t->device == device;
}

/* The sums of the squares of a device's spans, all queued before the first is read: it is waited
 * for once. */
static int sums_on(int device, const span *spans, size_t count, double *values)
{
    am_tensor *out = NULL, *partial = NULL;
    void *read = NULL;
    int64_t sums = 0, most = 0, bytes = 0, size;
    int rc = AM_OK;
    am_span timed = am_span_begin();
    for (size_t i = 0; i < count; i++)
        if (is_on(&spans[i], device)) {
            sums++;
            most = spans[i].n > most ? spans[i].n : most;
            bytes += spans[i].n * am_dtype_size(spans[i].t->dtype);
        }
    if (!sums)
        return AM_OK;
    AM_TRY(am_alloc(&read, (size_t)sums * sizeof(double)));
    AM_TRY_OUT(am_tensor_make(&out, AM_F64, 1, &sums, device));
    size = most / AM_SUMSQ_BLOCK + 1;
    AM_TRY_OUT(am_tensor_make(&partial, AM_F64, 1, &size, device));
    double *sum = am_tensor_ptr(out);
    for (size_t i = 0; i < count; i++) {
        if (!is_on(&spans[i], device))
            continue;
        const am_tensor *t = spans[i].t;
        am_sumsq_args args = {.out = sum++,
                              .partial = am_tensor_ptr(partial),
                              .x = (char *)am_tensor_ptr(t) +
                                   spans[i].offset * am_dtype_size(t->dtype),
                              .dtype = t->dtype,
                              .n = spans[i].n};
        AM_TRY_OUT(am_launch_sumsq(device, &args));
    }
    AM_TRY_OUT(am_tensor_read(out, read, (size_t)sums * sizeof(double)));
    for (size_t i = 0, k = 0; i < count; i++)
        if (is_on(&spans[i], device))
            values[i] = ((double *)read)[k++];
    if (am_profiling)
        am_span_end(&timed, "sumsq", AM_PHASE_OPTIMIZER, device, bytes);
out:
    am_tensor_release(partial);
    am_tensor_release(out);
    am_free(read);
    return rc;
}

/* The sums of the squares of spans; that of an empty one is 0. */
static int sums_of(const span *spans, size_t count, double *values)
{
    memset(values, 0, count * sizeof *values);
    for (int device = 0; device < AM_DEVICE_COUNT; device++)
        AM_TRY(sums_on(device, spans, count, values));
    return AM_OK;
}

int am_param_grad_sumsq(const am_param *q, double *value)
{
    span of = grad_span(q);
    return sums_of(&of, 1, value);
}

int am_params_grad_sumsq(am_params *p, int64_t i, double *value)
{
    *value = 0;
    if (i < 0 || (size_t)i >= p->n)
        return am_fail(AM_EINVAL, "parameter %lld of %zu", (long long)i, p->n);
    return am_param_grad_sumsq(&p->items[i], value);
}

int am_params_sumsq(am_params *p, int64_t i, double *value)
{
    *value = 0;
    if (i < 0 || (size_t)i >= p->n)
        return am_fail(AM_EINVAL, "parameter %lld of %zu", (long long)i, p->n);
    if (!p->sealed)
        return am_fail(AM_ESTATE, "norms need sealed parameters");
    span of = weight_span(p, &p->items[i]);
    return sums_of(&of, 1, value);
}

static int all_sums(am_params *p, bool grads, double *values)
{
    void *spans;
    if (!p->sealed)
        return am_fail(AM_ESTATE, "norms need sealed parameters");
    AM_TRY(am_alloc(&spans, p->n * sizeof(span)));
    for (size_t i = 0; i < p->n; i++)
        ((span *)spans)[i] = grads ? grad_span(&p->items[i]) : weight_span(p, &p->items[i]);
    int rc = sums_of(spans, p->n, values);
    am_free(spans);
    return rc;
}

int am_params_grad_squares(am_params *p, double *values, int64_t n)
{
    if (n < 0 || (size_t)n != p->n)
        return am_fail(AM_EINVAL, "%lld numbers for %zu parameters", (long long)n, p->n);
    return all_sums(p, true, values);
}

static int norm_over(am_params *p, bool grads, double *norm)
{
    void *values;
    double total = 0;
    AM_TRY(am_alloc(&values, p->n * sizeof(double)));
    int rc = all_sums(p, grads, values);
    for (size_t i = 0; i < p->n && rc == AM_OK; i++)
        total += ((double *)values)[i];
    am_free(values);
    if (rc == AM_OK)
        *norm = sqrt(total);
    return rc;
}

int am_params_grad_norm(am_params *p, double scale, double *norm)
{
    AM_TRY(norm_over(p, true, norm));
    *norm *= fabs(scale);
    return AM_OK;
}

int am_params_norm(am_params *p, double *norm)
{
    return norm_over(p, false, norm);
}
