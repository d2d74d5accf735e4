/* test_op_decoder_values.c — decisive values of the decoder's own ops on every device; those of the
 * others are in test_op_values.c. */
#include "devices.h"
#include "op_values.h"

#include <stdlib.h>

#include "dtype.h"

/* 1 + 2^-9 is 1 in bf16: the offset is added to the weight in f32. */
START_TEST(offsets_of_weights)
{
    enum { C = 64 };
    double x[C], w[C], want[C], squares = 0;
    for (int i = 0; i < C; i++) {
        x[i] = 0.5 + i / 64.0;
        w[i] = 0x1p-9;
        squares += x[i] * x[i];
    }
    int lost = 0;
    for (int i = 0; i < C; i++) {
        double normed = x[i] / sqrt(squares / C);
        want[i] = am_bf16_to_f32(am_f32_to_bf16((float)(normed * (1 + w[i]))));
        lost += want[i] != am_bf16_to_f32(am_f32_to_bf16((float)normed));
    }
    ck_assert_int_gt(lost, 5);
    am_tensor *in[] = {vec(_i, AM_BF16, C, x), vec(_i, AM_BF16, C, w)};
    am_tensor *out = apply(AM_OP_rms_norm, 2, in, (am_attrs){.norm = {0, 1}});
    expect("rms_norm", _i, out, C, want);
    am_tensor_release(out);
    am_tensor_release(in[0]);
    am_tensor_release(in[1]);
}
END_TEST

/* A large mean next to a small spread: squares are of distances from the mean. */
START_TEST(spread_far_from_zero)
{
    const int64_t shape[] = {2, 4};
    am_tensor *x = tensor(_i, AM_F32, 2, shape, (double[]){4097, 4095, 4097, 4095, 5, 5, 5, 5});
    am_tensor *out = apply(AM_OP_layer_norm, 1, &x, (am_attrs){.norm = {0x1p-30, 0}});
    EXPECT("layer_norm", out, 1, -1, 1, -1, 0, 0, 0, 0);
    am_tensor_release(out);
    am_tensor_release(x);
}
END_TEST

/* A head that sees two equal keys, or none, of which its sink is one more. Sinks beyond what e^x
 * holds are no NaN, and their gradient is what the output loses. */
START_TEST(sinks)
{
    enum { T = 2, H = 4 };
    const int64_t shape[] = {1, T, H, 1}, one[] = {1, T, 1, 1}, bounds[] = {1, T, 2};
    const double heads[] = {0, log(2), 300, -300}, value = 6;
    for (int d = 0; d < 2; d++) {
        int dtype = d ? AM_F32 : AM_F64;
        am_tensor *in[] = {tensor(_i, dtype, 4, shape, (double[T * H]){0}),
                           tensor(_i, dtype, 4, one, (double[]){0, 0}),
                           tensor(_i, dtype, 4, one, (double[]){value, value}),
                           tensor(_i, AM_I32, 3, bounds, (double[]){0, 2, 5, 5}),
                           vec(_i, AM_F32, H, heads)};
        OK(am_tensor_set_requires_grad(in[4], 1));
        am_tensor *out = apply(AM_OP_attention, 5, in, (am_attrs){.attention = {.scale = 1}});
        double got[T * H], want[] = {4, 3, 0, 6, 0, 0, 0, 0};
        numbers(out, got);
        for (int i = 0; i < T * H; i++)
            ck_assert_msg(fabs(got[i] - want[i]) < 1e-6, "%d on %s: %g, expected %g", i,
                          am_device_name(_i), got[i], want[i]);
        am_tensor *ones = tensor(_i, dtype, 4, shape, (double[]){1, 1, 1, 1, 1, 1, 1, 1}), *g;
        backward(out, ones);
        OK(am_tensor_grad(&g, in[4]));
        numbers(g, got);
        const double slope[] = {-4 / 3.0, -1.5, 0, 0};
        for (int i = 0; i < H; i++)
            ck_assert_msg(fabs(got[i] - slope[i]) < 1e-6, "gradient %d on %s: %g, expected %g", i,
                          am_device_name(_i), got[i], slope[i]);
        am_tensor_release(g);
        am_tensor_release(ones);
        am_tensor_release(out);
        for (int i = 0; i < 5; i++)
            am_tensor_release(in[i]);
    }
}
END_TEST

/* Rotation by hand: 90 degrees turns (x, y) into (-y, x), in halves or in neighbours. */
START_TEST(rotations)
{
    const int64_t table_shape[] = {1, 1, 4}, shape[] = {1, 1, 1, 4}, positions[] = {1, 3},
                  two[] = {2};
    am_tensor *table =
        tensor(_i, AM_F32, 3, table_shape, (double[]){0, 1, 1, 0}); /* cos, then sin */
    am_tensor *in[] = {tensor(_i, AM_F32, 4, shape, (double[]){1, 2, 3, 4}), table};
    am_tensor *out = apply(AM_OP_rope, 2, in, (am_attrs){.rope = {0}});
    EXPECT("rope in halves", out, -3, 2, 1, 4);
    am_tensor_release(out);
    out = apply(AM_OP_rope, 2, in, (am_attrs){.rope = {1}});
    EXPECT("rope in neighbours", out, -2, 1, 3, 4);
    am_tensor_release(out);
    am_tensor_release(in[0]);
    am_tensor_release(table);
    am_tensor *made[] = {tensor(_i, AM_I32, 2, positions, (double[]){0, 1, 5000}),
                         tensor(_i, AM_F32, 1, two, (double[]){1, 0.0078125})};
    double got[12];
    out = apply(AM_OP_rope_table, 2, made, (am_attrs){.rope_table = {2}});
    numbers(out, got);
    for (int p = 0; p < 3; p++) {
        double at = p == 2 ? 5000 : p;
        const double want[] = {2 * cos(at), 2 * cos(at / 128), 2 * sin(at), 2 * sin(at / 128)};
        for (int i = 0; i < 4; i++)
            ck_assert_msg(fabs(got[p * 4 + i] - want[i]) <= 2.5e-7,
                          "rope_table %d,%d on %s: %.9g, expected %.9g", p, i, am_device_name(_i),
                          got[p * 4 + i], want[i]);
    }
    am_tensor_release(out);
    am_tensor_release(made[0]);
    am_tensor_release(made[1]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("op decoder values");
    TCase *t = tcase_create("values");
    tcase_set_timeout(t, 60);
    int n = devices_here();
    tcase_add_loop_test(t, offsets_of_weights, 0, n);
    tcase_add_loop_test(t, spread_far_from_zero, 0, n);
    tcase_add_loop_test(t, sinks, 0, n);
    tcase_add_loop_test(t, rotations, 0, n);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
