-- Datasets whose rows are an image, a question and an answer in columns of known names.

local conversation = require("am.datasets.vlm.conversation")
local rows = require("am.datasets.vlm.rows")

local M = { targets = {} }

local homes = "nemo_automodel.components.datasets.vlm.datasets."

-- A function that makes such a dataset, and its target. spec: path, doc, images (columns that may hold the image),
-- answer (a column), question (a column) or prompt (the question of all rows), config (its class in NeMo Automodel).
local function dataset(name, spec)
    local fields = rows.file_fields(spec.path, spec.prompt and {
        prompt = { type = "string", default = spec.prompt, doc = "what the user says beside the image" },
    } or {})
    local texts = { "file_name", spec.answer, spec.question }
    M[name] = function(opts)
        local prompt = opts.prompt or spec.prompt
        return rows.open(opts, { path = spec.path, texts = texts, convert = function(raw, where, row)
            return conversation.question({ rows.image(raw, spec.images, row) },
                prompt or rows.text(raw, spec.question, row), rows.text(raw, spec.answer, row), where, row)
        end })
    end
    M.targets[#M.targets + 1] = {
        name = "am.datasets.vlm." .. name, aliases = { homes .. name, homes .. spec.config }, doc = spec.doc,
        fields = fields, build = M[name],
    }
end

dataset("make_rdr_dataset", {
    path = "quintend/rdr-items", doc = "images with a description in text (RDR items)", config = "RdrDatasetConfig",
    images = { "image", "file_name" }, answer = "text", prompt = "Describe this image.",
})
dataset("make_medpix_dataset", {
    path = "medpix-dataset/medpix-dataset", doc = "image_id, question and answer (MedPix)",
    config = "MedPixDatasetConfig", images = { "image_id", "image", "file_name" }, question = "question",
    answer = "answer",
})
dataset("make_shopify_product_catalogue_dataset", {
    path = "Shopify/product-catalogue", doc = "product_image with its category", images = { "product_image" },
    config = "ShopifyProductCatalogueDatasetConfig", answer = "ground_truth_category",
    prompt = "What product category does this item belong to?",
})

return M
