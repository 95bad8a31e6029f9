// Text on its way through normalisers and pre-tokenisers: characters that know what they stand for.
#pragma once

#include <cstdint>
#include <vector>

namespace penstock {

// One character and the code points of the original text, [begin, end), that it stands for.
struct AlignedChar {
  std::uint32_t code_point;
  std::int32_t begin;
  std::int32_t end;

  bool operator==(const AlignedChar&) const = default;
};

using AlignedText = std::vector<AlignedChar>;

// A piece of text cut into words: the splits of tokenizers' PreTokenizedString, in order. Empty words are
// left out by whoever cuts.
struct Words {
  struct Word {
    std::uint32_t begin;  // of chars
    std::uint32_t end;
    // Where the original slice of this split begins, in code points: where its first character that is left does.
    std::int32_t origin;

    bool operator==(const Word&) const = default;
  };

  AlignedText chars;
  std::vector<Word> words;

  void clear() noexcept {
    chars.clear();
    words.clear();
  }
};

}  // namespace penstock
