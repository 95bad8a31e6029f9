#include "penstock/byte_level_scan.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "penstock/unicode.h"
#include "penstock/utf8.h"

namespace penstock {
namespace {

// Bytes of a block by class, one bit each.
struct Masks {
  std::uint64_t letter, number;
  std::uint64_t space;        // ASCII whitespace
  std::uint64_t blank;        // U+0020
  std::uint64_t quote;        // the apostrophe
  std::uint64_t high;         // not ASCII
  std::uint64_t wide_space;   // bytes of other whitespace
  std::uint64_t last_spaces;  // other whitespace before what is none
  std::uint64_t inner;        // bytes of characters but their first
};

// Masks of the first bytes of a key, and what a size writes into its last byte. The last ones are of words that
// are too long for a key: no entry has theirs.
constexpr std::array<ShortKey, 17> key_masks() noexcept {
  std::array<ShortKey, 17> masks{};
  for (std::size_t size = 1; size < 16; ++size) {
    masks[size].low = size >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << 8 * size) - 1;
    masks[size].high = size <= 8 ? 0 : (std::uint64_t{1} << 8 * (size - 8)) - 1;
  }
  return masks;
}
constexpr std::array<std::uint64_t, 17> key_sizes() noexcept {
  std::array<std::uint64_t, 17> sizes{};
  for (std::uint64_t size = 0; size < 16; ++size) sizes[size] = size << 56;
  sizes[16] = std::uint64_t{0xFF} << 56;
  return sizes;
}
constexpr std::array<ShortKey, 17> kKeyMasks = key_masks();
constexpr std::array<std::uint64_t, 17> kKeySizes = key_sizes();

// Size of the contraction that begins with the apostrophe at `text`, or 0.
inline std::size_t contraction(const char* text, std::size_t size) noexcept {
  if (size < 2) return 0;
  const char first = text[1];
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (size < 3) return 0;
  const char second = text[2];
  return ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l') ? 3 : 0;
}

enum AsciiBit : std::uint8_t {
  kLetterBit = 1,
  kNumberBit = 2,
  kSpaceBit = 4,
  kBlankBit = 8,
  kQuoteBit = 16,
  kHighBit = 32,
};

constexpr std::array<std::uint8_t, 256> ascii_bits() noexcept {
  std::array<std::uint8_t, 256> bits{};
  for (unsigned c = 0; c < 256; ++c) {
    const unsigned lower = c | 0x20;
    if (lower >= 'a' && lower <= 'z') bits[c] = kLetterBit;
    if (c >= '0' && c <= '9') bits[c] = kNumberBit;
    if (c >= '\t' && c <= '\r') bits[c] = kSpaceBit;
    if (c >= 0x80) bits[c] = kHighBit;
  }
  bits[' '] = kSpaceBit | kBlankBit;
  bits['\''] = kQuoteBit;
  return bits;
}
constexpr std::array<std::uint8_t, 256> kAsciiBits = ascii_bits();

namespace portable {
#define TARGET

// Bit `shift` of each byte, gathered.
inline std::uint64_t gather(std::uint64_t bytes, unsigned shift) noexcept {
  return ((bytes >> shift) & 0x0101010101010101U) * 0x0102040810204080U >> 56;
}

inline void classify(const char* block, Masks& masks) noexcept {
  for (unsigned at = 0; at < 64; at += 8) {
    std::uint64_t bits = 0;
    for (unsigned i = 0; i < 8; ++i)
      bits |= static_cast<std::uint64_t>(kAsciiBits[static_cast<unsigned char>(block[at + i])]) << 8 * i;
    masks.letter |= gather(bits, 0) << at;
    masks.number |= gather(bits, 1) << at;
    masks.space |= gather(bits, 2) << at;
    masks.blank |= gather(bits, 3) << at;
    masks.quote |= gather(bits, 4) << at;
    masks.high |= gather(bits, 5) << at;
  }
}

#include "byte_level_scan.inc"
#undef TARGET
}  // namespace portable

#if defined(__x86_64__)

namespace avx2 {
#define TARGET __attribute__((target("avx2,bmi,bmi2,popcnt")))

TARGET inline __m256i in_range(__m256i bytes, char first, char last) noexcept {
  const __m256i distance = _mm256_sub_epi8(bytes, _mm256_set1_epi8(first));
  return _mm256_cmpeq_epi8(_mm256_min_epu8(distance, _mm256_set1_epi8(static_cast<char>(last - first))), distance);
}
TARGET inline std::uint64_t bits_of(__m256i low, __m256i high) noexcept {
  return static_cast<std::uint32_t>(_mm256_movemask_epi8(low)) |
         static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm256_movemask_epi8(high))) << 32;
}

TARGET inline void classify(const char* block, Masks& masks) noexcept {
  const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block));
  const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 32));
  const __m256i case_bit = _mm256_set1_epi8(0x20), blank = case_bit, quote = _mm256_set1_epi8('\'');
  const __m256i low_blank = _mm256_cmpeq_epi8(low, blank), high_blank = _mm256_cmpeq_epi8(high, blank);
  masks.letter = bits_of(in_range(_mm256_or_si256(low, case_bit), 'a', 'z'),
                         in_range(_mm256_or_si256(high, case_bit), 'a', 'z'));
  masks.number = bits_of(in_range(low, '0', '9'), in_range(high, '0', '9'));
  masks.blank = bits_of(low_blank, high_blank);
  masks.space = bits_of(in_range(low, '\t', '\r'), in_range(high, '\t', '\r')) | masks.blank;
  masks.quote = bits_of(_mm256_cmpeq_epi8(low, quote), _mm256_cmpeq_epi8(high, quote));
  masks.high = bits_of(low, high);
}

#include "byte_level_scan.inc"
#undef TARGET
}  // namespace avx2

namespace avx512 {
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx2,bmi,bmi2,popcnt")))

TARGET inline std::uint64_t in_range(__m512i bytes, char first, char last) noexcept {
  return _mm512_cmple_epu8_mask(_mm512_sub_epi8(bytes, _mm512_set1_epi8(first)),
                                _mm512_set1_epi8(static_cast<char>(last - first)));
}

TARGET inline void classify(const char* block, Masks& masks) noexcept {
  const __m512i bytes = _mm512_loadu_si512(block);
  const __m512i case_bit = _mm512_set1_epi8(0x20);
  masks.letter = in_range(_mm512_or_si512(bytes, case_bit), 'a', 'z');
  masks.number = in_range(bytes, '0', '9');
  masks.blank = _mm512_cmpeq_epi8_mask(bytes, case_bit);
  masks.space = in_range(bytes, '\t', '\r') | masks.blank;
  masks.quote = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('\''));
  masks.high = _mm512_movepi8_mask(bytes);
}

#include "byte_level_scan.inc"
#undef TARGET
}  // namespace avx512

#endif

std::uint8_t entry_of(const CharInfo& info) noexcept {
  constexpr CharFlag kInert[] = {kNfcInert, kNfdInert, kNfkcInert, kNfkdInert};  // in the order of spec.py
  std::uint8_t entry = info.flags & kLetter       ? ByteLevelClasses::kLetter
                       : info.flags & kNumber     ? ByteLevelClasses::kNumber
                       : info.flags & kWhitespace ? ByteLevelClasses::kSpace
                                                  : ByteLevelClasses::kOther;
  for (unsigned form = 0; form < 4; ++form)
    if (info.flags & kInert[form]) entry |= static_cast<std::uint8_t>(1U << (ByteLevelClasses::kInertShift + form));
  return entry;
}

}  // namespace

ByteLevelClasses::ByteLevelClasses() {
  const UnicodeTables& tables = UnicodeTables::get();
  std::map<std::string, std::uint16_t> seen;
  std::string entries;
  for (std::uint32_t block = 0; block < kBlocks; ++block) {
    std::string bytes(256, '\0');
    for (std::uint32_t i = 0; i < 256; ++i) bytes[i] = static_cast<char>(entry_of(tables.info(block << 8 | i)));
    const auto [found, is_new] = seen.try_emplace(bytes, static_cast<std::uint16_t>(seen.size()));
    if (is_new) entries += bytes;
    block_of_[block] = found->second;
  }
  entries_ = std::make_unique<std::uint8_t[]>(entries.size());
  std::memcpy(entries_.get(), entries.data(), entries.size());
}

const ByteLevelClasses& ByteLevelClasses::get() {
  // Never destroyed: threads may still encode while the process ends.
  static const ByteLevelClasses& classes = *new const ByteLevelClasses;
  return classes;
}

WordWindow::WordWindow(std::string_view whole_text, std::int32_t first_code_point, bool counts_points) noexcept
    : text(whole_text.data()),
      size(whole_text.size()),
      with_points(counts_points),
      shift(first_code_point),
      tail_begin(whole_text.size() > 16 ? whole_text.size() - 16 : 0) {
  std::memset(tail, 0, sizeof tail);
  if (size) std::memcpy(tail, text + tail_begin, size - tail_begin);
}

Instructions best_instructions() noexcept {
#if defined(__x86_64__)
  const bool has_bits =
      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
  if (!has_bits || !__builtin_cpu_supports("avx2")) return Instructions::kPortable;
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl");
  return has_avx512 ? Instructions::kAvx512 : Instructions::kAvx2;
#else
  return Instructions::kPortable;
#endif
}

const ByteLevelLoops& byte_level_loops(Instructions instructions) noexcept {
#if defined(__x86_64__)
  if (instructions == Instructions::kAvx512) return avx512::kLoops;
  if (instructions == Instructions::kAvx2) return avx2::kLoops;
#else
  (void)instructions;
#endif
  return portable::kLoops;
}

std::size_t first_match_after_space(std::string_view text, const ByteLevelClasses& classes) noexcept {
  if (text.empty()) return 0;
  std::size_t at = 0, last = 0;  // of the run: its end, and its last character
  const std::uint8_t kind = classes[next_code_point(text, at)] & ByteLevelClasses::kClassMask;
  while (at < text.size()) {
    std::size_t next = at;
    if ((classes[next_code_point(text, next)] & ByteLevelClasses::kClassMask) != kind)
      return kind == ByteLevelClasses::kSpace ? last : at;
    last = at;
    at = next;
  }
  return at;
}

}  // namespace penstock
