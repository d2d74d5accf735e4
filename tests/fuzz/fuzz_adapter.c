/* fuzz_adapter.c — any bytes as an adapter's configuration, a pattern of modules and tensors'
 * names. What is done with them is in readers.lua. */
#include "fuzz_lua.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return read_in_lua("adapter", data, bytes);
}
