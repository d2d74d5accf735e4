/* linalg.c — symmetric eigenproblems and QR at the width of the instruction set, on all threads. */
#include "vec.h"
#define AM_LINALG_TEAM(work) team(work)
#include "../linalg.h"

int AM_SIMD(eigh)(am_stream *stream, const am_eigh_args *args)
{
    (void)stream;
    return eigh(args);
}

int AM_SIMD(qr)(am_stream *stream, const am_qr_args *args)
{
    (void)stream;
    return qr(args);
}
