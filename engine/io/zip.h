/* zip.h — the directory of a zip file whose entries are stored, not compressed (ZIP64 too), so that
 * they can be used where they lie. Nothing is unpacked, and checksums are not compared. */
#ifndef AM_ZIP_H
#define AM_ZIP_H

#include <stddef.h>
#include <stdint.h>
#include "file.h"

typedef struct am_zip_entry {
    const char *name; /* of the zip */
    int flags, method;
    uint64_t header, bytes; /* where its header is, how long its data is; not checked yet */
} am_zip_entry;

typedef struct am_zip {
    const am_mapping *map; /* both borrowed */
    const char *path;
    size_t end; /* of the entries: where the directory begins */
    am_zip_entry *entries;
    size_t count;
    char *names;
} am_zip;

/* *z is zeroed before and freed by the caller in any case. */
int am_zip_read(am_zip *z, const am_mapping *map, const char *path);
void am_zip_free(am_zip *z);
/* Where an entry's data begins in the file; checked to lie inside it. AM_EUNSUP for an entry that
 * is compressed or encrypted. */
int am_zip_locate(const am_zip *z, const am_zip_entry *e, size_t *offset);

#endif
