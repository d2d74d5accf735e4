/* images.h — the part of am.h about pictures: headers, plans, jobs on background threads. Include
 * am.h. */
#ifndef AM_H
#error "include am.h, which this is a part of"
#endif

/* ---- images -----------------------------------------------------------------------------
 * JPEG, PNG, WebP and a GIF's first frame, decoded to 8-bit RGB as Pillow's open, exif_transpose
 * and convert("RGB") do, and made into a model's input by a plan: a list of steps over pictures in
 * numbered slots. Slot 0 is the decoded picture. A plan runs on a background thread or on that of
 * the caller, with the same bits. Images may be damaged or hostile: sizes are checked before
 * anything is decoded. */

enum { AM_IMAGE_JPEG, AM_IMAGE_PNG, AM_IMAGE_WEBP, AM_IMAGE_GIF };
enum {
    AM_IMAGE_MAX_PIXELS = 178956970, /* Pillow's limit */
    AM_IMAGE_MAX_SIDE = 1 << 20,
    AM_IMAGE_SLOTS = 256
};

/* Where an image comes from. Everything is borrowed for the call (submit copies it). */
typedef struct am_image_source {
    const char *path;   /* a file; NULL: the bytes that follow */
    const void *data;   /* the bytes of a file */
    size_t bytes;       /* of data */
    const char *name;   /* what messages call it; NULL: the path, or "image" */
    int64_t max_pixels; /* larger pictures are AM_EFORMAT; 0: AM_IMAGE_MAX_PIXELS */
    int32_t background; /* 0xRRGGBB under transparent pixels; -1: alpha is left off */
} am_image_source;

typedef struct am_image_info {
    int32_t format;
    int32_t width, height; /* as decoded: after `orientation` */
    int32_t channels;      /* in the file: 1 grey or palette, 2 grey and alpha, 3, 4 */
    int32_t has_alpha;     /* an alpha channel or a transparent colour */
    int32_t orientation;   /* EXIF's, 1 to 8 */
} am_image_info;

/* What the header says, without decoding. AM_EIO: the file cannot be read; AM_EUNSUP: none of the
 * four formats, or a kind of them that is not read; AM_EFORMAT: damaged, or too large. */
int am_image_header(am_image_info *info, const am_image_source *source);

/* RESIZE: slot dst = slot src at width x height by `filter`, with the rounding of `backend`.
 * CROP: slot dst = the width x height pixels of slot src from (x, y), which may lie outside it:
 * there it is `fill`.
 * EMIT: write slot src as f32 to the output from `offset` (in floats) on. A value v becomes
 * v * rescale (where do_rescale), less mean[c], over std[c] (where do_normalize), in the order
 * and precision in which `backend` computes it.
 *   CHW      [3, frame_height, frame_width], of which the picture fills the upper left part; what
 *            no step writes is 0. A frame of 0 x 0 is the picture's size.
 *   PATCHES  Qwen's rows, [height/patch * width/patch, 3 * temporal_patch * patch * patch]: patches
 *            in squares of merge x merge, the picture repeated temporal_patch times. height and
 *            width must be multiples of patch * merge. */
enum { AM_IMAGE_RESIZE, AM_IMAGE_CROP, AM_IMAGE_EMIT };
/* Filters are numbered as `resample` in preprocessor_config.json. */
enum { AM_IMAGE_NEAREST, AM_IMAGE_LANCZOS, AM_IMAGE_BILINEAR, AM_IMAGE_BICUBIC, AM_IMAGE_BOX };
enum { AM_IMAGE_PIL, AM_IMAGE_TORCHVISION };
enum { AM_IMAGE_CHW, AM_IMAGE_PATCHES };
typedef struct am_image_step {
    int32_t kind;
    int32_t dst, src;      /* slots; EMIT has no dst */
    int32_t width, height; /* RESIZE, CROP */
    int32_t x, y;          /* CROP */
    int32_t fill;          /* CROP: 0xRRGGBB */
    int32_t filter;        /* RESIZE */
    int32_t backend;       /* RESIZE, EMIT */
    int32_t layout;        /* EMIT, and what follows */
    int32_t frame_width, frame_height;
    int32_t patch, temporal_patch, merge;
    int32_t do_rescale, do_normalize;
    int64_t offset;
    double rescale, mean[3], std[3];
} am_image_step;

/* Queue a plan, whose output is n_floats f32. The steps are copied and checked as far as they can
 * be before the picture is there (AM_EINVAL). Any number of jobs may be under way. */
typedef struct am_image_job am_image_job;
int am_image_submit(am_image_job **out, const am_image_source *source, const am_image_step *steps,
                    int64_t n_steps, int64_t n_floats);
/* Wait for a job (a job that no thread has begun runs on the caller's) and write its output to
 * `out`, n_floats. Once only. The message of an error begins with the source's name: those of
 * am_image_header, AM_EINVAL for a step that does not fit the picture, AM_ENOMEM. */
int am_image_wait(am_image_job *job, float *out);
void am_image_release(am_image_job *job); /* also before its end: what has not begun never runs */
/* Background threads, started by the first submit: 0 to 256; 0 runs all jobs in am_image_wait. */
int am_image_threads(void);
int am_image_threads_set(int n);

/* The picture within a square of `side` pixels (smaller ones keep their size) as a JPEG file, for
 * reports; *data is the caller's, to be given to am_image_bytes_release. */
int am_image_thumbnail(uint8_t **data, size_t *bytes, const am_image_source *source, int side);
void am_image_bytes_release(uint8_t *data);
