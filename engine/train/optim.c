/* optim.c — Adam, AdamW and SGD over flat buffers, with f32 masters for 16-bit weights. The
 * arithmetic is in the kernels (see am_adam_args in backend.h); schedules and clipping are Lua's.
 */
#include <math.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../ops/op.h"
#include "params.h"

enum { EXP_AVG, EXP_AVG_SQ, MASTER, STATES };
static const char *const state_names[STATES] = {"exp_avg", "exp_avg_sq", "master"};

typedef struct flat_state {
    am_tensor *t[STATES]; /* laid out as the flat weights; NULL where not kept */
} flat_state;

struct am_optim {
    am_params *params;
    am_optim_config config;
    flat_state *flats;
    int64_t steps;
};

void am_optim_release(am_optim *o)
{
    if (!o)
        return;
    for (size_t i = 0; o->flats && i < o->params->n_flats; i++)
        for (int s = 0; s < STATES; s++)
            am_tensor_release(o->flats[i].t[s]);
    am_free(o->flats);
    am_params_release(o->params);
    am_free(o);
}

static int check_config(const am_optim_config *c)
{
    bool adam = c->kind == AM_OPTIM_ADAM || c->kind == AM_OPTIM_ADAMW;
    if (!adam && c->kind != AM_OPTIM_SGD)
        return am_fail(AM_EINVAL, "optimizer kind %d does not exist", c->kind);
    if (adam && !(c->beta1 >= 0 && c->beta1 < 1 && c->beta2 >= 0 && c->beta2 < 1 && c->eps >= 0))
        return am_fail(AM_EINVAL, "Adam: betas (%g, %g) must be within 0 and 1, eps (%g) positive",
                       c->beta1, c->beta2, c->eps);
    if (!adam && !(c->momentum >= 0))
        return am_fail(AM_EINVAL, "SGD: momentum %g is negative", c->momentum);
    if (!adam && c->nesterov && (c->momentum <= 0 || c->dampening != 0))
        return am_fail(AM_EINVAL, "SGD: nesterov needs a momentum and no dampening");
    if (c->state_dtype != -1 && c->state_dtype != AM_F32 && c->state_dtype != AM_BF16)
        return am_fail(AM_EINVAL, "optimizer state can be float32 or bfloat16, not %s",
                       am_dtype_name(c->state_dtype));
    return AM_OK;
}

static int new_state(am_tensor **out, int dtype, const am_flat *f)
{
    AM_TRY(am_tensor_make(out, dtype, 1, &f->n, f->device));
    return am_tensor_fill(*out, 0);
}

static int new_states(am_optim *o, size_t i)
{
    const am_flat *f = &o->params->flats[i];
    const am_optim_config *c = &o->config;
    flat_state *s = &o->flats[i];
    int dtype = f->dtype == AM_F64 ? AM_F64 : c->state_dtype == -1 ? AM_F32 : c->state_dtype;
    bool adam = c->kind != AM_OPTIM_SGD;
    if (adam || c->momentum > 0)
        AM_TRY(new_state(&s->t[EXP_AVG], dtype, f));
    if (adam)
        AM_TRY(new_state(&s->t[EXP_AVG_SQ], dtype, f));
    if (c->master_weights && (f->dtype == AM_BF16 || f->dtype == AM_F16))
        AM_TRY(new_state(&s->t[MASTER], AM_F32, f));
    return AM_OK;
}

int am_optim_new(am_optim **out, am_params *sealed, const am_optim_config *config)
{
    void *p;
    AM_TRY(check_config(config));
    if (!sealed->sealed)
        return am_fail(AM_ESTATE, "an optimizer needs sealed parameters");
    AM_TRY(am_alloc(&p, sizeof(am_optim)));
    am_optim *o = p;
    o->config = *config;
    o->params = sealed;
    sealed->refs++;
    int rc = am_alloc(&p, sealed->n_flats * sizeof *o->flats);
    if (rc == AM_OK)
        o->flats = p;
    for (size_t i = 0; rc == AM_OK && i < sealed->n_flats; i++)
        rc = new_states(o, i);
    if (rc == AM_OK)
        rc = am_optim_sync_masters(o);
    if (rc != AM_OK) {
        am_optim_release(o);
        return rc;
    }
    *out = o;
    return AM_OK;
}

int am_optim_sync_masters(am_optim *o)
{
    for (size_t i = 0; i < o->params->n_flats; i++)
        if (o->flats[i].t[MASTER])
            AM_TRY(am_copy_kernel(o->flats[i].t[MASTER], o->params->flats[i].weights, 0));
    return AM_OK;
}

/* ---- the step ---------------------------------------------------------------------------- */

static void *at(am_tensor *t, int64_t offset)
{
    return t ? (char *)am_tensor_ptr(t) + offset * am_dtype_size(t->dtype) : NULL;
}

/* Update n elements from offset of flat buffer i. */
static int update(am_optim *o, int i, int64_t offset, int64_t n, double lr, double wd,
                  double grad_scale)
{
    const am_optim_config *c = &o->config;
    const am_flat *f = &o->params->flats[i];
    am_tensor **s = o->flats[i].t;
    int dtype_state = s[EXP_AVG] ? s[EXP_AVG]->dtype : AM_F32;
    if (c->kind == AM_OPTIM_SGD)
        return am_launch_sgd(f->device, &(am_sgd_args){.param = at(f->weights, offset),
                                                       .buf = at(s[EXP_AVG], offset),
                                                       .master = at(s[MASTER], offset),
                                                       .grad = at(f->grads, offset),
                                                       .dtype = f->dtype,
                                                       .dtype_state = dtype_state,
                                                       .dtype_grad = f->dtype_grad,
                                                       .first = o->steps == 1,
                                                       .nesterov = c->nesterov,
                                                       .n = n,
                                                       .lr = lr,
                                                       .momentum = c->momentum,
                                                       .dampening = c->dampening,
                                                       .weight_decay = wd,
                                                       .grad_scale = grad_scale});
    return am_launch_adam(f->device, &(am_adam_args){.param = at(f->weights, offset),
                                                     .m = at(s[EXP_AVG], offset),
                                                     .v = at(s[EXP_AVG_SQ], offset),
                                                     .master = at(s[MASTER], offset),
                                                     .grad = at(f->grads, offset),
                                                     .dtype = f->dtype,
                                                     .dtype_state = dtype_state,
                                                     .dtype_grad = f->dtype_grad,
                                                     .decoupled = c->kind == AM_OPTIM_ADAMW,
                                                     .n = n,
                                                     .lr = lr,
                                                     .beta1 = c->beta1,
                                                     .beta2 = c->beta2,
                                                     .eps = c->eps,
                                                     .weight_decay = wd,
                                                     .bias1 = 1 - pow(c->beta1, (double)o->steps),
                                                     .bias2 = 1 - pow(c->beta2, (double)o->steps),
                                                     .grad_scale = grad_scale});
}

/* Read and written for an element of flat buffer i: all but the gradient twice. */
static int64_t element_bytes(const am_optim *o, int i)
{
    const am_flat *f = &o->params->flats[i];
    int64_t bytes = 2 * am_dtype_size(f->dtype) + am_dtype_size(f->dtype_grad);
    for (int s = 0; s < STATES; s++)
        if (o->flats[i].t[s])
            bytes += 2 * am_dtype_size(o->flats[i].t[s]->dtype);
    return bytes;
}

int am_optim_step(am_optim *o, double lr, double weight_decay, double grad_scale)
{
    const am_params *p = o->params;
    o->steps++;
    /* Neighbours that all have a gradient are updated in one go, gaps included. */
    for (size_t i = 0; i < p->n;) {
        const am_param *first = &p->items[i];
        int64_t end = first->offset;
        size_t j = i;
        bool empty = first->t->grad_empty;
        for (; j < p->n && p->items[j].flat == first->flat && p->items[j].t->grad_empty == empty;
             j++)
            end = p->items[j].offset + am_tensor_numel(p->items[j].t);
        if (!empty && end > first->offset) {
            am_span span = am_span_begin();
            AM_TRY(update(o, first->flat, first->offset, end - first->offset, lr, weight_decay,
                          grad_scale));
            if (am_profiling)
                am_span_end(&span, o->config.kind == AM_OPTIM_SGD ? "sgd" : "adam",
                            AM_PHASE_OPTIMIZER, p->flats[first->flat].device,
                            (end - first->offset) * element_bytes(o, first->flat));
        }
        i = j;
    }
    return AM_OK;
}

int64_t am_optim_steps(const am_optim *o)
{
    return o->steps;
}

int am_optim_set_steps(am_optim *o, int64_t steps)
{
    if (steps < 0)
        return am_fail(AM_EINVAL, "an optimizer can't have done %lld steps", (long long)steps);
    o->steps = steps;
    return AM_OK;
}

int am_optim_state(am_tensor **out, am_optim *o, const char *what, int64_t i)
{
    *out = NULL;
    if (i < 0 || (size_t)i >= o->params->n)
        return am_fail(AM_EINVAL, "parameter %lld of %zu", (long long)i, o->params->n);
    const am_param *q = &o->params->items[i];
    bool sgd = o->config.kind == AM_OPTIM_SGD;
    for (int s = 0; s < STATES; s++) {
        const char *name = sgd && s == EXP_AVG ? "momentum_buffer" : state_names[s];
        am_tensor *t = o->flats[q->flat].t[s];
        if (!t || strcmp(name, what) != 0)
            continue;
        int64_t stride[AM_MAX_DIMS], n = 1;
        for (int d = q->t->ndim - 1; d >= 0; d--) {
            stride[d] = n;
            n *= q->t->shape[d];
        }
        return am_tensor_view(out, t, q->t->ndim, q->t->shape, stride, q->offset);
    }
    return AM_OK;
}
