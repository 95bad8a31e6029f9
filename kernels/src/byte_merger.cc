#include "penstock/byte_merger.h"

#include <algorithm>

#include "penstock/byte_level.h"

namespace penstock {
namespace {

bool is_inner(char c) noexcept { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Up to so many symbols the next merge of a stretch is searched for.
constexpr std::size_t kSearchedInStretchMax = 128;

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
      is_regular_(is_regular(blob)),
      pairs_(std::make_unique<BytePair[]>(0x10000)) {
  for (std::size_t pair = 0; pair < 0x10000; ++pair) {
    const MergeRecord* merge = merges_.find(byte_ids_[pair >> 8], byte_ids_[pair & 0xFF]);
    pairs_[pair] = merge ? BytePair{merge->rank, merge->merged} : BytePair{0, -1};
  }
}

bool ByteMerger::is_regular(const BlobView& blob) const {
  constexpr std::int32_t kUnmade = -1, kByte = -2;
  const std::int32_t ids_end = blob.config().ids_end;
  std::vector<std::int32_t> made_by(static_cast<std::size_t>(std::max(ids_end, 0)), kUnmade);
  const auto is_id = [ids_end](std::int32_t id) { return id >= 0 && id < ids_end; };
  const auto maker = [&](std::int32_t id) -> std::int32_t& { return made_by[static_cast<std::size_t>(id)]; };
  if (!std::all_of(byte_ids_.begin(), byte_ids_.end(), is_id)) return false;
  for (const std::int32_t id : byte_ids_) maker(id) = kByte;
  const auto section = blob.records<MergeRecord>(Section::kMergeTable);
  std::int32_t rank_before = -1;
  for (const MergeRecord& merge : section.subspan(1, static_cast<std::size_t>(section[0].left))) {
    const auto is_earlier = [&](std::int32_t id) {
      return is_id(id) && (maker(id) == kByte || (maker(id) >= 0 && maker(id) < merge.rank));
    };
    if (!is_earlier(merge.left) || !is_earlier(merge.right)) return false;
    if (!is_id(merge.merged) || maker(merge.merged) != kUnmade || merge.rank <= rank_before) return false;
    maker(merge.merged) = rank_before = merge.rank;
  }
  return true;
}

void ByteMerger::cut(std::string_view word, Merger& merger, std::vector<Part>& parts) const {
  parts.clear();
  if (takes_words_) {
    if (const std::int32_t id = find_word(word); id >= 0) return add_part(word, {id, 0}, word.size(), parts);
  }
  if (is_regular_ && word.size() > 2 * kStretchBytes && merge_stretches(word, merger, parts)) return;
  parts.clear();
  std::size_t at = 0;
  merge(word, kSearchedMax, merger, [&](std::int32_t id, std::size_t size) {
    add_part(word, {id, at}, at + size, parts);
    at += size;
  });
  merger.trim();
}

// Tells id and size of each token.
template <typename Take>
void ByteMerger::merge(std::string_view bytes, std::size_t searched_max, Merger& merger, Take take) const {
  if (bytes.size() <= searched_max) return search(bytes, take);
  merger.clear();
  for (const char c : bytes) merger.add(byte_ids_[static_cast<unsigned char>(c)], 1);
  merger.merge(merges_);
  for (const Symbol& symbol : merger.symbols()) take(symbol.id, static_cast<std::size_t>(symbol.size));
}

// Merges a long word stretch by stretch; false, and nothing of use in `parts`, if that would take long.
//
// Where merges are regular, each pass of BPE does all merges of one rank, left to right, before those of the next.
// Then tokens of two stretches that were merged apart are those of both together if the two at the border, merged
// by themselves, stay apart: a merge across the border would take the last symbol left of it and the first right of
// it, which only depend on these two. A stretch that does not stay apart is merged again with more of what is
// before it.
bool ByteMerger::merge_stretches(std::string_view word, Merger& merger, std::vector<Part>& parts) const {
  constexpr std::size_t kBytesAgainMax = 64 * kStretchBytes, kStretchBytesMax = 16 * kStretchBytes, kFarBack = 16;
  std::size_t stretch = kStretchBytes;
  // Runs of one character have the same border each time.
  std::int32_t apart_left = -1, apart_right = -1;
  for (std::size_t at = 0; at < word.size();) {
    const std::size_t end = std::min(word.size(), at + stretch);
    for (std::size_t back = 1;; back *= 4) {
      const std::size_t begin = parts.empty() ? 0 : static_cast<std::size_t>(parts.back().end);
      if (end - begin > kBytesAgainMax) return false;
      const std::size_t border = parts.size();
      auto from = static_cast<std::int32_t>(begin);
      merge(word.substr(begin, end - begin), kSearchedInStretchMax, merger, [&](std::int32_t id, std::size_t size) {
        const std::int32_t to = from + static_cast<std::int32_t>(size);
        parts.push_back({id, from, to});
        from = to;
      });
      if (!border) break;
      const Part& left = parts[border - 1];
      const Part& right = parts[border];
      if (left.id == apart_left && right.id == apart_right) break;
      if (stay_apart(word, left, right, merger)) {
        apart_left = left.id;
        apart_right = right.id;
        break;
      }
      parts.resize(border > back ? border - back : 0);
      // Many tokens that depend on each other: longer stretches have fewer borders.
      if (back == kFarBack) stretch = std::min(2 * stretch, kStretchBytesMax);
    }
    at = end;
  }
  // Until here they were told in bytes.
  const std::vector<Part> merged = std::move(parts);
  parts.clear();
  parts.reserve(merged.size());
  for (const Part& part : merged)
    add_part(word, {part.id, static_cast<std::size_t>(part.begin)}, static_cast<std::size_t>(part.end), parts);
  return true;
}

// Whether two tokens, by themselves, are not merged with each other.
bool ByteMerger::stay_apart(std::string_view word, const Part& left, const Part& right, Merger& merger) const {
  const auto begin = static_cast<std::size_t>(left.begin), border = static_cast<std::size_t>(right.begin);
  bool is_border = false;
  std::size_t at = begin;
  merge(word.substr(begin, static_cast<std::size_t>(right.end) - begin), kSearchedInStretchMax, merger,
        [&](std::int32_t, std::size_t size) { is_border |= (at += size) == border; });
  return is_border;
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
template <typename Take>
void ByteMerger::search(std::string_view word, Take take) const {
  const std::size_t size = word.size();
  std::uint64_t worths[kSearchedInStretchMax];
  std::int32_t ids[kSearchedInStretchMax];     // of the symbols that begin at a byte
  std::int32_t merged[kSearchedInStretchMax];  // with the next symbol
  std::uint8_t next[kSearchedInStretchMax], previous[kSearchedInStretchMax];
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
  for (std::size_t i = 0; i < size; i = next[i]) take(ids[i], next[i] - i);
}

}  // namespace penstock
