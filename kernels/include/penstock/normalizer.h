// The BertNormalizer of Hugging Face tokenizers 0.23.3, with its alignments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "penstock/aligned_text.h"
#include "penstock/unicode.h"

namespace penstock {

struct NormalizerOptions {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool lowercase = true;
};

// Normalises one piece of text (what lies between added tokens), possibly in several chunks. The order of
// stages, and how alignments follow characters through decomposition and reordering, are those of
// tokenizers: bert.rs and normalizer.rs (transform_range, filter). Linear but for runs of combining marks,
// which are sorted. One object per piece and thread.
class BertNormalizer {
 public:
  // `first` is the index, in code points of the input, of the piece's first character.
  BertNormalizer(const NormalizerOptions& options, std::int32_t first) noexcept
      : options_(options), index_(first), last_{first, first} {}

  // Appends the normalised form of valid UTF-8 to `out`. Chunks must end after ASCII whitespace or at the
  // end of the piece, or marks would not be reordered across the cut.
  void append(std::string_view chunk, AlignedText& out);

  // The same for characters that stand for something already: push each, then end the piece.
  void push(const AlignedChar& c, AlignedText& out);
  void end(AlignedText& out) { flush(out); }

 private:
  struct Span {
    std::int32_t begin;
    std::int32_t end;
  };
  // A decomposed character that waits for its place; `consumes` says that it takes the next input's span.
  struct Pending {
    std::uint32_t code_point;
    std::uint8_t combining_class;
    bool consumes;
  };

  void decompose(std::uint32_t c, const CharInfo& info, Span span, AlignedText& out);
  void decompose_hangul(std::uint32_t c, AlignedText& out);
  void reorder(std::uint32_t c, bool consumes, AlignedText& out);
  void flush(AlignedText& out);
  void emit_decomposed(std::uint32_t c, bool consumes, AlignedText& out);
  void finish(std::uint32_t c, const CharInfo& info, Span span, AlignedText& out) const;

  const UnicodeTables& tables_ = UnicodeTables::get();
  NormalizerOptions options_;
  std::int32_t index_;
  // Span that was consumed last: characters that NFD inserts copy it. Empty at the piece's start.
  Span last_;
  std::vector<Pending> pending_;
  std::vector<Span> spans_;
  std::size_t spans_used_ = 0;
};

}  // namespace penstock
