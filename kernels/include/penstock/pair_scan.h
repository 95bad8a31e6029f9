// Finds where one of some texts may begin, by its first two bytes: most of a text is passed over 32 bytes at a
// time.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace penstock {

class PairScan {
 public:
  PairScan();

  // Texts that begin like this one are to be found. Not empty.
  void add(std::string_view text);

  // The first position from `at` on where one may begin; text.size() if there is none. Linear.
  std::size_t next(std::string_view text, std::size_t at) const noexcept;
  // The same without vector instructions.
  std::size_t next_portable(std::string_view text, std::size_t at) const noexcept;

 private:
  // A set of bytes by nibbles: bit h % 8 of low[h / 8][l] says that the byte 16 h + l is in it.
  struct ByteSet {
    alignas(16) std::array<std::array<std::uint8_t, 16>, 2> low{};

    void insert(std::size_t byte) noexcept {
      low[byte >> 7][byte & 15] = static_cast<std::uint8_t>(low[byte >> 7][byte & 15] | 1U << (byte >> 4 & 7));
    }
    bool has(unsigned char byte) const noexcept { return low[byte >> 7][byte & 15] >> (byte >> 4 & 7) & 1; }
  };

  std::size_t next_avx2(std::string_view text, std::size_t at) const noexcept;

  // Exactly, where two bytes are there to look at. At a text's end only one byte is: then it may begin.
  bool may_begin(std::string_view text, std::size_t at) const noexcept {
    const auto first = static_cast<unsigned char>(text[at]);
    if (!firsts_.has(first)) return false;
    return at + 1 == text.size() || pairs_[std::size_t{first} << 8 | static_cast<unsigned char>(text[at + 1])];
  }

  ByteSet firsts_, seconds_;
  std::bitset<65536> pairs_;
  std::string distinct_firsts_;
  bool has_avx2_;
};

}  // namespace penstock
