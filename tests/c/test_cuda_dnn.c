/* test_cuda_dnn.c — attention by cuDNN against ref, where it is taken and where it is not, and what
 * becomes of its failures. Over the emulator cuDNN is emulated, too (its module is both); with a
 * GPU it is the library that is installed. Plans of the library itself: tests/cuda/cudnn. */
#include <dlfcn.h>

#include "cuda_attention.h"

/* ---- samples -------------------------------------------------------------------------------- */

/* Samples of a row, one behind the other, with gaps where one says so; what is left sees nothing.
 */
static void set_samples(problem *p, const int64_t *lengths, int count, int64_t gap)
{
    const am_attention_shape *x = &p->x;
    int32_t *bounds = calloc((size_t)(x->b * x->t * 2), sizeof *bounds);
    p->x.samples = 0;
    for (int64_t b = 0; b < x->b; b++) {
        int64_t start = 0;
        for (int i = 0; i < count; i++) {
            int64_t n = lengths[(i + b) % count];
            if (start + n > x->t)
                break;
            for (int64_t t = start; t < start + n; t++) {
                bounds[2 * (b * x->t + t)] = (int32_t)start;
                bounds[2 * (b * x->t + t) + 1] = (int32_t)(start + n);
            }
            start += n + gap;
            p->x.samples++;
        }
    }
    p->bytes[BOUNDS] = (size_t)(x->b * x->t * 2) * sizeof *bounds;
    p->p[BOUNDS] = (unsigned char *)bounds;
}

static int same_bits(const problem *a, const problem *b, int which)
{
    return memcmp(a->p[which], b->p[which], a->bytes[which]) == 0;
}

/* Whether a library computes p: other sums, other last bits. Of out and lse, or of gradients. */
static int by_library(problem *p, int backward)
{
    problem own = copy_of(p);
    own.x.library = 0;
    p->x.library = 1;
    run_cuda(&own, 0);
    run_cuda(p, 0);
    int other = !same_bits(p, &own, LSE);
    if (backward) { /* of the same out and lse */
        memcpy(p->p[OUT], own.p[OUT], own.bytes[OUT]);
        memcpy(p->p[LSE], own.p[LSE], own.bytes[LSE]);
        run_cuda(&own, 1);
        run_cuda(p, 1);
        other = !same_bits(p, &own, DQ) || !same_bits(p, &own, DK) || !same_bits(p, &own, DV);
    }
    discard(&own);
    return other;
}

/* ---- against ref ---------------------------------------------------------------------------- */

static const struct {
    int64_t b, t, h, kh, d, gap;
    int dtype;
} shapes[] = {
    {1, 2, 1, 1, 8, 0, AM_BF16},   {2, 65, 2, 1, 64, 8, AM_BF16},   {1, 100, 4, 2, 80, 0, AM_F16},
    {3, 33, 2, 2, 96, 0, AM_BF16}, {1, 130, 2, 1, 128, 8, AM_BF16}, {2, 40, 2, 1, 256, 0, AM_F16},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Causal and a window, over whole rows and over samples: forward and backward. */
START_TEST(agrees_with_ref)
{
    static const int64_t lengths[] = {17, 1, 30, 5, 9};
    /* of its own kernels, which have threads, are those of samples alone */
    for (int mode = other_order() ? 4 : 0; mode < 6; mode++) {
        problem p = make(shapes[_i].dtype, shapes[_i].b, shapes[_i].t, shapes[_i].t, shapes[_i].h,
                         shapes[_i].kh, shapes[_i].d, shapes[_i].gap);
        char what[64];
        snprintf(what, sizeof what, "shape %d mode %d", _i, mode);
        p.x.library = 1;
        p.x.causal = mode % 3 > 0;
        p.x.window = mode % 3 > 1 ? 7 : 0;
        if (mode > 2)
            set_samples(&p, lengths, 5, mode % 2 * 3);
        compare(what, &p, 1);
        discard(&p);
    }
}
END_TEST

/* ---- where it is taken ---------------------------------------------------------------------- */

static problem usual(void)
{
    problem p = make(AM_BF16, 2, 96, 96, 4, 2, 64, 0);
    p.x.causal = 1;
    return p;
}

START_TEST(taken_where_listed)
{
    static const int64_t lengths[] = {50, 20};
    for (int packed = 0; packed < 2; packed++) {
        problem p = usual();
        if (packed)
            set_samples(&p, lengths, 2, 0);
        ck_assert(by_library(&p, 0));
        const float *lse = (const float *)(const void *)p.p[LSE];
        ck_assert_int_eq(isinf(lse[p.x.t - 1]),
                         packed ? -1 : 0); /* the last token is of no sample */
        ck_assert(by_library(&p, 1));
        discard(&p);
    }
    problem widest = make(AM_BF16, 1, 20, 20, 1, 1, 256, 0);
    ck_assert(by_library(&widest, 0));
    discard(&widest);
    ck_assert_ptr_nonnull(strstr(cuda->about(), "cuDNN "));
}
END_TEST

/* More tokens than are looked at together; the first of a row is of no sample. */
START_TEST(many_samples)
{
    enum { ROWS = 520 };
    static int32_t bounds[ROWS * 4];
    problem p = make(AM_BF16, ROWS, 2, 2, 1, 1, 8, 0);
    for (int b = 0; b < ROWS; b++) {
        bounds[4 * b + 2] = 1;
        bounds[4 * b + 3] = 2;
    }
    set_bounds(&p, bounds);
    p.x.samples = ROWS;
    p.x.library = 1;
    compare("many samples", &p, 1);
    discard(&p);
}
END_TEST

/* What the graph has no words for, and what nothing is known of. */
START_TEST(own_kernel_elsewhere)
{
    static const int64_t lengths[] = {50, 20};
    for (int i = 0; i < 5; i++) {
        problem p = i == 4 ? make(AM_BF16, 1, 40, 96, 4, 2, 64, 0) : usual();
        if (i == 0)
            p.x.softcap = 5;
        if (i == 1)
            p.x.dropout_p = 0.5;
        if (i == 2) { /* bounds that say nothing of samples */
            set_samples(&p, lengths, 2, 0);
            p.x.samples = 0;
        }
        if (i == 3)
            buffer(&p, SINKS, AM_F32, p.x.h, -1, 1);
        ck_assert_msg(!by_library(&p, i != 3), "problem %d", i);
        discard(&p);
    }
}
END_TEST

static void own_only(const char *about)
{
    problem p = usual();
    ck_assert(!by_library(&p, 1));
    ck_assert_msg(strstr(cuda->about(), about) != NULL, "%s", cuda->about());
    discard(&p);
}

static void open_with(const char *variable, const char *value)
{
    setenv(variable, value, 1);
    open_cuda();
}

/* Forward is listed for more than backward. */
START_TEST(other_gpus)
{
    open_with("AM_EMU_CAPABILITY", _i ? "100" : "80");
    problem p = usual();
    ck_assert_int_eq(by_library(&p, 0), _i);
    ck_assert(!by_library(&p, 1));
    discard(&p);
}
END_TEST

START_TEST(no_library)
{
    open_with("AMLUA_CUDNN", "/nowhere/libcudnn.so.9");
    own_only("no cuDNN: /nowhere/libcudnn.so.9");
}
END_TEST

/* The first run fails: the own kernel computes it, and all later ones. */
START_TEST(failing_run)
{
    open_with("AM_EMU_FAIL", "dnn:1");
    own_only("cuDNN failed (attention: CUDNN_STATUS_EXECUTION_FAILED)");
}
END_TEST

/* A batch that is a little smaller has the plan of the one before: a second one, which would fail,
 * is made for the larger one only. */
START_TEST(plans_are_kept)
{
    static const int64_t sizes[] = {100, 70, 127, 300}, lengths[] = {30, 25};
    open_with("AM_EMU_FAIL", "plan:2");
    for (int i = 0; i < 4; i++) {
        problem p = make(AM_BF16, 1, sizes[i], sizes[i], 2, 1, 64, 0);
        set_samples(&p, lengths, 2, 0);
        ck_assert_msg(by_library(&p, 0) == (i < 3), "%d tokens", (int)sizes[i]);
        discard(&p);
    }
}
END_TEST

/* All memory but room for operands, 606 KiB, once our kernel has its scratch: a plan's is 4 KiB at
 * least. */
static void *take_memory(size_t *bytes)
{
    size_t total;
    void *rest;
    problem p = usual();
    run_cuda(&p, 0);
    run_cuda(&p, 1);
    discard(&p);
    ck_assert_int_eq(cuda->stream_sync(cuda_stream), AM_OK); /* what was released is free */
    ck_assert_int_eq(cuda->memory(bytes, &total), AM_OK);
    *bytes -= 608 << 10;
    ck_assert_int_eq(cuda->alloc(&rest, *bytes), AM_OK);
    return rest;
}

/* Where there is no memory for a plan our kernel computes that problem, and no other. */
START_TEST(no_memory)
{
    size_t bytes;
    open_cuda();
    void *rest = take_memory(&bytes);
    own_only("cuDNN ");
    cuda->release(rest, bytes);
    own_only("cuDNN ");
    ck_assert_ptr_null(strstr(cuda->about(), "failed"));
    problem other = usual();
    other.x.causal = 0;
    ck_assert(by_library(&other, 1));
    discard(&other);
}
END_TEST

/* Nothing of cuDNN is left at the end, also of plans that there was no memory for; and a device
 * that is opened once more has it again. */
START_TEST(gone_with_the_device)
{
    long (*alive)(void);
    size_t left, total, before;
    *(void **)&alive =
        dlsym(dlopen(getenv("AMLUA_CUDA"), RTLD_NOW | RTLD_LOCAL), "am_emu_dnn_alive");
    ck_assert_ptr_nonnull(alive);
    for (int round = 0; round < 3; round++) {
        size_t bytes = 0;
        problem p = usual();
        open_cuda();
        ck_assert_int_eq(cuda->memory(&before, &total), AM_OK);
        void *rest = round == 1 ? take_memory(&bytes) : NULL;
        ck_assert_int_eq(by_library(&p, 1), round != 1);
        ck_assert_int_gt(alive(), 0);
        cuda->release(rest, bytes);
        discard(&p);
        am_shutdown();
        ck_assert_int_eq(alive(), 0);
        open_cuda();
        ck_assert_int_eq(cuda->memory(&left, &total), AM_OK);
        ck_assert_uint_eq(left, before);
        am_shutdown();
    }
}
END_TEST

/* ---- contracts ------------------------------------------------------------------------------ */

START_TEST(repeats_in_every_bit)
{
    problem p = usual();
    p.x.library = 1;
    problem again = copy_of(&p);
    for (int backward = 0; backward < 2; backward++) {
        run_cuda(&p, backward);
        run_cuda(&again, backward);
        for (int i = backward ? DQ : OUT; i < (backward ? BUFFERS : DQ); i++)
            ck_assert(same_bits(&p, &again, i));
    }
    discard(&p);
    discard(&again);
}
END_TEST

START_TEST(more_samples_than_said)
{
    static const int64_t lengths[] = {10, 10, 10};
    problem p = make(AM_BF16, 1, 40, 40, 1, 1, 64, 0);
    void *at[BUFFERS] = {0};
    unsigned char *device[BUFFERS] = {0};
    set_samples(&p, lengths, 3, 0);
    p.x.library = p.x.samples = 1;
    for (int i = 0; i < BUFFERS; i++) {
        if (!p.p[i])
            continue;
        ck_assert_int_eq(cuda->alloc(&at[i], p.bytes[i]), AM_OK);
        ck_assert_int_eq(cuda->transfer(cuda_stream, at[i], p.p[i], p.bytes[i], AM_COPY_TO_DEVICE),
                         AM_OK);
        device[i] = at[i];
    }
    am_attention_args f = forward_args(&p, device);
    ck_assert_int_eq(cuda->attention(cuda_stream, &f), AM_OK);
    ck_assert_int_eq(cuda->stream_sync(cuda_stream), AM_EINVAL);
    ck_assert_ptr_nonnull(strstr(am_error_message(), "more samples than"));
    for (int i = 0; i < BUFFERS; i++)
        if (at[i])
            cuda->release(at[i], p.bytes[i]);
    discard(&p);
}
END_TEST

/* ---- all ------------------------------------------------------------------------------------ */

/* Does AMLUA_CUDA name the emulator's module? Then it has cuDNN in it. */
static int use_emulator(void)
{
    const char *module = getenv("AMLUA_CUDA");
    void *open = module ? dlopen(module, RTLD_NOW | RTLD_LOCAL) : NULL;
    int emulated = open && dlsym(open, "cudnnCreate") != NULL;
    if (emulated) {
        setenv("AMLUA_CUDNN", module, 1);
        setenv("AM_EMU_CAPABILITY", "90", 1);
        setenv("AM_EMU_MEMORY", "64M", 1); /* tests take all of it */
    }
    return emulated;
}

int main(void)
{
    enum { ANYWHERE = 4, OPENED = 6 }; /* the others are over the emulated CUDA */
    const cuda_test tests[] = {
        {"cuDNN", agrees_with_ref, 0, SHAPES},  {"cuDNN", many_samples, 0, 1},
        {"cuDNN", own_kernel_elsewhere, 0, 1},  {"cuDNN", repeats_in_every_bit, 0, 1},
        {"emulated", taken_where_listed, 0, 1}, {"emulated", more_samples_than_said, 0, 1},
        {"emulated", other_gpus, 0, 2},         {"emulated", no_library, 0, 1},
        {"emulated", failing_run, 0, 1},        {"emulated", plans_are_kept, 0, 1},
        {"emulated", no_memory, 0, 1},          {"emulated", gone_with_the_device, 0, 1}};
    int count = use_emulator() ? sizeof tests / sizeof *tests : ANYWHERE;
    return run_on_cuda_opened("cuda_dnn", tests, count, OPENED);
}
