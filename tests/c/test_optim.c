/* test_optim.c — optimizers against torch's and lion-pytorch's results (optim_golden.h), f32
 * masters of 16-bit weights, scaled and missing gradients, resuming from saved state, refused
 * settings. */
#include "engine_helpers.h"
#include "optim_golden.h"

static int device_named(const char *name)
{
    int device;
    OK(am_device_find(&device, name));
    return device;
}

/* Five weights as parameters of three and two, so that a gap lies between. */
typedef struct setup {
    am_params *params;
    am_tensor *t[2];
    am_optim *optim;
} setup;

static const int64_t sizes[] = {3, 2};

static setup new_setup(int device, int dtype, const am_optim_config *config)
{
    setup s = {0};
    static const char *const names[] = {"a", "b"};
    OK(am_params_new(&s.params));
    for (int i = 0; i < 2; i++) {
        s.t[i] = leaf(make_on(device, dtype, 1, &sizes[i], golden_start + 3 * i));
        OK(am_params_add(s.params, names[i], s.t[i]));
    }
    OK(am_params_seal(s.params));
    OK(am_optim_new(&s.optim, s.params, config));
    return s;
}

static void free_setup(setup *s)
{
    am_optim_release(s->optim);
    am_params_release(s->params);
    RELEASE(s->t[0], s->t[1]);
}

static void set_grads(setup *s, const double *g, double factor)
{
    double scaled[GOLDEN_WEIGHTS];
    for (int i = 0; i < GOLDEN_WEIGHTS; i++)
        scaled[i] = g[i] * factor;
    for (int i = 0; i < 2; i++) {
        am_tensor *grad = make_on(am_tensor_device(s->t[i]), AM_F64, 1, &sizes[i], scaled + 3 * i);
        OK(am_tensor_set_grad(s->t[i], grad));
        am_tensor_release(grad);
    }
}

static void weights_near(const setup *s, const double *expected, double tolerance, const char *what)
{
    for (int i = 0; i < 2; i++) {
        const double *v = values_of(s->t[i]);
        for (int64_t j = 0; j < sizes[i]; j++) {
            double e = expected[3 * i + j];
            ck_assert_msg(fabs(v[j] - e) <= tolerance * fmax(fabs(e), 0.01),
                          "%s: weight %d is %.17g, expected %.17g", what, (int)(3 * i + j), v[j],
                          e);
        }
    }
}

static const struct {
    const char *device;
    int dtype;
    double tolerance;
} places[] = {{"ref", AM_F64, 1e-13},
              {"cpu", AM_F64, 1e-13},
              {"fence", AM_F64, 1e-13},
              {"ref", AM_F32, 1e-5},
              {"cpu", AM_F32, 1e-5}};
enum { CASES = sizeof golden / sizeof *golden, PLACES = sizeof places / sizeof *places };

START_TEST(equal_torch)
{
    char what[64];
    for (int p = 0; p < PLACES; p++) {
        setup s = new_setup(device_named(places[p].device), places[p].dtype, &golden[_i].config);
        for (int step = 0; step < GOLDEN_STEPS; step++) {
            snprintf(what, sizeof what, "case %d on %s in %s, step %d", _i, places[p].device,
                     am_dtype_name(places[p].dtype), step + 1);
            /* handed over four times as large and scaled back as they are read */
            set_grads(&s, golden_grads[step], 4);
            OK(am_optim_step(s.optim, golden[_i].lr, golden[_i].weight_decay, 0.25));
            weights_near(&s, golden[_i].weights[step], places[p].tolerance, what);
        }
        ck_assert_int_eq(am_optim_steps(s.optim), GOLDEN_STEPS);
        free_setup(&s);
    }
}
END_TEST

static const am_optim_config adamw = {.kind = AM_OPTIM_ADAMW,
                                      .master_weights = 1,
                                      .state_dtype = -1,
                                      .beta1 = 0.9,
                                      .beta2 = 0.999,
                                      .eps = 1e-8};

/* Steps below bf16's last place add up in the masters and get lost without. */
START_TEST(masters)
{
    static const char *const devices[] = {"ref", "cpu"};
    const int64_t one[] = {1};
    for (int d = 0; d < 2; d++)
        for (int with = 0; with < 2; with++) {
            am_optim_config c = {.kind = AM_OPTIM_SGD, .master_weights = with, .state_dtype = -1};
            am_params *params;
            am_optim *o;
            am_tensor *w = leaf(make_on(device_named(devices[d]), AM_BF16, 1, one, (double[]){1}));
            am_tensor *g = make_on(device_named(devices[d]), AM_F32, 1, one, (double[]){-1});
            am_tensor *master;
            OK(am_params_new(&params));
            OK(am_params_add(params, "w", w));
            OK(am_params_seal(params));
            OK(am_optim_new(&o, params, &c));
            for (int i = 0; i < 10; i++) {
                OK(am_tensor_set_grad(w, g));
                OK(am_optim_step(o, 0x1p-10, 0, 1)); /* a step of bf16 at 1 is 2^-7 */
            }
            OK(am_optim_state(&master, o, "master", 0));
            ck_assert_msg((master != NULL) == (with == 1), "master with %d", with);
            if (with)
                HOLDS(master, 1 + 10 * 0x1p-10);
            HOLDS(w, with ? 1 + 0x1p-7 : 1);
            /* a weight changed from outside reaches its master when told */
            OK(am_tensor_fill(w, 3));
            OK(am_optim_sync_masters(o));
            if (with)
                HOLDS(master, 3);
            RELEASE(master, w, g);
            am_optim_release(o);
            am_params_release(params);
        }
}
END_TEST

/* bf16 weights with masters take the steps that f32 weights take. */
START_TEST(masters_follow_f32)
{
    static const char *const devices[] = {"ref", "cpu"};
    for (int d = 0; d < 2; d++) {
        setup half = new_setup(device_named(devices[d]), AM_BF16, &adamw);
        setup single = new_setup(device_named(devices[d]), AM_F32, &adamw);
        for (int step = 0; step < GOLDEN_STEPS; step++) {
            set_grads(&half, golden_grads[step], 1);
            set_grads(&single, golden_grads[step], 1);
            OK(am_optim_step(half.optim, 0.01, 0.01, 1));
            OK(am_optim_step(single.optim, 0.01, 0.01, 1));
        }
        for (int i = 0; i < 2; i++) {
            am_tensor *master, *rounded;
            OK(am_optim_state(&master, half.optim, "master", i));
            double want[3];
            memcpy(want, values_of(single.t[i]), (size_t)sizes[i] * sizeof *want);
            holds(master, sizes[i], want);
            OK(am_tensor_new(&rounded, AM_BF16, 1, &sizes[i], am_tensor_device(master)));
            OK(am_tensor_copy(rounded, master));
            memcpy(want, values_of(rounded), (size_t)sizes[i] * sizeof *want);
            holds(half.t[i], sizes[i], want);
            RELEASE(master, rounded);
        }
        free_setup(&half);
        free_setup(&single);
    }
}
END_TEST

START_TEST(state_dtypes)
{
    am_optim_config c = adamw;
    am_tensor *m;
    c.state_dtype = AM_BF16;
    setup s = new_setup(device_named("cpu"), AM_F32, &c);
    set_grads(&s, golden_grads[0], 1);
    OK(am_optim_step(s.optim, 0.01, 0.01, 1));
    OK(am_optim_state(&m, s.optim, "exp_avg", 1));
    ck_assert_int_eq(am_tensor_dtype(m), AM_BF16);
    HOLDS(m, 0.25, 0.2001953125); /* 0.1 g to the nearest bf16 */
    weights_near(&s, golden[2].weights[0], 5e-3, "bf16 moments");
    am_tensor_release(m);
    OK(am_optim_state(&m, s.optim, "momentum_buffer", 0));
    ck_assert_ptr_null(m);
    OK(am_optim_state(&m, s.optim, "master", 0)); /* f32 weights need none */
    ck_assert_ptr_null(m);
    FAILS(am_optim_state(&m, s.optim, "exp_avg", 2), AM_EINVAL, "2");
    FAILS(am_optim_state(&m, s.optim, "exp_avg", -1), AM_EINVAL, "-1");
    free_setup(&s);
}
END_TEST

/* A parameter without a gradient keeps weights and moments; its neighbour does not notice. */
START_TEST(missing_gradients)
{
    setup s = new_setup(device_named("ref"), AM_F64, &adamw);
    am_tensor *m;
    set_grads(&s, golden_grads[0], 1);
    OK(am_optim_step(s.optim, 0.01, 0.01, 1));
    double before[3];
    memcpy(before, values_of(s.t[0]), sizeof before);
    OK(am_optim_state(&m, s.optim, "exp_avg", 0));
    double moments[3];
    memcpy(moments, values_of(m), sizeof moments);
    OK(am_params_zero_grad(s.params));
    am_tensor *g = make_on(am_tensor_device(s.t[1]), AM_F64, 1, &sizes[1], golden_grads[1] + 3);
    OK(am_tensor_set_grad(s.t[1], g));
    OK(am_optim_step(s.optim, 0.01, 0.01, 1));
    holds(s.t[0], 3, before);
    holds(m, 3, moments);
    const double *v = values_of(s.t[1]);
    for (int j = 0; j < 2; j++)
        ck_assert_double_eq_tol(v[j], golden[2].weights[1][3 + j], 1e-14);
    /* nothing at all to do */
    OK(am_params_zero_grad(s.params));
    OK(am_optim_step(s.optim, 0.01, 0.01, 1));
    holds(s.t[0], 3, before);
    RELEASE(m, g);
    free_setup(&s);
}
END_TEST

/* 8-bit moments are codes in the weights' shape, and an absmax for each 256 of a parameter. */
START_TEST(codes)
{
    static const char *const devices[] = {"ref", "cpu", "fence"};
    const int64_t many[] = {1, 257, 513};
    const double step = golden_grads[0][0] > 0 ? -0.01 : 0.01;
    for (int d = 0; d < 3; d++) {
        int device = device_named(devices[d]);
        am_optim_config c = adamw;
        c.state_dtype = AM_U8;
        am_params *params;
        am_optim *o;
        am_tensor *t[3], *m, *g, *row;
        OK(am_params_new(&params));
        for (int i = 0; i < 3; i++) {
            OK(am_tensor_new(&t[i], AM_F32, 1, &many[i], device));
            OK(am_tensor_fill(t[i], 1));
            OK(am_params_add(params, (const char *[]){"a", "b", "c"}[i], leaf(t[i])));
        }
        OK(am_params_seal(params));
        OK(am_optim_new(&o, params, &c));
        for (int i = 0; i < 3; i++) {
            OK(am_tensor_new(&g, AM_F32, 1, &many[i], device));
            OK(am_tensor_fill(g, golden_grads[0][0]));
            if (i != 1)
                OK(am_tensor_set_grad(t[i], g));
            am_tensor_release(g);
        }
        OK(am_optim_step(o, 0.01, 0, 1));
        for (int i = 0; i < 3; i++) {
            double moved = i == 1 ? 0 : step, scale = i == 1 ? 0 : 0.1 * golden_grads[0][0];
            int64_t last = many[i] - 1;
            OK(am_optim_state(&m, o, "exp_avg", i));
            ck_assert_int_eq(am_tensor_dtype(m), AM_U8);
            ck_assert_int_eq(am_tensor_shape(m)[0], many[i]);
            am_tensor_release(m);
            OK(am_optim_state(&m, o, "exp_avg_absmax", i));
            ck_assert_int_eq(am_tensor_dtype(m), AM_F32);
            ck_assert_int_eq(am_tensor_shape(m)[0], (many[i] + 255) / 256);
            OK(am_tensor_as_strided(&row, m, 1, (int64_t[]){1}, (int64_t[]){1},
                                    (many[i] + 255) / 256 - 1));
            ck_assert_double_eq_tol(values_of(row)[0], fabs(scale), 1e-7);
            RELEASE(m, row);
            OK(am_tensor_as_strided(&row, t[i], 1, (int64_t[]){1}, (int64_t[]){1}, last));
            ck_assert_double_eq_tol(values_of(row)[0], 1 + moved, 1e-6);
            am_tensor_release(row);
        }
        OK(am_optim_state(&m, o, "momentum_buffer_absmax", 0));
        ck_assert_ptr_null(m);
        for (int i = 0; i < 3; i++)
            am_tensor_release(t[i]);
        am_optim_release(o);
        am_params_release(params);
    }
}
END_TEST

/* State read from one optimizer and written to another goes on bit for bit: in f32, and in 8 bits.
 */
START_TEST(resumes)
{
    static const char *const states[] = {
        "exp_avg",        "exp_avg_sq",        "momentum_buffer",        "master",
        "exp_avg_absmax", "exp_avg_sq_absmax", "momentum_buffer_absmax", "max_exp_avg_sq"};
    const am_optim_config *c = &golden[_i % CASES].config;
    am_optim_config with = *c;
    with.master_weights = 1;
    with.state_dtype = _i < CASES || c->amsgrad ? -1 : AM_U8;
    setup whole = new_setup(device_named("cpu"), AM_BF16, &with);
    setup first = new_setup(device_named("cpu"), AM_BF16, &with);
    double lr = golden[_i % CASES].lr, wd = golden[_i % CASES].weight_decay;
    for (int step = 0; step < GOLDEN_STEPS; step++) {
        if (step == 2) {
            setup second = new_setup(device_named("cpu"), AM_BF16, &with);
            OK(am_optim_set_steps(second.optim, am_optim_steps(first.optim)));
            for (int i = 0; i < 2; i++) {
                OK(am_tensor_copy(second.t[i], first.t[i]));
                for (size_t k = 0; k < sizeof states / sizeof *states; k++) {
                    am_tensor *from, *to;
                    OK(am_optim_state(&from, first.optim, states[k], i));
                    OK(am_optim_state(&to, second.optim, states[k], i));
                    if (from)
                        OK(am_tensor_copy(to, from));
                    RELEASE(from, to);
                }
            }
            free_setup(&first);
            first = second;
        }
        set_grads(&whole, golden_grads[step], 1);
        set_grads(&first, golden_grads[step], 1);
        OK(am_optim_step(whole.optim, lr, wd, 1));
        OK(am_optim_step(first.optim, lr, wd, 1));
    }
    for (int i = 0; i < 2; i++) {
        am_tensor *a, *b;
        OK(am_optim_state(&a, whole.optim, "master", i));
        OK(am_optim_state(&b, first.optim, "master", i));
        double want[3];
        memcpy(want, values_of(a), (size_t)sizes[i] * sizeof *want);
        holds(b, sizes[i], want);
        RELEASE(a, b);
    }
    free_setup(&whole);
    free_setup(&first);
}
END_TEST

/* One parameter at a time, with gradients that come and go, is the step bit for bit. */
START_TEST(one_at_a_time)
{
    static const int kept[] = {-1, AM_BF16, AM_U8};
    am_optim_config c = golden[_i % CASES].config;
    c.master_weights = 1;
    c.state_dtype = c.amsgrad && kept[_i / CASES] == AM_U8 ? -1 : kept[_i / CASES];
    for (int d = 0; d < 2; d++) {
        int device = device_named(d ? "fence" : "cpu");
        setup whole = new_setup(device, AM_BF16, &c), parts = {0};
        am_tensor *grad;
        double sumsq, norm, lr = golden[_i % CASES].lr, wd = golden[_i % CASES].weight_decay;
        OK(am_params_new(&parts.params));
        OK(am_params_separate_grads(parts.params));
        for (int i = 0; i < 2; i++) {
            parts.t[i] = leaf(make_on(device, AM_BF16, 1, &sizes[i], golden_start + 3 * i));
            OK(am_params_add(parts.params, i ? "b" : "a", parts.t[i]));
        }
        OK(am_params_seal(parts.params));
        FAILS(am_params_separate_grads(parts.params), AM_ESTATE, "sealed");
        OK(am_optim_new(&parts.optim, parts.params, &c));
        int64_t sealed = live_bytes(device);
        for (int step = 0; step < GOLDEN_STEPS; step++) {
            set_grads(&whole, golden_grads[step], 1);
            set_grads(&parts, golden_grads[step], 1);
            OK(am_params_grad_norm(whole.params, 1, &norm));
            OK(am_optim_step(whole.optim, lr, wd, 1));
            OK(am_optim_begin(parts.optim));
            double total = 0;
            for (int i = 1; i >= 0; i--) {
                OK(am_optim_update(parts.optim, &sumsq, i, lr, wd));
                total += sumsq;
                OK(am_tensor_grad(&grad, parts.t[i]));
                ck_assert_ptr_null(grad);
            }
            ck_assert_int_eq(live_bytes(device), sealed);
            ck_assert_double_eq_tol(sqrt(total), norm, 1e-12);
            OK(am_optim_update(parts.optim, &sumsq, 0, lr, wd)); /* no gradient, no update */
            ck_assert_double_eq(sumsq, 0);
            for (int i = 0; i < 2; i++) {
                double want[3];
                memcpy(want, values_of(whole.t[i]), (size_t)sizes[i] * sizeof *want);
                holds(parts.t[i], sizes[i], want);
            }
        }
        ck_assert_int_eq(am_optim_steps(parts.optim), GOLDEN_STEPS);
        FAILS(am_optim_update(parts.optim, &sumsq, 2, lr, wd), AM_EINVAL, "2");
        FAILS(am_optim_update(parts.optim, &sumsq, -1, lr, wd), AM_EINVAL, "-1");
        /* step does it, too; and zero_grad frees what is there */
        set_grads(&whole, golden_grads[0], 1);
        set_grads(&parts, golden_grads[0], 1);
        OK(am_optim_step(whole.optim, lr, wd, 1));
        OK(am_optim_step(parts.optim, lr, wd, 1));
        OK(am_params_zero_grad(parts.params));
        ck_assert_int_eq(live_bytes(device), sealed);
        double want[3];
        memcpy(want, values_of(whole.t[0]), sizeof want);
        holds(parts.t[0], 3, want);
        free_setup(&whole);
        free_setup(&parts);
    }
}
END_TEST

START_TEST(refused)
{
    static const struct {
        am_optim_config config;
        const char *message;
    } bad[] = {
        {{.kind = 9, .state_dtype = -1}, "9"},
        {{.kind = AM_OPTIM_ADAM, .state_dtype = -1, .beta1 = 1, .beta2 = 0.9}, "betas"},
        {{.kind = AM_OPTIM_ADAM, .state_dtype = -1, .beta1 = 0.9, .beta2 = -0.1}, "betas"},
        {{.kind = AM_OPTIM_ADAM, .state_dtype = -1, .beta1 = NAN, .beta2 = 0.9}, "betas"},
        {{.kind = AM_OPTIM_ADAM, .state_dtype = -1, .eps = -1}, "eps"},
        {{.kind = AM_OPTIM_ADAM, .state_dtype = AM_I32}, "int32"},
        {{.kind = AM_OPTIM_ADAM, .state_dtype = 77}, "?"},
        {{.kind = AM_OPTIM_ADAM, .state_dtype = AM_U8, .amsgrad = 1}, "AMSGrad"},
        {{.kind = AM_OPTIM_LION, .state_dtype = -1, .beta1 = 1.5, .beta2 = 0.9}, "Lion"},
        {{.kind = AM_OPTIM_LION, .state_dtype = -1, .beta1 = 0.5, .beta2 = NAN}, "Lion"},
        {{.kind = AM_OPTIM_SGD, .state_dtype = -1, .momentum = -0.5}, "momentum"},
        {{.kind = AM_OPTIM_SGD, .state_dtype = -1, .nesterov = 1}, "nesterov"},
        {{.kind = AM_OPTIM_SGD,
          .state_dtype = -1,
          .nesterov = 1,
          .momentum = 0.9,
          .dampening = 0.1},
         "nesterov"},
    };
    setup s = new_setup(device_named("ref"), AM_F32, &adamw);
    am_optim *o;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        FAILS(am_optim_new(&o, s.params, &bad[i].config), AM_EINVAL, bad[i].message);
    FAILS(am_optim_set_steps(s.optim, -1), AM_EINVAL, "-1");
    am_params *open;
    OK(am_params_new(&open));
    FAILS(am_optim_new(&o, open, &adamw), AM_ESTATE, "sealed");
    am_params_release(open);
    free_setup(&s);
    am_optim_release(NULL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("optim");
    TCase *t = tcase_create("torch");
    tcase_add_loop_test(t, equal_torch, 0, CASES);
    suite_add_tcase(s, t);
    t = tcase_create("state");
    tcase_add_test(t, masters);
    tcase_add_test(t, masters_follow_f32);
    tcase_add_test(t, state_dtypes);
    tcase_add_test(t, missing_gradients);
    tcase_add_test(t, codes);
    tcase_add_loop_test(t, resumes, 0, 2 * CASES);
    tcase_add_loop_test(t, one_at_a_time, 0, 3 * CASES);
    tcase_add_test(t, refused);
    suite_add_tcase(s, t);
    return run_suite(s);
}
