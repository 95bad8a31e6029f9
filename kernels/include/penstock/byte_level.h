// ByteLevel: GPT-2's pre-tokeniser.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "penstock/pipeline.h"

namespace penstock {

// The character that stands for each byte: the byte itself where it is visible in Latin-1, else the next one
// from U+0100.
constexpr std::array<std::uint16_t, 256> byte_characters() noexcept {
  std::array<std::uint16_t, 256> characters{};
  std::uint16_t next = 0x100;
  for (std::uint16_t byte = 0; byte < 256; ++byte) {
    const bool is_visible = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    characters[byte] = is_visible ? byte : next++;
  }
  return characters;
}

// Cuts each word by GPT-2's regex
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// and spells it in bytes, each written as a character that stands for what the byte's character stood for.
// A space that add_prefix_space puts first stands for the same as the word's first character. Linear.
class ByteLevelStage final : public PreTokenizerStage {
 public:
  ByteLevelStage(bool add_prefix_space, bool use_regex) noexcept
      : add_prefix_space_(add_prefix_space), use_regex_(use_regex) {}
  void apply(Words& words, Words& spare) const override;

 private:
  bool add_prefix_space_;
  bool use_regex_;
};

// End of the regex's match at `begin` (< size).
std::size_t gpt2_match(const AlignedChar* chars, std::size_t begin, std::size_t size) noexcept;

}  // namespace penstock
