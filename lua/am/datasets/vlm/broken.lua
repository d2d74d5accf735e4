-- Pictures that cannot be read: a run stops at the first, or leaves their rows out, counts and names them.
-- One of these goes with a dataset and with each of its rows.
--
-- A row is left out wherever its picture proves broken: at the begin, when headers are read, or in a batch, when
-- it is decoded. Either depends on the files alone, so a resumed run leaves out the same rows.

local err = require("am.core.error")
local log = require("am.utils.log").get("am.datasets")

local M = {}

--- What a dataset's section says about it.
M.fields = {
    on_bad_image = { type = "string", enum = { "stop", "skip" }, default = "stop",
                     doc = "a picture that cannot be read: end the run, or leave its row out and say so" },
    max_bad_images = { type = "integer", min = 0, doc = "with skip: end the run when there are more" },
}

-- Errors that are the picture's fault; memory, an interruption and mistakes of the program are not.
local OF_PICTURES = { data = true, format = true, io = true, unsupported = true }

local Broken = {}
Broken.__index = Broken

--- opts: the keys of `fields`.
function M.new(opts)
    return setmetatable({ skips = opts.on_bad_image == "skip", most = opts.max_bad_images, names = {}, count = 0 },
                        Broken)
end

--- Is this error one of a picture, and not of the row or the run?
function M.is(e)
    return err.is(e) and OF_PICTURES[e.code] == true
end

local REASON = "broken picture: "

--- Why a row is left out whose picture raised e.
function M.reason(e)
    return REASON .. e.msg
end

--- Is a row left out for its picture, by the reason that is given?
function M.is_reason(reason)
    return reason:sub(1, #REASON) == REASON
end

--- Row `name` has a broken picture, for that reason. Raises "data" where the run is to end.
function Broken:found(name, reason)
    if not self.skips then
        err.raise("data", "%s: %s; repair or remove it, or set dataset.on_bad_image: skip to leave such rows out",
            name, reason)
    elseif self.names[name] then -- met before, in another epoch
        return
    end
    self.names[name], self.count = true, self.count + 1
    log:warning("left out: %s (%s); %d so far", name, reason, self.count)
    if self.most and self.count > self.most then
        err.raise("data", "%d rows have broken pictures, more than dataset.max_bad_images (%d); the last: %s (%s)",
            self.count, self.most, name, reason)
    end
end

return M
