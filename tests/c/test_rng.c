/* test_rng.c — the generator: known answers, streams, the same numbers on every backend and number
 * of threads, moments of the distributions. */
#include "engine_helpers.h"
#include "rng.h"

/* kat_vectors of Random123 (Salmon et al. 2011), philox4x32 with 10 rounds. */
START_TEST(known_answers)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        const uint32_t *c = kat[i].counter;
        uint64_t block = (uint64_t)c[1] << 32 | c[0], stream = (uint64_t)c[3] << 32 | c[2];
        uint64_t seed = (uint64_t)kat[i].key[1] << 32 | kat[i].key[0];
        uint32_t out[4];
        am_philox(out, seed, stream, block);
        for (int j = 0; j < 4; j++) {
            ck_assert_uint_eq(out[j], kat[i].out[j]);
            if (block < UINT64_MAX / 4) /* element 4 block + j */
                ck_assert_uint_eq(am_rng_u32(seed, stream, block * 4 + (uint64_t)j), out[j]);
        }
    }
}
END_TEST

START_TEST(state)
{
    uint64_t seed = 0, stream = 0;
    am_tensor *t = VEC(AM_F32, 0, 0, 0);
    OK(am_rng_seed(7));
    OK(am_rng_get(&seed, &stream));
    ck_assert(seed == 7 && stream == 0);
    OK(am_rng_uniform(t, 0, 1));
    OK(am_rng_get(&seed, &stream));
    ck_assert(seed == 7 && stream == 1); /* a stream for each draw */
    double first[3];
    memcpy(first, values_of(t), sizeof first);
    OK(am_rng_uniform(t, 0, 1));
    ck_assert(memcmp(first, values_of(t), sizeof first) != 0);
    OK(am_rng_set(7, 0));
    OK(am_rng_uniform(t, 0, 1));
    holds(t, 3, first);
    OK(am_rng_seed(8));
    OK(am_rng_uniform(t, 0, 1));
    ck_assert(memcmp(first, values_of(t), sizeof first) != 0);
    am_tensor_release(t);
}
END_TEST

static am_tensor *draw(int device, int dtype, int64_t n, int normal)
{
    am_tensor *t;
    OK(am_tensor_new(&t, dtype, 1, &n, device));
    OK(am_rng_set(123456789012345u, 3));
    OK(normal ? am_rng_normal(t, 0.5, 2) : am_rng_uniform(t, -1, 3));
    return t;
}

/* f32, bf16 and f64 on every device with 1 to 3 threads. Uniform numbers are exact; normal ones go
 * through log and cos, which may round once more in vectors. */
START_TEST(same_everywhere)
{
    const int64_t n = 10007;
    int ref, devices = devices_here();
    OK(am_device_find(&ref, "ref"));
    static const int dtypes[] = {AM_F32, AM_BF16, AM_F64};
    for (int d = 0; d < 3; d++) {
        size_t bytes = (size_t)n * (size_t)am_dtype_size(dtypes[d]);
        char *want = malloc(bytes), *got = malloc(bytes);
        am_tensor *t = draw(ref, dtypes[d], n, _i);
        OK(am_tensor_read(t, want, bytes));
        am_tensor_release(t);
        for (int device = 0; device < devices; device++)
            for (int threads = 1; threads <= 3; threads++) {
                OK(am_threads_set(threads));
                t = draw(device, dtypes[d], n, _i);
                OK(am_tensor_read(t, got, bytes));
                ck_assert_msg(memcmp(got, want, bytes) == 0, "%s with %d threads in %s",
                              am_device_name(device), threads, am_dtype_name(dtypes[d]));
                am_tensor_release(t);
            }
        free(want);
        free(got);
    }
}
END_TEST

START_TEST(moments)
{
    const int64_t n = 100000;
    int cpu;
    OK(am_device_find(&cpu, "cpu"));
    for (int normal = 0; normal < 2; normal++) {
        am_tensor *t = draw(cpu, AM_F64, n, normal);
        const double *v = am_tensor_data(t);
        double mean = 0, square = 0, least = v[0], most = v[0], neighbours = 0;
        for (int64_t i = 0; i < n; i++) {
            mean += v[i] / (double)n;
            least = fmin(least, v[i]);
            most = fmax(most, v[i]);
        }
        for (int64_t i = 0; i < n; i++) {
            square += (v[i] - mean) * (v[i] - mean) / (double)n;
            if (i > 0)
                neighbours += (v[i] - mean) * (v[i - 1] - mean) / (double)n;
        }
        double deviation = normal ? 2 : 4 / sqrt(12);
        /* five standard errors */
        ck_assert_double_eq_tol(mean, normal ? 0.5 : 1, 5 * deviation / sqrt((double)n));
        ck_assert_double_eq_tol(sqrt(square), deviation, 0.02);
        ck_assert_double_eq_tol(neighbours / square, 0, 5 / sqrt((double)n));
        if (!normal)
            ck_assert(least >= -1 && most < 3 && least < -0.999 && most > 2.999);
        am_tensor_release(t);
    }
}
END_TEST

START_TEST(refused)
{
    am_tensor *whole = VEC(AM_I32, 1, 2), *t = VEC(AM_F32, 1, 2, 3, 4), *gaps;
    const int64_t two[] = {2}, stride[] = {2};
    OK(am_tensor_as_strided(&gaps, t, 1, two, stride, 0));
    FAILS(am_rng_uniform(gaps, 0, 1), AM_ESHAPE, "uniform");
    FAILS(am_rng_normal(gaps, 0, 1), AM_ESHAPE, "normal");
    FAILS(am_rng_uniform(whole, 0, 1), AM_EUNSUP, "random");
    FAILS(am_rng_uniform(NULL, 0, 1), AM_EINVAL, "uniform");
    am_tensor_drop(t);
    FAILS(am_rng_normal(t, 0, 1), AM_ESTATE, "normal");
    RELEASE(whole, t, gaps);
    const int64_t none = 0;
    am_tensor *empty;
    OK(am_tensor_new(&empty, AM_F32, 1, &none, 0));
    OK(am_rng_uniform(empty, 0, 1));
    am_tensor_release(empty);
}
END_TEST

/* A dropout mask keeps the share it should, and another stream another one. */
START_TEST(thresholds)
{
    ck_assert_uint_eq(am_dropout_threshold(0), 0);
    ck_assert_uint_eq(am_dropout_threshold(1), (uint64_t)1 << 32);
    int kept = 0, both = 0;
    const int n = 100000;
    for (uint64_t i = 0; i < (uint64_t)n; i++) {
        int a = am_rng_u32(1, 1, i) >= am_dropout_threshold(0.25);
        int b = am_rng_u32(1, 2, i) >= am_dropout_threshold(0.25);
        kept += a;
        both += a && b;
    }
    ck_assert_double_eq_tol(kept / (double)n, 0.75, 0.007);
    ck_assert_double_eq_tol(both / (double)n, 0.5625, 0.008);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("rng");
    TCase *t = tcase_create("rng");
    tcase_add_test(t, known_answers);
    tcase_add_test(t, state);
    tcase_add_loop_test(t, same_everywhere, 0, 2);
    tcase_add_test(t, moments);
    tcase_add_test(t, refused);
    tcase_add_test(t, thresholds);
    suite_add_tcase(s, t);
    return run_suite(s);
}
