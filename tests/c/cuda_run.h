/* cuda_run.h — a kernel on the device "cuda" and on ref, over the same operands: what the direct
 * tests of CUDA kernels share. The operands of both are in host memory. */
#ifndef CUDA_RUN_H
#define CUDA_RUN_H

#include "cuda_suite.h"
#include "test_kernels.h"

enum { CUDA_OPERANDS = 12 };

static int cuda_shift; /* operands lie so many bytes after a multiple of 256 */

typedef int (*cuda_kernel)(am_stream *, const void *);

/* Calls a kernel with the device's copies of `pointers` operands, which args begins with, `bytes`
 * each; operands come back, where the kernel went well. An operand that is another's pointer is the
 * same memory there, too. */
static inline int cuda_run(cuda_kernel kernel, void *args, int pointers, const size_t *bytes)
{
    void *host[CUDA_OPERANDS], *device[CUDA_OPERANDS] = {0}, **field = args;
    for (int i = 0; i < pointers; i++) {
        host[i] = field[i];
        for (int j = 0; j < i && host[i] && !device[i]; j++)
            if (host[j] == host[i])
                field[i] = field[j];
        if (!host[i] || field[i] != host[i])
            continue;
        ck_assert_int_eq(cuda->alloc(&device[i], bytes[i] + (size_t)cuda_shift), AM_OK);
        field[i] = (char *)device[i] + cuda_shift;
        ck_assert_int_eq(
            cuda->transfer(cuda_stream, field[i], host[i], bytes[i], AM_COPY_TO_DEVICE), AM_OK);
    }
    int rc = kernel(cuda_stream, args);
    if (rc == AM_OK)
        rc = cuda->stream_sync(cuda_stream);
    for (int i = 0; i < pointers; i++) {
        if (rc == AM_OK && device[i])
            ck_assert_int_eq(
                cuda->transfer(cuda_stream, host[i], field[i], bytes[i], AM_COPY_TO_HOST), AM_OK);
        cuda->release(device[i], bytes[i] + (size_t)cuda_shift);
        field[i] = host[i];
    }
    return rc;
}

/* ON_CUDA(adam, &args, 8, bytes of each operand...) */
#define ON_CUDA(name, args, ...)                                                                   \
    cuda_run((cuda_kernel)(void (*)(void))cuda->name, args,                                        \
             (int)(sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t)), (size_t[]){__VA_ARGS__})
#define CUDA_OK(call)                                                                              \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        ck_assert_msg(rc_ == AM_OK, "%s", am_error_message());                                     \
    } while (0)

/* Operands that a case makes, freed together. */
static void *kept[64];
static int kept_count;
static inline void *keep(void *p)
{
    ck_assert_int_lt(kept_count, 64);
    return kept[kept_count++] = p;
}
static inline void free_kept(void)
{
    while (kept_count)
        free(kept[--kept_count]);
}

#endif
