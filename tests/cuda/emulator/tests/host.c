/* host.c — the emulated CUDA runtime and cuBLASLt as a host program sees them, and kernels that are
 * right (kernels.cu). Prints a line for each test; exits with 1 when one fails. With "time", what
 * switches and launches cost. */
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control.h"
#include "kernels.h"

static int failed;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("# %s:%d: %s\n", __FILE__, __LINE__, #condition);                               \
            failed = 1;                                                                            \
        }                                                                                          \
    } while (0)
#define OK(call) CHECK((call) == cudaSuccess)

static void *device(const void *from, size_t bytes)
{
    void *p = NULL;
    OK(cudaMalloc(&p, bytes));
    if (from)
        OK(cudaMemcpy(p, from, bytes, cudaMemcpyHostToDevice));
    else
        OK(cudaMemset(p, 0, bytes));
    return p;
}

static void fetch(void *to, const void *from, size_t bytes)
{
    memset(to, 0xff, bytes);
    OK(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

static uint16_t to_bf16(float x)
{
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    return (uint16_t)((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t x)
{
    uint32_t word = (uint32_t)x << 16;
    float f;
    memcpy(&f, &word, sizeof f);
    return f;
}

/* ---- kernels ---- */

static void test_reductions(void)
{
    enum { ROWS = 5, N = 321 };
    float in[ROWS * N], out[ROWS], sum;
    for (int i = 0; i < ROWS * N; i++)
        in[i] = (float)(i % 17);
    float *d = device(in, sizeof in), *o = device(NULL, sizeof out);
    OK(launch_row_sums(o, d, ROWS, N, 0));
    fetch(out, o, sizeof out);
    for (int r = 0; r < ROWS; r++) {
        float want = 0;
        for (int i = 0; i < N; i++)
            want += in[r * N + i];
        CHECK(out[r] == want); /* whole numbers: exact in any order */
    }
    OK(cudaMemset(o, 0, sizeof sum));
    OK(launch_total(o, d, ROWS * N, 0));
    fetch(&sum, o, sizeof sum);
    CHECK(sum == out[0] + out[1] + out[2] + out[3] + out[4]);
    OK(cudaFree(d));
    OK(cudaFree(o));
}

static void test_collectives(void)
{
    int out[96];
    float in[96], back[96];
    int *o = device(NULL, sizeof out);
    OK(launch_collectives(o, 0));
    fetch(out, o, sizeof out);
    for (int i = 0; i < 96; i++)
        CHECK(out[i] == 14);
    for (int i = 0; i < 96; i++)
        in[i] = (float)i;
    float *d = device(in, sizeof in), *r = device(NULL, sizeof in);
    OK(launch_reverse_in_warp(r, d, 0));
    fetch(back, r, sizeof back);
    for (int i = 0; i < 96; i++)
        CHECK(back[i] == (float)(i / 32 * 32 + 31 - i % 32));
    OK(cudaFree(o));
    OK(cudaFree(d));
    OK(cudaFree(r));
}

static void test_async_copies(void)
{
    static const int sizes[] = {1, 127, 128, 130, 515};
    float in[515], out[515];
    for (int i = 0; i < 515; i++)
        in[i] = (float)(i + 1);
    for (int s = 0; s < 5; s++) {
        int n = sizes[s];
        float *d = device(in, (size_t)n * 4), *o = device(NULL, (size_t)n * 4);
        OK(launch_copy_tiles(o, d, n, 0));
        fetch(out, o, (size_t)n * 4);
        for (int i = 0; i < n; i++) {
            int from = i / 128 * 128 + (i + 1) % 128;
            CHECK(out[i] == (from < n ? in[from] : 0.f));
        }
        OK(cudaFree(d));
        OK(cudaFree(o));
    }
}

/* a [16, k] and b [k, 8] of small whole numbers, which every type has exactly. */
static float a_at(int i, int k)
{
    return (float)((i * 7 + k * 3) % 9 - 4);
}

static float b_at(int k, int j)
{
    return (float)((k * 5 + j * 2) % 7 - 3);
}

static unsigned char e4m3_of(float x) /* |x| < 8, whole */
{
    unsigned char sign = x < 0 ? 0x80 : 0;
    int m = (int)fabsf(x), e = 0;
    if (m == 0)
        return sign;
    while (m >> (e + 1))
        e++;
    return (unsigned char)(sign | (e + 7) << 3 | ((m << 3 >> e) & 7));
}

static float product_error(enum tensor_kind kind, int k_size)
{
    unsigned char a[16 * 32 * 4], b[32 * 8 * 4];
    float out[16 * 8], worst = 0;
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < k_size; k++) {
            float x = a_at(i, k);
            if (kind == TENSOR_E4M3)
                a[i * 32 + k] = e4m3_of(x);
            else if (kind == TENSOR_TF32)
                memcpy(a + (i * 8 + k) * 4, &x, 4);
            else if (kind == TENSOR_F16)
                memcpy(a + (i * 16 + k) * 2, &(_Float16){(_Float16)x}, 2);
            else
                memcpy(a + (i * 16 + k) * 2, &(uint16_t){to_bf16(x)}, 2);
        }
    for (int k = 0; k < k_size; k++)
        for (int j = 0; j < 8; j++) {
            float x = b_at(k, j);
            if (kind == TENSOR_E4M3) /* these two take b transposed */
                b[j * 32 + k] = e4m3_of(x);
            else if (kind == TENSOR_TF32)
                memcpy(b + (j * 8 + k) * 4, &x, 4);
            else if (kind == TENSOR_F16)
                memcpy(b + (k * 8 + j) * 2, &(_Float16){(_Float16)x}, 2);
            else
                memcpy(b + (k * 8 + j) * 2, &(uint16_t){to_bf16(x)}, 2);
        }
    size_t each = kind == TENSOR_E4M3 ? 1 : kind == TENSOR_TF32 ? 4 : 2;
    void *da = device(a, 16 * (size_t)k_size * each), *db = device(b, (size_t)k_size * 8 * each);
    float *o = device(NULL, sizeof out);
    OK(launch_tensor(o, da, db, kind, 0));
    fetch(out, o, sizeof out);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float want = 0;
            for (int k = 0; k < k_size; k++)
                want += a_at(i, k) * b_at(k, j);
            float e = fabsf(out[i * 8 + j] - want);
            if (!(e <= worst))
                worst = e;
        }
    OK(cudaFree(da));
    OK(cudaFree(db));
    OK(cudaFree(o));
    return worst;
}

static void test_tensor_cores(void)
{
    CHECK(product_error(TENSOR_BF16, 16) == 0);
    CHECK(product_error(TENSOR_F16, 16) == 0);
    CHECK(product_error(TENSOR_TF32, 8) == 0);
    CHECK(product_error(TENSOR_E4M3, 32) == 0);
    CHECK(product_error(TENSOR_WRONG, 16) > 1); /* numbers show a wrong index of a fragment */
}

static void test_launch_limits(void)
{
    float sum, *o = device(NULL, sizeof *o);
    CHECK(launch_nothing(0, 32) == cudaErrorInvalidConfiguration);
    CHECK(launch_nothing(1, 1025) == cudaErrorInvalidConfiguration);
    CHECK(launch_much_shared(o, 20000, 0, 0) == cudaErrorInvalidValue);
    CHECK(launch_much_shared(o, 80000, 1, 0) == cudaErrorInvalidValue); /* 320 kB: on no GPU */
    CHECK(cudaGetLastError() == cudaSuccess);                           /* none of them stays */
    OK(launch_much_shared(o, 20000, 1, 0));
    fetch(&sum, o, sizeof sum);
    CHECK(sum == 20000);
    OK(cudaFree(o));
}

/* ---- streams, events, graphs ---- */

static void test_streams(void)
{
    enum { N = 100 };
    float out[N];
    float *a = device(NULL, sizeof out), *b = device(NULL, sizeof out), *pinned;
    cudaStream_t s, t;
    cudaEvent_t begin, end;
    float ms = -1;
    OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&t, cudaStreamNonBlocking));
    OK(cudaEventCreate(&begin));
    OK(cudaEventCreate(&end));
    OK(cudaMallocHost((void **)&pinned, sizeof out));
    OK(cudaEventQuery(end)); /* never recorded */
    for (int round = 0; round < 10; round++) {
        float first = (float)(round * 1000);
        OK(cudaEventRecord(begin, s));
        OK(launch_fill_from(a, N, first, s));
        OK(cudaEventRecord(end, s));
        OK(cudaStreamWaitEvent(t, end, 0));
        OK(launch_double_of(b, a, N, t));
        OK(cudaMemcpyAsync(pinned, b, sizeof out, cudaMemcpyDeviceToHost, t));
        while (cudaStreamQuery(t) == cudaErrorNotReady)
            ;
        for (int i = 0; i < N; i++)
            CHECK(pinned[i] == 2 * (first + (float)i));
    }
    OK(cudaEventElapsedTime(&ms, begin, end));
    CHECK(ms >= 0);
    /* From pageable memory: it may change as soon as the call returns. */
    for (int i = 0; i < N; i++)
        out[i] = 7;
    OK(cudaMemcpyAsync(a, out, sizeof out, cudaMemcpyHostToDevice, s));
    memset(out, 0, sizeof out);
    OK(cudaMemcpyAsync(out, a, sizeof out, cudaMemcpyDeviceToHost, s)); /* to it: waits */
    CHECK(out[0] == 7 && out[N - 1] == 7);
    CHECK(cudaStreamSynchronize((cudaStream_t)&ms) == cudaErrorInvalidResourceHandle);
    (void)cudaGetLastError();
    OK(cudaEventDestroy(begin));
    OK(cudaEventDestroy(end));
    OK(cudaStreamDestroy(s));
    OK(cudaStreamDestroy(t));
    OK(cudaFreeHost(pinned));
    OK(cudaFree(a));
    OK(cudaFree(b));
}

static void test_graphs(void)
{
    enum { N = 64 };
    float out[N], *a = device(NULL, sizeof out), *b = device(NULL, sizeof out);
    cudaStream_t s, t;
    cudaEvent_t fork, join;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    enum cudaStreamCaptureStatus status;
    size_t nodes;
    OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&t, cudaStreamNonBlocking));
    OK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    OK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    OK(launch_fill_from(a, N, 3, s));
    OK(cudaEventRecord(fork, s));
    OK(cudaStreamWaitEvent(t, fork, 0));
    OK(launch_double_of(b, a, N, t));
    OK(cudaEventRecord(join, t));
    OK(cudaStreamWaitEvent(s, join, 0));
    OK(launch_double_of(a, b, N, s));
    OK(cudaStreamIsCapturing(t, &status));
    CHECK(status == cudaStreamCaptureStatusActive);
    OK(cudaStreamEndCapture(s, &graph));
    OK(cudaGraphGetNodes(graph, NULL, &nodes));
    CHECK(nodes == 3);
    fetch(out, a, sizeof out);
    CHECK(out[5] == 0); /* nothing has run */
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    for (int i = 0; i < 3; i++) {
        OK(cudaMemset(a, 0, sizeof out));
        OK(cudaDeviceSynchronize());
        OK(cudaGraphLaunch(exec, s));
        OK(cudaStreamSynchronize(s));
        fetch(out, a, sizeof out);
        CHECK(out[5] == 4 * 8.f);
    }
    OK(cudaGraphExecDestroy(exec));
    /* What waits or allocates breaks a capture; work that isn't joined does, too. */
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    CHECK(cudaStreamSynchronize(s) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(s, &graph) == cudaErrorStreamCaptureInvalidated);
    (void)cudaGetLastError();
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    OK(cudaEventRecord(fork, s));
    OK(cudaStreamWaitEvent(t, fork, 0));
    OK(launch_double_of(b, a, N, t));
    CHECK(cudaStreamEndCapture(s, &graph) == cudaErrorStreamCaptureUnjoined);
    (void)cudaGetLastError();
    OK(cudaEventDestroy(fork));
    OK(cudaEventDestroy(join));
    OK(cudaStreamDestroy(s));
    OK(cudaStreamDestroy(t));
    OK(cudaFree(a));
    OK(cudaFree(b));
}

/* ---- memory and failures ---- */

static void test_memory(void)
{
    size_t left, total, before;
    void *p[3], *big = &big;
    struct cudaPointerAttributes about;
    cudaStream_t s;
    OK(cudaMemGetInfo(&before, &total));
    CHECK(total == (size_t)64 << 20); /* main's AM_EMU_MEMORY */
    CHECK(cudaMalloc(&big, total + 1) == cudaErrorMemoryAllocation && !big);
    CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
    CHECK(cudaGetLastError() == cudaSuccess);
    for (int i = 0; i < 3; i++)
        OK(cudaMalloc(&p[i], (size_t)20 << 20));
    CHECK(cudaMalloc(&big, (size_t)20 << 20) == cudaErrorMemoryAllocation);
    OK(cudaMemGetInfo(&left, &total));
    CHECK(before - left == (size_t)60 << 20);
    OK(cudaPointerGetAttributes(&about, (char *)p[1] + 5));
    CHECK(about.type == cudaMemoryTypeDevice);
    OK(cudaStreamCreate(&s));
    for (int i = 0; i < 3; i++)
        OK(cudaFreeAsync(p[i], s));
    OK(cudaMallocAsync(&big, (size_t)60 << 20, s)); /* what is queued to be freed is room */
    OK(cudaFreeAsync(big, s));
    OK(cudaStreamSynchronize(s));
    /* Many sizes, over and over: freed ranges are joined and used again. */
    for (int i = 0; i < 2000; i++) {
        OK(cudaMallocAsync(&big, (size_t)(i * 7919 % 1000 + 1) * 1024, s));
        OK(cudaFreeAsync(big, s));
    }
    OK(cudaStreamDestroy(s));
    OK(cudaMemGetInfo(&left, &total));
    CHECK(left == before);
    CHECK(cudaFree(&left) == cudaErrorInvalidValue);
    (void)cudaGetLastError();
}

static void test_devices(void)
{
    int count = 0, at = -1, major = 0;
    struct cudaDeviceProp about;
    void *p;
    OK(cudaGetDeviceCount(&count));
    CHECK(count == 2);
    CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
    OK(cudaSetDevice(1));
    OK(cudaGetDevice(&at));
    CHECK(at == 1);
    OK(cudaMalloc(&p, (size_t)60 << 20)); /* each device has its own memory */
    OK(cudaSetDevice(0));
    OK(cudaFree(p));
    OK(cudaGetDeviceProperties(&about, 1));
    CHECK(about.major * 10 + about.minor >= 80 && about.sharedMemPerBlockOptin >= 99 << 10);
    OK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    CHECK(major == about.major);
    am_emu_set("AM_EMU_CAPABILITY", "70");
    OK(cudaGetDeviceProperties(&about, 0));
    CHECK(about.major == 7 && about.minor == 0);
    am_emu_set("AM_EMU_CAPABILITY", "0");
    am_emu_set("AM_EMU_DRIVER", "11080");
    CHECK(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver && count == 0);
    am_emu_set("AM_EMU_DRIVER", "13000");
    OK(cudaGetDeviceCount(&count));
    (void)cudaGetLastError();
}

static void test_failures(void)
{
    float out[4], *a = device(NULL, sizeof out), *p = NULL;
    am_emu_set("AM_EMU_FAIL", "alloc:2");
    OK(cudaMalloc((void **)&p, 16));
    OK(cudaFree(p));
    CHECK(cudaMalloc((void **)&p, 16) == cudaErrorMemoryAllocation);
    OK(cudaMalloc((void **)&p, 16)); /* only that one */
    (void)cudaGetLastError();
    am_emu_set("AM_EMU_FAIL", "launch:2");
    OK(launch_fill_from(a, 4, 0, 0));
    (void)launch_fill_from(a, 4, 0, 0);
    CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
    CHECK(cudaMemcpy(out, a, sizeof out, cudaMemcpyDeviceToHost) == cudaErrorLaunchFailure);
    am_emu_forget_reports();
    am_emu_set("AM_EMU_FAIL", "copy:1");
    CHECK(cudaMemcpy(out, a, sizeof out, cudaMemcpyDeviceToHost) != cudaSuccess);
    CHECK(cudaDeviceSynchronize() != cudaSuccess);
    am_emu_forget_reports();
    am_emu_set("AM_EMU_FAIL", "device:3");
    OK(cudaDeviceSynchronize());
    OK(cudaDeviceSynchronize());
    CHECK(cudaDeviceSynchronize() == cudaErrorDevicesUnavailable);
    CHECK(cudaMalloc((void **)&p, 16) == cudaErrorDevicesUnavailable);
    am_emu_set("AM_EMU_FAIL", "");
    am_emu_forget_reports();
    OK(cudaDeviceReset());
}

/* ---- cuBLASLt ---- */

typedef struct product {
    cudaDataType_t in, out, scale;
    cublasComputeType_t compute;
    cublasOperation_t op_a, op_b;
    cublasLtOrder_t order; /* of all */
    int m, n, k, batch, bias;
    float beta;
    int scaled, each_a, each_b; /* scales: one, or one for each row of a, column of b */
} product;

/* Scales of a product: powers of two. */
static float scale_at(int each, int i)
{
    return each ? (float)(1 << i % 3) : 2;
}

static void set_scales(const product *p, cublasLtMatmulDesc_t desc, void *vectors[2])
{
    int32_t modes[] = {CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F,
                       CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F};
    for (int which = 0; which < 2; which++) {
        int n = which ? p->n : p->m, each = which ? p->each_b : p->each_a;
        float *scales = malloc((size_t)n * sizeof *scales);
        for (int i = 0; i < n; i++)
            scales[i] = scale_at(each, i);
        vectors[which] = device(scales, (size_t)(each ? n : 1) * sizeof *scales);
        free(scales);
        CHECK(!cublasLtMatmulDescSetAttribute(desc,
                                              which ? CUBLASLT_MATMUL_DESC_B_SCALE_POINTER
                                                    : CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
                                              &vectors[which], sizeof vectors[which]));
        CHECK(!cublasLtMatmulDescSetAttribute(
            desc, which ? CUBLASLT_MATMUL_DESC_B_SCALE_MODE : CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
            &modes[each], sizeof modes[each]));
    }
}

static size_t size_of(cudaDataType_t t)
{
    return t == CUDA_R_64F ? 8 : t == CUDA_R_32F ? 4 : t == CUDA_R_16BF || t == CUDA_R_16F ? 2 : 1;
}

static void store(void *p, size_t i, cudaDataType_t t, float x)
{
    if (t == CUDA_R_64F)
        ((double *)p)[i] = (double)x;
    else if (t == CUDA_R_32F)
        ((float *)p)[i] = x;
    else if (t == CUDA_R_16BF)
        ((uint16_t *)p)[i] = to_bf16(x);
    else if (t == CUDA_R_16F)
        ((_Float16 *)p)[i] = (_Float16)x;
    else
        ((unsigned char *)p)[i] = e4m3_of(x);
}

static float load(const void *p, size_t i, cudaDataType_t t)
{
    if (t == CUDA_R_64F)
        return (float)((const double *)p)[i];
    if (t == CUDA_R_32F)
        return ((const float *)p)[i];
    return t == CUDA_R_16BF ? from_bf16(((const uint16_t *)p)[i]) : (float)((const _Float16 *)p)[i];
}

/* Element (i, j) of batch b of a matrix of `rows` and `columns` with two elements between lines. */
static size_t place(const product *p, int rows, int columns, int b, int i, int j)
{
    int ld = (p->order == CUBLASLT_ORDER_ROW ? columns : rows) + (size_of(p->in) == 1 ? 0 : 2);
    int lines = p->order == CUBLASLT_ORDER_ROW ? rows : columns;
    int line = p->order == CUBLASLT_ORDER_ROW ? i : j, at = p->order == CUBLASLT_ORDER_ROW ? j : i;
    return (size_t)(b * ld * lines + line * ld + at);
}

static cublasLtMatrixLayout_t layout(const product *p, cudaDataType_t t, int rows, int columns)
{
    cublasLtMatrixLayout_t l;
    int64_t stride = (int64_t)place(p, rows, columns, 1, 0, 0);
    int64_t ld = (int64_t)(p->order == CUBLASLT_ORDER_ROW ? place(p, rows, columns, 0, 1, 0)
                                                          : place(p, rows, columns, 0, 0, 1));
    CHECK(cublasLtMatrixLayoutCreate(&l, t, (uint64_t)rows, (uint64_t)columns, ld) == 0);
    CHECK(!cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_ORDER, &p->order,
                                            sizeof p->order));
    CHECK(!cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &p->batch,
                                            sizeof p->batch));
    CHECK(!cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                            sizeof stride));
    return l;
}

/* d = a b (+ c) (+ bias) through a heuristic, against plain loops: whole numbers, so exact. */
static cublasStatus_t try_product(const product *p)
{
    int ra = p->op_a ? p->k : p->m, ca = p->op_a ? p->m : p->k;
    int rb = p->op_b ? p->n : p->k, cb = p->op_b ? p->k : p->n;
    size_t na = place(p, ra, ca, p->batch, 0, 0), nb = place(p, rb, cb, p->batch, 0, 0),
           nd = place(p, p->m, p->n, p->batch, 0, 0), workspace = 1 << 16;
    void *ha = calloc(na, 8), *hb = calloc(nb, 8), *hd = calloc(nd, 8),
         *hbias = calloc((size_t)p->m, 8);
    for (int b = 0; b < p->batch; b++) {
        for (int i = 0; i < p->m; i++)
            for (int k = 0; k < p->k; k++)
                store(ha, p->op_a ? place(p, ra, ca, b, k, i) : place(p, ra, ca, b, i, k), p->in,
                      a_at(i + b, k));
        for (int k = 0; k < p->k; k++)
            for (int j = 0; j < p->n; j++)
                store(hb, p->op_b ? place(p, rb, cb, b, j, k) : place(p, rb, cb, b, k, j), p->in,
                      b_at(k, j + b));
        for (int i = 0; i < p->m; i++)
            for (int j = 0; j < p->n; j++)
                store(hd, place(p, p->m, p->n, b, i, j), p->out, (float)(i % 5));
    }
    for (int i = 0; i < p->m; i++)
        store(hbias, (size_t)i, p->out, (float)(i % 3));
    void *a = device(ha, na * size_of(p->in)), *b = device(hb, nb * size_of(p->in)),
         *d = device(hd, nd * size_of(p->out)),
         *bias = device(hbias, (size_t)p->m * size_of(p->out)), *w;
    OK(cudaMalloc(&w, workspace));
    cublasLtHandle_t lt;
    cublasLtMatmulDesc_t desc;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    int count = 0;
    CHECK(!cublasLtCreate(&lt) && !cublasLtMatmulDescCreate(&desc, p->compute, p->scale));
    CHECK(!cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &p->op_a,
                                          sizeof p->op_a));
    CHECK(!cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSB, &p->op_b,
                                          sizeof p->op_b));
    if (p->bias) {
        CHECK(!cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                              sizeof epilogue));
        CHECK(!cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                              sizeof bias));
    }
    void *scales[2] = {NULL, NULL};
    if (p->scaled)
        set_scales(p, desc, scales);
    cublasLtMatrixLayout_t la = layout(p, p->in, ra, ca), lb = layout(p, p->in, rb, cb),
                           ld = layout(p, p->out, p->m, p->n);
    CHECK(!cublasLtMatmulPreferenceCreate(&preference));
    CHECK(!cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(lt, desc, la, lb, ld, ld, preference, 1, &found, &count);
    double one64 = 1, beta64 = (double)p->beta;
    float one = 1, beta = p->beta;
    int wide = p->scale == CUDA_R_64F;
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmul(lt, desc, wide ? (void *)&one64 : &one, a, la, b, lb,
                                wide ? (void *)&beta64 : &beta, d, ld, d, ld, &found.algo, w,
                                workspace, 0);
    if (status == CUBLAS_STATUS_SUCCESS) {
        fetch(hd, d, nd * size_of(p->out));
        for (int z = 0; z < p->batch; z++)
            for (int i = 0; i < p->m; i++)
                for (int j = 0; j < p->n; j++) {
                    float want = p->beta * (float)(i % 5) + (p->bias ? (float)(i % 3) : 0);
                    float by = p->scaled ? scale_at(p->each_a, i) * scale_at(p->each_b, j) : 1;
                    for (int k = 0; k < p->k; k++)
                        want += by * a_at(i + z, k) * b_at(k, j + z);
                    if (p->out == CUDA_R_16BF) /* large sums are rounded, and once */
                        want = from_bf16(to_bf16(want));
                    CHECK(load(hd, place(p, p->m, p->n, z, i, j), p->out) == want);
                }
        /* An algorithm of one problem isn't one of another. */
        if (p->batch > 1)
            CHECK(cublasLtMatmul(lt, desc, &one, a, la, b, lb, &beta, d, ld, d, la, &found.algo, w,
                                 workspace, 0) != CUBLAS_STATUS_SUCCESS);
        if (found.workspaceSize)
            CHECK(cublasLtMatmul(lt, desc, &one, a, la, b, lb, &beta, d, ld, d, ld, &found.algo, w,
                                 found.workspaceSize - 1, 0) == CUBLAS_STATUS_INVALID_VALUE);
    }
    CHECK(!cublasLtMatmulPreferenceDestroy(preference) && !cublasLtMatmulDescDestroy(desc) &&
          !cublasLtDestroy(lt));
    CHECK(!cublasLtMatrixLayoutDestroy(la) && !cublasLtMatrixLayoutDestroy(lb) &&
          !cublasLtMatrixLayoutDestroy(ld));
    void *device_memory[] = {a, b, d, bias, w, scales[0], scales[1]};
    void *host_memory[] = {ha, hb, hd, hbias};
    for (int i = 0; i < 7; i++)
        OK(cudaFree(device_memory[i]));
    for (int i = 0; i < 4; i++)
        free(host_memory[i]);
    return status;
}

static void test_products(void)
{
    static const cudaDataType_t types[] = {CUDA_R_32F, CUDA_R_16BF, CUDA_R_16F};
    product p = {.scale = CUDA_R_32F, .compute = CUBLAS_COMPUTE_32F};
    for (int i = 0; i < 3 * 4 * 2; i++) {
        p.in = p.out = types[i % 3];
        p.op_a = i / 3 % 2 ? CUBLAS_OP_T : CUBLAS_OP_N;
        p.op_b = i / 6 % 2 ? CUBLAS_OP_T : CUBLAS_OP_N;
        p.order = i / 12 ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL;
        p.m = 5 + i;
        p.n = 19;
        p.k = i % 2 ? 1 : 70;
        p.batch = 1 + i % 3;
        p.bias = i % 2;
        p.beta = (float)(i / 2 % 2);
        CHECK(try_product(&p) == CUBLAS_STATUS_SUCCESS);
    }
    p.in = CUDA_R_16BF;
    p.out = CUDA_R_32F;
    CHECK(try_product(&p) == CUBLAS_STATUS_SUCCESS);
    p.in = p.out = p.scale = CUDA_R_64F;
    CHECK(try_product(&p) == CUBLAS_STATUS_NOT_SUPPORTED); /* sums of doubles in f32 */
    p.compute = CUBLAS_COMPUTE_64F;
    CHECK(try_product(&p) == CUBLAS_STATUS_SUCCESS);
}

static void test_fp8_products(void)
{
    product p = {.in = CUDA_R_8F_E4M3,
                 .out = CUDA_R_16BF,
                 .scale = CUDA_R_32F,
                 .compute = CUBLAS_COMPUTE_32F};
    p.op_a = CUBLAS_OP_T;
    p.m = 32;
    p.n = 16;
    p.k = 48;
    p.batch = 1;
    CHECK(try_product(&p) == CUBLAS_STATUS_SUCCESS);
    p.op_a = CUBLAS_OP_N;
    CHECK(try_product(&p) == CUBLAS_STATUS_NOT_SUPPORTED);
    p.op_a = CUBLAS_OP_T;
    p.k = 40;
    CHECK(try_product(&p) == CUBLAS_STATUS_NOT_SUPPORTED);
    p.k = 48;
    p.scaled = 1;
    CHECK(try_product(&p) == CUBLAS_STATUS_SUCCESS);
    p.each_a = 1;
    CHECK(try_product(&p) == CUBLAS_STATUS_NOT_SUPPORTED); /* vectors are for both */
    p.each_b = 1;
    CHECK(try_product(&p) == CUBLAS_STATUS_SUCCESS);
    am_emu_set("AM_EMU_CAPABILITY", "89");
    CHECK(try_product(&p) == CUBLAS_STATUS_NOT_SUPPORTED);
    p.each_a = p.each_b = 0;
    CHECK(try_product(&p) == CUBLAS_STATUS_SUCCESS);
    am_emu_set("AM_EMU_CAPABILITY", "80");
    CHECK(try_product(&p) == CUBLAS_STATUS_NOT_SUPPORTED);
    am_emu_set("AM_EMU_CAPABILITY", "0");
}

static void test_unknown_attributes(void)
{
    cublasLtMatmulDesc_t desc;
    cublasLtEpilogue_t gelu = CUBLASLT_EPILOGUE_GELU;
    void *p = NULL;
    int32_t n = 3;
    CHECK(!cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    CHECK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, &n,
                                         sizeof n) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_AMAX_D_POINTER, &p, sizeof p) ==
          CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &n, 1) ==
          CUBLAS_STATUS_INVALID_VALUE);
    CHECK(!cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &gelu, sizeof gelu));
    CHECK(!cublasLtMatmulDescDestroy(desc));
}

/* ---- what it costs ---- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* others may be on this core */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void measure(void)
{
    float *o = device(NULL, 1024 * sizeof *o);
    double t = now();
    for (int i = 0; i < 20000; i++)
        (void)launch_nothing(1, 1);
    printf("empty launch                 %8.2f us\n", (now() - t) / 20000 * 1e6);
    t = now();
    (void)launch_nothing(4000, 256);
    printf("a thread without barriers    %8.1f ns\n", (now() - t) / 4000 / 256 * 1e9);
    for (int block = 32; block <= 1024; block *= 32) {
        unsigned long long before = am_emu_count().switches;
        t = now();
        launch_barriers(block, 100000 / block * 10);
        t = now() - t;
        printf("__syncthreads, %4d threads  %8.1f ns a thread, %.0f M switches/s\n", block,
               t / (100000 / block * 10) / block * 1e9,
               (double)(am_emu_count().switches - before) / t / 1e6);
    }
    t = now();
    launch_shuffles(o, 256, 2000);
    printf("a shuffle                    %8.1f ns a lane\n", (now() - t) / 2000 / 256 * 1e9);
    t = now();
    launch_products(o, 128, 1000);
    printf("mma.m16n8k16                 %8.2f us\n", (now() - t) / 4000 * 1e6);
    OK(cudaFree(o));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        {"reductions in blocks and by atomics", test_reductions},
        {"barriers, shuffles, votes, matches", test_collectives},
        {"cp.async through two buffers", test_async_copies},
        {"mma.sync and ldmatrix", test_tensor_cores},
        {"limits of launches", test_launch_limits},
        {"streams and events", test_streams},
        {"graphs", test_graphs},
        {"memory and its limit", test_memory},
        {"devices and drivers", test_devices},
        {"products by cuBLASLt", test_products},
        {"products of fp8", test_fp8_products},
        {"attributes that aren't known", test_unknown_attributes},
        {"failures on demand", test_failures},
    };
    int any = 0;
    am_emu_set("AM_EMU_MEMORY", "64M");
    am_emu_set("AM_EMU_DEVICES", "2");
    am_emu_set("AM_EMU_QUIET", "1");
    if (argc > 1 && !strcmp(argv[1], "time")) {
        measure();
        return failed;
    }
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        failed = 0;
        tests[i].run();
        CHECK(am_emu_report_count() == 0);
        printf("%s - %s\n", failed ? "not ok" : "ok", tests[i].name);
        any |= failed;
    }
    return any;
}
