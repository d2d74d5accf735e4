/* test_op_errors.c — every op called wrongly: the right code, a message that names the op, nothing
 * leaked, never a crash. Each case of tests/op is mangled in every way that is not in its table. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices.h"
#include "op_run.h"

static int ref, cpu;

static void setup(void)
{
    ck_assert_int_eq(am_device_find(&ref, "ref"), AM_OK);
    ck_assert_int_eq(am_device_find(&cpu, "cpu"), AM_OK);
}

static int dtype_for(int kind)
{
    switch (kind) {
    case IN_INDEX32:
    case IN_LABEL32:
    case IN_POS32:
    case IN_BOUNDS:
    case IN_GROUPS:
    case IN_PACK:
        return AM_I32;
    case IN_INDEX64:
    case IN_LABEL64:
        return AM_I64;
    case IN_BOOL:
        return AM_BOOL;
    case IN_PACKED:
        return AM_U8;
    default:
        return AM_F32;
    }
}

static am_tensor *zeros(int dtype, int ndim, const int64_t *shape, int device)
{
    am_tensor *t;
    ck_assert_int_eq(am_tensor_new(&t, dtype, ndim, shape, device), AM_OK);
    ck_assert_int_eq(am_tensor_fill(t, 0), AM_OK);
    return t;
}

static void make_inputs(const op_case *c, am_tensor **in)
{
    memset(in, 0, CASE_INPUTS * sizeof *in);
    for (int i = 0; i < case_n_in(c); i++)
        if (c->in[i].kind != IN_ABSENT)
            in[i] = zeros(dtype_for(c->in[i].kind), c->in[i].ndim, c->in[i].shape, ref);
}

static void release_all(am_tensor **in)
{
    for (int i = 0; i < CASE_INPUTS; i++)
        am_tensor_release(in[i]);
}

/* Apply; the message is made known to be this call's own. */
static int apply(const op_case *c, am_tensor **in, int n_in, const am_attrs *attrs)
{
    am_tensor *out = NULL;
    int nothing;
    ck_assert_int_ne(am_op_find(&nothing, "nothing"), AM_OK);
    int rc = am_apply(c->op, &out, in, n_in, attrs);
    ck_assert_msg((rc == AM_OK) == (out != NULL), "%s: status %d and output differ", case_text(c),
                  rc);
    if (rc == AM_OK)
        am_tensor_release(out);
    return rc;
}

static void refused(const op_case *c, int rc, int expected, const char *how)
{
    ck_assert_msg(rc == expected, "%s %s: %s, expected %s (%s)", case_text(c), how,
                  am_error_name(rc), am_error_name(expected), am_error_message());
    ck_assert_msg(strstr(am_error_message(), c->name) != NULL, "%s %s: \"%s\" names no op",
                  case_text(c), how, am_error_message());
}

/* Right, or refused with a message that names the op. */
static void right_or_refused(const op_case *c, int rc, const char *how)
{
    if (rc == AM_OK)
        return;
    ck_assert_msg(rc == AM_EINVAL || rc == AM_ESHAPE || rc == AM_EUNSUP, "%s %s: %s (%s)",
                  case_text(c), how, am_error_name(rc), am_error_message());
    refused(c, rc, rc, how);
}

/* ---- one thing wrong ----------------------------------------------------------------------- */

static void wrong_count(const op_case *c, am_tensor **in)
{
    int min_in = 0, max_in = 0, n_out = 0;
    am_tensor *many[16];
    ck_assert_int_eq(am_op_arity(c->op, &min_in, &max_in, &n_out), AM_OK);
    for (int i = 0; i < 16; i++)
        many[i] = in[0];
    refused(c, apply(c, many, min_in - 1, &c->attrs), AM_EINVAL, "with an input too few");
    refused(c, apply(c, many, max_in + 1, &c->attrs), AM_EINVAL, "with an input too many");
    refused(c, apply(c, many, -1, &c->attrs), AM_EINVAL, "with -1 inputs");
    for (int i = 0; i < min_in; i++) {
        am_tensor *kept = in[i];
        in[i] = NULL;
        refused(c, apply(c, in, case_n_in(c), &c->attrs), AM_EINVAL, "with an input missing");
        in[i] = kept;
    }
    if (strcmp(am_op_attrs(c->op), "NONE") != 0)
        refused(c, apply(c, in, case_n_in(c), NULL), AM_EINVAL, "without attributes");
}

static void released_input(const op_case *c, am_tensor **in)
{
    for (int i = 0; i < case_n_in(c); i++) {
        am_tensor *kept = in[i];
        if (!kept)
            continue;
        ck_assert_int_eq(am_scope_push(), AM_OK);
        in[i] = zeros(am_tensor_dtype(kept), am_tensor_ndim(kept), am_tensor_shape(kept), ref);
        ck_assert_int_eq(am_scope_pop(), AM_OK);
        refused(c, apply(c, in, case_n_in(c), &c->attrs), AM_ESTATE, "with a released input");
        am_tensor_release(in[i]);
        in[i] = kept;
    }
}

static void other_device(const op_case *c, am_tensor **in)
{
    if (case_n_in(c) < 2)
        return;
    am_tensor *kept = in[0];
    in[0] = zeros(am_tensor_dtype(kept), am_tensor_ndim(kept), am_tensor_shape(kept), cpu);
    refused(c, apply(c, in, case_n_in(c), &c->attrs), AM_EDEVICE, "with inputs on two devices");
    am_tensor_release(in[0]);
    in[0] = kept;
}

static void other_dtypes(const op_case *c, am_tensor **in)
{
    char how[64];
    for (int i = 0; i < case_n_in(c); i++) {
        am_tensor *kept = in[i];
        if (!kept)
            continue;
        for (int dtype = 0; dtype < AM_DTYPE_COUNT; dtype++) {
            snprintf(how, sizeof how, "with input %d in %s", i + 1, am_dtype_name(dtype));
            in[i] = zeros(dtype, am_tensor_ndim(kept), am_tensor_shape(kept), ref);
            right_or_refused(c, apply(c, in, case_n_in(c), &c->attrs), how);
            am_tensor_release(in[i]);
        }
        in[i] = kept;
    }
    /* all inputs alike */
    for (int dtype = 0; dtype < AM_DTYPE_COUNT; dtype++) {
        am_tensor *alike[CASE_INPUTS] = {NULL};
        snprintf(how, sizeof how, "all in %s", am_dtype_name(dtype));
        for (int i = 0; i < case_n_in(c); i++)
            if (in[i])
                alike[i] = zeros(dtype, am_tensor_ndim(in[i]), am_tensor_shape(in[i]), ref);
        right_or_refused(c, apply(c, alike, case_n_in(c), &c->attrs), how);
        release_all(alike);
    }
}

static void other_shapes(const op_case *c, am_tensor **in)
{
    for (int i = 0; i < case_n_in(c); i++) {
        am_tensor *kept = in[i];
        if (!kept)
            continue;
        int ndim = am_tensor_ndim(kept), dtype = am_tensor_dtype(kept);
        for (int d = -2; d < 3 * ndim; d++) {
            int64_t shape[AM_MAX_DIMS + 1] = {0};
            int n = ndim;
            memcpy(shape, am_tensor_shape(kept), (size_t)ndim * sizeof *shape);
            if (d == -2) /* a dim more */
                shape[n++] = 1;
            else if (d == -1) /* a dim less */
                n = n > 0 ? n - 1 : 0;
            else if (d < ndim)
                shape[d]++;
            else if (d < 2 * ndim)
                shape[d - ndim] = 0;
            else if (shape[d - 2 * ndim] > 0)
                shape[d - 2 * ndim]--;
            in[i] = zeros(dtype, n, shape, ref);
            right_or_refused(c, apply(c, in, case_n_in(c), &c->attrs), "with another shape");
            am_tensor_release(in[i]);
        }
        in[i] = kept;
    }
}

/* Attributes as random words and as extremes of each kind. */
static void other_attrs(const op_case *c, am_tensor **in)
{
    static const double reals[] = {-1, 1.5, 1e300, NAN, INFINITY, -INFINITY};
    static const int64_t wholes[] = {-1, -7, 5, 100, INT32_MIN, INT32_MAX, INT64_MIN, INT64_MAX};
    am_attrs a;
    for (size_t word = 0; word < sizeof a / 4; word++) {
        for (size_t k = 0; k < 6 && word % 2 == 0; k++) {
            a = c->attrs;
            memcpy((char *)&a + word * 4, &reals[k], sizeof reals[k]);
            right_or_refused(c, apply(c, in, case_n_in(c), &a), "with a wild attribute");
        }
        for (size_t k = 0; k < 8; k++) {
            a = c->attrs;
            int32_t small = (int32_t)wholes[k];
            memcpy((char *)&a + word * 4, &small, sizeof small);
            right_or_refused(c, apply(c, in, case_n_in(c), &a), "with a wild attribute");
            if (word % 2 == 0)
                memcpy((char *)&a + word * 4, &wholes[k], sizeof wholes[k]);
            right_or_refused(c, apply(c, in, case_n_in(c), &a), "with a wild attribute");
        }
    }
    for (uint64_t k = 0; k < 40; k++) {
        uint32_t words[sizeof a / 4];
        for (size_t i = 0; i < sizeof a / 4; i++)
            words[i] = am_rng_u32(5, k, i) % 3 ? am_rng_u32(6, k, i) % 4 : am_rng_u32(7, k, i);
        memcpy(&a, words, sizeof a);
        right_or_refused(c, apply(c, in, case_n_in(c), &a), "with random attributes");
    }
}

START_TEST(called_wrongly)
{
    am_tensor *in[CASE_INPUTS];
    am_mem_stats before, after;
    for (int k = 0; case_at(k); k++) {
        const op_case *c = case_at(k);
        if (c->op != _i || c->flags & CASE_BIG)
            continue;
        ck_assert_int_eq(am_mem_get(ref, &before), AM_OK);
        make_inputs(c, in);
        wrong_count(c, in);
        released_input(c, in);
        other_device(c, in);
        other_dtypes(c, in);
        other_shapes(c, in);
        other_attrs(c, in);
        release_all(in);
        ck_assert_int_eq(am_mem_get(ref, &after), AM_OK);
        ck_assert_msg(before.live_bytes == after.live_bytes, "%s: %lld bytes were lost",
                      case_text(c), (long long)(after.live_bytes - before.live_bytes));
    }
}
END_TEST

/* ---- what a user is told ------------------------------------------------------------------- */

#define T(dtype, ...)                                                                              \
    {                                                                                              \
        dtype, CASE_NDIM(__VA_ARGS__),                                                             \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
static const struct {
    int op, code;
    struct {
        int dtype, ndim;
        int64_t shape[4];
    } in[5];
    am_attrs attrs;
    const char *message; /* a part of it */
} told[] = {
    {AM_OP_add, AM_ESHAPE, {T(AM_F32, 2, 3), T(AM_F32, 4)}, .message = "[2,3] and [4]"},
    {AM_OP_add, AM_EINVAL, {T(AM_F32, 2), T(AM_BF16, 2)}, .message = "float32 and bfloat16"},
    {AM_OP_mul, AM_EINVAL, {T(AM_BOOL, 2), T(AM_BOOL, 2)}, .message = "bool"},
    {AM_OP_where, AM_EINVAL, {T(AM_F32, 2), T(AM_F32, 2), T(AM_F32, 2)}, .message = "bool"},
    {AM_OP_exp, AM_EINVAL, {T(AM_I32, 2)}, .message = "int32"},
    {AM_OP_cast, AM_EINVAL, {T(AM_F32, 2)}, {.cast = {99}}, "99"},
    {AM_OP_dropout, AM_EINVAL, {T(AM_F32, 2)}, {.dropout = {1.5}}, "1.5"},
    {AM_OP_sum, AM_ESHAPE, {T(AM_F32, 2, 3)}, {.reduce = {2, 0}}, "dim 2"},
    {AM_OP_mean, AM_EINVAL, {T(AM_I32, 2)}, {.reduce = {0, 0}}, "int32"},
    {AM_OP_amax, AM_ESHAPE, {T(AM_F32, 2, 0)}, {.reduce = {1, 0}}, "size 0"},
    {AM_OP_softmax, AM_ESHAPE, {T(AM_F32, 2, 3)}, {.dim = {-3}}, "dim -3"},
    {AM_OP_reshape,
     AM_ESHAPE,
     {T(AM_F32, 2, 3)},
     {.view = {1, {4}}},
     "[2,3] does not fit into [4]"},
    {AM_OP_reshape, AM_ESHAPE, {T(AM_F32, 6)}, {.view = {2, {-1, -1}}}, "-1"},
    {AM_OP_expand, AM_ESHAPE, {T(AM_F32, 2, 3)}, {.view = {2, {4, 3}}}, "[2,3]"},
    {AM_OP_permute, AM_ESHAPE, {T(AM_F32, 2, 3)}, {.permute = {2, {0, 0}}}, "twice"},
    {AM_OP_transpose, AM_ESHAPE, {T(AM_F32, 2, 3)}, {.transpose = {0, 2}}, "dim 2"},
    {AM_OP_narrow, AM_ESHAPE, {T(AM_F32, 5)}, {.narrow = {0, 3, 3}}, "3 elements from 3"},
    {AM_OP_cat, AM_ESHAPE, {T(AM_F32, 2, 3), T(AM_F32, 2, 4)}, {.dim = {0}}, "[2,3] and [2,4]"},
    {AM_OP_gather, AM_EINVAL, {T(AM_F32, 2), T(AM_F32, 2)}, {.dim = {0}}, "int32 or int64"},
    {AM_OP_narrow, AM_ESHAPE, {T(AM_F32, 5)}, {.narrow = {0, 0, 3, 3}}, "in steps of 3"},
    {AM_OP_scatter_add,
     AM_ESHAPE,
     {T(AM_F32, 3, 4), T(AM_I64, 3, 2), T(AM_F32, 3, 3)},
     {.dim = {1}},
     "index [3,2] and src [3,3]"},
    {AM_OP_index_add,
     AM_EINVAL,
     {T(AM_F32, 4), T(AM_F32, 2), T(AM_F32, 2)},
     {.dim = {0}},
     "int32 or int64"},
    {AM_OP_matmul, AM_ESHAPE, {T(AM_F32, 8, 64), T(AM_F32, 32, 64)}, .message = "[8,64] x [32,64]"},
    {AM_OP_linear, AM_ESHAPE, {T(AM_F32, 8, 64), T(AM_F32, 32, 65)}, .message = "[8,64] x [32,65]"},
    {AM_OP_linear, AM_ESHAPE, {T(AM_F32, 8, 4), T(AM_F32, 3, 4), T(AM_F32, 4)}, .message = "bias"},
    {AM_OP_fp8_linear,
     AM_ESHAPE,
     {T(AM_F32, 8, 64), T(AM_F32, 32, 65)},
     .message = "[8,64] x [32,65]"},
    {AM_OP_fp8_linear, AM_EINVAL, {T(AM_F32, 8, 4), T(AM_BF16, 3, 4)}, .message = "fp8_linear"},
    {AM_OP_fp8_linear,
     AM_EINVAL,
     {T(AM_F32, 8, 4), T(AM_F32, 3, 4)},
     .attrs = {.fp8 = {AM_FP8_RECIPE_COUNT}},
     .message = "no recipe 3"},
    {AM_OP_lora_linear,
     AM_ESHAPE,
     {T(AM_F32, 8, 4), T(AM_F32, 3, 4), T(AM_F32, 2, 4), T(AM_F32, 3, 1)},
     {.lora = {1, 0, 0}},
     "[2,4] x [3,1]"},
    {AM_OP_grouped_linear,
     AM_ESHAPE,
     {T(AM_F32, 2, 3), T(AM_F32, 4, 2, 5), T(AM_I32, 5)},
     {.grouped = {0}},
     "[4,2,5]; needed are [N,K] and [E,M,K]"},
    {AM_OP_grouped_linear,
     AM_ESHAPE,
     {T(AM_F32, 2, 3), T(AM_F32, 4, 5, 3), T(AM_I32, 5)},
     {.grouped = {1}},
     "[E,K,M], transposed"},
    {AM_OP_grouped_linear,
     AM_ESHAPE,
     {T(AM_F32, 2, 3), T(AM_F32, 4, 5, 3), T(AM_I32, 4)},
     {.grouped = {0}},
     "int32 [E+1], not int32 [4]"},
    {AM_OP_grouped_linear,
     AM_ESHAPE,
     {T(AM_F32, 2, 3), T(AM_F32, 4, 5, 3), T(AM_I64, 5)},
     {.grouped = {0}},
     "not int64"},
    {AM_OP_grouped_linear,
     AM_ESHAPE,
     {T(AM_F32, 2, 3), T(AM_F32, 4, 5, 3), T(AM_I32, 5), T(AM_F32, 5)},
     {.grouped = {0}},
     "bias [5]"},
    {AM_OP_grouped_linear,
     AM_EINVAL,
     {T(AM_F32, 2, 3), T(AM_F32, 1, 5, 3), T(AM_I32, 2)},
     {.grouped = {0}},
     "end at row 0, but there are 2"},
    {AM_OP_embedding, AM_EINVAL, {T(AM_F32, 2), T(AM_F32, 4, 3)}, {.embedding = {-1}}, "float32"},
    {AM_OP_rms_norm, AM_ESHAPE, {T(AM_F32, 2, 3), T(AM_F32, 4)}, {.norm = {0}}, "[2,3]"},
    {AM_OP_layer_norm, AM_ESHAPE, {T(AM_F32, 2, 3), T(AM_F32, 4)}, {.norm = {0}}, "weight [4]"},
    {AM_OP_layer_norm,
     AM_ESHAPE,
     {T(AM_F32, 2, 3), T(AM_F32, 3), T(AM_F32, 1, 3)},
     {.norm = {0}},
     "bias [1,3]"},
    {AM_OP_layer_norm, AM_EINVAL, {T(AM_I32, 2, 3)}, {.norm = {0}}, "int32"},
    {AM_OP_layer_norm, AM_EINVAL, {T(AM_F32, 2, 3), T(AM_BF16, 3)}, {.norm = {0}}, "bfloat16"},
    {AM_OP_glu, AM_ESHAPE, {T(AM_F32, 2, 3), T(AM_F32, 3)}, {.glu = {0}}, "shape"},
    {AM_OP_glu, AM_EINVAL, {T(AM_F32, 2), T(AM_F32, 2)}, {.glu = {17}}, "17"},
    {AM_OP_fake_quantize, AM_EINVAL, {T(AM_F32, 4)}, {.fake_quantize = {3, AM_F32, 2}}, "kind 3"},
    {AM_OP_fake_quantize, AM_EINVAL, {T(AM_F32, 4)}, {.fake_quantize = {0, AM_F16, 2}}, "float16"},
    {AM_OP_fake_quantize, AM_EINVAL, {T(AM_I32, 4)}, {.fake_quantize = {0, AM_F32, 2}}, "int32"},
    {AM_OP_fake_quantize, AM_ESHAPE, {T(AM_F32, 2, 5)}, {.fake_quantize = {0, AM_F32, 2}}, "of 2"},
    {AM_OP_fake_quantize, AM_ESHAPE, {T(AM_F32, 2, 6)}, {.fake_quantize = {0, AM_F32, -2}}, "-2"},
    {AM_OP_rope, AM_ESHAPE, {T(AM_F32, 1, 2, 3, 4), T(AM_F32, 1, 2, 6)}, .message = "[1,2,6]"},
    {AM_OP_attention,
     AM_ESHAPE,
     {T(AM_F32, 1, 2, 3, 4), T(AM_F32, 1, 2, 2, 4), T(AM_F32, 1, 2, 2, 4)},
     .message = "multiple"},
    {AM_OP_attention,
     AM_ESHAPE,
     {T(AM_F32, 1, 2, 2, 4), T(AM_F32, 1, 2, 2, 4), T(AM_F32, 1, 2, 2, 4), T(AM_I32, 1, 2, 2),
      T(AM_F32, 3)},
     .message = "sinks [3]"},
    {AM_OP_attention,
     AM_EINVAL,
     {T(AM_F32, 1, 2, 2, 4), T(AM_F32, 1, 2, 2, 4), T(AM_F32, 1, 2, 2, 4), T(AM_I32, 1, 2, 2),
      T(AM_BF16, 2)},
     .message = "bfloat16"},
    {AM_OP_attention,
     AM_EINVAL,
     {T(AM_F32, 1, 2, 2, 4), T(AM_F32, 1, 2, 2, 4), T(AM_F32, 1, 2, 2, 4), T(AM_I32, 1, 2, 2)},
     {.attention = {.samples = -1}},
     "-1 samples"},
    {AM_OP_cross_entropy, AM_ESHAPE, {T(AM_F32, 3, 4), T(AM_I64, 2)}, .message = "3 rows"},
    {AM_OP_cross_entropy, AM_EINVAL, {T(AM_F32, 3, 4), T(AM_F32, 3)}, .message = "float32"},
};

START_TEST(told_why)
{
    am_tensor *in[CASE_INPUTS] = {NULL}, *out = NULL;
    int n = 0;
    for (; n < 5 && told[_i].in[n].ndim; n++)
        in[n] = zeros(told[_i].in[n].dtype, told[_i].in[n].ndim, told[_i].in[n].shape, ref);
    int rc = am_apply(told[_i].op, &out, in, n, &told[_i].attrs);
    const char *name = am_op_name(told[_i].op), *message = am_error_message();
    ck_assert_msg(rc == told[_i].code, "%s: %s, expected %s (%s)", name, am_error_name(rc),
                  am_error_name(told[_i].code), message);
    ck_assert_msg(strncmp(message, name, strlen(name)) == 0,
                  "%s: \"%s\" does not begin with the op", name, message);
    ck_assert_msg(strstr(message, told[_i].message) != NULL, "%s: \"%s\" lacks \"%s\"", name,
                  message, told[_i].message);
    release_all(in);
}
END_TEST

/* An index from data that is out of range: every picking op, on every device. */
START_TEST(index_out_of_range)
{
    static const int ops[] = {AM_OP_embedding, AM_OP_index_select, AM_OP_gather,
                              AM_OP_cross_entropy, AM_OP_linear_cross_entropy};
    static const int64_t bad[] = {4, -1, INT64_MAX, INT64_MIN};
    for (int device = 0; device < devices_here(); device++)
        for (size_t k = 0; k < sizeof ops / sizeof *ops; k++)
            for (size_t j = 0; j < sizeof bad / sizeof *bad; j++) {
                am_tensor *in[CASE_INPUTS] = {NULL}, *out = NULL;
                int op = ops[k], at = op == AM_OP_embedding              ? 0
                                      : op == AM_OP_linear_cross_entropy ? 2
                                                                         : 1;
                am_attrs a = {.embedding = {-1}};
                if (op == AM_OP_index_select || op == AM_OP_gather)
                    a = (am_attrs){.dim = {0}};
                else if (op != AM_OP_embedding)
                    a = (am_attrs){.loss = {-100, 0}};
                int64_t index[] = {0, bad[j]}, two[] = {2, 2}, four[] = {4, 2};
                in[0] = zeros(AM_F32, 2, op == AM_OP_cross_entropy || at == 2 ? two : four, device);
                in[1] = zeros(AM_F32, 2, four, device);
                if (op == AM_OP_cross_entropy) { /* logits [2, 4] */
                    am_tensor_release(in[0]);
                    in[0] = zeros(AM_F32, 2, (int64_t[]){2, 4}, device);
                }
                am_tensor_release(in[at]);
                int64_t shape[] = {op == AM_OP_gather ? 1 : 2, 2};
                in[at] = zeros(AM_I64, op == AM_OP_gather ? 2 : 1, shape, device);
                ck_assert_int_eq(am_tensor_write(in[at], index, sizeof index), AM_OK);
                int rc = am_apply(op, &out, in, at == 2 ? 3 : 2, &a);
                if (rc == AM_OK && !am_device_is_host(device)) {
                    rc = am_device_sync(device); /* reported late there */
                    am_tensor_release(out);
                }
                ck_assert_msg(rc == AM_EINVAL, "%s on %s with %lld: %s", am_op_name(op),
                              am_device_name(device), (long long)bad[j], am_error_name(rc));
                release_all(in);
            }
}
END_TEST

START_TEST(adding_out_of_range)
{
    for (int device = 0; device < devices_here(); device++)
        for (int op = AM_OP_index_add; op <= AM_OP_scatter_add; op++)
            for (int64_t bad = -1; bad <= 3; bad += 4) {
                const int64_t three[] = {3}, two[] = {2}, index[] = {0, bad};
                am_tensor *out = NULL, *in[CASE_INPUTS] = {zeros(AM_F32, 1, three, device),
                                                           zeros(AM_I64, 1, two, device),
                                                           zeros(AM_F32, 1, two, device)};
                ck_assert_int_eq(am_tensor_write(in[1], index, sizeof index), AM_OK);
                int rc = am_apply(op, &out, in, 3, &(am_attrs){.dim = {0}});
                if (rc == AM_OK && !am_device_is_host(device)) {
                    rc = am_device_sync(device); /* reported late there */
                    am_tensor_release(out);
                }
                ck_assert_msg(rc == AM_EINVAL, "%s on %s with %lld: %s", am_op_name(op),
                              am_device_name(device), (long long)bad, am_error_name(rc));
                release_all(in);
            }
}
END_TEST

/* Offsets of groups that would read or write outside, forwards and backwards. */
START_TEST(groups_out_of_order)
{
    static const int32_t bad[][4] = {{1, 2, 3, 5},         {0, 2, 3, 4}, {0, 2, 3, 6},
                                     {0, 3, 2, 5},         {0, 6, 5, 5}, {0, -1, 3, 5},
                                     {0, INT32_MAX, 2, 5}, {-1, 2, 3, 5}};
    for (int device = 0; device < devices_here(); device++)
        for (size_t j = 0; j < sizeof bad / sizeof *bad; j++) {
            const int64_t x[] = {5, 2}, w[] = {3, 4, 2}, offsets[] = {4};
            am_tensor *out = NULL,
                      *in[CASE_INPUTS] = {zeros(AM_F32, 2, x, device), zeros(AM_F32, 3, w, device),
                                          zeros(AM_I32, 1, offsets, device)};
            ck_assert_int_eq(am_tensor_write(in[2], bad[j], sizeof bad[j]), AM_OK);
            int rc = am_apply(AM_OP_grouped_linear, &out, in, 3, &(am_attrs){.grouped = {0}});
            if (rc == AM_OK && !am_device_is_host(device)) {
                rc = am_device_sync(device); /* reported late there */
                am_tensor_release(out);
            }
            ck_assert_msg(rc == AM_EINVAL, "row %d on %s: %s", (int)j, am_device_name(device),
                          am_error_name(rc));
            release_all(in);
        }
}
END_TEST

START_TEST(unknown_ops)
{
    am_tensor *out = NULL;
    int op = 0, a = 0, b = 0, c = 0;
    ck_assert_int_eq(am_apply(-1, &out, NULL, 0, NULL), AM_EINVAL);
    ck_assert_int_eq(am_apply(AM_OP_COUNT, &out, NULL, 0, NULL), AM_EINVAL);
    ck_assert_int_eq(am_op_find(&op, "no_such_op"), AM_EINVAL);
    ck_assert_ptr_nonnull(strstr(am_error_message(), "no_such_op"));
    ck_assert_int_eq(am_op_find(&op, NULL), AM_EINVAL);
    ck_assert_int_eq(am_op_arity(AM_OP_COUNT, &a, &b, &c), AM_EINVAL);
    ck_assert_str_eq(am_op_name(-1), "?");
    ck_assert_str_eq(am_op_doc(AM_OP_COUNT), "");
    ck_assert_int_eq(am_op_differentiable(-1), 0);
    ck_assert_int_eq(am_op_supported(AM_OP_COUNT, 0, AM_F32), 0);
    for (int i = 0; i < AM_OP_COUNT; i++) {
        ck_assert_int_eq(am_op_find(&op, am_op_name(i)), AM_OK);
        ck_assert_int_eq(op, i);
        for (int device = 0; device < devices_here(); device++)
            ck_assert_msg(am_op_supported(i, device, AM_F32), "%s lacks %s", am_device_name(device),
                          am_op_name(i));
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("op errors");
    TCase *t = tcase_create("called wrongly");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, called_wrongly, 0, AM_OP_COUNT);
    suite_add_tcase(s, t);
    t = tcase_create("messages");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_loop_test(t, told_why, 0, sizeof told / sizeof *told);
    tcase_add_test(t, index_out_of_range);
    tcase_add_test(t, adding_out_of_range);
    tcase_add_test(t, groups_out_of_order);
    tcase_add_test(t, unknown_ops);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
