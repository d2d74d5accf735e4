/* fuzz_processor.c — any bytes as preprocessor_config.json and processor_config.json. What is done
 * with them is in readers.lua. */
#include "fuzz_lua.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return read_in_lua("processor", data, bytes);
}
