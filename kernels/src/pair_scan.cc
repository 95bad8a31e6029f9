#include "penstock/pair_scan.h"

#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace penstock {

PairScan::PairScan() : has_avx2_(false) {
#if defined(__x86_64__)
  has_avx2_ = __builtin_cpu_supports("avx2");
#endif
}

void PairScan::add(std::string_view text) {
  const std::size_t first = static_cast<unsigned char>(text[0]);
  if (!firsts_.has(static_cast<unsigned char>(first))) distinct_firsts_ += text[0];
  firsts_.insert(first);
  for (std::size_t second = 0; second < 256; ++second) {
    if (text.size() > 1 && static_cast<unsigned char>(text[1]) != second) continue;
    seconds_.insert(second);
    pairs_.set(first << 8 | second);
  }
}

std::size_t PairScan::next(std::string_view text, std::size_t at) const noexcept {
  return has_avx2_ ? next_avx2(text, at) : next_portable(text, at);
}

std::size_t PairScan::next_portable(std::string_view text, std::size_t at) const noexcept {
  if (distinct_firsts_.size() != 1) {
    while (at < text.size() && !may_begin(text, at)) ++at;
    return at;
  }
  for (; at < text.size(); ++at) {
    const void* found = std::memchr(text.data() + at, distinct_firsts_[0], text.size() - at);
    if (!found) return text.size();
    at = static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
    if (may_begin(text, at)) return at;
  }
  return text.size();
}

#if defined(__x86_64__)
namespace {

// 0xFF where a byte is in the set whose two halves are given.
__attribute__((target("avx2"))) inline __m256i are_in(__m256i bytes, __m256i lower, __m256i upper) {
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i bits = _mm256_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32,
                                        64, -128, 1, 2, 4, 8, 16, 32, 64, -128);
  const __m256i low = _mm256_and_si256(bytes, nibble);
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
  const __m256i row = _mm256_blendv_epi8(_mm256_shuffle_epi8(lower, low), _mm256_shuffle_epi8(upper, low), bytes);
  const __m256i bit = _mm256_shuffle_epi8(bits, high);
  return _mm256_cmpeq_epi8(_mm256_and_si256(row, bit), bit);
}

__attribute__((target("avx2"))) inline __m256i twice(const std::array<std::uint8_t, 16>& table) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table.data())));
}

}  // namespace

__attribute__((target("avx2"))) std::size_t PairScan::next_avx2(std::string_view text, std::size_t at) const noexcept {
  constexpr std::size_t step = sizeof(__m256i);
  const __m256i first_lower = twice(firsts_.low[0]), first_upper = twice(firsts_.low[1]);
  const __m256i second_lower = twice(seconds_.low[0]), second_upper = twice(seconds_.low[1]);
  for (; at + step < text.size(); at += step) {
    const auto* bytes = reinterpret_cast<const __m256i*>(text.data() + at);
    const __m256i firsts = are_in(_mm256_loadu_si256(bytes), first_lower, first_upper);
    if (!_mm256_movemask_epi8(firsts)) continue;
    const auto* shifted = reinterpret_cast<const __m256i*>(text.data() + at + 1);
    const __m256i seconds = are_in(_mm256_loadu_si256(shifted), second_lower, second_upper);
    auto candidates = static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_and_si256(firsts, seconds)));
    for (; candidates; candidates &= candidates - 1) {
      const std::size_t candidate = at + static_cast<std::size_t>(std::countr_zero(candidates));
      if (may_begin(text, candidate)) return candidate;
    }
  }
  return next_portable(text, at);
}
#else
std::size_t PairScan::next_avx2(std::string_view text, std::size_t at) const noexcept { return next_portable(text, at); }
#endif

}  // namespace penstock
