/* webp.c — WebP by libwebp: lossy and lossless, with alpha; of an animation the first frame on its
 * canvas. */
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

#include "image.h"

static int metadata_orientation(WebPDemuxer *demuxer)
{
    WebPChunkIterator chunk;
    int exif = 0, xmp = 0;
    if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk)) {
        am_image_bytes body = {chunk.chunk.bytes, chunk.chunk.size};
        if (body.bytes >= 6 && memcmp(body.data, "Exif\0", 6) == 0)
            body = (am_image_bytes){body.data + 6, body.bytes - 6};
        exif = am_exif_orientation(body);
        WebPDemuxReleaseChunkIterator(&chunk);
    }
    if (WebPDemuxGetChunk(demuxer, "XMP ", 1, &chunk)) {
        xmp = am_xmp_orientation((am_image_bytes){chunk.chunk.bytes, chunk.chunk.size});
        WebPDemuxReleaseChunkIterator(&chunk);
    }
    return exif ? exif : xmp ? xmp : 1;
}

int am_webp_header(am_image_info *info, am_image_bytes file)
{
    WebPBitstreamFeatures features;
    WebPData data = {file.data, file.bytes};
    WebPDemuxer *demuxer = NULL;
    if (WebPGetFeatures(file.data, file.bytes, &features) != VP8_STATUS_OK ||
        !(demuxer = WebPDemux(&data)))
        return am_fail(AM_EFORMAT, "damaged WebP: its header cannot be read, or it is truncated");
    info->width = (int32_t)WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH);
    info->height = (int32_t)WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT);
    info->has_alpha = features.has_alpha;
    info->channels = features.has_alpha ? 4 : 3;
    info->orientation = metadata_orientation(demuxer);
    WebPDemuxDelete(demuxer);
    return AM_OK;
}

/* A still picture is decoded in place; an animation needs the decoder that knows its canvas. */
static int decode_animation(am_picture *p, am_image_bytes file)
{
    WebPData data = {file.data, file.bytes};
    WebPAnimDecoderOptions options;
    if (!WebPAnimDecoderOptionsInit(&options))
        return am_fail(AM_EUNSUP, "libwebp is of another version");
    options.color_mode = MODE_RGBA;
    WebPAnimDecoder *decoder = WebPAnimDecoderNew(&data, &options);
    WebPAnimInfo canvas;
    uint8_t *frame = NULL;
    int time = 0;
    int good = decoder && WebPAnimDecoderGetInfo(decoder, &canvas) &&
               canvas.canvas_width == (uint32_t)p->width &&
               canvas.canvas_height == (uint32_t)p->height &&
               WebPAnimDecoderGetNext(decoder, &frame, &time);
    if (good)
        memcpy(p->pixels, frame, (size_t)p->width * (size_t)p->height * 4);
    WebPAnimDecoderDelete(decoder);
    return good ? AM_OK : am_fail(AM_EFORMAT, "damaged WebP: its first frame cannot be decoded");
}

int am_webp_decode(am_picture *p, am_image_bytes file)
{
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config))
        return am_fail(AM_EUNSUP, "libwebp is of another version");
    if (WebPGetFeatures(file.data, file.bytes, &config.input) != VP8_STATUS_OK)
        return am_fail(AM_EFORMAT, "damaged WebP: its header cannot be read");
    if (config.input.has_animation)
        return decode_animation(p, file);
    if (config.input.width != p->width || config.input.height != p->height)
        return am_fail(AM_EFORMAT, "damaged WebP: its sizes contradict each other");
    config.output.colorspace = MODE_RGBA;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = p->pixels;
    config.output.u.RGBA.stride = p->width * 4;
    config.output.u.RGBA.size = (size_t)p->width * (size_t)p->height * 4;
    VP8StatusCode status = WebPDecode(file.data, file.bytes, &config);
    WebPFreeDecBuffer(&config.output);
    if (status == VP8_STATUS_OUT_OF_MEMORY)
        return am_fail(AM_ENOMEM, "out of memory for a WebP");
    return status == VP8_STATUS_OK
               ? AM_OK
               : am_fail(AM_EFORMAT, "damaged WebP: %s",
                         status == VP8_STATUS_NOT_ENOUGH_DATA ? "the file is truncated"
                                                              : "its picture cannot be decoded");
}
