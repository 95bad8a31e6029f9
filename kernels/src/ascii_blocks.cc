#include "penstock/ascii_blocks.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "block_scan.h"

namespace penstock {

void BlockClasses::add_page(std::uint32_t index, const std::array<std::uint8_t, kPageSize>& page) {
  std::size_t found = 0;
  while (found < pages_.size() && !std::equal(page.begin(), page.end(), pages_.begin() + static_cast<std::ptrdiff_t>(found)))
    found += kPageSize;
  if (found == pages_.size()) pages_.insert(pages_.end(), page.begin(), page.end());
  page_of_[index] = static_cast<std::uint16_t>(found / kPageSize);
}

void BlockClasses::make_lookups() {
  for (std::uint32_t c = 0; c < 128; ++c) ascii[c] = of(c);
  // Rows of sixteen that have the same set of columns share a bit: controls, the space, then punctuation.
  constexpr std::array<std::uint8_t, 8> rows = {0x01, 0x00, 0x06, 0x08, 0x10, 0x20, 0x10, 0x40};
  for (unsigned c = 0; c < 16; ++c) {
    const auto is_bit = [&](unsigned row, BlockClass kind, unsigned bit) {
      if (ascii[row * 16 + c] == static_cast<std::uint8_t>(kind)) low[c] |= static_cast<std::uint8_t>(bit);
    };
    is_bit(0, BlockClass::kSpace, 0x01);
    is_bit(2, BlockClass::kSpace, 0x02);
    is_bit(2, BlockClass::kIsolated, 0x04);
    is_bit(3, BlockClass::kIsolated, 0x08);
    is_bit(4, BlockClass::kIsolated, 0x10);
    is_bit(5, BlockClass::kIsolated, 0x20);
    is_bit(7, BlockClass::kIsolated, 0x40);
  }
  std::copy(rows.begin(), rows.end(), high.begin());
  for (std::uint32_t c = 0x80; c < kCodePoints; ++c) {
    if (of(c) == static_cast<std::uint8_t>(BlockClass::kWord)) continue;
    is_open[c < 0x800 ? 0xC0 | c >> 6 : c < 0x10000 ? 0xE0 | c >> 12 : 0xF0 | c >> 18] = true;
  }
  for (unsigned row = 12; row < 16; ++row) {
    open_high[row] = static_cast<std::uint8_t>(1U << (row - 12));
    for (unsigned c = 0; c < 16; ++c)
      if (is_open[row * 16 + c]) open_low[c] |= open_high[row];
  }
}

namespace {

using blocks::Carry;
using blocks::Edges;
using blocks::Masks;

char small(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

std::size_t write_positions(std::uint64_t bits, std::size_t base, std::uint16_t* to) noexcept {
  std::uint16_t* const begin = to;
  for (; bits; bits &= bits - 1) *to++ = static_cast<std::uint16_t>(base + static_cast<unsigned>(__builtin_ctzll(bits)));
  return static_cast<std::size_t>(to - begin);
}

void scan(const BlockClasses& classes, const char* text, std::size_t size, WordScan& out) {
  Carry carry;
  std::size_t begins = 0, ends = 0;
  std::uint32_t heads = 0;
  for (std::size_t at = 0; at < size; at += 64) {
    const std::size_t bytes = std::min<std::size_t>(64, size - at);
    const auto* block = reinterpret_cast<const unsigned char*>(text + at);
    Masks masks{0, 0, 0, 0};
    std::uint64_t high = 0, open = 0, tails = 0;
    for (std::size_t i = 0; i < bytes; ++i) {
      const unsigned char c = block[i];
      const std::uint64_t bit = std::uint64_t{1} << i;
      out.text[at + i] = classes.lowercase() ? small(text[at + i]) : text[at + i];
      if (c >= 0x80) {
        high |= bit;
        if (classes.is_open[c]) open |= bit;
        if (c < 0xC0) tails |= bit;
      } else if (classes.ascii[c] == static_cast<std::uint8_t>(BlockClass::kSpace)) {
        masks.space |= bit;
      } else if (classes.ascii[c] == static_cast<std::uint8_t>(BlockClass::kIsolated)) {
        masks.single |= bit;
      }
    }
    masks.first = masks.last = masks.single;
    if (open || !carry.empty()) blocks::mark_code_points(classes, block, open, masks, carry);
    const std::uint64_t valid = bytes == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bytes) - 1;
    out.heads[at / 64] = ~tails & valid;
    out.heads_before[at / 64] = heads;
    heads += static_cast<std::uint32_t>(__builtin_popcountll(~tails & valid));
    const Edges edges = blocks::find_edges(masks, valid, carry);
    begins += write_positions(edges.begins, at, out.begins + begins);
    ends += write_positions(edges.ends, at, out.ends + ends);
  }
  blocks::finish(begins, ends, size, heads, out);
}

void make_keys(const WordScan& scan, std::size_t first, std::size_t count, const WordCache& cache, WordKeys& out) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t begin = scan.begins[first + i];
    const std::string_view word(scan.text + begin, scan.ends[first + i] - begin);
    if (word.size() <= ShortEntry::kBytesMax) {
      out.keys[i] = WordCache::short_key(word);
    } else {
      out.keys[i] = blocks::long_key(WordCache::hash(word));
      if (word.size() <= LongEntry::kBytesMax) cache.prefetch_long(out.keys[i].low);
    }
    const std::uint64_t hash = WordCache::hash(out.keys[i]);
    out.buckets[i] = hash >> cache.short_shift();
    WordCache::prefetch(cache.bucket(hash));
  }
}

std::size_t emit(const WordKeys& keys, std::size_t at, std::size_t count, const WordCache& cache, TokenSink& sink) {
  std::int32_t* ids = sink.ids;
  for (; at < count; ++at) {
    const ShortEntry* entry = WordCache::find(cache.buckets()[keys.buckets[at]], keys.keys[at]);
    if (!entry) break;
    std::memcpy(ids, entry->ids, 16);
    ids += entry->count;
  }
  sink.ids = ids;
  return at;
}

std::size_t emit_spans(const WordKeys& keys, std::size_t at, std::size_t count, const WordCache& cache,
                       const WordScan& scan, const std::uint16_t* begins, TokenSink& sink) {
  for (; at < count; ++at) {
    const ShortEntry* entry = WordCache::find(cache.buckets()[keys.buckets[at]], keys.keys[at]);
    if (!entry) break;
    const std::int32_t begin = sink.code_point + static_cast<std::int32_t>(scan.heads_until(begins[at]));
    std::int32_t token_begin = begin;
    for (std::size_t i = 0; i < ShortEntry::kTokensMax; ++i) {
      sink.ids[i] = entry->ids[i];
      sink.begins[i] = token_begin;
      sink.ends[i] = token_begin = begin + entry->ends[i];
      sink.words[i] = sink.word;
    }
    sink.advance(entry->count);
  }
  return at;
}

}  // namespace

const BlockKernels kPortableBlocks = {"portable", scan, make_keys, emit, emit_spans};

const BlockKernels& best_block_kernels() noexcept {
  static const BlockKernels& best = []() -> const BlockKernels& {
    const char* wanted = std::getenv("PENSTOCK_BLOCKS");
    const auto is_allowed = [&](const char* name) { return !wanted || !std::strcmp(wanted, name); };
    for (const BlockKernels* kernels : {avx512_block_kernels(), avx2_block_kernels()})
      if (kernels && is_allowed(kernels->name)) return *kernels;
    return kPortableBlocks;
  }();
  return best;
}

}  // namespace penstock
