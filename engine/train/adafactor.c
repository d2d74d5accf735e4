/* adafactor.c — Adafactor's step on one parameter. Its state is not laid out like the weights, so
 * it is no kind of optim.c: Lua owns the tensors (lua/am/optim/adafactor.lua). */
#include <math.h>

#include "../ops/op.h"

static int64_t numel(const am_tensor *t)
{
    return t ? am_tensor_numel(t) : 0;
}

static void *ptr(am_tensor *t)
{
    return t ? am_tensor_ptr(t) : NULL;
}

static int check_state(const am_tensor *t, const char *what, int64_t n, const am_tensor *grad)
{
    if (!t)
        return am_fail(AM_EINVAL, "adafactor: %s is missing", what);
    AM_TRY(am_tensor_check_alive(t, what));
    if (am_tensor_numel(t) != n || t->dtype != grad->dtype || t->device != grad->device)
        return am_fail(AM_ESHAPE, "adafactor: %s does not fit the gradient", what);
    return AM_OK;
}

static int64_t work_doubles(int64_t batch, int64_t rows, int64_t cols)
{
    int64_t blocks = batch * ((rows + AM_ADAFACTOR_ROWS - 1) / AM_ADAFACTOR_ROWS);
    return 2 * blocks + (blocks * cols + 1) / 2;
}

int am_adafactor_update(am_tensor *w, am_tensor *master, am_tensor *row, am_tensor *col,
                        am_tensor *var, am_tensor *grad, const am_adafactor_config *config,
                        int64_t t, double lr, double weight_decay, double grad_scale)
{
    AM_TRY(am_tensor_check_alive(w, "weight"));
    AM_TRY(am_tensor_check_alive(grad, "gradient"));
    int64_t n = am_tensor_numel(w), rows = 1, cols = n, batch = 1;
    if (w->ndim > 1) {
        rows = w->shape[w->ndim - 2];
        cols = w->shape[w->ndim - 1];
        batch = n == 0 ? 0 : n / (rows * cols);
    }
    if (n == 0)
        return AM_OK;
    if (am_tensor_numel(grad) != n || (master && am_tensor_numel(master) != n))
        return am_fail(AM_ESHAPE, "adafactor: gradient or master does not fit the weight");
    AM_TRY(w->ndim > 1 ? check_state(row, "row", batch * rows, grad)
                       : check_state(var, "var", n, grad));
    if (w->ndim > 1)
        AM_TRY(check_state(col, "col", batch * cols, grad));
    int64_t doubles = w->ndim > 1 ? work_doubles(batch, rows, cols) : 1;
    am_tensor *work;
    am_span span = am_span_begin();
    AM_TRY(am_tensor_make(&work, AM_F64, 1, &doubles, w->device));
    int rc = am_launch_adafactor(w->device,
                                 &(am_adafactor_args){.param = am_tensor_ptr(w),
                                                      .row = w->ndim > 1 ? ptr(row) : NULL,
                                                      .col = w->ndim > 1 ? ptr(col) : NULL,
                                                      .var = w->ndim > 1 ? NULL : ptr(var),
                                                      .master = ptr(master),
                                                      .work = am_tensor_ptr(work),
                                                      .grad = am_tensor_ptr(grad),
                                                      .dtype = w->dtype,
                                                      .dtype_grad = grad->dtype,
                                                      .scale_parameter = config->scale_parameter,
                                                      .transformers = config->transformers,
                                                      .batch = batch,
                                                      .rows = rows,
                                                      .cols = cols,
                                                      .lr = lr,
                                                      .rho = config->rho,
                                                      .fresh = pow((double)t, config->beta2_decay),
                                                      .eps1 = config->eps1,
                                                      .eps2 = config->eps2,
                                                      .d = config->d,
                                                      .weight_decay = weight_decay,
                                                      .grad_scale = grad_scale});
    am_tensor_release(work);
    if (am_profiling && rc == AM_OK)
        am_span_end(&span, "adafactor", AM_PHASE_OPTIMIZER, w->device,
                    2 * n * am_dtype_size(w->dtype) + 2 * numel(grad) * 4 + numel(master) * 8);
    return rc;
}
