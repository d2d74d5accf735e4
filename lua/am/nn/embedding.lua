-- Embedding: rows of a table by index, with noise while training where that is asked for (NEFTune).

local ops = require("am.core.ops")
local tensor = require("am.core.tensor")
local Module = require("am.nn.module")

local Embedding = Module.class("Embedding")

--- padding_idx (optional): looking this row up gives it no gradient, as in PyTorch. scale (optional): of the rows
--- that are looked up, rounded to their dtype (Gemma).
function Embedding.new(num_embeddings, embedding_dim, padding_idx, scale)
    local self = Module.init(Embedding)
    self.embed_scale = scale
    self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
    self.padding_idx = padding_idx
    self:declare("weight", { num_embeddings, embedding_dim })
    return self
end

--- index [...] -> [..., embedding_dim]
function Embedding:forward(index)
    return self:add_noise(self:scaled(self:lookup(index)))
end

--- The rows of index alone.
function Embedding:lookup(index)
    return ops.embedding(index, self.weight, self.padding_idx)
end

--- Rows times the embedding's own scale.
function Embedding:scaled(rows)
    return self.embed_scale
        and rows * tensor.full({}, self.embed_scale, { dtype = rows:dtype(), device = rows:device() }) or rows
end

--- NEFTune (Jain et al. 2023, arXiv:2310.05914): rows x [B, T, C] plus uniform(-1, 1) noise_alpha / sqrt(T C),
--- a draw of the generator's next stream; x itself without noise_alpha and outside of training. T is the length
--- of the rows as they come, padding and packed samples included, as in transformers.
function Embedding:add_noise(x)
    if not (self.training and (self.noise_alpha or 0) > 0) then
        return x
    end
    local size = self.noise_alpha / math.sqrt(x:size(x:dim() - 2) * x:size(x:dim() - 1))
    return x + tensor.empty(x:size(), { dtype = x:dtype(), device = x:device() }):uniform_(-size, size)
end

--- What repr shows in brackets.
function Embedding:extra_repr()
    return string.format("%d, %d", self.num_embeddings, self.embedding_dim)
end

return Embedding
