#include "penstock/byte_merger.h"

#include <algorithm>

#include "penstock/byte_level.h"

namespace penstock {
namespace {

bool is_inner(char c) noexcept { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// What a merge with the next symbol is worth: lower comes first, and of equal ones the leftmost.
constexpr std::uint64_t kNoMerge = ~std::uint64_t{0};

std::uint64_t worth(std::int32_t rank, std::size_t at) noexcept {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(rank)) << 32 | at;
}

}  // namespace

ByteMerger::ByteMerger(const BlobView& blob, const ByteIds& byte_ids)
    : vocabulary_(blob.records<DoubleArray::Node>(Section::kVocabularyTrie)),
      merges_(blob.records<MergeRecord>(Section::kMergeTable)),
      byte_ids_(byte_ids),
      takes_words_(blob.config().model_flags & kIgnoreMerges),
      pairs_(std::make_unique<BytePair[]>(0x10000)) {
  for (std::size_t pair = 0; pair < 0x10000; ++pair) {
    const MergeRecord* merge = merges_.find(byte_ids_[pair >> 8], byte_ids_[pair & 0xFF]);
    pairs_[pair] = merge ? BytePair{merge->rank, merge->merged} : BytePair{0, -1};
  }
}

void ByteMerger::cut(std::string_view word, Merger& merger, std::vector<Part>& parts) const {
  parts.clear();
  if (takes_words_) {
    if (const std::int32_t id = find_word(word); id >= 0) return add_part(word, {id, 0}, word.size(), parts);
  }
  if (word.size() <= kSearchedMax) return search(word, parts);
  merger.clear();
  for (const char c : word) merger.add(byte_ids_[static_cast<unsigned char>(c)], 1);
  merger.merge(merges_);
  std::size_t at = 0;
  for (const Symbol& symbol : merger.symbols()) {
    const std::size_t end = at + static_cast<std::size_t>(symbol.size);
    add_part(word, {symbol.id, at}, end, parts);
    at = end;
  }
  merger.trim();
}

// The token whose text is the word.
std::int32_t ByteMerger::find_word(std::string_view word) const noexcept {
  constexpr std::array<std::uint16_t, 256> kCharacters = byte_characters();
  DoubleArray::State state = DoubleArray::kRoot;
  for (const char c : word) {
    const std::uint32_t character = kCharacters[static_cast<unsigned char>(c)];
    if (character >= 0x80) {
      state = vocabulary_.step(state, static_cast<unsigned char>(0xC0 | character >> 6));
      if (state == DoubleArray::kNone) return DoubleArray::kNoValue;
    }
    const std::uint32_t last = character < 0x80 ? character : 0x80 | (character & 0x3F);
    state = vocabulary_.step(state, static_cast<unsigned char>(last));
    if (state == DoubleArray::kNone) return DoubleArray::kNoValue;
  }
  return vocabulary_.value(state);
}

// Tokens may begin and end within characters: they stand for these.
void ByteMerger::add_part(std::string_view word, Symbols symbols, std::size_t end, std::vector<Part>& parts) {
  const std::int32_t is_cut = is_inner(word[symbols.begin]);
  const std::int32_t begin = parts.empty() ? 0 : parts.back().end - is_cut;
  std::int32_t points = begin + is_cut;
  for (std::size_t i = symbols.begin; i < end; ++i) points += !is_inner(word[i]);
  parts.push_back({symbols.id, begin, points});
}

// Searches for the next merge each time.
void ByteMerger::search(std::string_view word, std::vector<Part>& parts) const {
  const std::size_t size = word.size();
  std::uint64_t worths[kSearchedMax];
  std::int32_t ids[kSearchedMax];     // of the symbols that begin at a byte
  std::int32_t merged[kSearchedMax];  // with the next symbol
  std::uint8_t next[kSearchedMax], previous[kSearchedMax];
  for (std::size_t i = 0; i < size; ++i) {
    ids[i] = byte_ids_[static_cast<unsigned char>(word[i])];
    next[i] = static_cast<std::uint8_t>(i + 1);
    previous[i] = static_cast<std::uint8_t>(i - 1);
    worths[i] = kNoMerge;
    if (i + 1 == size) break;
    const BytePair pair = pairs_[static_cast<unsigned char>(word[i]) << 8 | static_cast<unsigned char>(word[i + 1])];
    if (pair.merged >= 0) worths[i] = worth(pair.rank, i);
    merged[i] = pair.merged;
  }
  // Merges wait for others; the pairs that they will make can be fetched meanwhile.
  const auto prefetch_around = [&](std::size_t at) {
    if (at > 0) merges_.prefetch(ids[previous[at]], merged[at]);
    const std::size_t after = next[next[at]];
    if (after < size) merges_.prefetch(merged[at], ids[after]);
  };
  const auto look_up = [&](std::size_t at) {
    worths[at] = kNoMerge;
    if (next[at] >= size) return;
    if (const MergeRecord* merge = merges_.find(ids[at], ids[next[at]])) {
      worths[at] = worth(merge->rank, at);
      merged[at] = merge->merged;
      prefetch_around(at);
    }
  };
  for (std::size_t i = 0; i + 1 < size; ++i)
    if (worths[i] != kNoMerge) prefetch_around(i);
  for (;;) {
    std::uint64_t best = kNoMerge;
    for (std::size_t i = 0; i + 1 < size; ++i) best = std::min(best, worths[i]);
    if (best == kNoMerge) break;
    const std::size_t at = best & 0xFFFFFFFF;
    const std::size_t gone = next[at];
    ids[at] = merged[at];
    worths[gone] = kNoMerge;
    next[at] = next[gone];
    if (next[at] < size) previous[next[at]] = static_cast<std::uint8_t>(at);
    look_up(at);
    if (at > 0) look_up(previous[at]);
  }
  for (std::size_t i = 0; i < size; i = next[i]) add_part(word, {ids[i], i}, next[i], parts);
}

}  // namespace penstock
