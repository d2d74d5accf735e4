/* module.c — see module.h. */
#include "module.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

int am_module_open(void **function, const char *name, const char *file, const char *entry, int code)
{
    char path[4096];
    if (!file) {
        Dl_info own;
        if (!dladdr((void *)am_module_open, &own) || !own.dli_fname)
            return am_fail(code, "where libamlua.so lies can't be told; name the module's file");
        const char *slash = strrchr(own.dli_fname, '/');
        int folder = slash ? (int)(slash - own.dli_fname) + 1 : 0;
        snprintf(path, sizeof path, "%.*samlua_%s.so", folder, own.dli_fname, name);
        file = path;
    }
    void *module =
        dlopen(file, RTLD_NOW | RTLD_GLOBAL); /* Open MPI's plug-ins look for its symbols */
    if (!module)
        return am_fail(code, "amlua_%s.so can't be opened: %s", name, dlerror());
    *function = dlsym(module, entry);
    if (!*function)
        return am_fail(code, "%s is no module of amlua's: %s", file, dlerror());
    return AM_OK;
}
