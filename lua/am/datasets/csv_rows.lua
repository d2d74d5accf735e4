-- Rows of a CSV or TSV file (RFC 4180), typed as `datasets` types them, which leaves it to pandas' read_csv.
-- Holds no meaning of the rows.
--
-- The first record has the columns' names: an empty one is "Unnamed: 2" (counted from 0), one that was
-- there before gets ".1". Lines end in LF, CRLF or CR; lines of nothing but spaces are passed over. A
-- field in quotes may hold separators, line ends and doubled quotes. A record that is short ends in nulls,
-- one that is long is an error. Records are numbered by the line that they begin on, as an editor shows it.
--
-- A field that is empty, or one of pandas' words for a missing value ("NA", "null", "None", …), in quotes
-- or not, is null. The others decide what the column holds: numbers when all are numbers, booleans when
-- all are true or false, otherwise text, just as it is in the file. Whole numbers that no 64 bits hold are
-- text; infinities are null, since JSON has none. A reader that needs text says so, since a CSV file cannot:
-- such a column is text, "2.50" as it is written. In two ways this differs from `datasets`: a column's
-- type is that of all of its rows, where `datasets` takes 10000 at a time and fails when the type changes;
-- and records that all have one field more than the header are refused, where pandas takes the first
-- for a name of the row and shifts the others.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local json = require("am.utils.json")
local posix = require("am.utils.posix")
local strings = require("am.utils.strings")
local text_rows = require("am.datasets.text_rows")

local M = {}

local NEWLINE, RETURN, QUOTE, SPACE, TAB = 10, 13, 34, 32, 9
local MAX_COLUMNS = 65536

local missing = {}
for word in ("|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan"
    .. "|null|"):gmatch("([^|]*)|") do
    missing[word] = true
end

local booleans = { ["True"] = true, ["TRUE"] = true, ["true"] = true,
                   ["False"] = false, ["FALSE"] = false, ["false"] = false }
local infinities = { inf = true, ["+inf"] = true, ["-inf"] = true, infinity = true, ["+infinity"] = true,
                     ["-infinity"] = true }

-- ---------------------------------------------------------------- records

-- The record that was parsed last: where its fields begin and end in `bytes`.
local Record = {}
Record.__index = Record

local function new_record()
    return setmetatable({ count = 0, capacity = 64, at = ffi.new("int32_t[?]", 128) }, Record)
end

function Record:add(from, to)
    if self.count == self.capacity then
        local at = ffi.new("int32_t[?]", 4 * self.capacity)
        ffi.copy(at, self.at, 8 * self.capacity)
        self.at, self.capacity = at, 2 * self.capacity
    end
    self.at[2 * self.count], self.at[2 * self.count + 1] = from, to
    self.count = self.count + 1
end

-- A field in quotes, doubled ones made single; what follows the closing one belongs to the field as it is.
local function unquote(text)
    local out, at = {}, 2
    while true do
        local quote = text:find('"', at, true)
        out[#out + 1] = text:sub(at, quote - 1)
        if text:byte(quote + 1) ~= QUOTE then
            out[#out + 1] = text:sub(quote + 1)
            return table.concat(out)
        end
        out[#out + 1] = '"'
        at = quote + 2
    end
end

-- Field i (from 1) as text.
function Record:field(i)
    local from, to = self.at[2 * i - 2], self.at[2 * i - 1]
    local text = ffi.string(self.bytes + from, to - from)
    return text:byte() == QUOTE and unquote(text) or text
end

-- A line with nothing on it.
function Record:is_blank(separator)
    if self.count ~= 1 then
        return false
    end
    for i = self.at[0], self.at[1] - 1 do
        local c = self.bytes[i]
        if c ~= SPACE and (c ~= TAB or separator == TAB) then
            return false
        end
    end
    return true
end

-- Behind the closing quote of a field that begins at `at`, and the line ends in it; nil when it has none
-- before `stop`.
local function skip_quoted(bytes, at, stop)
    local lines = 0
    at = at + 1
    while at < stop do
        local c = bytes[at]
        if c == QUOTE then
            if at + 1 == stop or bytes[at + 1] ~= QUOTE then
                return at + 1, lines
            end
            at = at + 1
        elseif c == NEWLINE or (c == RETURN and at + 1 < stop and bytes[at + 1] ~= NEWLINE) then
            lines = lines + 1
        end
        at = at + 1
    end
    return nil, lines
end

-- Take the record that begins at `at` apart. Returns where the next one begins, and on how many lines it
-- lies; nil when it does not end before `stop`, and whether that is for want of a quote. With `final` the
-- file ends at `stop`, and so does the record.
local function parse(record, bytes, at, stop, final, separator)
    record.count, record.bytes = 0, bytes
    local lines, from = 0, at
    while true do
        if at < stop and bytes[at] == QUOTE then
            local more
            at, more = skip_quoted(bytes, at, stop)
            lines = lines + more
            if not at or (at == stop and not final) then
                return nil, not at
            end
        end
        while at < stop and bytes[at] ~= separator and bytes[at] ~= NEWLINE and bytes[at] ~= RETURN do
            at = at + 1
        end
        if at == stop and not final then
            return nil, false
        end
        record:add(from, at)
        if at == stop then
            return at, lines + 1
        elseif bytes[at] ~= separator then
            if bytes[at] == RETURN then
                if at + 1 == stop and not final then
                    return nil, false
                elseif at + 1 < stop and bytes[at + 1] == NEWLINE then
                    at = at + 1
                end
            end
            return at + 1, lines + 1
        end
        at = at + 1
        from = at
    end
end

-- ---------------------------------------------------------------- files

local buffer, capacity = ffi.new("uint8_t[?]", text_rows.CHUNK), text_rows.CHUNK

-- Keep `kept` bytes from `at` on, and read more behind them, from `offset` in the file to `stop` at most.
-- Returns how many there are then, and whether no more are to be had.
local function refill(file, at, kept, offset, stop, name)
    edge.check(edge.C.am_signals_check())
    if kept > text_rows.MAX_ROW_BYTES then
        err.raise("data", "%s: a record of more than %d bytes; is a quote without its end?", name,
            text_rows.MAX_ROW_BYTES)
    elseif 2 * kept > capacity then
        local larger = ffi.new("uint8_t[?]", 2 * capacity)
        ffi.copy(larger, buffer + at, kept)
        buffer, capacity = larger, 2 * capacity
    elseif at > 0 and kept > 0 then
        ffi.copy(buffer, ffi.string(buffer + at, kept), kept) -- they may overlap
    end
    local wanted = math.min(capacity - kept, stop - offset)
    local n, msg = posix.read_into(file, buffer + kept, offset, wanted)
    if not n then
        err.raise("io", "%s: cannot be read (%s)", name, msg)
    end
    return kept + n, n < wanted or offset + n == stop
end

local record = new_record()

-- See text_rows.open: each_row of a file with this separator.
local function each_record(separator)
    return function(file, begin, stop, number, name, found)
        local at, have, final, base = 0, 0, false, begin -- base: where the buffer's first byte is in the file
        while base + at < stop do
            local next_at, lines = parse(record, buffer, at, have, final, separator)
            if next_at then
                if at == have then -- the end
                    return
                elseif not record:is_blank(separator) then
                    found(base + at, next_at - at, number, record)
                end
                at, number = next_at, number + lines
            elseif final then
                err.raise("data", "%s: a quote has no end", text_rows.row_name(name, number))
            else
                base, have = base + at, have - at
                have, final = refill(file, at, have, base + have, stop, name)
                at = 0
            end
        end
    end
end

-- ---------------------------------------------------------------- columns

-- What was met in a column; together they decide its type.
local INTEGER, FLOAT, NEGATIVE, LARGE, HUGE, BOOLEAN, TEXT = 1, 2, 4, 8, 16, 32, 64

-- A whole number's kinds: LARGE does not fit into an int64, HUGE into no 64 bits.
local function integer_kind(sign, digits)
    digits = digits:gsub("^0+", "")
    local function beyond(limit)
        return #digits > #limit or (#digits == #limit and digits > limit)
    end
    if sign == "-" then
        return bit.bor(INTEGER, NEGATIVE, beyond "9223372036854775808" and HUGE or 0)
    end
    return bit.bor(INTEGER, beyond "9223372036854775807" and LARGE or 0,
                   beyond "18446744073709551615" and HUGE or 0)
end

local function kind_of(text)
    if missing[text] then
        return 0
    elseif booleans[text] ~= nil then
        return BOOLEAN
    elseif infinities[text:lower()] then
        return FLOAT
    end
    local sign, digits, rest = text:match("^%s*([+-]?)(%d*)(%.?%d*[eE]?[+-]?%d*)%s*$")
    if not sign or not text:find("%d") then
        return TEXT
    elseif rest == "" then
        return integer_kind(sign, digits)
    end
    local mantissa, exponent = rest:match("^(%.?%d*)(.*)$")
    local has_digits = digits ~= "" or mantissa:find("%d")
    return has_digits and (exponent == "" or exponent:find("^[eE][+-]?%d+$")) and FLOAT or TEXT
end

-- The type of a column: TEXT, BOOLEAN, or FLOAT for any number.
local function type_of(met)
    local function has(kind) return bit.band(met, kind) ~= 0 end
    if has(TEXT) or (has(BOOLEAN) and has(INTEGER + FLOAT)) then
        return TEXT
    elseif has(BOOLEAN) then
        return BOOLEAN
    elseif not has(FLOAT) and (has(HUGE) or (has(LARGE) and has(NEGATIVE))) then
        return TEXT
    end
    return FLOAT
end

local function value_of(text, kind)
    if missing[text] then
        return json.null
    elseif kind == TEXT then
        return text
    elseif kind == BOOLEAN then
        return booleans[text]
    end
    local x = not infinities[text:lower()] and tonumber((text:match("^%s*%+?(.-)%s*$")))
    return x and math.abs(x) < math.huge and x + 0 or json.null -- + 0: "-0" is 0
end

-- The names of columns as pandas makes them.
local function column_names(header, name)
    local names, taken, times = {}, {}, {}
    for i = 1, header.count do
        names[i] = header:field(i)
        if names[i] == "" then
            names[i] = "Unnamed: " .. i - 1
        end
        if strings.utf8_error(names[i]) then
            err.raise("data", "%s: the name of column %d is not UTF-8; convert the file", name, i)
        end
        taken[names[i]] = true
    end
    for i, text in ipairs(names) do
        local n = times[text]
        if n then
            local other
            repeat
                other = text .. "." .. n
                n = n + 1
            until not taken[other]
            names[i], taken[other] = other, true
        end
        times[text] = n or 1
    end
    return names
end

-- ---------------------------------------------------------------- rows

local CsvRows = {}
CsvRows.__index = CsvRows

-- Which of the columns are read, by number.
local function choose(names, wanted, name)
    if not wanted then
        return names
    end
    local numbers, chosen = {}, {}
    for i, column in ipairs(names) do
        numbers[column] = i
    end
    for _, column in ipairs(wanted) do
        local i = numbers[column] or err.raise("data", '%s: no column "%s"%s; it has %s', name, column,
            strings.did_you_mean(column, names), table.concat(names, ", "))
        chosen[i] = column
    end
    return chosen
end

local function check_count(name, number, count, columns)
    if count > columns then
        err.raise("data", "%s: %d fields, but the header has %d; put a field that holds the separator in quotes",
            text_rows.row_name(name, number), count, columns)
    end
end

--- The rows of an open file, which they take over; `opts`: see file_rows.open. `separator`: "," or a tab.
function M.open(handle, separator, opts)
    separator = separator:byte()
    local each = each_record(separator)
    local begin = text_rows.read_at(handle.file, 0, 3, handle.name) == "\239\187\191" and 3 or 0
    local names, met, columns, untyped
    local function on_row(number, row)
        if not names then
            if row.count > MAX_COLUMNS then
                err.raise("data", "%s: %d columns, more than the %d that are read", handle.name, row.count, MAX_COLUMNS)
            end
            names = column_names(row, handle.name)
            columns, met, untyped = #names, ffi.new("uint8_t[?]", #names), #names
            return
        end
        check_count(handle.name, number, row.count, columns)
        for i = 1, untyped > 0 and row.count or 0 do
            if met[i - 1] < TEXT then
                met[i - 1] = bit.bor(met[i - 1], kind_of(row:field(i)))
                untyped = met[i - 1] >= TEXT and untyped - 1 or untyped
            end
        end
    end
    local rows = text_rows.open(handle, each, begin, 1, on_row)
    if not names then
        err.raise("data", "%s: no header row", handle.name)
    end
    local kinds, is_text = {}, {}
    for _, column in ipairs(opts.texts or {}) do
        is_text[column] = true
    end
    for i = 1, columns do
        kinds[i] = is_text[names[i]] and TEXT or type_of(met[i - 1])
    end
    return setmetatable({ rows = rows, columns = columns, chosen = choose(names, opts.columns, handle.name),
                          kinds = kinds, separator = separator, record = new_record() }, CsvRows)
end

-- The header is the first of the text's rows.
function CsvRows:len() return self.rows:len() - 1 end
function CsvRows:number(k) return self.rows:number(k + 1) end
function CsvRows:rest() return self.rows:rest() end
function CsvRows:close() return self.rows:close() end

--- Row k (from 1) as a table: text, numbers, booleans and json.null by the columns' names.
function CsvRows:get(k)
    local text, name = self.rows:text(k + 1)
    local bytes, out = ffi.cast("const uint8_t *", text), {}
    if not parse(self.record, bytes, 0, #text, true, self.separator) then
        err.raise("io", "%s: cannot be read (the file was changed meanwhile)", name)
    end
    for i = 1, self.columns do
        local column = self.chosen[i]
        if column and i <= self.record.count then
            out[column] = value_of(self.record:field(i), self.kinds[i])
        elseif column then
            out[column] = json.null
        end
    end
    return out
end

return M
