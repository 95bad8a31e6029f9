// What the text core needs to know of a character, exactly as tokenizers 0.23.3 sees it.
//
// The tables mix Unicode versions on purpose (8.0 punctuation and BERT's marks, 9.0 normal forms, 16.0 letters,
// Rust's lower case, 17.0 grapheme clusters): see tools/generate_unicode_tables.py, which observed them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace penstock {

enum CharFlag : std::uint32_t {
  kCleanRemoved = 1,      // clean_text deletes it
  kCleanSpace = 1 << 1,   // clean_text turns it into a space
  kCjk = 1 << 2,          // handle_chinese_chars puts spaces around it
  kMark = 1 << 3,         // BERT's strip_accents deletes it
  kWhitespace = 1 << 4,   // separates words: BERT, WhitespaceSplit, \s of every regular expression, Strip
  kPunctuation = 1 << 5,  // is a word of its own: BERT and Punctuation
  kWord = 1 << 6,         // \w: Whitespace; a single_word added token does not match beside it
  kAnyMark = 1 << 7,      // the normaliser StripAccents deletes it
  kLetter = 1 << 8,       // \p{L} of ByteLevel
  kNumber = 1 << 9,       // \p{N} of ByteLevel
  kNumeric = 1 << 10,     // what Digits splits at
  // Quick checks: text of such characters alone is its own normal form, alignments included. All of ASCII is.
  kNfdInert = 1 << 11,
  kNfcInert = 1 << 12,
  kNfkdInert = 1 << 13,
  kNfkcInert = 1 << 14,
  kHangul = 1 << 15,    // a syllable, which decomposes by arithmetic
  kComposes = 1 << 16,  // may compose with a character before it
};

// Syllables are composed by arithmetic (Unicode Standard, section 3.12); kTailFirst itself stands for no tail.
namespace hangul {
constexpr std::uint32_t kSyllableFirst = 0xAC00, kLeadFirst = 0x1100, kVowelFirst = 0x1161, kTailFirst = 0x11A7;
constexpr std::uint32_t kLeadCount = 19, kVowelCount = 21, kTailCount = 28;
constexpr std::uint32_t kSyllableCount = kLeadCount * kVowelCount * kTailCount;
}  // namespace hangul

// Classes of UAX #29. An Extend character takes part in Indic conjuncts unless it is kPlainExtend.
enum class GraphemeClass : std::uint8_t {
  kOther, kControl, kCr, kLf, kPrepend, kSpacingMark, kExtend, kPlainExtend, kLinker, kJoiner, kRegional,
  kPictographic, kConsonant, kLead, kVowel, kTail, kSyllable,
};

struct CharInfo {
  std::uint32_t flags = 0;          // CharFlag
  std::int32_t lower_distance = 0;  // add to get the lower case; U+0130 is not in the table
  std::uint16_t decomposition = 0;  // 1 + index into the decompositions, 0 for none; Hangul is arithmetic
  std::uint16_t compatibility = 0;  // the same for NFKD, 0 where that is the canonical decomposition
  std::uint8_t combining_class = 0;
  GraphemeClass grapheme = GraphemeClass::kOther;

  bool operator==(const CharInfo&) const = default;
};

// Full decomposition of a character: `size` code points, in canonical order.
struct Decomposition {
  const std::int32_t* code_points;
  std::size_t size;
};

// Three-stage table over all code points: 17 KiB of blocks, 71 KiB of indices and 92 KiB of entries (most of them
// for the one character that decomposes so), and 114 KiB for decomposing and composing. Built on first use (4 ms,
// Zen 4), immutable after.
class UnicodeTables {
 public:
  static const UnicodeTables& get();

  // `code_point` must be below 0x110000.
  const CharInfo& info(std::uint32_t code_point) const noexcept {
    const std::size_t block = block_of_[code_point >> kShift];
    return entries_[indices_[(block << kShift) + (code_point & kMask)]];
  }

  // `index` is CharInfo::decomposition or compatibility, not 0.
  Decomposition decomposition(std::uint16_t index) const noexcept { return decompositions_[index - 1U]; }

  // What NFC makes of two characters side by side, Hangul included, or 0 if they do not compose.
  std::uint32_t compose(std::uint32_t first, std::uint32_t second) const noexcept;

  // Memory that the tables take.
  std::size_t bytes() const noexcept;

 private:
  static constexpr unsigned kShift = 7;
  static constexpr std::uint32_t kMask = (1U << kShift) - 1;

  struct Composition {
    std::uint32_t first = 0, second = 0, composed = 0;
  };

  UnicodeTables();
  void add_composition(Composition added);
  void pack(std::vector<std::uint16_t>& ids, const std::vector<CharInfo>& entries);

  std::vector<std::uint16_t> block_of_;
  std::vector<std::uint16_t> indices_;
  std::vector<CharInfo> entries_;
  std::vector<Decomposition> decompositions_;
  std::vector<Composition> compositions_;  // a hash table with linear probing
};

}  // namespace penstock
