// async_copy.h — cp.async: what a thread that returns has to have waited for.
#pragma once
#include "block.h"

namespace emu
{
void check_no_copies(Thread *t);
}
