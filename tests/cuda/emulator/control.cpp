// control.cpp — see control.h.
#include "control.h"

#include <cstring>

#include "block.h"
#include "failures.h"
#include "options.h"
#include "report.h"

using namespace emu;

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void am_emu_set(const char *name, const char *value)
{
    if (!strcmp(name, "AM_EMU_FAIL"))
        set_failures(value);
    else
        set_option(name, value);
}

EXPORTED int am_emu_report_count(void)
{
    return report_count();
}

EXPORTED const char *am_emu_reports(void)
{
    return reports();
}

EXPORTED void am_emu_forget_reports(void)
{
    forget_reports();
}

EXPORTED am_emu_counts am_emu_count(void)
{
    return {counters.switches, counters.threads, counters.blocks, counters.launches,
            counters.waits};
}
