/* op_values.h — what the tests of decisive values share: tensors out of numbers, an op's outputs
 * and gradients compared with numbers. Tests run in a loop over the devices, whose index is _i. */
#ifndef OP_VALUES_H
#define OP_VALUES_H

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "am.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define OK(call)                                                                                   \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        ck_assert_msg(rc_ == AM_OK, "%s: %s", #call, am_error_message());                          \
    } while (0)

static inline am_tensor *tensor(int device, int dtype, int ndim, const int64_t *shape,
                                const double *v)
{
    am_tensor *t, *wide;
    OK(am_tensor_new(&t, dtype, ndim, shape, device));
    OK(am_tensor_new(&wide, AM_F64, ndim, shape, device));
    OK(am_tensor_write(wide, v, (size_t)am_tensor_numel(t) * sizeof *v));
    OK(am_tensor_copy(t, wide));
    am_tensor_release(wide);
    return t;
}

static inline am_tensor *vec(int device, int dtype, size_t n, const double *v)
{
    const int64_t shape[] = {(int64_t)n};
    return tensor(device, dtype, 1, shape, v);
}

static inline void numbers(am_tensor *t, double *v)
{
    am_tensor *wide;
    OK(am_tensor_new(&wide, AM_F64, am_tensor_ndim(t), am_tensor_shape(t), am_tensor_device(t)));
    OK(am_tensor_copy(wide, t));
    OK(am_tensor_read(wide, v, (size_t)am_tensor_numel(t) * sizeof *v));
    am_tensor_release(wide);
}

/* Equal, or both NaN; zero's sign counts not. */
static inline void expect(const char *what, int device, am_tensor *t, size_t n, const double *want)
{
    double got[256];
    ck_assert_msg(am_tensor_numel(t) == (int64_t)n, "%s: %d elements", what,
                  (int)am_tensor_numel(t));
    numbers(t, got);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(got[i] == want[i] || (isnan(got[i]) && isnan(want[i])),
                      "%s on %s: element %d is %g, expected %g", what, am_device_name(device),
                      (int)i, got[i], want[i]);
}
#define EXPECT(what, t, ...)                                                                       \
    expect(what, _i, t, COUNT(((double[]){__VA_ARGS__})), (double[]){__VA_ARGS__})

static inline am_tensor *apply(int op, int n, am_tensor *const *in, am_attrs attrs)
{
    am_tensor *out;
    OK(am_apply(op, &out, in, n, &attrs));
    return out;
}

#define GIVES(op, n, in, attrs, ...)                                                               \
    do {                                                                                           \
        am_tensor *out_ = apply(op, n, in, attrs);                                                 \
        EXPECT(am_op_name(op), out_, __VA_ARGS__);                                                 \
        am_tensor_release(out_);                                                                   \
    } while (0)

static inline void backward(am_tensor *out, am_tensor *gradient)
{
    am_event ev;
    OK(am_backward_begin(out, gradient));
    OK(am_backward_next(&ev));
}

static inline void gradient_is(const char *what, int device, am_tensor *t, size_t n,
                               const double *want)
{
    am_tensor *g;
    OK(am_tensor_grad(&g, t));
    ck_assert_msg(g != NULL, "%s: no gradient", what);
    expect(what, device, g, n, want);
    am_tensor_release(g);
}
#define GRADIENT(what, t, ...)                                                                     \
    gradient_is(what, _i, t, COUNT(((double[]){__VA_ARGS__})), (double[]){__VA_ARGS__})

#endif
