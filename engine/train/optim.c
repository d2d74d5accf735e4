/* optim.c — Adam, AdamW, SGD and Lion over flat buffers, with f32 masters for 16-bit weights and
 * moments in 32, 16 or 8 bits. The arithmetic is in the kernels (see am_adam_args in backend.h);
 * schedules and clipping are Lua's. */
#include <math.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../ops/op.h"
#include "params.h"

enum { EXP_AVG, EXP_AVG_SQ, MAX_EXP_AVG_SQ, MASTER, EXP_AVG_ABSMAX, EXP_AVG_SQ_ABSMAX, STATES };
static const char *const state_names[2][STATES] = {
    {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "master", "exp_avg_absmax", "exp_avg_sq_absmax"},
    {"momentum_buffer", "", "", "master", "momentum_buffer_absmax", ""}}; /* of SGD */

/* NULL where not kept. All but the absmaxes are laid out as the flat weights. Blocks of 8-bit
 * moments begin anew with each parameter, so what a parameter's neighbours are changes nothing. */
typedef struct flat_state {
    am_tensor *t[STATES];
} flat_state;

struct am_optim {
    am_params *params;
    am_optim_config config;
    flat_state *flats;
    int64_t *first_block; /* of each parameter, among its flat buffer's absmaxes */
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
    am_free(o->first_block);
    am_params_release(o->params);
    am_free(o);
}

static int check_config(const am_optim_config *c)
{
    bool adam = c->kind == AM_OPTIM_ADAM || c->kind == AM_OPTIM_ADAMW;
    bool sgd = c->kind == AM_OPTIM_SGD, lion = c->kind == AM_OPTIM_LION;
    if (!adam && !sgd && !lion)
        return am_fail(AM_EINVAL, "optimizer kind %d does not exist", c->kind);
    if (adam && !(c->beta1 >= 0 && c->beta1 < 1 && c->beta2 >= 0 && c->beta2 < 1 && c->eps >= 0))
        return am_fail(AM_EINVAL, "Adam: betas (%g, %g) must be within 0 and 1, eps (%g) positive",
                       c->beta1, c->beta2, c->eps);
    if (lion && !(c->beta1 >= 0 && c->beta1 <= 1 && c->beta2 >= 0 && c->beta2 <= 1))
        return am_fail(AM_EINVAL, "Lion: betas (%g, %g) must be within 0 and 1", c->beta1,
                       c->beta2);
    if (c->amsgrad && c->state_dtype == AM_U8)
        return am_fail(AM_EINVAL, "AMSGrad's maximum can't be kept in 8 bits; use float32 or "
                                  "bfloat16");
    if (sgd && !(c->momentum >= 0))
        return am_fail(AM_EINVAL, "SGD: momentum %g is negative", c->momentum);
    if (sgd && c->nesterov && (c->momentum <= 0 || c->dampening != 0))
        return am_fail(AM_EINVAL, "SGD: nesterov needs a momentum and no dampening");
    if (c->state_dtype != -1 && c->state_dtype != AM_F32 && c->state_dtype != AM_BF16 &&
        c->state_dtype != AM_U8)
        return am_fail(AM_EINVAL, "optimizer state can be float32, bfloat16 or uint8, not %s",
                       am_dtype_name(c->state_dtype));
    return AM_OK;
}

static int64_t blocks_of(const am_param *q)
{
    return (am_tensor_numel(q->t) + AM_STATE_BLOCK - 1) / AM_STATE_BLOCK;
}

static int new_state(flat_state *s, int which, int dtype, const am_flat *f, int64_t n)
{
    AM_TRY(am_tensor_make(&s->t[which], dtype, 1, &n, f->device));
    return am_tensor_fill(s->t[which], dtype == AM_U8 && which == EXP_AVG ? AM_STATE_ZERO : 0);
}

/* A moment, with its absmaxes where it has 8 bits. */
static int new_moment(flat_state *s, int which, int absmax, int dtype, const am_flat *f,
                      int64_t blocks)
{
    AM_TRY(new_state(s, which, dtype, f, f->n));
    return dtype == AM_U8 ? new_state(s, absmax, AM_F32, f, blocks) : AM_OK;
}

static int new_states(am_optim *o, size_t i)
{
    int64_t blocks = 0;
    for (size_t k = 0; k < o->params->n; k++)
        if (o->params->items[k].flat == (int)i) {
            o->first_block[k] = blocks;
            blocks += blocks_of(&o->params->items[k]);
        }
    const am_flat *f = &o->params->flats[i];
    const am_optim_config *c = &o->config;
    flat_state *s = &o->flats[i];
    int dtype = f->dtype == AM_F64 ? AM_F64 : c->state_dtype == -1 ? AM_F32 : c->state_dtype;
    bool adam = c->kind == AM_OPTIM_ADAM || c->kind == AM_OPTIM_ADAMW;
    if (c->kind != AM_OPTIM_SGD || c->momentum > 0)
        AM_TRY(new_moment(s, EXP_AVG, EXP_AVG_ABSMAX, dtype, f, blocks));
    if (adam)
        AM_TRY(new_moment(s, EXP_AVG_SQ, EXP_AVG_SQ_ABSMAX, dtype, f, blocks));
    if (adam && c->amsgrad)
        AM_TRY(new_state(s, MAX_EXP_AVG_SQ, dtype, f, f->n));
    if (c->master_weights && (f->dtype == AM_BF16 || f->dtype == AM_F16))
        AM_TRY(new_state(s, MASTER, AM_F32, f, f->n));
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
    if (rc == AM_OK && (rc = am_alloc(&p, sealed->n * sizeof *o->first_block)) == AM_OK)
        o->first_block = p;
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

/* Update n elements from parameter i's first on. */
static int update(am_optim *o, size_t i, int64_t n, double lr, double wd, double grad_scale)
{
    const am_optim_config *c = &o->config;
    const am_param *q = &o->params->items[i];
    const am_flat *f = &o->params->flats[q->flat];
    am_tensor **s = o->flats[q->flat].t;
    int dtype_state = s[EXP_AVG] ? s[EXP_AVG]->dtype : AM_F32;
    int64_t offset = q->offset, block = o->first_block[i];
    bool unbiased = !c->no_bias_correction;
    double t = (double)o->steps;
    if (c->maximize)
        grad_scale = -grad_scale;
    if (c->kind == AM_OPTIM_LION)
        return am_launch_lion(f->device, &(am_lion_args){.param = at(f->weights, offset),
                                                         .m = at(s[EXP_AVG], offset),
                                                         .master = at(s[MASTER], offset),
                                                         .m_absmax = at(s[EXP_AVG_ABSMAX], block),
                                                         .grad = am_tensor_ptr(q->t->grad),
                                                         .dtype = f->dtype,
                                                         .dtype_state = dtype_state,
                                                         .dtype_grad = f->dtype_grad,
                                                         .n = n,
                                                         .lr = lr,
                                                         .beta1 = c->beta1,
                                                         .beta2 = c->beta2,
                                                         .weight_decay = wd,
                                                         .grad_scale = grad_scale});
    if (c->kind == AM_OPTIM_SGD)
        return am_launch_sgd(f->device, &(am_sgd_args){.param = at(f->weights, offset),
                                                       .buf = at(s[EXP_AVG], offset),
                                                       .master = at(s[MASTER], offset),
                                                       .buf_absmax = at(s[EXP_AVG_ABSMAX], block),
                                                       .grad = am_tensor_ptr(q->t->grad),
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
                                                     .vmax = at(s[MAX_EXP_AVG_SQ], offset),
                                                     .master = at(s[MASTER], offset),
                                                     .m_absmax = at(s[EXP_AVG_ABSMAX], block),
                                                     .v_absmax = at(s[EXP_AVG_SQ_ABSMAX], block),
                                                     .grad = am_tensor_ptr(q->t->grad),
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
                                                     .bias1 = unbiased ? 1 - pow(c->beta1, t) : 1,
                                                     .bias2 = unbiased ? 1 - pow(c->beta2, t) : 1,
                                                     .grad_scale = grad_scale});
}

/* Read and written for an element of flat buffer i: all but the gradient twice. */
static int64_t element_bytes(const am_optim *o, int i)
{
    const am_flat *f = &o->params->flats[i];
    int64_t bytes = 2 * am_dtype_size(f->dtype) + am_dtype_size(f->dtype_grad);
    for (int s = 0; s <= MASTER; s++) /* absmaxes are next to nothing */
        if (o->flats[i].t[s])
            bytes += 2 * am_dtype_size(o->flats[i].t[s]->dtype);
    return bytes;
}

static const char *const kernel_names[] = {"adam", "adam", "sgd", "lion"}; /* by AM_OPTIM_* */

static int timed_update(am_optim *o, size_t i, int64_t n, double lr, double wd, double grad_scale)
{
    int flat = o->params->items[i].flat;
    am_span span = am_span_begin();
    AM_TRY(update(o, i, n, lr, wd, grad_scale));
    if (am_profiling)
        am_span_end(&span, kernel_names[o->config.kind], AM_PHASE_OPTIMIZER,
                    o->params->flats[flat].device, n * element_bytes(o, flat));
    return AM_OK;
}

/* Has a parameter blocks or a gradient of its own, so that it can't be updated with its neighbours?
 */
static bool is_alone(const am_optim *o, const am_param *q)
{
    return o->flats[q->flat].t[EXP_AVG_ABSMAX] || o->params->separate_grads;
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
        bool empty = first->t->grad_empty, alone = is_alone(o, first);
        for (; j < p->n && p->items[j].flat == first->flat && p->items[j].t->grad_empty == empty &&
               !(alone && j > i);
             j++)
            end = p->items[j].offset + am_tensor_numel(p->items[j].t);
        if (!empty && end > first->offset)
            AM_TRY(timed_update(o, i, end - first->offset, lr, weight_decay, grad_scale));
        i = j;
    }
    return AM_OK;
}

int am_optim_begin(am_optim *o)
{
    o->steps++;
    return AM_OK;
}

int am_optim_update(am_optim *o, double *sumsq, int64_t i, double lr, double weight_decay)
{
    double sum = 0;
    if (i < 0 || (size_t)i >= o->params->n)
        return am_fail(AM_EINVAL, "parameter %lld of %zu", (long long)i, o->params->n);
    am_param *q = &o->params->items[i];
    if (!q->t->grad_empty && am_tensor_numel(q->t) > 0) {
        AM_TRY(am_param_grad_sumsq(q, &sum));
        AM_TRY(timed_update(o, (size_t)i, am_tensor_numel(q->t), lr, weight_decay, 1));
    }
    am_param_clear_grad(o->params, q);
    *sumsq = sum;
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
        am_tensor *t = o->flats[q->flat].t[s];
        if (!t || strcmp(state_names[sgd][s], what) != 0)
            continue;
        if (s == EXP_AVG_ABSMAX || s == EXP_AVG_SQ_ABSMAX)
            return am_tensor_view(out, t, 1, (int64_t[]){blocks_of(q)}, (int64_t[]){1},
                                  o->first_block[i]);
        int64_t stride[AM_MAX_DIMS], n = 1;
        for (int d = q->t->ndim - 1; d >= 0; d--) {
            stride[d] = n;
            n *= q->t->shape[d];
        }
        return am_tensor_view(out, t, q->t->ndim, q->t->shape, stride, q->offset);
    }
    return AM_OK;
}
