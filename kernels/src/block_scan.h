// What the scans of every kind of processor share: cutting at characters beyond ASCII, and the end of a chunk.
#pragma once

#include <cstddef>
#include <cstdint>

#include "penstock/ascii_blocks.h"

namespace penstock::blocks {

// Bits of one block, one for each byte.
struct Masks {
  std::uint64_t space;   // bytes of class kSpace
  std::uint64_t single;  // bytes of class kIsolated
  std::uint64_t first;   // first bytes of characters of class kIsolated
  std::uint64_t last;    // last bytes of them
};

// What a block leaves to the one after it.
struct Carry {
  Masks masks{0, 0, 0, 0};     // of a character that reaches into the next block
  std::uint64_t in_word = 0;   // whether the last byte is part of a word
  std::uint64_t was_last = 0;  // whether it is the last of an isolated character

  bool empty() const noexcept { return (masks.space | masks.single) == 0; }
};

inline std::uint32_t decode(const unsigned char* at) noexcept {
  if (*at < 0xE0) return (at[0] & 0x1FU) << 6 | (at[1] & 0x3FU);
  if (*at < 0xF0) return (at[0] & 0x0FU) << 12 | (at[1] & 0x3FU) << 6 | (at[2] & 0x3FU);
  return (at[0] & 0x07U) << 18 | (at[1] & 0x3FU) << 12 | (at[2] & 0x3FU) << 6 | (at[3] & 0x3FU);
}

// Marks the characters beyond ASCII that are not of class kWord; `open` has the first bytes that may begin one.
inline void mark_code_points(const BlockClasses& classes, const unsigned char* block, std::uint64_t open,
                             Masks& masks, Carry& carry) noexcept {
  masks.space |= carry.masks.space;
  masks.single |= carry.masks.single;
  masks.last |= carry.masks.last;
  carry.masks = {0, 0, 0, 0};
  for (; open; open &= open - 1) {
    const auto at = static_cast<unsigned>(__builtin_ctzll(open));
    const std::uint8_t kind = classes.of(decode(block + at));
    if (kind == static_cast<std::uint8_t>(BlockClass::kWord)) continue;
    const unsigned size = block[at] < 0xE0 ? 2 : block[at] < 0xF0 ? 3 : 4;
    const std::uint64_t bytes = (std::uint64_t{1} << size) - 1;
    const std::uint64_t over = at + size > 64 ? bytes >> (64 - at) : 0;
    if (kind == static_cast<std::uint8_t>(BlockClass::kSpace)) {
      masks.space |= bytes << at;
      carry.masks.space |= over;
      continue;
    }
    masks.single |= bytes << at;
    masks.first |= std::uint64_t{1} << at;
    carry.masks.single |= over;
    if (over) {
      carry.masks.last |= std::uint64_t{1} << (at + size - 65);
    } else {
      masks.last |= std::uint64_t{1} << (at + size - 1);
    }
  }
}

struct Edges {
  std::uint64_t begins;
  std::uint64_t ends;  // the byte behind the last
};

// Where words begin and end; bytes that are not `valid` lie behind the text.
inline Edges find_edges(const Masks& masks, std::uint64_t valid, Carry& carry) noexcept {
  const std::uint64_t word = valid & ~(masks.space | masks.single);
  const std::uint64_t before = word << 1 | carry.in_word;
  const Edges edges{(word & ~before) | masks.first, (before & ~word) | masks.last << 1 | carry.was_last};
  carry.in_word = word >> 63;
  carry.was_last = masks.last >> 63;
  return edges;
}

// Ends the word that reaches to the end of the text, unless the last block did.
inline void finish(std::size_t begins, std::size_t ends, std::size_t size, std::uint32_t heads,
                   WordScan& out) noexcept {
  if (ends < begins) out.ends[ends] = static_cast<std::uint16_t>(size);
  out.words = begins;
  out.code_points = heads;
}

// The key of a word that is too long for one.
inline ShortKey long_key(std::uint64_t hash) noexcept { return {hash, WordKeys::kLongSize << 56}; }

}  // namespace penstock::blocks
