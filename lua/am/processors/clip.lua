-- The image processor of CLIP: the standard one (image_processor.lua) with its defaults.

return {
    images = {
        CLIPImageProcessor = {
            defaults = {
                do_resize = true, size = { shortest_edge = 224 }, resample = 3, do_center_crop = true,
                crop_size = { height = 224, width = 224 }, do_rescale = true, do_normalize = true,
                image_mean = { 0.48145466, 0.4578275, 0.40821073 },
                image_std = { 0.26862954, 0.26130258, 0.27577711 },
            },
            kinds = { size = "shortest" },
        },
    },
}
