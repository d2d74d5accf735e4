/* fuzz_checkpoint.c — any bytes as what a checkpoint of several ranks says of itself. What is done
 * with them is in readers.lua. */
#include "fuzz_lua.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return read_in_lua("checkpoint", data, bytes);
}
