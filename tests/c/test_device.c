/* test_device.c — the table of devices, and the fence: host touches fault, errors come late but
 * come, shutting down and going on. */
#include <signal.h>
#include "backend.h"
#include "core/device.h"
#include "engine_helpers.h"
#include "kernels/cpu/cpu.h"

START_TEST(names)
{
    int device = -1;
    OK(am_device_find(&device, "cpu"));
    ck_assert_int_eq(device, 0);
    OK(am_device_find(&device, "cpu:0"));
    ck_assert_int_eq(device, 0);
    for (int i = 0; i < am_device_count(); i++) {
        OK(am_device_find(&device, am_device_name(i)));
        ck_assert_int_eq(device, i);
    }
    FAILS(am_device_find(&device, "gpu"), AM_EUNSUP, "cpu, cuda, ref and fence");
    FAILS(am_device_find(&device, "gpu"), AM_EUNSUP, "gpu");
    static const char *const none[] = {"cuda:",   "cuda:x",     "cuda:-1",
                                       "cuda:1x", "cuda:99999", "cuda: 1"};
    for (int i = 0; i < (int)(sizeof none / sizeof *none); i++)
        FAILS(am_device_find(&device, none[i]), AM_EUNSUP, none[i]);
    OK(am_device_find(&device, "cuda:3"));
    ck_assert_str_eq(am_device_name(device), "cuda");
    FAILS(am_device_find(&device, NULL), AM_EUNSUP, "");
    ck_assert_str_eq(am_device_name(-1), "?");
    ck_assert_str_eq(am_device_name(am_device_count()), "?");
    FAILS(am_device_sync(99), AM_EINVAL, "99");
    ck_assert(!am_device_is_host(99));
    OK(am_device_find(&device, "fence"));
    ck_assert(!am_device_is_host(device) && am_device_is_host(0));
}
END_TEST

/* What the environment names is opened, and refused when it is not there or not a backend. */
START_TEST(module)
{
    const am_backend *be;
    setenv("AMLUA_CUDA", "/nowhere/amlua_cuda.so", 1);
    FAILS(am_device_open(AM_DEVICE_CUDA, &be, NULL), AM_EDEVICE, "/nowhere/amlua_cuda.so");
    setenv("AMLUA_CUDA", "libm.so.6", 1);
    FAILS(am_device_open(AM_DEVICE_CUDA, &be, NULL), AM_EDEVICE, "libm.so.6 is no module");
    unsetenv("AMLUA_CUDA");
}
END_TEST

/* A backend that is linked in has every kernel. */
START_TEST(vtables)
{
    for (int i = 0; i < AM_DEVICE_CUDA; i++) {
        const am_backend *be;
        am_stream *stream;
        OK(am_device_open(i, &be, &stream));
        ck_assert_uint_eq(be->size, sizeof *be);
        ck_assert_uint_eq(be->version, AM_BACKEND_VERSION);
        ck_assert_str_eq(be->name, am_device_name(i));
#define K(name, pointers) ck_assert_msg(be->name != NULL, "%s lacks " #name, am_device_name(i));
#include "kernels.def"
#undef K
    }
}
END_TEST

/* Bytes of the fence are not the host's: run with the expectation of a fault. */
START_TEST(host_touch_faults)
{
    int fence;
    const am_backend *be;
    void *p = NULL;
    signal(SIGSEGV, SIG_DFL); /* the sanitizer's report is not wanted */
    OK(am_device_find(&fence, "fence"));
    OK(am_device_open(fence, &be, NULL));
    OK(be->alloc(&p, 4096));
    ((volatile char *)p)[_i ? 4095 : 0] = 1;
}
END_TEST

START_TEST(late_errors)
{
    int fence;
    OK(am_device_find(&fence, "fence"));
    const int64_t two[] = {2}, shape[] = {3, 4};
    am_tensor *index = make_on(fence, AM_I64, 1, two, (double[]){0, 3});
    am_tensor *weight, *out = NULL, *in[2];
    OK(am_tensor_new(&weight, AM_F32, 2, shape, fence));
    OK(am_tensor_fill(weight, 1));
    in[0] = index;
    in[1] = weight;
    am_attrs at = {.embedding = {-1}};
    OK(am_apply(AM_OP_embedding, &out, in, 2, &at)); /* not known yet */
    FAILS(am_device_sync(fence), AM_EINVAL, "index 3");
    OK(am_device_sync(fence)); /* reported once */
    am_tensor_release(out);
    float values[8];
    OK(am_apply(AM_OP_embedding, &out, in, 2, &at));
    FAILS(am_tensor_read(out, values, sizeof values), AM_EINVAL, "index 3");
    RELEASE(index, weight, out);
}
END_TEST

START_TEST(shutdown_and_again)
{
    for (int round = 0; round < 3; round++) {
        for (int device = 0; device < devices_here(); device++) {
            const int64_t two[] = {2};
            am_tensor *t = make_on(device, AM_F32, 1, two, (double[]){1, 2}), *y = times(t, 3);
            HOLDS(y, 3, 6);
            RELEASE(t, y);
        }
        am_shutdown();
        am_shutdown();
    }
    am_tensor *late = VEC(AM_F32, 1);
    am_shutdown();
    am_tensor_release(late); /* a finalizer after the end */
}
END_TEST

START_TEST(library)
{
    ck_assert_int_eq(am_abi(), AM_ABI);
    ck_assert_str_eq(am_version(), AM_VERSION);
    ck_assert_str_ne(am_cpu_isa(), "");
    ck_assert_int_gt(am_host_memory_available(), 1 << 20);
    double a = am_clock(), b = am_clock();
    ck_assert(a > 0 && b >= a);
}
END_TEST

/* AMLUA_ISA lowers the instruction set; anything else that it says is refused. */
START_TEST(instruction_set)
{
    char why[AM_ISA_WHY] = "";
    ck_assert_int_eq(am_cpu_isa_choose(NULL, AM_ISA_AVX512, why), AM_ISA_AVX512);
    ck_assert_int_eq(am_cpu_isa_choose("", AM_ISA_AVX2, why), AM_ISA_AVX2);
    ck_assert_int_eq(am_cpu_isa_choose("avx2", AM_ISA_AVX512, why), AM_ISA_AVX2);
    ck_assert_int_eq(am_cpu_isa_choose("amx", AM_ISA_AMX, why), AM_ISA_AMX);
    ck_assert_str_eq(why, "");
    ck_assert_int_eq(am_cpu_isa_choose("avx512_bf16", AM_ISA_AVX512, why), -1);
    ck_assert_str_eq(why,
                     "AMLUA_ISA is avx512_bf16, and this CPU has no more than avx512; unset it");
    ck_assert_int_eq(am_cpu_isa_choose("AVX2", AM_ISA_AMX, why), -1);
    ck_assert_str_eq(why, "AMLUA_ISA is \"AVX2\"; write generic, avx2, avx512, avx512_bf16 or amx, "
                          "or unset it");

    am_tensor *t;
    int64_t two = 2;
    setenv("AMLUA_ISA", "avx3", 1);
    ck_assert_int_eq(am_tensor_new(&t, AM_F32, 1, &two, AM_DEVICE_CPU), AM_EDEVICE);
    ck_assert_ptr_nonnull(strstr(am_error_message(), "device cpu can't be used: AMLUA_ISA is "));
    ck_assert_str_eq(am_cpu_isa(), "none");
    ck_assert_int_eq(am_tensor_new(&t, AM_F32, 1, &two, AM_DEVICE_REF), AM_OK);
    am_tensor_release(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("device");
    TCase *t = tcase_create("devices");
    tcase_add_test(t, names);
    tcase_add_test(t, vtables);
    tcase_add_test(t, module);
    tcase_add_test(t, library);
    tcase_add_test(t, instruction_set);
    tcase_add_test(t, shutdown_and_again);
    suite_add_tcase(s, t);
    t = tcase_create("fence");
    tcase_add_loop_test_raise_signal(t, host_touch_faults, SIGSEGV, 0, 2);
    tcase_add_test(t, late_errors);
    suite_add_tcase(s, t);
    return run_suite(s);
}
