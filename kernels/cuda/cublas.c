/* cublas.c — matrix products by cuBLASLt. It stores matrices by columns: what is computed here is
 * c^T = op(b)^T op(a)^T over the same bytes. */
#include <limits.h>
#include <string.h>

#include "cuda_backend.h"

enum { WORKSPACE = 32 << 20, SCRATCH_SLOT = 0, PLANS = 1024 };

/* All that the choice of an algorithm depends on, as far as this file varies it. */
typedef struct plan_key {
    int64_t m, n, k, lda, ldb, ldc, batch, stride_a, stride_b, stride_c;
    cudaDataType_t type_a, type_b, type_c;
    int trans_a, trans_b, bias, beta, aligned;
    int scaled, scale_for_each; /* operands of 8 bits; by the row of a and the column of b */
} plan_key;

/* What a product is of; scales of a and b are NULL but for 8 bits. */
typedef struct operands {
    void *c;
    const void *a, *b, *bias;
    const float *scale_a, *scale_b;
    double alpha;
} operands;

enum { UNKNOWN, KNOWN, REFUSED };
typedef struct plan_entry {
    plan_key key;
    int state;
    cublasLtMatmulAlgo_t algo;
} plan_entry;

/* By a hash of the key; a plan that falls on another's place takes it. */
static plan_entry plans[PLANS];

static unsigned hash_of(const plan_key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    unsigned h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *key; i++)
        h = (h ^ bytes[i]) * 16777619u;
    return h % PLANS;
}

static int type_of(cudaDataType_t *type, int dtype)
{
    switch (dtype) {
    case AM_F32:
        *type = CUDA_R_32F;
        return 1;
    case AM_BF16:
        *type = CUDA_R_16BF;
        return 1;
    case AM_F16:
        *type = CUDA_R_16F;
        return 1;
    case AM_F64:
        *type = CUDA_R_64F;
        return 1;
    default:
        return 0;
    }
}

typedef struct product {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
} product;

static void product_free(product *p)
{
    (void)cublasLtMatrixLayoutDestroy(p->a);
    (void)cublasLtMatrixLayoutDestroy(p->b);
    (void)cublasLtMatrixLayoutDestroy(p->c);
    (void)cublasLtMatmulDescDestroy(p->desc);
}

static cublasStatus_t set_int(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t what,
                              int value)
{
    return cublasLtMatmulDescSetAttribute(desc, what, &value, sizeof value);
}

static cublasStatus_t layout_new(cublasLtMatrixLayout_t *l, cudaDataType_t type, int64_t rows,
                                 int64_t cols, int64_t ld, int64_t batch, int64_t stride)
{
    cublasStatus_t rc = cublasLtMatrixLayoutCreate(l, type, (uint64_t)rows, (uint64_t)cols, ld);
    int32_t count = (int32_t)batch;
    if (rc == CUBLAS_STATUS_SUCCESS && batch > 1)
        rc = cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                              sizeof count);
    if (rc == CUBLAS_STATUS_SUCCESS && batch > 1)
        rc = cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                              &stride, sizeof stride);
    return rc;
}

/* c^T [n, m] of op(b)^T and op(a)^T: cuBLASLt's first operand is b. */
static cublasStatus_t product_new(product *p, const plan_key *k, const operands *o)
{
    int f64 = k->type_a == CUDA_R_64F;
    memset(p, 0, sizeof *p);
#define TRY(call)                                                                                  \
    do {                                                                                           \
        cublasStatus_t rc_ = (call);                                                               \
        if (rc_ != CUBLAS_STATUS_SUCCESS)                                                          \
            return rc_;                                                                            \
    } while (0)
    TRY(cublasLtMatmulDescCreate(&p->desc, f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                 f64 ? CUDA_R_64F : CUDA_R_32F));
    TRY(set_int(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, k->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N));
    TRY(set_int(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, k->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N));
    if (k->bias) {
        TRY(set_int(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS));
        TRY(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &o->bias,
                                           sizeof o->bias));
    }
    if (k->scaled) {
        TRY(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
                                           &o->scale_b, sizeof o->scale_b));
        TRY(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER,
                                           &o->scale_a, sizeof o->scale_a));
    }
#if CUBLAS_VERSION >= 120900
    if (k->scale_for_each) {
        TRY(set_int(p->desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
                    CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F));
        TRY(set_int(p->desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE,
                    CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F));
    }
#endif
    TRY(layout_new(&p->a, k->type_b, k->trans_b ? k->k : k->n, k->trans_b ? k->n : k->k, k->ldb,
                   k->batch, k->stride_b));
    TRY(layout_new(&p->b, k->type_a, k->trans_a ? k->m : k->k, k->trans_a ? k->k : k->m, k->lda,
                   k->batch, k->stride_a));
    TRY(layout_new(&p->c, k->type_c, k->n, k->m, k->ldc, k->batch, k->stride_c));
    return CUBLAS_STATUS_SUCCESS;
#undef TRY
}

static cublasStatus_t choose(am_stream *s, plan_entry *plan, const product *p)
{
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found;
    size_t workspace = WORKSPACE;
    int n = 0;
    uint32_t alignment = (uint32_t)plan->key.aligned;
    cublasStatus_t rc = cublasLtMatmulPreferenceCreate(&preference);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatmulPreferenceSetAttribute(
            preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    for (int i = 0; i < 4 && rc == CUBLAS_STATUS_SUCCESS; i++)
        rc = cublasLtMatmulPreferenceSetAttribute(
            preference,
            (cublasLtMatmulPreferenceAttributes_t[]){CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                                     CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                     CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                                     CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}[i],
            &alignment, sizeof alignment);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatmulAlgoGetHeuristic(s->lt, p->desc, p->a, p->b, p->c, p->c, preference, 1,
                                            &found, &n);
    if (rc == CUBLAS_STATUS_SUCCESS && n == 0)
        rc = CUBLAS_STATUS_NOT_SUPPORTED;
    if (rc == CUBLAS_STATUS_SUCCESS) {
        plan->algo = found.algo;
        plan->state = KNOWN;
    } else if (rc == CUBLAS_STATUS_NOT_SUPPORTED) {
        plan->state = REFUSED;
    }
    (void)cublasLtMatmulPreferenceDestroy(preference);
    return rc;
}

static int failed(cublasStatus_t rc, const plan_key *k)
{
    cudaError_t e = cudaGetLastError(); /* what was wrong before cuBLASLt was asked */
    return am_kernel_fail(rc == CUBLAS_STATUS_NOT_SUPPORTED ? AM_EUNSUP : AM_EDEVICE,
                          "cuda: the product [%lld, %lld] x [%lld, %lld] by cuBLASLt: %s%s%s",
                          (long long)k->m, (long long)k->k, (long long)k->k, (long long)k->n,
                          cublasLtGetStatusString(rc), e == cudaSuccess ? "" : "; ",
                          e == cudaSuccess ? "" : cudaGetErrorString(e));
}

static int aligned_to(const void *p)
{
    return (int)((uintptr_t)p & -(uintptr_t)p & 0xff) ?: 256;
}

static int least_aligned(const operands *o)
{
    int a = aligned_to(o->a), b = aligned_to(o->b), c = aligned_to(o->c);
    a = b < a ? b : a;
    return c < a ? c : a;
}

/* CUBLAS_STATUS_NOT_SUPPORTED where cuBLASLt has no algorithm; *rc is of what isn't cuBLASLt's. */
static cublasStatus_t run(am_stream *s, const plan_key *key, const operands *o, int *rc)
{
    product p = {0};
    void *workspace;
    plan_entry *plan = &plans[hash_of(key)];
    *rc = am_cuda_scratch(s, &workspace, SCRATCH_SLOT, WORKSPACE);
    if (*rc != AM_OK)
        return CUBLAS_STATUS_SUCCESS;
    if (memcmp(&plan->key, key, sizeof *key) != 0) {
        plan->state = UNKNOWN;
        plan->key = *key;
    }
    if (plan->state == REFUSED)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    cublasStatus_t status = product_new(&p, key, o);
    if (status == CUBLAS_STATUS_SUCCESS && plan->state == UNKNOWN)
        status = choose(s, plan, &p);
    if (status == CUBLAS_STATUS_SUCCESS) {
        float alpha = (float)o->alpha, beta = (float)key->beta;
        double alpha64 = o->alpha, beta64 = key->beta;
        int f64 = key->type_a == CUDA_R_64F;
        status = cublasLtMatmul(s->lt, p.desc, f64 ? (void *)&alpha64 : &alpha, o->b, p.a, o->a,
                                p.b, f64 ? (void *)&beta64 : &beta, o->c, p.c, o->c, p.c,
                                &plan->algo, workspace, WORKSPACE, s->stream);
    }
    product_free(&p);
    return status;
}

static int multiply(am_stream *s, const am_gemm_args *g, const void *bias)
{
    plan_key key;
    operands o = {.c = g->c, .a = g->a, .b = g->b, .bias = bias, .alpha = g->alpha};
    int rc;
    memset(&key, 0, sizeof key); /* its padding is hashed and compared */
    key.m = g->m;
    key.n = g->n;
    key.k = g->k;
    key.lda = g->lda;
    key.ldb = g->ldb;
    key.ldc = g->ldc;
    key.batch = g->batch;
    key.stride_a = g->stride_a;
    key.stride_b = g->stride_b;
    key.stride_c = g->stride_c;
    (void)type_of(&key.type_a, g->dtype_ab);
    (void)type_of(&key.type_c, g->dtype_c);
    key.type_b = key.type_a;
    key.trans_a = g->trans_a;
    key.trans_b = g->trans_b;
    key.bias = bias != NULL;
    key.beta = g->accumulate;
    key.aligned = least_aligned(&o);
    cublasStatus_t status = run(s, &key, &o, &rc);
    return status == CUBLAS_STATUS_SUCCESS ? rc : failed(status, &key);
}

/* Before a product that adds to c: c = bias in each row, or 0; with accumulate c += bias. */
static int prepare(am_stream *s, const am_gemm_args *g)
{
    am_nd nd = {.ndim = 3, .shape = {g->batch, g->m, g->n}};
    nd.stride[0][0] = g->stride_c;
    nd.stride[0][1] = g->ldc;
    nd.stride[0][2] = nd.stride[1][2] = 1;
    if (g->bias)
        return am_cuda_copy(s, &(am_copy_args){.out = g->c,
                                               .a = g->bias,
                                               .dtype_out = g->dtype_c,
                                               .dtype_a = g->dtype_ab,
                                               .accumulate = g->accumulate,
                                               .nd = nd});
    if (g->accumulate)
        return AM_OK;
    return am_cuda_fill(s, &(am_fill_args){.out = g->c, .dtype = g->dtype_c, .nd = nd});
}

int am_cuda_gemm(am_stream *s, const am_gemm_args *args)
{
    am_gemm_args g = *args;
    cudaDataType_t type;
    int rc = AM_OK;
    if (!type_of(&type, g.dtype_ab) || (g.dtype_c != g.dtype_ab && g.dtype_c != AM_F32) ||
        (g.dtype_ab == AM_F64 && g.dtype_c != AM_F64))
        return AM_EUNSUP;
    if (g.m == 0 || g.n == 0 || g.batch == 0)
        return AM_OK;
    /* Adding a bias in the product is for rows of its own type, in f32 or less; and no product has
     * no epilogue. */
    int fused = g.bias && g.dtype_c == g.dtype_ab && g.dtype_ab != AM_F64 && g.k > 0;
    if (g.k == 0 || (g.bias && !fused)) {
        rc = prepare(s, &g);
        g.accumulate = 1;
    }
    if (rc == AM_OK && g.k > 0)
        rc = multiply(s, &g, fused ? g.bias : NULL);
    if (rc != AM_OK || !g.u)
        return rc;
    am_gemm_args low = {.c = g.c,
                        .a = g.u,
                        .b = g.v,
                        .dtype_ab = g.dtype_ab,
                        .dtype_c = g.dtype_c,
                        .trans_b = g.trans_b,
                        .accumulate = 1,
                        .alpha = 1,
                        .m = g.m,
                        .n = g.n,
                        .k = g.r,
                        .lda = g.r,
                        .ldb = g.trans_b ? g.r : g.n,
                        .ldc = g.ldc,
                        .batch = 1};
    return multiply(s, &low, NULL);
}

/* ---- 8 bits --------------------------------------------------------------------------------- */

int am_cuda_fp8_library(const am_fp8_gemm_args *a)
{
    int device = 0, major = 0, minor = 0;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    (void)cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    int capability = major * 10 + minor;
    int least = a->rows_a || a->columns_b ? CUBLAS_VERSION >= 120900 ? 90 : INT_MAX : 89;
    return capability >= least && a->n % 16 == 0 && a->dtype_c != AM_F64 &&
           (a->format_a == AM_FP8_E4M3 || a->format_b == AM_FP8_E4M3);
}

int am_cuda_fp8_product(am_stream *s, const am_fp8_gemm_args *a)
{
    plan_key key;
    operands o = {.c = a->c,
                  .a = a->a,
                  .b = a->b,
                  .scale_a = a->inverse_a,
                  .scale_b = a->inverse_b,
                  .alpha = 1};
    int rc;
    memset(&key, 0, sizeof key);
    key.m = a->m;
    key.n = key.ldc = a->n;
    key.k = key.lda = key.ldb = a->k;
    key.batch = 1;
    key.type_a = a->format_a == AM_FP8_E5M2 ? CUDA_R_8F_E5M2 : CUDA_R_8F_E4M3;
    key.type_b = a->format_b == AM_FP8_E5M2 ? CUDA_R_8F_E5M2 : CUDA_R_8F_E4M3;
    (void)type_of(&key.type_c, a->dtype_c);
    key.trans_b = 1;
    key.beta = a->accumulate;
    key.aligned = least_aligned(&o);
    key.scaled = 1;
    key.scale_for_each = a->rows_a;
    if (key.aligned % 16)
        return AM_EUNSUP;
    cublasStatus_t status = run(s, &key, &o, &rc);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED)
        return AM_EUNSUP;
    return status == CUBLAS_STATUS_SUCCESS ? rc : failed(status, &key);
}
