// The inner loops of byte-level tokenising: where words begin, and what the word cache has for them.
//
// The same loops are compiled for several instruction sets; which is used is decided when the process runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "penstock/word_cache.h"

namespace penstock {

enum class Instructions : std::uint8_t { kPortable, kAvx2, kAvx512 };

// The best that this machine has.
Instructions best_instructions() noexcept;

// What GPT-2's regex distinguishes, and what normalisers leave alone. Built once, immutable.
class ByteLevelClasses {
 public:
  enum Class : std::uint8_t { kOther, kLetter, kNumber, kSpace };
  static constexpr std::uint8_t kClassMask = 3;
  static constexpr unsigned kInertShift = 2;  // bit 2 + form: text of such characters is in this normal form

  static const ByteLevelClasses& get();

  std::uint8_t operator[](std::uint32_t code_point) const noexcept {
    return entries_[static_cast<std::size_t>(block_of_[code_point >> 8]) << 8 | (code_point & 0xFF)];
  }

 private:
  static constexpr std::size_t kBlocks = 0x110000 >> 8;
  ByteLevelClasses();

  std::uint16_t block_of_[kBlocks];
  std::unique_ptr<std::uint8_t[]> entries_;
};

// Finds where the words of a text begin, some hundred at a time. The matches of GPT-2's regex follow from runs
// of characters of one class: a word begins where a run does, or at the single space before it; whitespace
// before a word gives its last character away; contractions are mended after that. See byte_level_scan.inc.
struct WordWindow {
  static constexpr std::uint32_t kWordsMax = 256;
  static constexpr std::uint32_t kRoom = kWordsMax + 64 + 16;  // a block has up to 64; written 8 at a time

  // Without points the code points of starts are not counted.
  WordWindow(std::string_view whole_text, std::int32_t first_code_point, bool counts_points) noexcept;

  // What the loops below need between blocks.
  struct Carry {
    std::uint64_t letter = 0, number = 0, other = 0, space = 0, blank = 0;  // of the byte before, in bit 0
    std::uint64_t set = 0, clear = 0;        // starts to add and to drop in the next block
    std::uint64_t in_character = 0;          // bytes that belong to a character begun before
    std::uint8_t in_class = 0;
  };

  const char* text;
  std::size_t size;
  std::size_t at = 0;       // bytes scanned
  bool with_points;
  std::int32_t shift;       // code point index of a byte less its position: of the next block
  std::uint32_t count = 0;  // starts found
  Carry carry;
  std::size_t tail_begin;   // where `tail` begins in the text
  char tail[32];            // its end, and zeros: words near the end are read here

  std::uint32_t starts[kRoom];
  std::int32_t points[kRoom];  // the starts in code points; nothing without points
  std::uint32_t buckets[kWordsMax + 64];
  ShortKey keys[kWordsMax + 64];

  bool is_finished() const noexcept { return at >= size; }
};

// Where emitted tokens go: each pointer has room for 3 tokens a word and 4 more. The last three are null
// without spans.
struct TokenSink {
  std::int32_t* ids;
  std::int32_t* begins;
  std::int32_t* ends;
  std::int32_t* words;
  std::size_t size;         // tokens written
  std::int32_t first_word;  // index of the window's first word
};

struct ByteLevelLoops {
  // Scans on until there are more than `words` starts (at most kWordsMax) or the text is at its end.
  void (*scan)(WordWindow& window, std::uint32_t words, const ByteLevelClasses& classes) noexcept;
  // Makes the keys of words 0 to `words` - 1, whose ends are known, and prefetches their buckets.
  void (*make_keys)(WordWindow& window, std::uint32_t words, const WordCache& cache) noexcept;
  // Emits the tokens of words from `word` on and returns the first that the cache's short entries lack, or
  // `words`.
  std::uint32_t (*emit_ids)(const WordWindow& window, std::uint32_t word, std::uint32_t words,
                            const WordCache& cache, TokenSink& sink) noexcept;
  std::uint32_t (*emit_spans)(const WordWindow& window, std::uint32_t word, std::uint32_t words,
                              const WordCache& cache, TokenSink& sink) noexcept;
};

// The machine must have the instructions.
const ByteLevelLoops& byte_level_loops(Instructions instructions) noexcept;

// Size of the first match of GPT-2's regex in " " + text, less that space. Linear in what it returns.
std::size_t first_match_after_space(std::string_view text, const ByteLevelClasses& classes) noexcept;

}  // namespace penstock
