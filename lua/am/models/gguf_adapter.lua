-- Writing a LoRA adapter as the GGUF file that llama.cpp adds to a model: for each adapted tensor NAME its A as
-- NAME.lora_a and its B as NAME.lora_b. llama.cpp scales all by one alpha over a tensor's own rank; what a module's
-- scale differs from that goes into its B.

local err = require("am.core.error")
local gguf = require("am.models.gguf")
local export = require("am.models.gguf_export")

local M = {}

-- The name in GGUF that an adapter's module has, or an error why it cannot have one.
local function place_of(desc, name, tied)
    local places, split, expert = gguf.place(desc, name)
    if not places then
        err.raise("unsupported", "GGUF's architecture \"%s\" has no tensor for %s", desc.architecture, name)
    elseif split or expert then
        err.raise("unsupported", "%s is a part of %s in GGUF, where llama.cpp takes no adapter of it; merge "
                  .. "the adapter into the model instead", name, table.concat(places, " and "))
    elseif tied then
        err.raise("unsupported", "%s shares the embeddings' tensor, where llama.cpp takes no adapter of it; merge the "
                  .. "adapter into the model instead", name)
    end
    return places[1]
end

-- B with its rows in GGUF's order.
local function changed_b(desc, c, name, b)
    gguf.each_change(desc, name, function(kind, ...)
        if kind.of_rows then
            b = kind.to_gguf(b, name, c, ...)
        end
    end)
    return b
end

--- Write an adapter. adapters: a list of { name (of the module), a [r, in], b [out, r], scale, embedding = true for
--- A of an embedding, [in, r] }; opts: type (a name of gguf_export.types, "f32" by default), name.
function M.save(path, model, adapters, opts)
    local desc, c = model.gguf_description, model.config
    local wanted = export.type_named(opts.type or "f32")
    if not desc then
        err.raise("unsupported", "%s has no place in GGUF", model.class_name)
    end
    local entries, alpha = {}, nil
    for _, adapter in ipairs(adapters) do
        local name = adapter.name .. ".weight"
        local place = place_of(desc, name, model.tied and model.tied[name] and not desc.head)
        local rank = adapter.b:size(1)
        alpha = alpha or adapter.scale * rank
        local factor = adapter.scale * rank / alpha
        local a, b = adapter.a:detach(), adapter.b:detach()
        entries[#entries + 1] = { place .. ".lora_a", a:size(), function() return a end }
        entries[#entries + 1] = { place .. ".lora_b", b:size(), function()
            local wide = changed_b(desc, c, name, b)
            return math.abs(factor - 1) > 1e-12 and wide:to("float32") * factor or wide
        end }
    end
    export.write(path, {
        { "general.architecture", "string", desc.architecture },
        { "general.type", "string", "adapter" },
        { "general.name", "string", opts.name or "adapter" },
        { "adapter.type", "string", "lora" },
        { "adapter.lora.alpha", "f32", alpha or 1 },
        { "general.file_type", "u32", wanted.file },
        { "general.quantization_version", "u32", export.QUANTIZATION_VERSION },
    }, entries, wanted)
end

return M
