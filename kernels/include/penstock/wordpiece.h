// WordPiece as Hugging Face tokenizers 0.23.3 computes it: ids, type ids and offsets, bit for bit.
//
// The way of a text: split at added tokens; normalise each piece between them (normalizer.h); split at added
// tokens that are matched on normalised text; cut into words at whitespace and punctuation; cut each word into
// the longest vocabulary entries from left to right; truncate; lay out by the template.
//
// Everything is linear in the text, times the longest vocabulary entry. Time is bounded for any input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "penstock/added_tokens.h"
#include "penstock/normalizer.h"
#include "penstock/trie.h"

namespace penstock {

// One element of a template: the first text, the second, or a special token.
struct TemplatePiece {
  enum class Kind : std::uint8_t { kFirst, kSecond, kSpecial };
  Kind kind;
  std::uint8_t type_id;
  std::int32_t special_id;
};

struct WordPieceSpec {
  std::vector<std::pair<std::string, std::int32_t>> vocabulary;
  std::string continuing_prefix;
  std::int32_t unknown_id;
  std::int64_t word_chars_max;  // longer words, counted after normalisation, are unknown
  NormalizerOptions normalizer;
  std::vector<AddedToken> raw_tokens;         // matched on the text as it is
  std::vector<AddedToken> normalized_tokens;  // matched, normalised themselves, on normalised text
  std::vector<TemplatePiece> single;
  std::vector<TemplatePiece> pair;
};

struct EncodeOptions {
  std::int64_t tokens_max;  // special tokens included; negative for no limit
  bool truncate_left;
  bool add_special_tokens;
  bool return_offsets;
};

// One text as UTF-8. `data` is null where a row has no second text. Not owned.
struct TextView {
  const char* data = nullptr;
  std::size_t size = 0;
  bool is_checked = false;  // known to be valid UTF-8
};

// Encoded rows; see TokenRows in rows.py for the meaning of each array.
struct EncodedRows {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> type_ids;
  std::vector<std::int64_t> starts{0};
  std::vector<std::uint8_t> truncated;
  std::vector<std::uint8_t> valid;
  std::vector<std::int32_t> offsets;  // two for each id, or empty
};

enum class EncodeStatus : int { kOk = 0, kLimitBelowSpecialTokens = 1, kTextTooLong = 2, kOutOfMemory = 3 };

// Immutable after construction: any number of threads may encode at once.
class WordPieceTokenizer {
 public:
  static constexpr std::size_t kTextBytesMax = 0x7FFFFFFF;

  // Throws std::invalid_argument if two added tokens that are matched on normalised text become the same, or
  // nothing, when normalised.
  explicit WordPieceTokenizer(const WordPieceSpec& spec);

  // Encodes `rows` texts, with second texts where `pairs` (may be null) has them. Texts are read only during
  // the call. Fills `out`, which must be fresh. Allocates per call and row, not per token.
  EncodeStatus encode(const TextView* texts, const TextView* pairs, std::size_t rows, const EncodeOptions& options,
                      EncodedRows& out) const noexcept;

  // Special tokens that the template adds to one text or to a pair.
  std::size_t special_tokens_count(bool is_pair) const noexcept;

 private:
  struct Token {
    std::int32_t id;
    std::int32_t begin;
    std::int32_t end;
  };
  struct Scratch;
  struct Sequence;

  EncodeStatus encode_row(const TextView& text, const TextView* pair, const EncodeOptions& options,
                          Scratch& scratch, EncodedRows& out) const;
  void tokenize(std::string_view text, std::size_t tokens_wanted, Scratch& scratch, std::vector<Token>& out) const;
  bool tokenize_piece(std::string_view piece, std::int32_t first, std::size_t tokens_wanted, Scratch& scratch,
                      std::vector<Token>& out) const;
  bool tokenize_normalized(std::size_t tokens_wanted, Scratch& scratch, std::vector<Token>& out) const;
  bool cut_words(const AlignedChar* begin, const AlignedChar* end, std::size_t tokens_wanted, Scratch& scratch,
                 std::vector<Token>& out) const;
  void cut_word(const AlignedChar* begin, const AlignedChar* end, std::string& word, std::vector<Token>& out) const;
  void lay_out(const std::vector<TemplatePiece>& pieces, const Sequence& first, const Sequence& second,
               const EncodeOptions& options, EncodedRows& out) const;

  Trie vocabulary_;
  Trie::Node continuation_;
  std::int32_t unknown_id_;
  std::int64_t word_chars_max_;
  NormalizerOptions normalizer_;
  AddedTokens raw_tokens_;
  AddedTokens normalized_tokens_;
  std::vector<TemplatePiece> single_;
  std::vector<TemplatePiece> pair_;
};

}  // namespace penstock
