// The normalisers of tokenizers 0.23.3 but for BERT's and Precompiled, as stages with alignments.
//
// All are linear in the text, but for runs of combining marks, which the normal forms sort (n log n). An object
// is immutable and may be shared by threads. Texts given to constructors are UTF-8; std::invalid_argument is
// thrown if they are not, or if they are empty where the reference's behaviour is not worth having.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/pipeline.h"
#include "penstock/unicode.h"

namespace penstock {

// Unicode normal forms, of Unicode 9.0.
enum class UnicodeForm : std::uint8_t { kNfc, kNfd, kNfkc, kNfkd };

// The quick check of a form: text whose characters all have this flag is left as it is, alignments included.
constexpr CharFlag inert_flag(UnicodeForm form) noexcept {
  constexpr CharFlag flags[] = {kNfcInert, kNfdInert, kNfkcInert, kNfkdInert};
  return flags[static_cast<std::size_t>(form)];
}

inline bool is_inert(UnicodeForm form, std::uint32_t code_point) noexcept {
  return code_point < 0x80 || (UnicodeTables::get().info(code_point).flags & inert_flag(form)) != 0;
}

// Whether the quick check holds for all of the text (valid UTF-8). Eight bytes of ASCII at a time.
bool is_inert(UnicodeForm form, std::string_view text) noexcept;

// Alignments are handed out in the order of the input while marks are sorted, so a mark may stand for another:
// that is how NormalizedString::transform takes what unicode-normalization gives it.
class UnicodeFormStage final : public NormalizerStage {
 public:
  explicit UnicodeFormStage(UnicodeForm form) noexcept : form_(form) {}
  void apply(AlignedText& text, AlignedText& spare, std::int32_t piece_begin) const override;

 private:
  void decompose(const AlignedText& text, AlignedText& parts) const;

  UnicodeForm form_;
};

// Character by character; U+0130 becomes two, and there is no final sigma.
class LowercaseStage final : public NormalizerStage {
 public:
  void apply(AlignedText& text, AlignedText& spare, std::int32_t piece_begin) const override;
};

// Deletes combining marks; decomposes nothing.
class StripAccentsStage final : public NormalizerStage {
 public:
  void apply(AlignedText& text, AlignedText& spare, std::int32_t piece_begin) const override;
};

// Deletes whitespace at the ends of the piece.
class StripStage final : public NormalizerStage {
 public:
  StripStage(bool left, bool right) noexcept : left_(left), right_(right) {}
  void apply(AlignedText& text, AlignedText& spare, std::int32_t piece_begin) const override;

 private:
  bool left_;
  bool right_;
};

// Replaces each occurrence of a literal, from left to right. What is put in its place stands for what the
// literal's last character stood for.
class ReplaceStage final : public NormalizerStage {
 public:
  // `pattern` must not be empty.
  ReplaceStage(std::string_view pattern, std::string_view content);
  void apply(AlignedText& text, AlignedText& spare, std::int32_t piece_begin) const override;

 private:
  std::vector<std::uint32_t> pattern_;
  std::vector<std::uint32_t> content_;
  // Of each beginning of the pattern, the size of the longest shorter one that it ends with (Knuth, Morris, Pratt).
  std::vector<std::size_t> fallback_;
};

// Replaces each run of two or more U+0020: the regular expression ` {2,}`.
class ReplaceSpaceRunsStage final : public NormalizerStage {
 public:
  explicit ReplaceSpaceRunsStage(std::string_view content);
  void apply(AlignedText& text, AlignedText& spare, std::int32_t piece_begin) const override;

 private:
  std::vector<std::uint32_t> content_;
};

// Puts text before the piece, unless the piece is empty; it stands for what the first character stands for.
class PrependStage final : public NormalizerStage {
 public:
  // `text` must not be empty.
  explicit PrependStage(std::string_view text);
  void apply(AlignedText& text, AlignedText& spare, std::int32_t piece_begin) const override;

 private:
  std::vector<std::uint32_t> text_;
};

}  // namespace penstock
