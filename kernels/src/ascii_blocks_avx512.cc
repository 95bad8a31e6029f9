#include "penstock/ascii_blocks.h"

#include <cstring>
#include <string_view>

#include "block_scan.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

// The intrinsics' own headers begin with registers that are not set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#define PENSTOCK_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,avx2,bmi,bmi2,popcnt")))

namespace penstock {
namespace {

using blocks::Carry;
using blocks::Edges;
using blocks::Masks;

alignas(64) constexpr std::array<std::uint8_t, 64> kCounting = [] {
  std::array<std::uint8_t, 64> made{};
  for (unsigned i = 0; i < 64; ++i) made[i] = static_cast<std::uint8_t>(i);
  return made;
}();

// Writes base + the numbers of the bits; up to 64 positions behind the last are overwritten.
PENSTOCK_AVX512 inline std::size_t write_positions(std::uint64_t bits, std::size_t base, std::uint16_t* to) noexcept {
  const __m512i numbers = _mm512_maskz_compress_epi8(bits, _mm512_load_si512(kCounting.data()));
  const __m512i from = _mm512_set1_epi16(static_cast<short>(base));
  const auto count = static_cast<std::size_t>(__builtin_popcountll(bits));
  _mm512_storeu_si512(to, _mm512_add_epi16(from, _mm512_cvtepu8_epi16(_mm512_castsi512_si256(numbers))));
  if (count > 32)
    _mm512_storeu_si512(to + 32, _mm512_add_epi16(from, _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(numbers, 1))));
  return count;
}

PENSTOCK_AVX512 void scan(const BlockClasses& classes, const char* text, std::size_t size, WordScan& out) {
  const __m512i classes_low = _mm512_load_si512(classes.ascii.data());
  const __m512i classes_high = _mm512_load_si512(classes.ascii.data() + 64);
  const __m512i open_low = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(classes.open_low.data())));
  const __m512i open_high = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(classes.open_high.data())));
  const __m512i nibble = _mm512_set1_epi8(0x0F);
  // Letters of ASCII that are made small: none, or A to Z.
  const __m512i capitals = _mm512_set1_epi8(classes.lowercase() ? 26 : 0);
  Carry carry;
  std::size_t begins = 0, ends = 0;
  std::uint32_t heads = 0;
  for (std::size_t at = 0; at < size; at += 64) {
    const std::uint64_t valid = size - at >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << (size - at)) - 1;
    const __m512i bytes = _mm512_maskz_loadu_epi8(valid, text + at);
    const __mmask64 is_capital = _mm512_cmplt_epu8_mask(_mm512_sub_epi8(bytes, _mm512_set1_epi8('A')), capitals);
    _mm512_store_si512(out.text + at, _mm512_mask_add_epi8(bytes, is_capital, bytes, _mm512_set1_epi8(0x20)));
    const __m512i kinds = _mm512_permutex2var_epi8(classes_low, bytes, classes_high);
    const std::uint64_t high = _mm512_movepi8_mask(bytes);
    Masks masks;
    masks.space = _mm512_test_epi8_mask(kinds, _mm512_set1_epi8(1)) & ~high;
    masks.single = _mm512_test_epi8_mask(kinds, _mm512_set1_epi8(2)) & ~high & valid;
    masks.first = masks.last = masks.single;
    std::uint64_t here = valid;
    if (high | carry.masks.space | carry.masks.single) {
      const __m512i open_bits = _mm512_and_si512(_mm512_shuffle_epi8(open_low, _mm512_and_si512(bytes, nibble)),
                                                 _mm512_shuffle_epi8(open_high, _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble)));
      const std::uint64_t open = _mm512_test_epi8_mask(open_bits, open_bits);
      here &= ~_mm512_mask_cmplt_epi8_mask(high, bytes, _mm512_set1_epi8(static_cast<char>(0xC0)));
      if (open || !carry.empty())
        blocks::mark_code_points(classes, reinterpret_cast<const unsigned char*>(text + at), open, masks, carry);
    }
    out.heads[at / 64] = here;
    out.heads_before[at / 64] = heads;
    heads += static_cast<std::uint32_t>(__builtin_popcountll(here));
    const Edges edges = blocks::find_edges(masks, valid, carry);
    begins += write_positions(edges.begins, at, out.begins + begins);
    ends += write_positions(edges.ends, at, out.ends + ends);
  }
  blocks::finish(begins, ends, size, heads, out);
}

PENSTOCK_AVX512 void make_keys(const WordScan& scan, std::size_t first, std::size_t count, const WordCache& cache,
                               WordKeys& out) {
  const ShortBucket* const buckets = cache.buckets();
  const unsigned shift = cache.short_shift();
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t begin = scan.begins[first + i];
    const std::size_t size = scan.ends[first + i] - begin;
    if (size > ShortEntry::kBytesMax) [[unlikely]] {
      const std::string_view word(scan.text + begin, size);
      const ShortKey key = blocks::long_key(WordCache::hash(word));
      out.keys[i] = key;
      out.buckets[i] = 0;
      if (size <= LongEntry::kBytesMax) cache.prefetch_long(key.low);
      continue;
    }
    const __m128i bytes = _mm_maskz_loadu_epi8(static_cast<__mmask16>(_bzhi_u32(0xFFFF, static_cast<unsigned>(size))), scan.text + begin);
    const __m128i key = _mm_insert_epi8(bytes, static_cast<int>(size), 15);
    _mm_store_si128(reinterpret_cast<__m128i*>(out.keys + i), key);
    const ShortKey words{static_cast<std::uint64_t>(_mm_cvtsi128_si64(key)), static_cast<std::uint64_t>(_mm_extract_epi64(key, 1))};
    const std::uint64_t bucket = WordCache::hash(words) >> shift;
    out.buckets[i] = bucket;
    __builtin_prefetch(buckets + bucket);
  }
}

// Offset of the entry's ids from its bucket, or 0 if the key is in neither entry.
PENSTOCK_AVX512 inline std::size_t find(const ShortBucket& bucket, const ShortKey& key) noexcept {
  const __m512i line = _mm512_load_si512(&bucket);
  const __m512i wanted = _mm512_broadcast_i64x2(_mm_load_si128(reinterpret_cast<const __m128i*>(&key)));
  const unsigned equal = _mm512_cmpeq_epi64_mask(line, wanted);
  const unsigned both = equal & equal >> 1 & 0x11;
  return both ? 16 + ((both & 0x10) << 1) : 0;
}

PENSTOCK_AVX512 std::size_t emit(const WordKeys& keys, std::size_t at, std::size_t count, const WordCache& cache,
                                 TokenSink& sink) {
  std::int32_t* ids = sink.ids;
  for (; at < count; ++at) {
    const ShortBucket& bucket = cache.buckets()[keys.buckets[at]];
    const std::size_t offset = find(bucket, keys.keys[at]);
    if (!offset) [[unlikely]]
      break;
    const char* tokens = reinterpret_cast<const char*>(&bucket) + offset;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(ids), _mm_load_si128(reinterpret_cast<const __m128i*>(tokens)));
    ids += static_cast<unsigned char>(tokens[15]);
  }
  sink.ids = ids;
  return at;
}

PENSTOCK_AVX512 std::size_t emit_spans(const WordKeys& keys, std::size_t at, std::size_t count,
                                       const WordCache& cache, const WordScan& scan, const std::uint16_t* begins,
                                       TokenSink& into) {
  TokenSink sink = into;
  for (; at < count; ++at) {
    const ShortBucket& bucket = cache.buckets()[keys.buckets[at]];
    const std::size_t offset = find(bucket, keys.keys[at]);
    if (!offset) [[unlikely]]
      break;
    const char* tokens = reinterpret_cast<const char*>(&bucket) + offset;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sink.ids), _mm_load_si128(reinterpret_cast<const __m128i*>(tokens)));
    const std::size_t position = begins[at];
    const std::uint64_t before = _bzhi_u64(scan.heads[position / 64], position % 64);
    const __m128i begin = _mm_set1_epi32(sink.code_point + static_cast<std::int32_t>(scan.heads_before[position / 64]) +
                                         static_cast<std::int32_t>(_mm_popcnt_u64(before)));
    std::int32_t sizes;
    std::memcpy(&sizes, tokens + 12, 4);
    const __m128i ends = _mm_cvtepu8_epi32(_mm_cvtsi32_si128(sizes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sink.ends), _mm_add_epi32(begin, ends));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sink.begins), _mm_add_epi32(begin, _mm_slli_si128(ends, 4)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sink.words), _mm_set1_epi32(sink.word));
    sink.advance(static_cast<unsigned char>(tokens[15]));
  }
  into = sink;
  return at;
}

constexpr BlockKernels kLoops = {"avx512", scan, make_keys, emit, emit_spans};

bool is_supported() noexcept {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}

}  // namespace

const BlockKernels* avx512_block_kernels() noexcept { return is_supported() ? &kLoops : nullptr; }

}  // namespace penstock

#else

namespace penstock {
const BlockKernels* avx512_block_kernels() noexcept { return nullptr; }
}  // namespace penstock

#endif
