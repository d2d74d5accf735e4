/* cuda_buffers.h — operands of kernels of device "cuda", on the host for ref and the same bytes on
 * the device: what the tests that call kernels as the engine calls them share. */
#ifndef CUDA_BUFFERS_H
#define CUDA_BUFFERS_H

#include "cuda_suite.h"
#include "dtype.h"
#include "rng.h"
#include "test_kernels.h"

static inline void must(int rc)
{
    ck_assert_msg(rc == AM_OK, "%s (%s)", am_error_message(), am_error_name(rc));
}

typedef struct buffer {
    int dtype;
    int64_t n;
    size_t bytes;
    void *host, *device, *read; /* read: what the device has */
} buffer;

static inline double random_at(int64_t i)
{
    return am_uniform01(am_philox_u32(5, 9, (uint64_t)i));
}

/* n elements of -range..range; integers whole. */
static inline buffer buffer_new(int dtype, int64_t n, double range)
{
    buffer b = {.dtype = dtype, .n = n, .bytes = (size_t)(n * am_dtype_size(dtype))};
    b.host = calloc(1, b.bytes + 1);
    b.read = calloc(1, b.bytes + 1);
    ck_assert(b.host && b.read);
    must(cuda->alloc(&b.device, b.bytes));
    for (int64_t i = 0; range > 0 && i < n; i++)
        elem_set(b.host, dtype, i, range * (2 * random_at(i + n) - 1));
    return b;
}

static inline void send(buffer *b)
{
    must(cuda->transfer(cuda_stream, b->device, b->host, b->bytes, AM_COPY_TO_DEVICE));
}

static inline void release(buffer *b)
{
    cuda->release(b->device, b->bytes);
    free(b->host);
    free(b->read);
}

/* What the device has is what ref has: equal, or off by rel of the largest there. NaN is NaN. */
static inline void same(const char *what, buffer *b, double rel)
{
    double largest = 0;
    must(cuda->transfer(cuda_stream, b->read, b->device, b->bytes, AM_COPY_TO_HOST));
    if (rel == 0 && memcmp(b->read, b->host, b->bytes) == 0)
        return;
    for (int64_t i = 0; i < b->n; i++) {
        double v = fabs(elem_get(b->host, b->dtype, i));
        largest = isfinite(v) && v > largest ? v : largest;
    }
    for (int64_t i = 0; i < b->n; i++) {
        double got = elem_get(b->read, b->dtype, i), want = elem_get(b->host, b->dtype, i);
        ck_assert_msg(got == want || (isnan(got) && isnan(want)) ||
                          (isfinite(want) && fabs(got - want) <= rel * largest),
                      "%s in %s: element %lld is %.17g, expected %.17g", what,
                      am_dtype_name(b->dtype), (long long)i, got, want);
    }
}

/* Calls a kernel of both with args whose pointers are named: HOST for ref, DEVICE for cuda. */
#define BOTH(kernel, ...)                                                                          \
    do {                                                                                           \
        {                                                                                          \
            enum { DEVICE = 0 };                                                                   \
            must(am_backend_ref.kernel(NULL, &(am_##kernel##_args){__VA_ARGS__}));                 \
        }                                                                                          \
        {                                                                                          \
            enum { DEVICE = 1 };                                                                   \
            must(cuda->kernel(cuda_stream, &(am_##kernel##_args){__VA_ARGS__}));                   \
            must(cuda->stream_sync(cuda_stream));                                                  \
        }                                                                                          \
    } while (0)
#define AT(b, i)                                                                                   \
    ((void *)((char *)(DEVICE ? (b).device : (b).host) + (i) * (int64_t)am_dtype_size((b).dtype)))

static const int dtypes[] = {AM_F32, AM_BF16, AM_F16, AM_F64, AM_I32, AM_I64, AM_U8, AM_BOOL};
enum { DTYPES = sizeof dtypes / sizeof *dtypes, FLOATS = 4 };
static const double roundings[DTYPES] = {1e-6, 0x1p-8, 0x1p-11, 1e-13};

#endif
