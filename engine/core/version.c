/* version.c — what this library is. */
#include "../am.h"

int am_abi(void)
{
    return AM_ABI;
}

const char *am_version(void)
{
    return AM_VERSION;
}
