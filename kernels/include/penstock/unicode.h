// What the BERT pipeline needs to know of a character, exactly as tokenizers 0.23.3 sees it.
//
// The tables mix Unicode versions on purpose (8.0 punctuation and marks, 9.0 NFD, Rust's lower case): see
// tools/generate_unicode_tables.py, which observed them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace penstock {

enum CharFlag : std::uint8_t {
  kCleanRemoved = 1,  // clean_text deletes it
  kCleanSpace = 2,    // clean_text turns it into a space
  kCjk = 4,           // handle_chinese_chars puts spaces around it
  kMark = 8,          // strip_accents deletes it
  kWhitespace = 16,   // separates words
  kPunctuation = 32,  // is a word of its own
  kWord = 64,         // a single_word added token does not match beside it
};

struct CharInfo {
  std::uint8_t flags = 0;
  std::uint8_t combining_class = 0;
  std::uint16_t decomposition = 0;   // 1 + index into the decompositions, 0 for none; Hangul is arithmetic
  std::int32_t lower_distance = 0;   // add to get the lower case; U+0130 is not in the table

  bool operator==(const CharInfo&) const = default;
};

// Canonical decomposition of a character: `size` code points.
struct Decomposition {
  const std::int32_t* code_points;
  std::size_t size;
};

// Two-stage table over all code points, about 350 KiB; built on first use (~2 ms), immutable after.
class UnicodeTables {
 public:
  static const UnicodeTables& get();

  // `code_point` must be below 0x110000.
  const CharInfo& info(std::uint32_t code_point) const noexcept {
    return blocks_[(static_cast<std::size_t>(block_of_[code_point >> kShift]) << kShift) + (code_point & kMask)];
  }

  // `index` is CharInfo::decomposition, not 0.
  Decomposition decomposition(std::uint16_t index) const noexcept { return decompositions_[index - 1U]; }

 private:
  static constexpr unsigned kShift = 7;
  static constexpr std::uint32_t kMask = (1U << kShift) - 1;

  UnicodeTables();

  std::vector<std::uint16_t> block_of_;
  std::vector<CharInfo> blocks_;
  std::vector<Decomposition> decompositions_;
};

}  // namespace penstock
