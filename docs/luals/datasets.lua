---@meta am.datasets
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.datasets
local am_datasets = {}

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" naming row
--- and message for the first that is no conversation.
function am_datasets.make_agent_chat_dataset(opts) end

--- [B, 1, T, T] of bool: position q of row b sees position k when both are of one sample and k is not behind
--- q. seq_lens: an array for each row with the lengths of its samples, each row adding up to the same T, as
--- the original's create_block_causal_mask takes them.
function am_datasets.create_block_causal_mask(seq_lens) end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" naming
--- row and message for the first that is no conversation.
function am_datasets.ChatDataset(opts) end

--- A batch of an array of rows (see utils.lua), padded on the right to the longest, then to a
--- multiple of opts.pad_seq_len_divisible. opts.pad_token_id: default 0; a ___PAD_TOKEN_IDS___ = { input_ids =
--- id } of the first row counts more.
function am_datasets.default_collater(rows, opts) end

--- A batch of rows { input_ids, labels = class }, otherwise as default_collater makes it, with
---   labels            int32_t[B], the class of each row
---   last_tokens       int32_t[B], where in the flat batch (b * T + t) the last token of each row is, from whose
---                     state a causal model classifies
---   num_label_tokens  B
--- opts.num_labels: refuse classes from here on.
function am_datasets.sequence_classification_collater(rows, opts) end

--- A dataset of token rows. opts: the keys of `fields` and `tokenizer`. Reads and tokenizes everything
--- once, unless `streaming`: "data" for the first row that is not JSON or lacks a column, or when no row has
--- a label.
function am_datasets.ColumnMappedTextInstructionDataset(opts) end

--- A stream of token rows; opts: the keys of `fields` and `tokenizer`.
function am_datasets.ColumnMappedTextInstructionIterableDataset(opts) end

--- opts: dataset (len, get), collate_fn (array of rows -> batch; default_collater), batch_size (1),
--- shuffle (false), seed (0), drop_last (false), group_by_length (false; with step_rows, batch_size by
--- default: see grouped.lua. Reads the length of every row), shuffle_buffer_size (for streams). Where the dataset
--- has_pictures also processor, which collate_fn gets as its second argument, num_workers (the engine's choice) and
--- prefetch_factor (2).
--- With ranks (1), so many processes share the rows: each batch_size * ranks rows of the order in turn are a batch for
--- each, of which this is number `rank` (0). All have equally many batches; where rows run out, one from which nothing
--- is learnt. Positions are those of all, so that a run can go on with another number of ranks.
---@return am.DataLoader
function am_datasets.StatefulDataLoader(opts) end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" for the
--- first row that has no such columns.
function am_datasets.HellaSwag(opts) end

--- The rows of one split; opts: the keys of `fields`. All of .idx is read and checked.
function am_datasets.MegatronPretraining(opts) end

--- A dataset of random sentences, each closed by id 1; opts: the keys of `fields`. Row i depends on
--- i and the seed alone. Labels are shifted and all of them learnt.
function am_datasets.build_unpacked_dataset(opts) end

--- A dataset of num_samples x batch_size rows; opts: the keys of `fields`. The last token of a row has no
--- label.
function am_datasets.MockIterableDataset(opts) end

--- A dataset of num_blocks packed rows; opts: the keys of `fields`.
function am_datasets.build_packed_dataset(opts) end

--- A dataset of random rows; opts: the keys of `fields`.
function am_datasets.MockSequenceClassificationDataset(opts) end

--- A dataset that is read in order and has no length; opts: the keys of `fields`. Headers of all shards are
--- read and checked.
function am_datasets.NanogptDataset(opts) end

--- A dataset of packs of the rows of `dataset` (len, get; name and stats if it has them). opts: the
--- keys of `fields`; padding_id stands for padding_idx where that is absent (default 0). Reads all of `dataset`.
--- stats() counts as skipped the samples that are longer than a pack, and has `samples`, the number of those
--- packed. With `prepacked` it is `dataset` itself.
function am_datasets.pack_dataset(dataset, opts) end

--- A dataset of the rows that have a label to learn; opts: the keys of `fields`. Reads everything once.
function am_datasets.PretokenizedDataset(opts) end

--- A dataset of rows with a class. opts: the keys of `fields`. Reads and tokenizes everything once: "data" for
--- the first row that has no such columns.
function am_datasets.GLUE_MRPC(opts) end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" for the
--- first row that has no such columns, or when no row has a label.
function am_datasets.make_squad_dataset(opts) end

--- A dataset of rows of seq_length tokens; opts: the keys of `fields`, and a tokenizer. Tokenises everything
--- once. Raises "data" for text that is not UTF-8, naming file and byte.
function am_datasets.TextDataset(opts) end

--- One line about a dataset: "120 rows, 5310 tokens, 1180 of them learnt (22.2 %); 2 skipped: …".
function am_datasets.describe(stats) end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" for the
--- first row that has no such columns.
function am_datasets.make_xlam_dataset(opts) end

---@class am.DataLoader
local am_DataLoader = {}

--- Batches in an epoch.
function am_DataLoader:len() end

--- Batches left in this epoch.
function am_DataLoader:remaining() end

--- Go to the start of epoch `epoch`, unless that is the one being read.
function am_DataLoader:set_epoch(epoch) end

--- The next batch of this epoch, or nil at its end.
function am_DataLoader:next() end

--- Iterator over one pass from the first row in the dataset's order, whatever shuffle and position
--- say; it leaves them as they are.
function am_DataLoader:batches() end

--- The first row, for a look at it.
function am_DataLoader:sample_row() end

--- { epoch, position (rows read of it), done (it is read to its end), num_rows, seed, shuffle, group_rows }.
function am_DataLoader:state_dict() end

--- Go on from a saved state with the saved order, also with another batch_size. In the middle of an
--- epoch the dataset must have as many rows as then; at its end it may have grown or shrunk. Returns notes: what
--- the saved order says that this loader was made with otherwise.
function am_DataLoader:load_state_dict(state) end

return am_datasets
