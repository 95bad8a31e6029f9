// The hot loops of fast paths whose words end at whitespace and punctuation: finding words in blocks of 64
// bytes, making cache keys of them, and emitting the tokens of those that the cache has.
//
// There is one set of loops for each kind of processor; all give the same.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "penstock/token_buffer.h"
#include "penstock/word_cache.h"

namespace penstock {

enum class BlockClass : std::uint8_t {
  kWord = 0,      // part of a word
  kSpace = 1,     // ends words
  kIsolated = 2,  // ends words and is one itself
};

// Which characters end words. Immutable after construction.
class BlockClasses {
 public:
  static constexpr std::uint32_t kCodePoints = 0x110000;

  // `class_of` is asked once about every code point but surrogates. `lowercase`: keys are made of text whose
  // ASCII letters are small.
  template <typename ClassOf>
  BlockClasses(ClassOf class_of, bool lowercase) : lowercase_(lowercase) {
    std::array<std::uint8_t, kPageSize> page;
    for (std::uint32_t first = 0; first < kCodePoints; first += kPageSize) {
      for (std::uint32_t i = 0; i < kPageSize; ++i)
        page[i] = (first + i) >> 11 == 0x1B ? 0 : static_cast<std::uint8_t>(class_of(first + i));
      add_page(first / kPageSize, page);
    }
    make_lookups();
  }

  bool lowercase() const noexcept { return lowercase_; }
  std::uint8_t of(std::uint32_t code_point) const noexcept {
    return pages_[static_cast<std::size_t>(page_of_[code_point / kPageSize]) * kPageSize + code_point % kPageSize];
  }

  // Classes of ASCII, by byte. But for what is whitespace among the controls they must be those of ASCII's
  // own punctuation and space.
  alignas(64) std::array<std::uint8_t, 128> ascii{};
  // The same by nibbles: a byte's classes are the bits common to low[byte % 16] and high[byte / 16]. kSpaceBits
  // of them mean kSpace, all others kIsolated; none is kWord.
  static constexpr std::uint8_t kSpaceBits = 0x03;
  alignas(16) std::array<std::uint8_t, 16> low{}, high{};
  // Whether a first byte of a longer character may begin one that is not kWord: by byte, and by nibbles.
  std::array<bool, 256> is_open{};
  alignas(16) std::array<std::uint8_t, 16> open_low{}, open_high{};

 private:
  static constexpr std::uint32_t kPageSize = 256;

  void add_page(std::uint32_t index, const std::array<std::uint8_t, kPageSize>& page);
  void make_lookups();

  bool lowercase_;
  std::array<std::uint16_t, kCodePoints / kPageSize> page_of_{};
  std::vector<std::uint8_t> pages_;
};

// Words of a chunk of text, in order.
struct WordScan {
  static constexpr std::size_t kChunkBytes = 4096;

  // The chunk with small ASCII letters (or as it is), and room to read a register behind its last byte.
  alignas(64) char text[kChunkBytes + 64];
  // Where words begin and end, within the chunk, and room for a register's worth of stores.
  alignas(64) std::uint16_t begins[kChunkBytes + 64];
  alignas(64) std::uint16_t ends[kChunkBytes + 64];
  // First bytes of characters, a bit for each byte of the chunk, and their number before each 64 bytes.
  std::uint64_t heads[kChunkBytes / 64 + 1];
  std::uint32_t heads_before[kChunkBytes / 64 + 1];
  std::size_t words;
  std::uint32_t code_points;

  // Characters that begin before the byte at `at`.
  std::uint32_t heads_until(std::size_t at) const noexcept {
    const std::uint64_t below = (std::uint64_t{1} << at % 64) - 1;
    return heads_before[at / 64] + static_cast<std::uint32_t>(__builtin_popcountll(heads[at / 64] & below));
  }
};

// Keys of some words of a scan and where the cache would have them.
struct WordKeys {
  static constexpr std::size_t kWords = 128;
  // Size that the key of a word longer than ShortEntry::kBytesMax says it has: no short entry has it. Its
  // `low` is the hash of the whole word.
  static constexpr std::uint64_t kLongSize = 0xFF;

  alignas(64) ShortKey keys[kWords];
  alignas(64) std::uint64_t buckets[kWords];  // index
};

// Where tokens go, and where they are in the text.
struct TokenSink {
  std::int32_t* ids;
  std::int32_t* begins;
  std::int32_t* ends;
  std::int32_t* words;
  std::int32_t word;        // index of the next word
  std::int32_t code_point;  // of the chunk's first character

  // Takes over the tokens of one word that were written.
  void advance(std::size_t count) noexcept {
    ids += count;
    begins += count;
    ends += count;
    words += count;
    word += count != 0;
  }
};

// All of them write whole registers: up to 64 bytes behind what they are asked for.
struct BlockKernels {
  const char* name;
  // Finds the words of size <= kChunkBytes bytes of UTF-8 that ends with a whole character.
  void (*scan)(const BlockClasses& classes, const char* text, std::size_t size, WordScan& out);
  // Makes the keys of words [first, first + count), count <= WordKeys::kWords, and prefetches their buckets.
  void (*make_keys)(const WordScan& scan, std::size_t first, std::size_t count, const WordCache& cache,
                    WordKeys& out);
  // Emits the tokens of words from `at` to `count` (within `keys`) up to the first that is not in the short
  // table: returns its index, or count. At most three tokens a word.
  std::size_t (*emit)(const WordKeys& keys, std::size_t at, std::size_t count, const WordCache& cache,
                      TokenSink& sink);
  // The same with spans; `begins` are those of the words.
  std::size_t (*emit_spans)(const WordKeys& keys, std::size_t at, std::size_t count, const WordCache& cache,
                            const WordScan& scan, const std::uint16_t* begins, TokenSink& sink);
};

// The loops for what every processor has.
extern const BlockKernels kPortableBlocks;
// Those for AVX2, and for AVX-512 with VBMI2; null where the processor or the compiler has not got it.
const BlockKernels* avx2_block_kernels() noexcept;
const BlockKernels* avx512_block_kernels() noexcept;

// The fastest ones that this processor runs. The environment variable PENSTOCK_BLOCKS ("portable", "avx2" or
// "avx512") picks others, if the processor runs them: for tests and measurements.
const BlockKernels& best_block_kernels() noexcept;

}  // namespace penstock
