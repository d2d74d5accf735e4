/* fuzz_nanogpt.c — any bytes as a token shard of nanogpt. What is done with them is in readers.lua.
 */
#include "fuzz_lua.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return read_in_lua("nanogpt", data, bytes);
}
