-- An adapter of which ranks have parts as a whole: PEFT's files are small, so for a moment the modules get tensors of
-- the whole shapes. What is cut says the recipe's layout.

local autograd = require("am.core.autograd")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local M = {}

-- The names of what is trained and in parts.
local function cut_names(self)
    local list = {}
    for name, t in (self.layout or self.model):named_parameters() do
        if t.requires_grad and self.layout and self.layout:is_cut(name) then
            list[#list + 1] = name
        end
    end
    return list
end

-- Run use() while the modules have what make(name, entry) returns in place of these parameters.
local function exchanged(self, names, make, use, after)
    local kept = {}
    for i, name in ipairs(names) do
        local place = self.layout:get(name).places[1]
        kept[i] = place[1][place[2]]
        self.layout:put(name, make(name, self.layout:get(name)))
    end
    local ok, e = pcall(use)
    for i, name in ipairs(names) do
        local entry = self.layout:get(name)
        local whole = entry.places[1][1][entry.places[1][2]]
        if ok and after then
            after(name, entry, whole)
        end
        self.layout:put(name, kept[i])
    end
    if not ok then
        error(e, 0)
    end
end

--- use() while the modules have the whole tensors of what is trained. All ranks call this together.
function M.with(self, use)
    local function now(name)
        local place = self.layout:get(name).places[1]
        return place[1][place[2]]:detach()
    end
    scope.scope(autograd.no_grad, function()
        exchanged(self, cut_names(self), function(name, entry)
            return self.layout:whole(name, entry.tensor:detach())
        end, function()
            if self.pipeline then -- what other stages train, too
                self.pipeline:with_trained(now, use)
            else
                use()
            end
        end)
    end)
end

--- load() while the modules have tensors of the whole shapes, which it fills; this rank keeps its parts.
function M.load(self, load)
    scope.scope(autograd.no_grad, function()
        exchanged(self, cut_names(self), function(_, entry)
            return tensor.zeros(entry.shape, { dtype = entry.tensor:dtype() })
        end, function()
            if self.pipeline then
                self.pipeline:with_room(load)
            else
                load()
            end
        end, function(name, entry, whole)
            entry.tensor:detach():copy_(self.layout:part(name, whole))
        end)
    end)
end

return M
