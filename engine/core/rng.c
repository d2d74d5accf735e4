/* rng.c — the state of the random generator: a seed, and the number of the next stream. The
 * generator itself is in ../rng.h. */
#include "rng_state.h"

#include "../backend.h"
#include "../rng.h"
#include "device.h"
#include "error.h"
#include "tensor.h"
#include "../ops/op.h"

static struct {
    uint64_t seed, stream;
} state = {42, 0};

int am_rng_seed(uint64_t seed)
{
    return am_rng_set(seed, 0);
}

int am_rng_get(uint64_t *seed, uint64_t *stream)
{
    *seed = state.seed;
    *stream = state.stream;
    return AM_OK;
}

int am_rng_set(uint64_t seed, uint64_t stream)
{
    state.seed = seed;
    state.stream = stream;
    return AM_OK;
}

void am_rng_next(uint64_t *seed, uint64_t *stream)
{
    *seed = state.seed;
    *stream = state.stream++;
}

uint32_t am_rng_u32(uint64_t seed, uint64_t stream, uint64_t index)
{
    return am_philox_u32(seed, stream, index);
}

static int fill_random(am_tensor *t, int kind, double a, double b, const char *what)
{
    AM_TRY(am_tensor_check_alive(t, what));
    if (!am_tensor_dense(t))
        return am_fail(AM_ESHAPE, "%s: the tensor must be contiguous", what);
    uint64_t seed, stream;
    am_rng_next(&seed, &stream);
    return am_launch_random(t->device, &(am_random_args){.out = am_tensor_ptr(t),
                                                         .kind = kind,
                                                         .dtype = t->dtype,
                                                         .a = a,
                                                         .b = b,
                                                         .seed = seed,
                                                         .stream = stream,
                                                         .n = am_tensor_numel(t)});
}

int am_rng_uniform(am_tensor *t, double lo, double hi)
{
    return fill_random(t, AM_RANDOM_UNIFORM, lo, hi, "uniform");
}

int am_rng_normal(am_tensor *t, double mean, double std)
{
    return fill_random(t, AM_RANDOM_NORMAL, mean, std, "normal");
}
