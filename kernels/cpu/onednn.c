/* onednn.c — primitives of oneDNN for dense matrix products: making, keeping and running them. */
#include "onednn.h"

#include <string.h>
#include <oneapi/dnnl/dnnl.h>
#include "cpu.h"
#include "dtype.h"

enum { TABLE = 512, WAYS = 8 }; /* primitives kept; places one may be in */

static dnnl_engine_t engine;
static dnnl_stream_t stream;
static matmul table[TABLE];
static uint64_t uses;

void am_onednn_init(int isa)
{
    if (isa == AM_ISA_GENERIC)
        dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
    else if (isa == AM_ISA_AVX2)
        dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
    else if (isa == AM_ISA_AVX512)
        dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_vnni);
    else if (isa == AM_ISA_AVX512_BF16)
        dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16);
}

int am_onednn_is_v3(void)
{
    return DNNL_VERSION_MAJOR >= 3;
}

static int dnnl_failed(const char *what, dnnl_status_t status)
{
    if (status == dnnl_success)
        return AM_OK;
    if (status == dnnl_out_of_memory)
        return am_kernel_fail(AM_ENOMEM, "gemm: oneDNN is out of memory");
    return am_kernel_fail(AM_EDEVICE, "gemm: oneDNN: %s failed with status %d", what, (int)status);
}

#define DNNL_TRY(call)                                                                             \
    do {                                                                                           \
        int failed_ = dnnl_failed(#call, call);                                                    \
        if (failed_ != AM_OK)                                                                      \
            return failed_;                                                                        \
    } while (0)

static int is_brg(const_dnnl_primitive_desc_t pd)
{
    const char *implementation = "";
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &implementation);
    return strncmp(implementation, "brg", 3) == 0;
}

/* ---- what differs between oneDNN 2 and 3 ----------------------------------------------------
 * make_matmul gives the fastest implementation, without `brg` the fastest that is none of those. */

#if DNNL_VERSION_MAJOR >= 3
/* descriptors are handles */
#define DESC(d) (*(d))

static dnnl_status_t make_desc(dnnl_memory_desc_t *d, int ndims, const dnnl_dim_t *dims,
                               dnnl_data_type_t type, const dnnl_dim_t *strides)
{
    return dnnl_memory_desc_create_with_strides(d, ndims, dims, type, strides);
}

static void free_desc(dnnl_memory_desc_t *d)
{
    dnnl_memory_desc_destroy(*d);
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}

static dnnl_status_t append_scale(dnnl_post_ops_t ops, double alpha)
{
    return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, (float)alpha, 0.0f);
}

static dnnl_status_t make_matmul(dnnl_primitive_desc_t *pd, const dnnl_memory_desc_t *a,
                                 const dnnl_memory_desc_t *b, const dnnl_memory_desc_t *bias,
                                 const dnnl_memory_desc_t *c, dnnl_primitive_attr_t attr, int brg)
{
    dnnl_status_t status =
        dnnl_matmul_primitive_desc_create(pd, engine, *a, *b, bias ? *bias : NULL, *c, attr);
    while (status == dnnl_success && !brg && is_brg(*pd))
        status = dnnl_primitive_desc_next_impl(*pd);
    return status;
}
#else
/* descriptors are structs */
#define DESC(d) (d)

static dnnl_status_t make_desc(dnnl_memory_desc_t *d, int ndims, const dnnl_dim_t *dims,
                               dnnl_data_type_t type, const dnnl_dim_t *strides)
{
    return dnnl_memory_desc_init_by_strides(d, ndims, dims, type, strides);
}

static void free_desc(dnnl_memory_desc_t *d)
{
    (void)d;
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f);
}

static dnnl_status_t append_scale(dnnl_post_ops_t ops, double alpha)
{
    return dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_linear, (float)alpha, 0.0f);
}

static dnnl_status_t make_matmul(dnnl_primitive_desc_t *pd, const dnnl_memory_desc_t *a,
                                 const dnnl_memory_desc_t *b, const dnnl_memory_desc_t *bias,
                                 const dnnl_memory_desc_t *c, dnnl_primitive_attr_t attr, int brg)
{
    dnnl_matmul_desc_t d;
    dnnl_primitive_desc_iterator_t each = NULL;
    dnnl_status_t status = dnnl_matmul_desc_init(&d, a, b, bias, c);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_iterator_create(&each, &d, attr, engine, NULL);
    while (status == dnnl_success) {
        *pd = dnnl_primitive_desc_iterator_fetch(each);
        if (!*pd)
            status = dnnl_out_of_memory;
        if (brg || !*pd || !is_brg(*pd))
            break;
        dnnl_primitive_desc_destroy(*pd);
        *pd = NULL;
        status = dnnl_primitive_desc_iterator_next(each);
    }
    if (each)
        dnnl_primitive_desc_iterator_destroy(each);
    return status;
}
#endif

/* ---- the table of primitives --------------------------------------------------------------- */

static matmul_key key_of(const am_gemm_args *g, int threads)
{
    matmul_key key;
    memset(&key, 0, sizeof key); /* compared by its bytes */
    key.m = g->m;
    key.n = g->n;
    key.k = g->k;
    key.lda = g->lda;
    key.ldb = g->ldb;
    key.ldc = g->ldc;
    key.batch = g->batch;
    if (g->batch > 1) {
        key.stride_a = g->stride_a;
        key.stride_b = g->stride_b;
        key.stride_c = g->stride_c;
    }
    key.alpha = g->alpha;
    key.dtype_ab = g->dtype_ab;
    key.dtype_c = g->dtype_c;
    key.trans_a = g->trans_a != 0;
    key.trans_b = g->trans_b != 0;
    key.accumulate = g->accumulate != 0;
    key.bias = g->bias != NULL;
    key.threads = threads;
    key.used = 1;
    return key;
}

static uint64_t hash_key(const matmul_key *key)
{
    uint64_t words[sizeof *key / 8], h = 1469598103934665603u; /* FNV-1a over words */
    memcpy(words, key, sizeof words);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        h = (h ^ words[i]) * 1099511628211u;
    return h ^ (h >> 29);
}

static void free_matmul(matmul *p)
{
    if (p->primitive)
        dnnl_primitive_destroy(p->primitive);
    memset(p, 0, sizeof *p);
}

/* alpha, then the bias where alpha must not scale it, then what c holds. */
static dnnl_status_t add_post_ops(dnnl_primitive_attr_t attr, const matmul_key *key,
                                  const dnnl_memory_desc_t *bias)
{
    dnnl_post_ops_t ops;
    dnnl_status_t status = dnnl_post_ops_create(&ops);
    if (status != dnnl_success)
        return status;
    if (key->alpha != 1.0)
        status = append_scale(ops, key->alpha);
    if (status == dnnl_success && key->alpha != 1.0 && key->bias)
        status = dnnl_post_ops_append_binary(ops, dnnl_binary_add, DESC(bias));
    if (status == dnnl_success && key->accumulate)
        status = append_sum(ops);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(attr, ops);
    dnnl_post_ops_destroy(ops);
    return status;
}

/* Descriptors of a, b, bias and c in that order; the first `made` of them exist afterwards. */
static dnnl_status_t make_descs(dnnl_memory_desc_t d[4], int *made, const matmul_key *key)
{
    dnnl_data_type_t ab = key->dtype_ab == AM_F32 ? dnnl_f32 : dnnl_bf16;
    dnnl_data_type_t to = key->dtype_c == AM_F32 ? dnnl_f32 : dnnl_bf16;
    int64_t batch_a = key->stride_a ? key->batch : 1, batch_b = key->stride_b ? key->batch : 1;
    dnnl_dim_t dims[4][3] = {{batch_a, key->m, key->k},
                             {batch_b, key->k, key->n},
                             {1, 1, key->n},
                             {key->batch, key->m, key->n}};
    dnnl_dim_t strides[4][3] = {{key->stride_a, key->lda, 1},
                                {key->stride_b, key->ldb, 1},
                                {key->n, key->n, 1},
                                {key->stride_c, key->ldc, 1}};
    if (batch_a == 1)
        strides[0][0] = key->trans_a ? key->k * key->lda : key->m * key->lda;
    if (batch_b == 1)
        strides[1][0] = key->trans_b ? key->n * key->ldb : key->k * key->ldb;
    if (key->trans_a) {
        strides[0][1] = 1;
        strides[0][2] = key->lda;
    }
    if (key->trans_b) {
        strides[1][1] = 1;
        strides[1][2] = key->ldb;
    }
    int first = key->batch > 1 ? 0 : 1; /* without a batch dim */
    for (*made = 0; *made < 4; ++*made) {
        dnnl_status_t status = make_desc(&d[*made], 3 - first, dims[*made] + first,
                                         *made == 3 ? to : ab, strides[*made] + first);
        if (status != dnnl_success)
            return status;
    }
    return dnnl_success;
}

/* oneDNN 3.7's `brg` gets products of vectors wrong when their elements don't lie side by side. */
static int brg_errs(const matmul_key *key)
{
    return DNNL_VERSION_MAJOR >= 3 && (key->n == 1 || (key->m == 1 && key->trans_a));
}

static int wants_brg(const matmul_key *key)
{
    return (key->dtype_ab != AM_F32 || key->trans_a) && !brg_errs(key);
}

static dnnl_status_t build(matmul *p)
{
    dnnl_memory_desc_t d[4];
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    int made = 0;
    dnnl_status_t status = make_descs(d, &made, &p->key);
    if (status != dnnl_success)
        goto out;
    status = dnnl_primitive_attr_create(&attr);
    if (status != dnnl_success)
        goto out;
    p->bias_as_post_op = p->key.bias && p->key.alpha != 1.0;
    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    status = add_post_ops(attr, &p->key, &d[2]);
    if (status != dnnl_success)
        goto out;
    status = make_matmul(&pd, &d[0], &d[1], p->key.bias && !p->bias_as_post_op ? &d[2] : NULL,
                         &d[3], attr, wants_brg(&p->key));
    if (status != dnnl_success)
        goto out;
    p->any_rows = is_brg(pd);
    p->scratch_bytes =
        dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
    status = dnnl_primitive_create(&p->primitive, pd);
out:
    while (made-- > 0)
        free_desc(&d[made]);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return status;
}

int am_onednn_find(matmul **out, const am_gemm_args *g, int threads)
{
    if (!engine) {
        DNNL_TRY(dnnl_engine_create(&engine, dnnl_cpu, 0));
        DNNL_TRY(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    }
    matmul_key key = key_of(g, threads);
    matmul *set = &table[hash_key(&key) % (TABLE / WAYS) * WAYS], *oldest = set;
    for (matmul *p = set; p < set + WAYS; p++) {
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): key_of clears all bytes */
        if (memcmp(&p->key, &key, sizeof key) == 0) {
            p->last_use = ++uses;
            *out = p;
            return AM_OK;
        }
        if (p->last_use < oldest->last_use)
            oldest = p;
    }
    free_matmul(oldest);
    oldest->key = key;
    dnnl_status_t status = build(oldest);
    if (status == dnnl_unimplemented && key.dtype_ab != AM_F32) {
        free_matmul(oldest); /* remembered without a primitive: goes through f32 */
        oldest->key = key;
    } else if (status != dnnl_success) {
        free_matmul(oldest);
        return dnnl_failed("matmul", status);
    }
    oldest->last_use = ++uses;
    *out = oldest;
    return AM_OK;
}

/* ---- running ------------------------------------------------------------------------------- */

typedef struct argument {
    int id;
    dnnl_query_t query; /* its descriptor */
    int index;
    void *data;
} argument;

int am_onednn_run(const matmul *p, const am_gemm_args *g, void *scratch)
{
    /* as a post-op the bias is the second one, after the scale */
    int after = p->bias_as_post_op;
    argument in[] = {
        {DNNL_ARG_SRC, dnnl_query_src_md, 0, (void *)(uintptr_t)g->a},
        {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0, (void *)(uintptr_t)g->b},
        {DNNL_ARG_DST, dnnl_query_dst_md, 0, g->c},
        {DNNL_ARG_SCRATCHPAD, dnnl_query_scratchpad_md, 0, scratch},
        {after ? DNNL_ARG_ATTR_MULTIPLE_POST_OP(1) | DNNL_ARG_SRC_1 : DNNL_ARG_BIAS,
         after ? dnnl_query_exec_arg_md : dnnl_query_weights_md, after ? 0 : 1,
         (void *)(uintptr_t)g->bias},
    };
    enum { MOST = sizeof in / sizeof *in };
    in[MOST - 1].index = after ? in[MOST - 1].id : 1;
    dnnl_exec_arg_t args[MOST];
    const_dnnl_primitive_desc_t pd;
    int count = 0;
    dnnl_status_t status = dnnl_primitive_get_primitive_desc(p->primitive, &pd);
    for (int i = 0; i < MOST && status == dnnl_success; i++) {
        if (!in[i].data)
            continue;
        args[count].arg = in[i].id;
        status = dnnl_memory_create(&args[count].memory,
                                    dnnl_primitive_desc_query_md(pd, in[i].query, in[i].index),
                                    engine, in[i].data);
        count += status == dnnl_success;
    }
    if (status == dnnl_success)
        status = dnnl_primitive_execute(p->primitive, stream, count, args);
    if (status == dnnl_success)
        status = dnnl_stream_wait(stream);
    for (int i = 0; i < count; i++)
        dnnl_memory_destroy(args[i].memory);
    return dnnl_failed("a matrix product", status);
}
