/* module.h — the shared objects that the engine opens when they are needed: amlua_mpi.so,
 * amlua_gloo.so, amlua_cuda.so. */
#ifndef AM_MODULE_H
#define AM_MODULE_H

/* The function `entry` of amlua_NAME.so beside libamlua.so, or of `file` unless that is NULL. On
 * failure `code`. The module stays open: what it stands on (MPI, a driver) does not come back. */
int am_module_open(void **function, const char *name, const char *file, const char *entry,
                   int code);

#endif
