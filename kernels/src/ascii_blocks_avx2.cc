#include "penstock/ascii_blocks.h"

#include <cstring>
#include <string_view>

#include "block_scan.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#define PENSTOCK_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))

namespace penstock {
namespace {

using blocks::Carry;
using blocks::Edges;
using blocks::Masks;

PENSTOCK_AVX2 inline __m256i load(const void* at) noexcept { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }
PENSTOCK_AVX2 inline __m256i load_twice(const std::array<std::uint8_t, 16>& table) noexcept {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table.data())));
}
PENSTOCK_AVX2 inline std::uint64_t mask_of(__m256i low, __m256i high) noexcept {
  return static_cast<std::uint32_t>(_mm256_movemask_epi8(low)) |
         static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm256_movemask_epi8(high))) << 32;
}

// 64 bytes.
struct Block {
  __m256i low, high;
};

PENSTOCK_AVX2 inline __m256i look_up(__m256i bytes, __m256i low, __m256i high) noexcept {
  const __m256i nibble = _mm256_set1_epi8(0x0F);
  return _mm256_and_si256(_mm256_shuffle_epi8(low, _mm256_and_si256(bytes, nibble)),
                          _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble)));
}

// Bytes for which any of the bits is set.
PENSTOCK_AVX2 inline std::uint64_t any_of(__m256i low, __m256i high, std::uint8_t bits) noexcept {
  const __m256i wanted = _mm256_set1_epi8(static_cast<char>(bits));
  const __m256i zero = _mm256_setzero_si256();
  return ~mask_of(_mm256_cmpeq_epi8(_mm256_and_si256(low, wanted), zero),
                  _mm256_cmpeq_epi8(_mm256_and_si256(high, wanted), zero));
}

PENSTOCK_AVX2 inline __m256i make_small(__m256i bytes) noexcept {
  // Signed compares: capitals are what is above the lowest values once A is moved there.
  const __m256i moved = _mm256_add_epi8(bytes, _mm256_set1_epi8(static_cast<char>(0x80 - 'A')));
  const __m256i is_capital = _mm256_cmpgt_epi8(_mm256_set1_epi8(static_cast<char>(0x80 + 26)), moved);
  return _mm256_or_si256(bytes, _mm256_and_si256(is_capital, _mm256_set1_epi8(0x20)));
}

// Writes base + the numbers of the bits, eight at a time; up to 7 positions behind the last are overwritten.
PENSTOCK_AVX2 inline std::size_t write_positions(std::uint64_t bits, std::size_t base, std::uint16_t* to) noexcept {
  const auto count = static_cast<std::size_t>(__builtin_popcountll(bits));
  for (std::size_t done = 0; done < count; done += 8)
    for (std::size_t i = 0; i < 8; ++i) {
      to[done + i] = static_cast<std::uint16_t>(base + _tzcnt_u64(bits));
      bits = _blsr_u64(bits);
    }
  return count;
}

PENSTOCK_AVX2 void scan(const BlockClasses& classes, const char* text, std::size_t size, WordScan& out) {
  const __m256i low = load_twice(classes.low), high = load_twice(classes.high);
  const __m256i open_low = load_twice(classes.open_low), open_high = load_twice(classes.open_high);
  Carry carry;
  std::size_t begins = 0, ends = 0;
  std::uint32_t heads = 0;
  alignas(32) char tail[64] = {};
  for (std::size_t at = 0; at < size; at += 64) {
    const char* block = text + at;
    std::uint64_t valid = ~std::uint64_t{0};
    if (size - at < 64) {
      valid = (std::uint64_t{1} << (size - at)) - 1;
      std::memcpy(tail, block, size - at);
      block = tail;
    }
    const Block bytes{load(block), load(block + 32)};
    auto* copy = reinterpret_cast<__m256i*>(out.text + at);
    _mm256_store_si256(copy, classes.lowercase() ? make_small(bytes.low) : bytes.low);
    _mm256_store_si256(copy + 1, classes.lowercase() ? make_small(bytes.high) : bytes.high);
    const Block kinds{look_up(bytes.low, low, high), look_up(bytes.high, low, high)};
    Masks masks;
    masks.space = any_of(kinds.low, kinds.high, BlockClasses::kSpaceBits);
    masks.single = any_of(kinds.low, kinds.high, static_cast<std::uint8_t>(~BlockClasses::kSpaceBits));
    masks.first = masks.last = masks.single;
    std::uint64_t here = valid;
    if (mask_of(bytes.low, bytes.high) || !carry.empty()) {
      const std::uint64_t open = any_of(look_up(bytes.low, open_low, open_high),
                                        look_up(bytes.high, open_low, open_high), 0xFF);
      const __m256i least = _mm256_set1_epi8(static_cast<char>(0xC0));
      here &= ~mask_of(_mm256_cmpgt_epi8(least, bytes.low), _mm256_cmpgt_epi8(least, bytes.high));
      if (open || !carry.empty())
        blocks::mark_code_points(classes, reinterpret_cast<const unsigned char*>(block), open, masks, carry);
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

// Sizes 0 to 15: that many bytes kept, and the size in the last.
struct KeyParts {
  alignas(16) std::uint8_t kept[16][16];
  alignas(16) std::uint8_t size[16][16];
};

alignas(64) constexpr KeyParts kKeyParts = [] {
  KeyParts made{};
  for (unsigned size = 0; size < 16; ++size) {
    for (unsigned i = 0; i < size; ++i) made.kept[size][i] = 0xFF;
    made.size[size][15] = static_cast<std::uint8_t>(size);
  }
  return made;
}();

PENSTOCK_AVX2 inline __m128i load_key(const void* at) noexcept { return _mm_load_si128(static_cast<const __m128i*>(at)); }

PENSTOCK_AVX2 void make_keys(const WordScan& scan, std::size_t first, std::size_t count, const WordCache& cache,
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
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scan.text + begin));
    const __m128i key = _mm_or_si128(_mm_and_si128(bytes, load_key(kKeyParts.kept[size])), load_key(kKeyParts.size[size]));
    _mm_store_si128(reinterpret_cast<__m128i*>(out.keys + i), key);
    const ShortKey words{static_cast<std::uint64_t>(_mm_cvtsi128_si64(key)), static_cast<std::uint64_t>(_mm_extract_epi64(key, 1))};
    const std::uint64_t bucket = WordCache::hash(words) >> shift;
    out.buckets[i] = bucket;
    __builtin_prefetch(buckets + bucket);
  }
}

// Offset of the entry's ids from its bucket, or 0 if the key is in neither entry.
PENSTOCK_AVX2 inline std::size_t find(const ShortBucket& bucket, const ShortKey& key) noexcept {
  const __m128i wanted = load_key(&key);
  const __m128i first = _mm_xor_si128(wanted, load_key(&bucket.entries[0].key));
  const __m128i second = _mm_xor_si128(wanted, load_key(&bucket.entries[1].key));
  const std::size_t is_first = static_cast<std::size_t>(_mm_testz_si128(first, first));
  const std::size_t is_second = static_cast<std::size_t>(_mm_testz_si128(second, second));
  return is_first << 4 | is_second * 48;
}

PENSTOCK_AVX2 std::size_t emit(const WordKeys& keys, std::size_t at, std::size_t count, const WordCache& cache,
                               TokenSink& sink) {
  std::int32_t* ids = sink.ids;
  for (; at < count; ++at) {
    const ShortBucket& bucket = cache.buckets()[keys.buckets[at]];
    const std::size_t offset = find(bucket, keys.keys[at]);
    if (!offset) [[unlikely]]
      break;
    const char* tokens = reinterpret_cast<const char*>(&bucket) + offset;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(ids), load_key(tokens));
    ids += static_cast<unsigned char>(tokens[15]);
  }
  sink.ids = ids;
  return at;
}

PENSTOCK_AVX2 std::size_t emit_spans(const WordKeys& keys, std::size_t at, std::size_t count, const WordCache& cache,
                                     const WordScan& scan, const std::uint16_t* begins, TokenSink& into) {
  TokenSink sink = into;
  for (; at < count; ++at) {
    const ShortBucket& bucket = cache.buckets()[keys.buckets[at]];
    const std::size_t offset = find(bucket, keys.keys[at]);
    if (!offset) [[unlikely]]
      break;
    const char* tokens = reinterpret_cast<const char*>(&bucket) + offset;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sink.ids), load_key(tokens));
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

constexpr BlockKernels kLoops = {"avx2", scan, make_keys, emit, emit_spans};

bool is_supported() noexcept {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("popcnt");
}

}  // namespace

const BlockKernels* avx2_block_kernels() noexcept { return is_supported() ? &kLoops : nullptr; }

}  // namespace penstock

#else

namespace penstock {
const BlockKernels* avx2_block_kernels() noexcept { return nullptr; }
}  // namespace penstock

#endif
