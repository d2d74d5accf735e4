/* test_cuda_host.c — the host side of the CUDA backend over an emulated CUDA whose streams run
 * behind: memory in the stream's order, the pinned ring, what waits and what does not. */
#include <dlfcn.h>
#include <string.h>

#include "core/mem.h"
#include "cuda_run.h"

#include "tests/cuda/emulator/control.h"

static void (*emu_set)(const char *, const char *);
static am_emu_counts (*emu_count)(void);
static const size_t part = 2 << 20; /* of the ring, of which there are 4 */

/* Is the module over the emulated CUDA? */
static int find_emulator(const char *module)
{
    void *m = module ? dlopen(module, RTLD_NOW | RTLD_GLOBAL) : NULL;
    if (!m)
        return 0;
    *(void **)&emu_set = dlsym(m, "am_emu_set");
    *(void **)&emu_count = dlsym(m, "am_emu_count");
    return emu_set && emu_count;
}

static void behind(const char *streams)
{
    emu_set("AM_EMU_STREAMS", streams);
}

static unsigned long long waits(void)
{
    return emu_count().waits;
}

static void to_device(void *dst, const void *src, size_t bytes)
{
    CUDA_OK(cuda->transfer(cuda_stream, dst, src, bytes, AM_COPY_TO_DEVICE));
}

static void to_host(void *dst, const void *src, size_t bytes)
{
    CUDA_OK(cuda->transfer(cuda_stream, dst, src, bytes, AM_COPY_TO_HOST));
}

static void *memory(size_t bytes)
{
    void *p;
    CUDA_OK(cuda->alloc(&p, bytes));
    return p;
}

static unsigned char *random_bytes(size_t n, unsigned seed)
{
    unsigned char *p = keep(malloc(n + 1));
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (unsigned char)(seed >> 24);
    }
    return p;
}

/* Bytes are there and back whatever their number, and the parts of the ring that they lie across.
 */
START_TEST(sizes)
{
    const size_t of[] = {0, 1, 3, 255, 256, part - 1, part, part + 1, 2 * part, 9 * part + 77};
    behind(_i ? "lazy" : "rand");
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        unsigned char *there = random_bytes(of[i], (unsigned)i), *back = keep(malloc(of[i] + 1));
        char *p = memory(of[i] + 5);
        back[of[i]] = 0xA5;
        to_device(p + 5, there, of[i]);
        to_host(back, p + 5, of[i]);
        ck_assert_mem_eq(there, back, of[i]);
        ck_assert_uint_eq(back[of[i]], 0xA5);
        cuda->release(p, of[i] + 5);
    }
    free_kept();
}
END_TEST

/* An upload takes its bytes and returns; only the ring's end has to be waited for. */
START_TEST(uploads)
{
    enum { N = 4096 };
    int *p = memory(3 * part), value, back[N];
    void *large = malloc(3 * part);
    behind("lazy");
    unsigned long long before = waits();
    for (value = 0; value < N; value++)
        to_device(p + value, &value, sizeof value);
    ck_assert_uint_eq(waits(), before);
    to_host(back, p, sizeof back);
    ck_assert_uint_eq(waits(), before + 1);
    for (int i = 0; i < N; i++)
        ck_assert_int_eq(back[i], i);
    memset(large, 1, 3 * part);
    to_device(p, large, 3 * part);
    ck_assert_uint_eq(waits(), before + 1);
    to_device(p, large, 3 * part); /* the first of these bytes are still on their way */
    ck_assert_uint_gt(waits(), before + 1);
    cuda->release(p, 3 * part);
    free(large);
}
END_TEST

/* Memory that a queued kernel uses may be released at once, and another tensor have it: neither
 * waits, and the kernel's result is right. */
START_TEST(releases)
{
    enum { N = 1 << 16 };
    float *ones = keep(malloc(N * sizeof *ones)), *back = keep(malloc(N * sizeof *ones));
    size_t bytes = N * sizeof *ones;
    behind(_i ? "lazy" : "rand");
    float *sum = memory(bytes);
    for (int i = 0; i < N; i++)
        ones[i] = 0;
    to_device(sum, ones, bytes);
    unsigned long long before = waits();
    for (int k = 0; k < 6; k++) {
        float *a = memory(bytes);
        for (int i = 0; i < N; i++)
            ones[i] = (float)(k + 1);
        to_device(a, ones, bytes);
        am_binary_args args = {.out = sum,
                               .a = sum,
                               .b = a,
                               .op = AM_B_ADD,
                               .dtype = AM_F32,
                               .nd = {.ndim = 1, .shape = {N}, .stride = {{1}, {1}, {1}}}};
        CUDA_OK(cuda->binary(cuda_stream, &args));
        cuda->release(a, bytes);
    }
    ck_assert_uint_eq(waits(), before);
    to_host(back, sum, bytes);
    for (int i = 0; i < N; i++)
        ck_assert(back[i] == 21);
    cuda->release(sum, bytes);
    free_kept();
}
END_TEST

/* What is queued to be released counts, and an allocation is tried again when that has run. */
START_TEST(room)
{
    size_t left, total;
    behind("lazy");
    CUDA_OK(cuda->memory(&left, &total));
    size_t most = total / 4 * 3;
    ck_assert_uint_gt(left, most);
    void *p = memory(most);
    cuda->release(p, most);
    p = memory(most);
    void *q;
    ck_assert_int_eq(cuda->alloc(&q, most), AM_ENOMEM);
    am_fill_args args = {.out = p, .value = 3, .dtype = AM_I32};
    CUDA_OK(cuda->fill(cuda_stream, &args)); /* a launch after it has not failed */
    cuda->release(p, most);
    emu_set("AM_EMU_FAIL", "alloc:1");
    unsigned long long before = waits();
    cuda->release(memory(64), 64); /* what is queued may be a release: it is waited for */
    ck_assert_uint_eq(waits(), before + 1);
    CUDA_OK(cuda->stream_sync(cuda_stream));
}
END_TEST

/* The cache of the engine is emptied for a tensor, and for a launcher's scratch. */
START_TEST(cache)
{
    size_t left, total;
    void *p, *q;
    am_mem_stats stats;
    behind("lazy");
    CUDA_OK(cuda->memory(&left, &total));
    const size_t most = total / 4 * 3;
    CUDA_OK(am_device_alloc(AM_DEVICE_CUDA, AM_POOL_COMMON, &p, most));
    am_device_free(AM_DEVICE_CUDA, AM_POOL_COMMON, p, most);
#if !defined(__SANITIZE_ADDRESS__) /* where there is no cache */
    CUDA_OK(am_mem_get(AM_DEVICE_CUDA, &stats));
    ck_assert_int_ge(stats.cached_bytes, (int64_t)most);
#endif
    CUDA_OK(am_device_alloc_own(AM_DEVICE_CUDA, &q, total / 2));
    CUDA_OK(am_mem_get(AM_DEVICE_CUDA, &stats));
    ck_assert_int_eq(stats.cached_bytes, 0);
    ck_assert_int_eq(am_device_alloc(AM_DEVICE_CUDA, AM_POOL_COMMON, &p, most), AM_ENOMEM);
    char text[512], words[256];
    snprintf(text, sizeof text, "%s", am_error_message());
    CUDA_OK(cuda->memory(&left, &total));
    snprintf(words, sizeof words,
             "bytes on cuda could not be had, %zu of its %zu are free, tensors "
             "of this process have %lld",
             left, total, (long long)stats.live_bytes);
    ck_assert_msg(strstr(text, words), "%s, not %s", text, words);
    cuda->release(q, total / 2);
    CUDA_OK(am_device_alloc(AM_DEVICE_CUDA, AM_POOL_COMMON, &p,
                            most)); /* and nothing of the failure is left */
    am_device_free(AM_DEVICE_CUDA, AM_POOL_COMMON, p, most);
    CUDA_OK(am_mem_trim(AM_DEVICE_CUDA));
    CUDA_OK(cuda->memory(&left, &total));
    ck_assert_uint_gt(left, most);
}
END_TEST

/* A device that is lost: each call says so, and shutting down neither hangs nor crashes. */
START_TEST(lost)
{
    static const char *const how[] = {"copy:1", "device:1", "launch:1"};
    int x = 1;
    int *p = memory(sizeof x);
    behind("eager");
    to_device(p, &x, sizeof x);
    emu_set("AM_EMU_FAIL", how[_i]);
    am_fill_args args = {.out = p, .value = 3, .dtype = AM_I32, .nd = {.ndim = 0}};
    int rc = cuda->fill(cuda_stream, &args);
    if (rc == AM_OK)
        rc = cuda->transfer(cuda_stream, &x, p, sizeof x, AM_COPY_TO_HOST);
    ck_assert_int_eq(rc, AM_EDEVICE);
    ck_assert_msg(strstr(am_error_message(), "cuda: ") != NULL, "%s", am_error_message());
    ck_assert_int_eq(cuda->transfer(cuda_stream, &x, p, sizeof x, AM_COPY_TO_HOST), AM_EDEVICE);
    ck_assert_int_eq(cuda->stream_sync(cuda_stream), AM_EDEVICE);
    cuda->release(p, sizeof x);
    am_shutdown();
}
END_TEST

/* Another stream's scratch is had in the order of the first, which is behind. */
START_TEST(elsewhere)
{
    enum { N = 5000 };
    am_stream *other;
    float *ones = keep(malloc(N * sizeof *ones)), sum = 0;
    for (int i = 0; i < N; i++)
        ones[i] = 1;
    float *a = memory(N * sizeof *ones), *out = memory(sizeof *out);
    to_device(a, ones, N * sizeof *ones);
    CUDA_OK(cuda->stream_sync(cuda_stream));
    CUDA_OK(cuda->stream_new(&other));
    behind("lazy");
    am_reduce_args args = {.out = out,
                           .a = a,
                           .op = AM_R_SUM,
                           .dtype = AM_F32,
                           .dtype_out = AM_F32,
                           .scale = 1,
                           .outer = 1,
                           .n = N,
                           .inner = 1};
    CUDA_OK(cuda->reduce(other, &args));
    CUDA_OK(cuda->stream_sync(other));
    to_host(&sum, out, sizeof sum);
    ck_assert(sum == N);
    cuda->stream_release(other);
    cuda->release(a, N * sizeof *ones);
    cuda->release(out, sizeof *out);
    free_kept();
}
END_TEST

/* A graph may be released as soon as it was told to run. */
START_TEST(graphs)
{
    int *p = memory(sizeof *p), x = 0;
    void *graph = NULL;
    const char *unfit;
    am_fill_args args = {.out = p, .value = 3, .dtype = AM_I32, .nd = {.ndim = 0}};
    for (int record = 0; record < 2; record++) {
        CUDA_OK(cuda->graph_begin(cuda_stream, record));
        CUDA_OK(cuda->fill(cuda_stream, &args));
        CUDA_OK(cuda->graph_end(cuda_stream, &graph, &unfit));
        ck_assert_ptr_null(unfit);
    }
    behind("lazy");
    CUDA_OK(cuda->graph_run(cuda_stream, graph, 0));
    cuda->graph_release(cuda_stream, graph);
    to_host(&x, p, sizeof x);
    ck_assert_int_eq(x, 3);
    cuda->release(p, sizeof *p);
}
END_TEST

/* What fails while a graph is recorded is the device, not the record. */
START_TEST(lost_in_a_record)
{
    int *p = memory(sizeof *p);
    void *graph = NULL;
    const char *unfit;
    am_fill_args args = {.out = p, .value = 3, .dtype = AM_I32, .nd = {.ndim = 0}};
    CUDA_OK(cuda->graph_begin(cuda_stream, 1));
    emu_set("AM_EMU_FAIL", "device:1");
    ck_assert_int_eq(cuda->fill(cuda_stream, &args), AM_EDEVICE);
    (void)cuda->graph_end(cuda_stream, &graph, &unfit);
    ck_assert_ptr_null(graph);
    ck_assert_int_eq(cuda->stream_sync(cuda_stream), AM_EDEVICE);
    cuda->release(p, sizeof *p);
}
END_TEST

/* Which devices there are, and which of them are new enough. */
START_TEST(devices)
{
    const char *why, *built = cuda->built();
    int count = cuda->probe(&why), major = 0;
    ck_assert_int_eq(sscanf(built, "CUDA %d", &major), 1);
    ck_assert_msg(strstr(built, major < 13 ? "driver 525.60.13" : "driver 580.65.06") != NULL, "%s",
                  built);
    ck_assert_int_eq(cuda->use(count), AM_EINVAL);
    ck_assert_msg(strstr(am_error_message(), "there is no device cuda:") != NULL, "%s",
                  am_error_message());
    emu_set("AM_EMU_CAPABILITY", "79");
    ck_assert_int_eq(cuda->use(0), AM_EDEVICE);
    emu_set("AM_EMU_CAPABILITY", "80");
    CUDA_OK(cuda->use(0));
}
END_TEST

/* With AM_SYNC=1 a kernel that fails is the one that is named, however far behind the stream is. */
START_TEST(named)
{
    setenv("AM_SYNC", "1", 1);
    open_cuda();
    int *p = memory(sizeof *p);
    behind("lazy");
    emu_set("AM_EMU_FAIL", "launch:1");
    am_fill_args args = {.out = p, .value = 3, .dtype = AM_I32, .nd = {.ndim = 0}};
    ck_assert_int_eq(cuda->fill(cuda_stream, &args), AM_EDEVICE);
    ck_assert_msg(strstr(am_error_message(), "cuda: kernel fill (elem.cu:") != NULL, "%s",
                  am_error_message());
    ck_assert_msg(strstr(am_error_message(), "AM_SYNC") == NULL, "%s", am_error_message());
    cuda->release(p, sizeof *p);
    am_shutdown();
}
END_TEST

int main(void)
{
    setenv("AM_EMU_MEMORY", "256M", 1);
    const cuda_test tests[] = {
        {"sizes", sizes, 0, 2},         {"uploads", uploads, 0, 1},
        {"releases", releases, 0, 2},   {"room", room, 0, 1},
        {"cache", cache, 0, 1},         {"lost", lost, 0, 3},
        {"elsewhere", elsewhere, 0, 1}, {"devices", devices, 0, 1},
        {"graphs", graphs, 0, 1},       {"graphs", lost_in_a_record, 0, 1},
        {"named", named, 0, 1},
    };
    const int count = sizeof tests / sizeof *tests;
    if (getenv("AMLUA_CUDA") && !find_emulator(getenv("AMLUA_CUDA"))) {
        printf("SKIP AMLUA_CUDA names a module that is not over the emulated CUDA\n");
        return EXIT_SUCCESS;
    }
    return run_on_cuda_opened("cuda_host", tests, count, count - 1);
}
