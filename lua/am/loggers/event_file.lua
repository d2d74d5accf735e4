-- TensorBoard event files: `tensorboard --logdir DIR` shows what is written here while the run goes on.
-- Holds no reading of them.
--
--   local file = event_file.open { log_dir = "runs/a", first_step = 0 }
--   file:scalars(3, { { "train/loss", 1.25 }, … })   file:text(3, "samples/1", "text")   file:close()
--
-- A file is a series of TFRecords (length, masked CRC-32C of it, an Event message, masked CRC-32C of that),
-- each handed to the system by one write: a killed run loses at most the one that it was writing, which
-- TensorBoard then skips. A writer's first file begins with a SessionLog that says START at its first step;
-- of what older files in the folder hold, TensorBoard then hides that step and later ones, so that the curve
-- of a run that was killed and resumed has every step once. After a failed write the file is left, and the next record
-- opens another, since a reader stops at a torn record.

local crc = require("am.loggers.crc")
local err = require("am.core.error")
local path = require("am.utils.path")
local pb = require("am.loggers.protobuf")
local posix = require("am.utils.posix")

local M = {}

local DT_STRING, START = 7, 1

--- What surrounds an Event in the file.
function M.frame(event)
    local length = pb.fixed64(#event)
    return length .. pb.fixed32(crc.masked(crc.crc32c(length))) .. event
        .. pb.fixed32(crc.masked(crc.crc32c(event)))
end

local files_opened = 0 -- by this process, so that no two have one name

local Writer = {}
Writer.__index = Writer

--- A writer into a folder, which is made. opts: log_dir; first_step: the first that it will write (default:
--- 0); time: a clock, seconds since 1970. Nothing is written yet.
function M.open(opts)
    path.mkdir_p(opts.log_dir)
    return setmetatable({ log_dir = opts.log_dir, first_step = opts.first_step or 0, time = opts.time or posix.time },
                        Writer)
end

local function event(self, step, ...)
    return M.frame(table.concat { pb.double(1, self.time()), step ~= 0 and pb.int(2, step) or "", ... })
end

-- A new file, with what TensorBoard expects at the beginning of one.
local function open_file(self)
    local name = string.format("events.out.tfevents.%010d.%s.%d.%d", self.time(), posix.hostname() or "localhost",
                               posix.getpid(), files_opened)
    files_opened = files_opened + 1
    self.name = path.join(self.log_dir, name)
    local file, msg = posix.open(self.name, "create")
    if not file then
        err.raise("io", "cannot write %s", msg)
    end
    self.file = file
    local head = event(self, 0, pb.bytes(3, "brain.Event:2"))
    if self.first_step then
        head = head .. event(self, self.first_step, pb.message(7, pb.int(1, START)))
        self.first_step = nil
    end
    return head
end

local function write(self, text)
    if not self.file then
        text = open_file(self) .. text
    end
    local ok, msg = posix.write(self.file, text)
    if not ok then
        posix.close(self.file)
        self.file = nil
        err.raise("io", "cannot write %s: %s", self.name, msg)
    end
end

--- Numbers of a step: an array of { tag, number }. They are stored in single precision.
function Writer:scalars(step, list)
    local values = {}
    for i, item in ipairs(list) do
        values[i] = pb.message(1, pb.bytes(1, item[1]), pb.float(2, item[2]))
    end
    if #values > 0 then
        write(self, event(self, step, pb.message(5, table.concat(values))))
    end
end

--- A text, which TensorBoard shows as Markdown.
function Writer:text(step, tag, text)
    local metadata = pb.message(9, pb.message(1, pb.bytes(1, "text")))
    local tensor = pb.message(8, pb.int(1, DT_STRING), pb.message(2, pb.message(2, pb.int(1, 1))), pb.bytes(8, text))
    write(self, event(self, step, pb.message(5, pb.message(1, pb.bytes(1, tag), tensor, metadata))))
end

--- Wait until what was written is on the disk.
function Writer:flush()
    if self.file then
        local ok, msg = posix.fsync(self.file)
        if not ok then
            err.raise("io", "cannot write %s: %s", self.name, msg)
        end
    end
end

function Writer:close()
    if self.file then
        posix.close(self.file)
        self.file = nil
    end
end

return M
