#include "penstock/row_encoder.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "penstock/utf8.h"

namespace penstock {
namespace {

constexpr std::size_t kNoLimit = TokenizeOptions::kNoLimit;
// Buffers for more tokens than this are given back after the batch.
constexpr std::size_t kTokensKept = std::size_t{1} << 18;

struct Lengths {
  std::size_t first;
  std::size_t second;
};

// "longest_first" of tokenizers (utils/truncation.rs): closed form, not one token at a time. The odd token
// goes to the longer text, or to the second of equally long ones.
Lengths longest_first(Lengths tokens, std::size_t budget) noexcept {
  const bool is_swapped = tokens.first > tokens.second;
  std::size_t shorter = std::min(tokens.first, tokens.second);
  std::size_t longer = shorter > budget ? shorter : std::max(shorter, budget - shorter);
  if (shorter + longer > budget) {
    shorter = budget / 2;
    longer = shorter + budget % 2;
  }
  return is_swapped ? Lengths{longer, shorter} : Lengths{shorter, longer};
}

// How much stays of texts that have more than `budget` tokens together.
EncodeStatus share_budget(Lengths tokens, bool is_pair, std::size_t budget, Truncation truncation, Lengths& kept) {
  if (budget == 0) {
    kept = {0, 0};
  } else if (truncation == Truncation::kLongestFirst) {
    kept = is_pair ? longest_first(tokens, budget) : Lengths{budget, 0};
  } else if (truncation == Truncation::kOnlyFirst) {
    if (tokens.second >= budget) return EncodeStatus::kTextTooShort;
    kept = {budget - tokens.second, tokens.second};
  } else {
    if (!is_pair) return EncodeStatus::kSecondTextMissing;
    if (tokens.first >= budget) return EncodeStatus::kTextTooShort;
    kept = {tokens.first, budget - tokens.first};
  }
  return EncodeStatus::kOk;
}

struct Texts {
  const TextView* begin;
  const TextView* end;
};

Texts texts_of(const TextBatch& batch, std::size_t row, bool is_second) noexcept {
  const TextView* all = is_second ? batch.second : batch.first;
  const std::int64_t* words = is_second ? batch.second_words : batch.first_words;
  if (!words) return {all + row, all + row + 1};
  return {all + words[row], all + words[row + 1]};
}

bool is_too_long(const TextView& text) noexcept { return text.size > Tokenizer::kTextBytesMax; }

bool is_valid(const TextView& text) noexcept { return text.is_checked || is_utf8(text.view()); }

// Makes `chunks` the one chunk that stays.
void keep(std::size_t tokens, std::size_t kept, bool from_left, std::vector<Chunk>& chunks) {
  chunks.assign(1, from_left ? Chunk{tokens - kept, tokens} : Chunk{0, kept});
}

std::size_t multiply(std::size_t a, std::size_t b) noexcept {
  return b && a > std::numeric_limits<std::size_t>::max() / b ? std::numeric_limits<std::size_t>::max() : a * b;
}

void append_word(const TokenBuffer& word, std::int32_t index, TokenBuffer& out) {
  out.grow(word.size());
  const std::size_t at = out.size();
  std::copy_n(word.ids(), word.size(), out.ids() + at);
  if (out.with_spans()) {
    std::copy_n(word.begins(), word.size(), out.begins() + at);
    std::copy_n(word.ends(), word.size(), out.ends() + at);
    std::fill_n(out.words() + at, word.size(), index);
  }
  out.advance(word.size());
  for (AddedSpaces spaces : word.added_spaces()) {
    spaces.token += at;
    out.added_spaces().push_back(spaces);
  }
}

}  // namespace

std::size_t RowStore::bytes() const noexcept {
  return ids.bytes() + type_ids.bytes() + offsets.bytes() + special_mask.bytes() + word_ids.bytes() +
         sequence_ids.bytes() + ends.bytes() + flags.bytes() + samples.bytes();
}

void RowStore::clear() noexcept {
  ids.clear();
  type_ids.clear();
  offsets.clear();
  special_mask.clear();
  word_ids.clear();
  sequence_ids.clear();
  ends.clear();
  flags.clear();
  samples.clear();
}

void cut_chunks(std::size_t tokens, std::size_t kept, std::size_t stride, bool from_left, std::vector<Chunk>& out) {
  if (kept >= tokens) return out.push_back({0, tokens});
  if (kept == 0) {
    // Nothing stays, and the whole text is one piece of overflow.
    out.push_back({0, 0});
    return out.push_back({0, tokens});
  }
  const std::size_t step = kept - stride;
  if (from_left) {
    for (std::size_t end = tokens;; end -= step) {
      out.push_back({end > kept ? end - kept : 0, end});
      if (end <= kept) return;
    }
  }
  for (std::size_t begin = 0;; begin += step) {
    out.push_back({begin, std::min(begin + kept, tokens)});
    if (begin + kept >= tokens) return;
  }
}

void RowEncoder::Buffers::trim() {
  for (Sequence& sequence : sequences) {
    if (sequence.tokens.capacity() > kTokensKept) sequence.tokens = TokenBuffer{};
    if (sequence.chunks.capacity() > kTokensKept) sequence.chunks = std::vector<Chunk>();
  }
  if (word.capacity() > kTokensKept) word = TokenBuffer{};
}

RowEncoder::RowEncoder(const BlobView& blob) {
  const ConfigRecord& config = blob.config();
  templates_[0] = read_template(blob.records<TemplateRecord>(Section::kSingle));
  templates_[1] = read_template(blob.records<TemplateRecord>(Section::kPair));
  retypes_overflow_ = (config.config_flags & kRetypesOverflow) != 0;
  trims_offsets_ = (config.config_flags & kTrims) != 0;
  trim_adds_prefix_space_ = (config.config_flags & kTrimAddsPrefixSpace) != 0;
  pad_id_ = config.pad_id;
  pad_type_id_ = config.pad_type_id;
  if (!trims_offsets_) return;
  trims_ = blob.records<std::uint8_t>(Section::kTokenTrims);
  if (trims_.size() % 2) throw std::invalid_argument("the compiled tokenizer has half an offset trim");
}

RowEncoder::Template RowEncoder::read_template(std::span<const TemplateRecord> records) {
  Template made;
  for (const TemplateRecord& record : records) {
    const auto slot = static_cast<Slot>(record.slot);
    if (record.slot < 0 || record.slot > 2 || record.type_id < 0 || record.type_id > 255 ||
        (slot == Slot::kSpecial && record.token_id < 0))
      throw std::invalid_argument("the compiled tokenizer has a broken template");
    made.pieces.push_back({slot, static_cast<std::uint8_t>(record.type_id), record.token_id, true});
    slot == Slot::kSpecial ? ++made.specials : ++made.texts;
  }
  for (std::size_t i = 0; i < made.pieces.size(); ++i)
    for (std::size_t j = i + 1; j < made.pieces.size(); ++j)
      if (made.pieces[j].slot == made.pieces[i].slot) made.pieces[i].is_last = false;
  return made;
}

struct RowEncoder::RowPlan {
  const Template& pieces;
  const EncodeOptions& options;
  std::int32_t sample;
  std::uint8_t flags;
};

// Ends a row at the tokens there are.
void RowEncoder::push_row(const RowPlan& plan, RowStore& out) {
  out.flags.push(plan.flags);
  if (plan.options.return_overflow) out.samples.push(plan.sample);
  out.ends.push(static_cast<std::int64_t>(out.ids.size()));
}

// Tokens of the row's texts that its limit leaves room for.
EncodeStatus RowEncoder::find_budget(bool is_pair, const EncodeOptions& options, std::size_t& budget) const {
  budget = kNoLimit;
  if (options.tokens_max < 0 || options.truncation == Truncation::kNone) return EncodeStatus::kOk;
  const std::size_t added = options.add_special_tokens ? special_tokens_count(is_pair) : 0;
  const auto limit = static_cast<std::size_t>(options.tokens_max);
  if (limit < added) return EncodeStatus::kLimitBelowSpecialTokens;
  budget = limit - added;
  return EncodeStatus::kOk;
}

EncodeStatus RowEncoder::encode(const TextBatch& batch, std::size_t row, const EncodeOptions& options,
                                TokenSource& source, Buffers& buffers, RowStore& out) const {
  const bool is_pair = batch.is_pair(row);
  std::size_t budget;
  if (const EncodeStatus status = find_budget(is_pair, options, budget); status != EncodeStatus::kOk) return status;
  RowPlan plan{templates_[is_pair], options, static_cast<std::int32_t>(row), 0};
  for (const bool is_second : {false, true}) {
    if (is_second && !is_pair) break;
    const Texts texts = texts_of(batch, row, is_second);
    if (std::any_of(texts.begin, texts.end, is_too_long)) return EncodeStatus::kTextTooLong;
    if (!std::all_of(texts.begin, texts.end, is_valid)) plan.flags = kInvalid;
  }
  if (plan.flags & kInvalid) {
    push_row(plan, out);
    return EncodeStatus::kOk;
  }
  tokenize_all(batch, row, options, budget, source, buffers);
  const Lengths tokens{buffers.sequences[0].tokens.size(), buffers.sequences[1].tokens.size()};
  Lengths kept = tokens;
  if (tokens.first + tokens.second > budget) {
    plan.flags = kTruncated;
    const EncodeStatus status = share_budget(tokens, is_pair, budget, options.truncation, kept);
    if (status != EncodeStatus::kOk) return status;
    kept = {std::min(kept.first, tokens.first), std::min(kept.second, tokens.second)};
  }
  buffers.chosen.assign(plan.pieces.texts, 0);
  if (plan.flags & kTruncated && options.return_overflow) return lay_out_all(plan, kept.first, kept.second, buffers, out);
  keep(tokens.first, kept.first, options.truncate_left, buffers.sequences[0].chunks);
  keep(tokens.second, kept.second, options.truncate_left, buffers.sequences[1].chunks);
  lay_out(plan, buffers, out);
  return EncodeStatus::kOk;
}

// Fills the buffers' sequences with so many tokens that truncation to `budget` can be decided.
void RowEncoder::tokenize_all(const TextBatch& batch, std::size_t row, const EncodeOptions& options,
                              std::size_t budget, TokenSource& source, Buffers& buffers) const {
  const TokenBuffer& first = buffers.sequences[0].tokens;
  TokenBuffer& second = buffers.sequences[1].tokens;
  // One token past the budget tells that truncation is needed, and where from the right nothing else does.
  const std::size_t wanted = options.may_stop_early() && budget != kNoLimit ? budget + 1 : kNoLimit;
  tokenize(batch, row, false, options, wanted, source, buffers);
  second.reset(options.needs_spans());
  if (!batch.is_pair(row)) return;
  tokenize(batch, row, true, options, wanted, source, buffers);
  if (wanted == kNoLimit || budget % 2 == 0 || first.size() < wanted || second.size() < wanted) return;
  // Both are cut, and the odd token goes to the longer one: their true lengths matter.
  tokenize(batch, row, false, options, kNoLimit, source, buffers);
  tokenize(batch, row, true, options, kNoLimit, source, buffers);
}

// Stops once `wanted` tokens are there.
void RowEncoder::tokenize(const TextBatch& batch, std::size_t row, bool is_second, const EncodeOptions& options,
                          std::size_t wanted, TokenSource& source, Buffers& buffers) const {
  TokenBuffer& tokens = buffers.sequences[is_second].tokens;
  const Texts texts = texts_of(batch, row, is_second);
  TokenizeOptions how{wanted, options.split_special_tokens, options.needs_spans(),
                      trims_offsets_ && options.return_offsets};
  if (!batch.first_words) return source.tokenize(texts.begin->view(), how, tokens);
  tokens.reset(how.with_spans);
  for (const TextView* text = texts.begin; text != texts.end && tokens.size() < wanted; ++text) {
    if (wanted != kNoLimit) how.tokens_wanted = wanted - tokens.size();
    source.tokenize(text->view(), how, buffers.word);
    append_word(buffers.word, static_cast<std::int32_t>(text - texts.begin), tokens);
  }
}

EncodeStatus RowEncoder::lay_out_all(const RowPlan& plan, std::size_t kept_first, std::size_t kept_second,
                                     Buffers& buffers, RowStore& out) const {
  const auto stride = static_cast<std::size_t>(plan.options.stride);
  std::size_t kept = kept_first;
  for (Sequence& sequence : buffers.sequences) {
    const std::size_t tokens = sequence.tokens.size();
    if (kept < tokens && kept && stride >= kept) return EncodeStatus::kStrideTooBig;
    sequence.chunks.clear();
    cut_chunks(tokens, kept, stride, plan.options.truncate_left, sequence.chunks);
    kept = kept_second;
  }
  std::size_t rows = 1;
  std::size_t row_tokens = plan.options.add_special_tokens ? plan.pieces.specials : 0;
  for (const Piece& piece : plan.pieces.pieces) {
    if (piece.slot == Slot::kSpecial) continue;
    const std::vector<Chunk>& chunks = buffers.sequences[static_cast<int>(piece.slot)].chunks;
    rows = multiply(rows, chunks.size());
    std::size_t longest = 0;
    for (const Chunk& chunk : chunks) longest = std::max(longest, chunk.size());
    row_tokens += longest;
  }
  if (multiply(rows, row_tokens) > static_cast<std::size_t>(plan.options.overflow_tokens_max))
    return EncodeStatus::kTooMuchOverflow;
  lay_out(plan, buffers, out);
  lay_out_overflow(plan, 0, true, buffers, out);
  return EncodeStatus::kOk;
}

// Every combination of chunks but that of those that stay, in the order of Encoding::merge_with: the texts
// before `at` are chosen; `is_main` says that each of them is the chunk that stays.
void RowEncoder::lay_out_overflow(const RowPlan& plan, std::size_t at, bool is_main, Buffers& buffers,
                                  RowStore& out) const {
  if (at == buffers.chosen.size()) {
    if (!is_main) lay_out(plan, buffers, out);
    return;
  }
  std::size_t text = 0;
  const auto piece = std::find_if(plan.pieces.pieces.begin(), plan.pieces.pieces.end(), [&](const Piece& candidate) {
    return candidate.slot != Slot::kSpecial && text++ == at;
  });
  const std::size_t chunks = buffers.sequences[static_cast<int>(piece->slot)].chunks.size();
  for (std::size_t chunk = is_main ? 1 : 0; chunk < chunks; ++chunk) {
    buffers.chosen[at] = chunk;
    lay_out_overflow(plan, at + 1, false, buffers, out);
  }
  buffers.chosen[at] = 0;
  if (is_main) lay_out_overflow(plan, at + 1, true, buffers, out);
}

void RowEncoder::lay_out(const RowPlan& plan, const Buffers& buffers, RowStore& out) const {
  const EncodeOptions& options = plan.options;
  std::size_t size = options.add_special_tokens ? plan.pieces.specials : 0;
  std::size_t text = 0;
  for (const Piece& piece : plan.pieces.pieces)
    if (piece.slot != Slot::kSpecial)
      size += buffers.sequences[static_cast<int>(piece.slot)].chunks[buffers.chosen[text++]].size();

  std::int32_t* ids = out.ids.extend(size);
  std::uint8_t* type_ids = options.return_type_ids ? out.type_ids.extend(size) : nullptr;
  std::int32_t* offsets = options.return_offsets ? out.offsets.extend(2 * size) : nullptr;
  std::uint8_t* special_mask = options.return_special_mask ? out.special_mask.extend(size) : nullptr;
  std::int32_t* word_ids = options.return_word_ids ? out.word_ids.extend(size) : nullptr;
  std::int8_t* sequence_ids = options.return_sequence_ids ? out.sequence_ids.extend(size) : nullptr;
  push_row(plan, out);

  const bool retypes = retypes_overflow_ && options.add_special_tokens;
  text = 0;
  for (const Piece& piece : plan.pieces.pieces) {
    const bool is_special = piece.slot == Slot::kSpecial;
    if (is_special && !options.add_special_tokens) continue;
    const auto slot = static_cast<int>(piece.slot);
    const Sequence* sequence = is_special ? nullptr : &buffers.sequences[slot];
    const std::size_t chosen = is_special ? 0 : buffers.chosen[text++];
    const Chunk chunk = is_special ? Chunk{0, 1} : sequence->chunks[chosen];
    const std::size_t count = chunk.size();
    if (is_special) {
      *ids = piece.token_id;
    } else {
      std::copy_n(sequence->tokens.ids() + chunk.begin, count, ids);
    }
    ids += count;
    if (type_ids) {
      // Rows of overflow keep the types that their texts were encoded with.
      const int type = is_special || chosen == 0 || retypes ? piece.type_id : slot;
      type_ids = std::fill_n(type_ids, count, static_cast<std::uint8_t>(type));
    }
    if (offsets) {
      if (is_special) {
        offsets[0] = offsets[1] = 0;
      } else {
        write_offsets(*sequence, chunk, offsets);
      }
      offsets += 2 * count;
    }
    if (special_mask) special_mask = std::fill_n(special_mask, count, static_cast<std::uint8_t>(is_special));
    if (word_ids)
      word_ids = is_special ? std::fill_n(word_ids, 1, -1)
                            : std::copy_n(sequence->tokens.words() + chunk.begin, count, word_ids);
    if (sequence_ids)
      sequence_ids = std::fill_n(sequence_ids, count, static_cast<std::int8_t>(is_special || !piece.is_last ? -1 : slot));
  }
}

// process_offsets of processors/byte_level.rs, after truncation: what is first depends on the chunk.
void RowEncoder::write_offsets(const Sequence& sequence, Chunk chunk, std::int32_t* out) const {
  const TokenBuffer& tokens = sequence.tokens;
  for (std::size_t i = chunk.begin, at = 0; i < chunk.end; ++i, at += 2) {
    out[at] = tokens.begins()[i];
    out[at + 1] = tokens.ends()[i];
  }
  if (!trims_offsets_) return;
  const auto by_token = [](const AddedSpaces& spaces, std::size_t token) { return spaces.token < token; };
  const auto added_end = tokens.added_spaces().end();
  auto added = std::lower_bound(tokens.added_spaces().begin(), added_end, chunk.begin, by_token);
  for (std::size_t i = chunk.begin; i < chunk.end; ++i, out += 2) {
    std::size_t leading = 0, trailing = 0;
    const std::size_t entry = 2 * static_cast<std::size_t>(tokens.ids()[i]);
    if (added != added_end && added->token == i) {
      leading = added->leading;
      trailing = added->trailing;
      ++added;
    } else if (entry < trims_.size()) {
      leading = trims_[entry];
      trailing = trims_[entry + 1];
    }
    if (leading) {
      const bool is_first = i == chunk.begin || out[0] == 0;
      if (is_first && leading == 1 && trim_adds_prefix_space_) leading = 0;
      out[0] = static_cast<std::int32_t>(std::min<std::size_t>(static_cast<std::size_t>(out[0]) + leading,
                                                               static_cast<std::size_t>(out[1])));
    }
    if (trailing && static_cast<std::size_t>(out[1]) >= trailing)
      out[1] = std::max(out[1] - static_cast<std::int32_t>(trailing), out[0]);
  }
}

}  // namespace penstock
