-- Embedding: rows of a table by index.

local ops = require("am.core.ops")
local Module = require("am.nn.module")

local Embedding = Module.class("Embedding")

--- padding_idx (optional): looking this row up gives it no gradient, as in PyTorch.
function Embedding.new(num_embeddings, embedding_dim, padding_idx)
    local self = Module.init(Embedding)
    self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
    self.padding_idx = padding_idx
    self:declare("weight", { num_embeddings, embedding_dim })
    return self
end

--- index [...] -> [..., embedding_dim]
function Embedding:forward(index)
    return ops.embedding(index, self.weight, self.padding_idx)
end

function Embedding:extra_repr()
    return string.format("%d, %d", self.num_embeddings, self.embedding_dim)
end

return Embedding
