/* test_attention_parts.c — attention to blocks of keys, put together, against the op over all keys,
 * on every device: outputs and gradients; and what is refused. */
#include "engine_helpers.h"

enum { B = 2, T = 3, H = 2, D = 4, S = 5, CUT = 2 };
static const int64_t queries[] = {B, T, H, D}, keys[] = {B, S, 1, D}, stats[] = {B, H, T};

static am_tensor *made(int device, int dtype, int ndim, const int64_t *shape, double seed)
{
    double values[64];
    int64_t n = 1;
    for (int i = 0; i < ndim; i++)
        n *= shape[i];
    for (int64_t i = 0; i < n; i++)
        values[i] = sin(seed + (double)i * 1.7);
    return make_on(device, dtype, ndim, shape, values);
}

/* Keys of a block: [first, first + length) of all; the ranges of each query narrowed to them. */
static am_tensor *block_of(am_tensor *t, int64_t first, int64_t length)
{
    return op1(AM_OP_narrow, t, (am_attrs){.narrow = {1, first, length, 1}});
}

static am_tensor *ranges(int device, int first, int end)
{
    static const int whole[B * T * 2] = {0, 5, 1, 4, 2, 2, 0, 3, 3, 5, 0, 0};
    double values[B * T * 2];
    for (int i = 0; i < B * T * 2; i++)
        values[i] = (whole[i] < first ? first : whole[i] > end ? end : whole[i]) - first;
    return make_on(device, AM_I32, 3, (int64_t[]){B, T, 2}, values);
}

static void near(const char *what, const am_tensor *t, const am_tensor *other, double tolerance)
{
    double expected[64];
    int64_t n = am_tensor_numel(t);
    ck_assert_int_eq(n, am_tensor_numel(other));
    memcpy(expected, values_of(other), (size_t)n * sizeof *expected);
    const double *v = values_of(t);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(fabs(v[i] - expected[i]) <= tolerance, "%s, element %d: %.9g and %.9g", what,
                      (int)i, v[i], expected[i]);
}

static am_tensor *filled(int device, int dtype, int ndim, const int64_t *shape, double value)
{
    am_tensor *t;
    OK(am_tensor_new(&t, dtype, ndim, shape, device));
    OK(am_tensor_fill(t, value));
    return t;
}

static void compare_on(int device, int dtype)
{
    double tolerance = dtype == AM_F64 ? 1e-14 : 2e-6; /* some ulps of values up to 3 */
    am_tensor *q = made(device, dtype, 4, queries, 1), *k = made(device, dtype, 4, keys, 2);
    am_tensor *v = made(device, dtype, 4, keys, 3), *dout = made(device, dtype, 4, queries, 4);
    am_tensor *sinks = made(device, dtype, 1, (int64_t[]){H}, 5), *whole = ranges(device, 0, S);
    am_attention_attrs at = {.scale = 0.7, .softcap = 2};
    /* the op */
    am_tensor *want, *in[] = {leaf(q), leaf(k), leaf(v), whole, sinks}, *grads[3];
    OK(am_apply(AM_OP_attention, &want, in, 5, &(am_attrs){.attention = at}));
    am_event ev;
    OK(am_backward_begin(want, dout));
    OK(am_backward_next(&ev));
    for (int i = 0; i < 3; i++) {
        OK(am_tensor_grad(&grads[i], in[i]));
        OK(am_tensor_set_requires_grad(in[i], 0));
    }
    /* in parts */
    am_tensor *out = filled(device, dtype, 4, queries, 0);
    am_tensor *lse = filled(device, dtype, 3, stats, -INFINITY);
    am_tensor *dq = filled(device, dtype, 4, queries, 0);
    static const int cuts[] = {0, CUT, S};
    for (int i = 0; i < 2; i++) {
        am_tensor *its_k = block_of(k, cuts[i], cuts[i + 1] - cuts[i]);
        am_tensor *its_v = block_of(v, cuts[i], cuts[i + 1] - cuts[i]);
        am_tensor *bounds = ranges(device, cuts[i], cuts[i + 1]);
        OK(am_attention_add(out, lse, q, its_k, its_v, bounds, i ? NULL : sinks, &at));
        RELEASE(its_k, its_v, bounds);
    }
    near("out", out, want, tolerance);
    for (int i = 0; i < 2; i++) {
        int64_t n = cuts[i + 1] - cuts[i], shape[] = {B, n, 1, D};
        am_tensor *its_k = block_of(k, cuts[i], n), *its_v = block_of(v, cuts[i], n);
        am_tensor *bounds = ranges(device, cuts[i], cuts[i + 1]);
        am_tensor *dk = filled(device, dtype, 4, shape, 1),
                  *dv = filled(device, dtype, 4, shape, 0);
        OK(am_attention_add_grad(dq, dk, dv, dout, out, lse, q, its_k, its_v, bounds, &at));
        am_tensor *want_k = block_of(grads[1], cuts[i], n),
                  *want_v = block_of(grads[2], cuts[i], n);
        am_tensor *one = filled(device, dtype, 0, NULL, 1), *more = op2(AM_OP_add, want_k, one);
        near("dk", dk, more, tolerance); /* it was added */
        near("dv", dv, want_v, tolerance);
        RELEASE(its_k, its_v, bounds, dk, dv, want_k, want_v, one, more);
    }
    near("dq", dq, grads[0], tolerance);
    RELEASE(q, k, v, dout, sinks, whole, want, out, lse, dq, grads[0], grads[1], grads[2]);
}

START_TEST(equal_to_the_op)
{
    for (int device = 0; device < devices_here(); device++) {
        compare_on(device, AM_F32);
        compare_on(device, AM_F64);
    }
}
END_TEST

/* bf16 operands, f32 sums: what the blocks lose is one rounding of each. */
START_TEST(sums_are_wide)
{
    for (int device = 0; device < devices_here(); device++) {
        am_tensor *q = made(device, AM_BF16, 4, queries, 1), *k = made(device, AM_BF16, 4, keys, 2);
        am_tensor *v = made(device, AM_BF16, 4, keys, 3), *want, *in[] = {q, k, v};
        am_tensor *out = filled(device, AM_F32, 4, queries, 0);
        am_tensor *lse = filled(device, AM_F32, 3, stats, -INFINITY);
        am_attention_attrs at = {.scale = 1};
        OK(am_apply(AM_OP_attention, &want, in, 3, &(am_attrs){.attention = at}));
        for (int i = 0; i < 2; i++) {
            am_tensor *its_k = block_of(k, i ? CUT : 0, i ? S - CUT : CUT);
            am_tensor *its_v = block_of(v, i ? CUT : 0, i ? S - CUT : CUT);
            OK(am_attention_add(out, lse, q, its_k, its_v, NULL, NULL, &at));
            RELEASE(its_k, its_v);
        }
        near("out", out, want, 0x1p-7);
        RELEASE(q, k, v, want, out, lse);
    }
}
END_TEST

START_TEST(refuses)
{
    int ref;
    OK(am_device_find(&ref, "ref"));
    am_tensor *q = made(ref, AM_F32, 4, queries, 1), *k = made(ref, AM_F32, 4, keys, 2);
    am_tensor *out = filled(ref, AM_F32, 4, queries, 0), *lse = filled(ref, AM_F32, 3, stats, 0);
    am_tensor *narrow = filled(ref, AM_BF16, 4, queries, 0),
              *wide = filled(ref, AM_F64, 4, keys, 0);
    am_attention_attrs plain = {.scale = 1}, drops = {.dropout_p = 0.5};
    FAILS(am_attention_add(out, lse, q, k, k, NULL, NULL, &drops), AM_EUNSUP, "dropout");
    FAILS(am_attention_add(narrow, lse, q, k, k, NULL, NULL, &plain), AM_ESHAPE, "out is bfloat16");
    FAILS(am_attention_add(out, out, q, k, k, NULL, NULL, &plain), AM_ESHAPE, "lse is float32");
    FAILS(am_attention_add(out, lse, q, k, wide, NULL, NULL, &plain), AM_EINVAL, "attention");
    FAILS(am_attention_add(out, lse, q, NULL, k, NULL, NULL, &plain), AM_EINVAL, "no k");
    FAILS(am_attention_add(out, lse, q, q, q, out, NULL, &plain), AM_ESHAPE, "bounds");
    FAILS(am_attention_add(NULL, lse, q, k, k, NULL, NULL, &plain), AM_EINVAL, "out");
    FAILS(am_attention_add_grad(out, k, out, q, q, lse, q, k, k, NULL, &plain), AM_ESHAPE, "dv is");
    RELEASE(q, k, out, lse, narrow, wide);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("attention_parts");
    TCase *t = tcase_create("all");
    tcase_add_test(t, equal_to_the_op);
    tcase_add_test(t, sums_are_wide);
    tcase_add_test(t, refuses);
    suite_add_tcase(s, t);
    return run_suite(s);
}
