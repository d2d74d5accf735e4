/* ref_linalg.c — reference kernels of symmetric eigenproblems and QR: linalg.h on one thread. */
#define AM_LINALG_TEAM(work) 1
#include "linalg.h"
#include "ref_kernels.h"

int am_ref_eigh(am_stream *s, const am_eigh_args *args)
{
    (void)s;
    return eigh(args);
}

int am_ref_qr(am_stream *s, const am_qr_args *args)
{
    (void)s;
    return qr(args);
}
