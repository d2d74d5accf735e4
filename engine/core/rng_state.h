/* rng_state.h — how ops draw a stream of random numbers. */
#ifndef AM_RNG_STATE_H
#define AM_RNG_STATE_H

#include "../am.h"

/* The current seed and the next stream number, which is used up. */
void am_rng_next(uint64_t *seed, uint64_t *stream);

#endif
