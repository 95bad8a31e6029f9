// Extended grapheme clusters (UAX #29) as tokenizers 0.23.3 sees them: the Precompiled normaliser works on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "penstock/aligned_text.h"
#include "penstock/unicode.h"

namespace penstock {

// Finds the clusters of characters that come one after the other.
class GraphemeBreaker {
 public:
  // Whether a cluster begins with this character (below 0x110000); always true for the first.
  bool begins(std::uint32_t code_point) noexcept;

 private:
  // How much of "pictograph, extenders, joiner" or "consonant, extenders, linker" lies just before.
  enum class Progress : std::uint8_t { kNone, kStarted, kComplete };

  bool joins(GraphemeClass next) const noexcept;

  // A syllable is followed by what may follow its last sound, so it is remembered as kVowel or kTail.
  GraphemeClass previous_ = GraphemeClass::kControl;
  Progress pictograph_ = Progress::kNone;
  Progress conjunct_ = Progress::kNone;
  bool is_half_flag_ = false;
};

// End of the cluster that begins at `at`, which must be the begin of a cluster before the end of the text.
// Linear in the cluster's size. Valid UTF-8 only.
std::size_t next_grapheme(std::string_view text, std::size_t at) noexcept;

// The same for characters; `at` and the result are indices.
std::size_t next_grapheme(const AlignedText& text, std::size_t at) noexcept;

}  // namespace penstock
