#include "penstock/wordpiece.h"

#include <algorithm>
#include <limits>
#include <new>
#include <stdexcept>

#include "penstock/utf8.h"

namespace penstock {
namespace {

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();
// Normalised at a time: small enough to stay in the cache and to stop soon after the limit.
constexpr std::size_t kChunkBytes = 4096;

bool is_ascii_space(char c) noexcept { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// Where the chunk that starts at `begin` ends: after the first ASCII whitespace past kChunkBytes.
std::size_t chunk_end(std::string_view text, std::size_t begin) noexcept {
  std::size_t end = begin + kChunkBytes;
  if (end >= text.size()) return text.size();
  while (end < text.size() && !is_ascii_space(text[end - 1])) ++end;
  return end;
}

// Code point index of byte positions that mostly move forward.
class CodePointCounter {
 public:
  explicit CodePointCounter(std::string_view text) noexcept : text_(text) {}

  std::int32_t at(std::size_t position) noexcept {
    if (position >= position_) {
      index_ += count_code_points(text_.substr(position_, position - position_));
    } else {
      index_ -= count_code_points(text_.substr(position, position_ - position));
    }
    position_ = position;
    return static_cast<std::int32_t>(index_);
  }

 private:
  std::string_view text_;
  std::size_t position_ = 0;
  std::size_t index_ = 0;
};

struct Lengths {
  std::size_t first;
  std::size_t second;
};

// "longest_first" of tokenizers (utils/truncation.rs): closed form, not one token at a time. The odd token
// goes to the longer text, or to the second of equally long ones.
Lengths longest_first(std::size_t first, std::size_t second, std::size_t budget) noexcept {
  if (first + second <= budget) return {first, second};
  const bool is_swapped = first > second;
  std::size_t shorter = std::min(first, second);
  std::size_t longer = shorter > budget ? shorter : std::max(shorter, budget - shorter);
  if (shorter + longer > budget) {
    shorter = budget / 2;
    longer = shorter + budget % 2;
  }
  return is_swapped ? Lengths{longer, shorter} : Lengths{shorter, longer};
}

std::vector<AddedToken> normalize_contents(std::vector<AddedToken> tokens, const NormalizerOptions& options) {
  std::vector<AlignedChar> chars;
  for (AddedToken& token : tokens) {
    chars.clear();
    BertNormalizer(options, 0).append(token.content, chars);
    token.content.clear();
    for (const AlignedChar& c : chars) append_utf8(token.content, c.code_point);
  }
  return tokens;
}

}  // namespace

struct WordPieceTokenizer::Scratch {
  std::vector<AlignedChar> chars;
  std::string word;
  std::string normalized;
  std::vector<std::uint32_t> char_of_byte;
  std::vector<Token> first;
  std::vector<Token> second;
};

// The tokens of one text that stay after truncation.
struct WordPieceTokenizer::Sequence {
  const Token* tokens;
  std::size_t size;

  Sequence(const std::vector<Token>& all, std::size_t kept, bool from_left) noexcept
      : tokens(all.data() + (from_left ? all.size() - std::min(kept, all.size()) : 0)),
        size(std::min(kept, all.size())) {}
};

WordPieceTokenizer::WordPieceTokenizer(const WordPieceSpec& spec)
    : unknown_id_(spec.unknown_id),
      word_chars_max_(spec.word_chars_max),
      normalizer_(spec.normalizer),
      raw_tokens_(spec.raw_tokens),
      normalized_tokens_(normalize_contents(spec.normalized_tokens, spec.normalizer)),
      single_(spec.single),
      pair_(spec.pair) {
  // Built here, where running out of memory can be told; encoding may not throw.
  UnicodeTables::get();
  for (const auto& [token, id] : spec.vocabulary) vocabulary_.insert(token, id);
  continuation_ = vocabulary_.find(spec.continuing_prefix);
}

std::size_t WordPieceTokenizer::special_tokens_count(bool is_pair) const noexcept {
  const auto& pieces = is_pair ? pair_ : single_;
  return static_cast<std::size_t>(std::count_if(pieces.begin(), pieces.end(), [](const TemplatePiece& piece) {
    return piece.kind == TemplatePiece::Kind::kSpecial;
  }));
}

EncodeStatus WordPieceTokenizer::encode(const TextView* texts, const TextView* pairs, std::size_t rows,
                                        const EncodeOptions& options, EncodedRows& out) const noexcept {
  try {
    Scratch scratch;
    for (std::size_t row = 0; row < rows; ++row) {
      const TextView* pair = pairs && pairs[row].data ? &pairs[row] : nullptr;
      const EncodeStatus status = encode_row(texts[row], pair, options, scratch, out);
      if (status != EncodeStatus::kOk) return status;
      out.starts.push_back(static_cast<std::int64_t>(out.ids.size()));
    }
    return EncodeStatus::kOk;
  } catch (const std::bad_alloc&) {
    return EncodeStatus::kOutOfMemory;
  } catch (const std::length_error&) {
    return EncodeStatus::kOutOfMemory;
  }
}

EncodeStatus WordPieceTokenizer::encode_row(const TextView& text, const TextView* pair,
                                            const EncodeOptions& options, Scratch& scratch,
                                            EncodedRows& out) const {
  const std::string_view first{text.data, text.size};
  const std::string_view second{pair ? pair->data : "", pair ? pair->size : 0};
  if (first.size() > kTextBytesMax || second.size() > kTextBytesMax) return EncodeStatus::kTextTooLong;

  std::size_t budget = kNoLimit;
  if (options.tokens_max >= 0) {
    const std::size_t added = options.add_special_tokens ? special_tokens_count(pair != nullptr) : 0;
    budget = static_cast<std::size_t>(options.tokens_max);
    if (budget < added) return EncodeStatus::kLimitBelowSpecialTokens;
    budget -= added;
  }
  const bool is_valid =
      (text.is_checked || is_utf8(first)) && (!pair || pair->is_checked || is_utf8(second));
  out.valid.push_back(is_valid);
  if (!is_valid) {
    out.truncated.push_back(false);
    return EncodeStatus::kOk;
  }

  // One token past the budget tells that truncation is needed, and where from the right nothing else does.
  const std::size_t wanted = options.truncate_left || budget == kNoLimit ? kNoLimit : budget + 1;
  tokenize(first, wanted, scratch, scratch.first);
  scratch.second.clear();
  if (pair) tokenize(second, wanted, scratch, scratch.second);
  if (pair && budget != kNoLimit && budget % 2 && scratch.first.size() >= wanted && scratch.second.size() >= wanted) {
    // Both are cut, and the odd token goes to the longer one: their true lengths matter.
    tokenize(first, kNoLimit, scratch, scratch.first);
    tokenize(second, kNoLimit, scratch, scratch.second);
  }
  const std::size_t total = scratch.first.size() + scratch.second.size();
  const Lengths kept = pair ? longest_first(scratch.first.size(), scratch.second.size(), budget)
                            : Lengths{std::min(total, budget), 0};
  out.truncated.push_back(total > budget);
  lay_out(pair ? pair_ : single_, Sequence(scratch.first, kept.first, options.truncate_left),
          Sequence(scratch.second, kept.second, options.truncate_left), options, out);
  return EncodeStatus::kOk;
}

// Stops once `tokens_wanted` are there.
void WordPieceTokenizer::tokenize(std::string_view text, std::size_t tokens_wanted, Scratch& scratch,
                                  std::vector<Token>& out) const {
  out.clear();
  if (raw_tokens_.empty()) {
    tokenize_piece(text, 0, tokens_wanted, scratch, out);
    return;
  }
  CodePointCounter counter(text);
  raw_tokens_.split(text, false, [&](const AddedToken* token, std::size_t begin, std::size_t end) {
    const std::int32_t first = counter.at(begin);
    if (!token) return tokenize_piece(text.substr(begin, end - begin), first, tokens_wanted, scratch, out);
    out.push_back({token->id, first, counter.at(end)});
    return out.size() < tokens_wanted;
  });
}

bool WordPieceTokenizer::tokenize_piece(std::string_view piece, std::int32_t first, std::size_t tokens_wanted,
                                        Scratch& scratch, std::vector<Token>& out) const {
  BertNormalizer normalizer(normalizer_, first);
  if (!normalized_tokens_.empty()) {
    // These may span whitespace, so the piece must be there as a whole.
    scratch.chars.clear();
    normalizer.append(piece, scratch.chars);
    return tokenize_normalized(tokens_wanted, scratch, out);
  }
  for (std::size_t begin = 0; begin < piece.size();) {
    const std::size_t end = chunk_end(piece, begin);
    scratch.chars.clear();
    normalizer.append(piece.substr(begin, end - begin), scratch.chars);
    const AlignedChar* chars = scratch.chars.data();
    if (!cut_words(chars, chars + scratch.chars.size(), tokens_wanted, scratch, out)) return false;
    begin = end;
  }
  return true;
}

bool WordPieceTokenizer::tokenize_normalized(std::size_t tokens_wanted, Scratch& scratch,
                                             std::vector<Token>& out) const {
  scratch.normalized.clear();
  scratch.char_of_byte.clear();
  for (std::size_t i = 0; i < scratch.chars.size(); ++i) {
    append_utf8(scratch.normalized, scratch.chars[i].code_point);
    scratch.char_of_byte.resize(scratch.normalized.size(), static_cast<std::uint32_t>(i));
  }
  scratch.char_of_byte.push_back(static_cast<std::uint32_t>(scratch.chars.size()));
  bool is_unfinished = true;
  const AlignedChar* chars = scratch.chars.data();
  normalized_tokens_.split(scratch.normalized, false, [&](const AddedToken* token, std::size_t begin, std::size_t end) {
    const AlignedChar* from = chars + scratch.char_of_byte[begin];
    const AlignedChar* to = chars + scratch.char_of_byte[end];
    if (token) {
      out.push_back({token->id, from->begin, (to - 1)->end});
      is_unfinished = out.size() < tokens_wanted;
    } else {
      is_unfinished = cut_words(from, to, tokens_wanted, scratch, out);
    }
    return is_unfinished;
  });
  return is_unfinished;
}

bool WordPieceTokenizer::cut_words(const AlignedChar* begin, const AlignedChar* end, std::size_t tokens_wanted,
                                   Scratch& scratch, std::vector<Token>& out) const {
  const UnicodeTables& tables = UnicodeTables::get();
  const AlignedChar* word = begin;
  for (const AlignedChar* at = begin; at != end; ++at) {
    const std::uint8_t flags = tables.info(at->code_point).flags;
    if (!(flags & (kWhitespace | kPunctuation))) continue;
    if (word != at) cut_word(word, at, scratch.word, out);
    if (flags & kPunctuation && !(flags & kWhitespace)) cut_word(at, at + 1, scratch.word, out);
    word = at + 1;
    if (out.size() >= tokens_wanted) return false;
  }
  if (word != end) cut_word(word, end, scratch.word, out);
  return out.size() < tokens_wanted;
}

void WordPieceTokenizer::cut_word(const AlignedChar* begin, const AlignedChar* end, std::string& word,
                                  std::vector<Token>& out) const {
  const Token unknown{unknown_id_, begin->begin, (end - 1)->end};
  if (end - begin > word_chars_max_) {
    out.push_back(unknown);
    return;
  }
  word.clear();
  for (const AlignedChar* c = begin; c != end; ++c) append_utf8(word, c->code_point);
  const std::size_t tokens_before = out.size();
  const AlignedChar* piece = begin;
  for (std::size_t at = 0; at < word.size();) {
    const Trie::Node node = at ? continuation_ : Trie::kRoot;
    const std::string_view rest = std::string_view(word).substr(at);
    const Trie::Match match = node == Trie::kNone ? Trie::Match{Trie::kNoValue, 0} : vocabulary_.longest(rest, node);
    if (!match.size) {
      // One part that is not in the vocabulary makes the whole word unknown.
      out.resize(tokens_before);
      out.push_back(unknown);
      return;
    }
    const AlignedChar* next = piece + count_code_points(rest.substr(0, match.size));
    out.push_back({match.value, piece->begin, (next - 1)->end});
    piece = next;
    at += match.size;
  }
}

void WordPieceTokenizer::lay_out(const std::vector<TemplatePiece>& pieces, const Sequence& first,
                                 const Sequence& second, const EncodeOptions& options, EncodedRows& out) const {
  const auto add = [&](const Token& token, std::uint8_t type_id) {
    out.ids.push_back(token.id);
    out.type_ids.push_back(type_id);
    if (options.return_offsets) out.offsets.insert(out.offsets.end(), {token.begin, token.end});
  };
  for (const TemplatePiece& piece : pieces) {
    if (piece.kind == TemplatePiece::Kind::kSpecial) {
      if (options.add_special_tokens) add({piece.special_id, 0, 0}, piece.type_id);
      continue;
    }
    const Sequence& sequence = piece.kind == TemplatePiece::Kind::kFirst ? first : second;
    for (std::size_t i = 0; i < sequence.size; ++i) add(sequence.tokens[i], piece.type_id);
  }
}

}  // namespace penstock
