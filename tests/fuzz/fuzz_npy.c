/* fuzz_npy.c — load any bytes as an npy file. */
#include "c/served_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static volatile uint64_t sink;
    am_tensor *t;
    serve(data, bytes);
    if (am_npy_load(&t, "fuzz", 0) != AM_OK)
        return 0;
    sink = sink + tensor_sum(t);
    am_tensor_release(t);
    return 0;
}
