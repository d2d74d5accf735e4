-- LoRA of an embedding as HF PEFT has it: row i of the table is W[i] + (alpha / dim) A[:, i]^T B^T, with W frozen;
-- with use_dora its columns are scaled (dora.lua). No dropout: what would be dropped is an index.

local ops = require("am.core.ops")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")
local dora = require("am.peft.dora")
local lora = require("am.peft.lora")
local Embedding = require("am.nn.embedding")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local EmbeddingLoRA = Module.class("EmbeddingLoRA")

--- Wrap an Embedding. A is kept as a table [V, r], so that looking up reads its rows; PEFT's files have it
--- transposed.
---@param base am.nn.Embedding
---@param opts {dim: integer, alpha: number, use_rslora: boolean?, use_dora: boolean?}
function EmbeddingLoRA.new(base, opts)
    local self = Module.init(EmbeddingLoRA)
    self.num_embeddings, self.embedding_dim = base.num_embeddings, base.embedding_dim
    self.padding_idx, self.noise_alpha, self.embed_scale = base.padding_idx, base.noise_alpha, base.embed_scale
    self._parameters, self.weight = base._parameters, base.weight
    self.dim, self.alpha, self.scale = opts.dim, opts.alpha, lora.scale(opts)
    self:add("lora_embedding_A", Embedding.new(base.num_embeddings, opts.dim, base.padding_idx))
    self:add("lora_embedding_B", Linear.new(opts.dim, base.embedding_dim))
    if opts.use_dora then
        dora.attach(self, base.embedding_dim)
    end
    return self
end

-- As LinearLoRA's; those in `transposed` lie the other way round in files.
EmbeddingLoRA.tensor_names = { lora_embedding_A = "lora_embedding_A", lora_embedding_B = "lora_embedding_B",
                               lora_magnitude_vector = "lora_magnitude_vector" }
EmbeddingLoRA.transposed = { lora_embedding_A = true }

--- W^T [C, V], A [r, V] and B [C, r], A and B in W's dtype.
function EmbeddingLoRA:matrices()
    local dtype = self.weight:dtype()
    return self.weight:transpose(0, 1), self.lora_embedding_A.weight:to(dtype):transpose(0, 1),
        self.lora_embedding_B.weight:to(dtype)
end

--- index [...] -> [..., embedding_dim]
function EmbeddingLoRA:forward(index)
    return Embedding.add_noise(self, Embedding.scaled(self, self:lookup(index)))
end

--- The rows of index alone.
function EmbeddingLoRA:lookup(index)
    local dtype = self.weight:dtype()
    local rows = self.lora_embedding_A:forward(index):to(dtype)
    local out = ops.embedding(index, self.weight, self.padding_idx)
        + ops.linear(rows, self.lora_embedding_B.weight:to(dtype)) * self.scale
    if self.lora_magnitude_vector then
        out = dora.scale(out, dora.factor(self))
    end
    return out
end

function EmbeddingLoRA:extra_repr()
    return string.format("%d, %d, r=%d, scale=%g%s", self.num_embeddings, self.embedding_dim, self.dim, self.scale,
                         self.lora_magnitude_vector and ", dora" or "")
end

--- Give A and B storage: A zero, B normal(0, 1), as PEFT does whatever init a linear map has.
function EmbeddingLoRA:initialize(_, dtype)
    local opts = { dtype = dtype or self.weight:dtype(), device = self.weight:device() }
    self.lora_embedding_A.weight = scope.escape(tensor.zeros({ self.num_embeddings, self.dim }, opts))
    self.lora_embedding_B.weight = scope.escape(tensor.empty({ self.embedding_dim, self.dim }, opts))
    self.lora_embedding_B.weight:normal_(0, 1)
    if self.lora_magnitude_vector then
        dora.initialize(self, opts.dtype)
    end
end

--- The whole table, computed in f32 (f64 for f64 weights) and rounded once to W's dtype.
function EmbeddingLoRA:merged_weight()
    local wide = self.weight:dtype() == "float64" and "float64" or "float32"
    return scope.scope(function()
        local delta = ops.linear(self.lora_embedding_A.weight:detach():to(wide),
                                 self.lora_embedding_B.weight:detach():to(wide)) * self.scale
        local merged = self.weight:detach():to(wide) + delta
        if self.lora_magnitude_vector then
            merged = merged * dora.factor(self):detach()
        end
        return merged:to(self.weight:dtype())
    end)
end

--- The Embedding that this comes to, with a table of its own.
function EmbeddingLoRA:merged()
    local plain = Embedding.new(self.num_embeddings, self.embedding_dim, self.padding_idx, self.embed_scale)
    plain._parameters, plain.noise_alpha = self._parameters, self.noise_alpha
    plain.weight = scope.escape(self:merged_weight())
    return plain
end

return EmbeddingLoRA
