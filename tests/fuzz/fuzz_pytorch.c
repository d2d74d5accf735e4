/* fuzz_pytorch.c — open any bytes as what torch.save wrote and use all that it holds. */
#include "c/served_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    am_archive *a;
    serve(data, bytes);
    if (am_archive_open(&a, "fuzz") != AM_OK)
        return 0;
    if (archive_use(a) != 0)
        abort();
    am_archive_release(a);
    return 0;
}
