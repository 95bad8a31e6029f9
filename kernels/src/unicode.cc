#include "penstock/unicode.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_map>

namespace penstock {
namespace {

#include "unicode_tables.inc"

constexpr std::size_t kCodePoints = 0x110000;
constexpr std::size_t kCompositionSlots = 2048;
static_assert(2 * std::size(kCompositions_) <= kCompositionSlots, "a full hash table is slow");

struct InfoHash {
  std::size_t operator()(const CharInfo& info) const noexcept {
    std::uint64_t low = info.flags | static_cast<std::uint64_t>(static_cast<std::uint32_t>(info.lower_distance)) << 32;
    std::uint64_t high = info.decomposition | static_cast<std::uint64_t>(info.compatibility) << 16 |
                         static_cast<std::uint64_t>(info.combining_class) << 32 |
                         static_cast<std::uint64_t>(info.grapheme) << 40;
    low = (low ^ high * 0x9E3779B97F4A7C15U) * 0xD6E8FEB86659FD93U;
    return static_cast<std::size_t>(low ^ low >> 32);
  }
};

// Every code point's index into the distinct entries, while tables are put in one after the other.
class TableBuilder {
 public:
  TableBuilder() : ids_(kCodePoints), entries_(1) { id_of_.emplace(entries_[0], 0); }

  template <class Change>
  void update(std::int32_t first, std::int32_t last, std::int32_t step, Change change) {
    std::int32_t seen = -1;
    std::uint16_t changed = 0;
    for (std::int32_t c = first; c <= last; c += step) {
      std::uint16_t& id = ids_[static_cast<std::size_t>(c)];
      if (id != seen) {
        seen = id;
        CharInfo info = entries_[id];
        change(info);
        changed = intern(info);
      }
      id = changed;
    }
  }

  template <std::size_t Rows>
  void set_flag(const std::int32_t (&rows)[Rows][2], CharFlag flag) {
    for (const auto& [first, last] : rows) update(first, last, 1, [&](CharInfo& info) { info.flags |= flag; });
  }

  std::uint16_t intern(const CharInfo& info) {
    const auto [found, is_new] = id_of_.try_emplace(info, static_cast<std::uint16_t>(entries_.size()));
    if (is_new) entries_.push_back(info);
    return found->second;
  }

  std::vector<std::uint16_t>& ids() noexcept { return ids_; }
  std::vector<CharInfo>& entries() noexcept { return entries_; }

 private:
  std::vector<std::uint16_t> ids_;
  std::vector<CharInfo> entries_;
  std::unordered_map<CharInfo, std::uint16_t, InfoHash> id_of_;
};

void fill_classes(TableBuilder& builder) {
  builder.set_flag(kCleanRemoved_, kCleanRemoved);
  builder.set_flag(kCleanSpaces_, kCleanSpace);
  builder.set_flag(kCjk_, kCjk);
  builder.set_flag(kMarks_, kMark);
  builder.set_flag(kWhitespace_, kWhitespace);
  builder.set_flag(kPunctuation_, kPunctuation);
  builder.set_flag(kWord_, kWord);
  builder.set_flag(kAnyMarks_, kAnyMark);
  builder.set_flag(kLetters_, kLetter);
  builder.set_flag(kNumbers_, kNumber);
  builder.set_flag(kNumeric_, kNumeric);
  for (const auto& [first, last, value] : kCombining_)
    builder.update(first, last, 1, [&](CharInfo& info) { info.combining_class = static_cast<std::uint8_t>(value); });
  for (const auto& [first, last, value] : kGraphemes_)
    builder.update(first, last, 1, [&](CharInfo& info) { info.grapheme = static_cast<GraphemeClass>(value); });
  for (const auto& [first, last, step, distance] : kLower_)
    builder.update(first, last, step, [&](CharInfo& info) { info.lower_distance = distance; });
}

// Calls take(character, size, code points) for each row of a flattened table.
template <std::size_t Size, class Take>
void for_each_row(const std::int32_t (&table)[Size], Take take) {
  for (const std::int32_t* row = table; row != table + Size; row += 2 + row[1]) take(row[0], row[1], row + 2);
}

// Flags that follow from the rest of an entry. A canonical decomposition leaves NFC inert if it is undone.
constexpr std::uint32_t kComposed = 1U << 31;

void finish_flags(CharInfo& info) {
  const bool is_composed = info.flags & kComposed;
  info.flags &= ~kComposed;
  if (info.combining_class) return;
  const bool decomposes = info.decomposition || (info.flags & kHangul);
  const bool recomposes = !(info.flags & kComposes) && (!info.decomposition || is_composed);
  if (!decomposes) info.flags |= kNfdInert;
  if (recomposes) info.flags |= kNfcInert;
  if (!decomposes && !info.compatibility) info.flags |= kNfkdInert;
  if (recomposes && !info.compatibility) info.flags |= kNfkcInert;
}

std::size_t composition_slot(std::uint32_t first, std::uint32_t second) noexcept {
  return ((first * 0x9E3779B1U) ^ (second * 0x85EBCA77U)) >> 21;
}

}  // namespace

UnicodeTables::UnicodeTables() : compositions_(kCompositionSlots) {
  using namespace hangul;
  static_assert(kCompositionSlots == 1U << (32 - 21), "slots are the upper bits of a hash");
  TableBuilder builder;
  fill_classes(builder);
  const auto flag = [&](std::uint32_t first, std::uint32_t count, std::uint32_t flags) {
    builder.update(static_cast<std::int32_t>(first), static_cast<std::int32_t>(first + count - 1), 1,
                   [&](CharInfo& info) { info.flags |= flags; });
  };
  flag(kSyllableFirst, kSyllableCount, kHangul | kComposed);
  flag(kVowelFirst, kVowelCount, kComposes);
  flag(kTailFirst + 1, kTailCount - 1, kComposes);
  for_each_row(kDecompositions_, [&](std::int32_t c, std::int32_t size, const std::int32_t* parts) {
    decompositions_.push_back({parts, static_cast<std::size_t>(size)});
    builder.update(c, c, 1, [&](CharInfo& info) { info.decomposition = static_cast<std::uint16_t>(decompositions_.size()); });
  });
  for_each_row(kCompatibility_, [&](std::int32_t c, std::int32_t size, const std::int32_t* parts) {
    decompositions_.push_back({parts, static_cast<std::size_t>(size)});
    builder.update(c, c, 1, [&](CharInfo& info) { info.compatibility = static_cast<std::uint16_t>(decompositions_.size()); });
  });
  for (const auto& [first, second, composed] : kCompositions_) {
    flag(static_cast<std::uint32_t>(second), 1, kComposes);
    flag(static_cast<std::uint32_t>(composed), 1, kComposed);
    add_composition({static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(second),
                     static_cast<std::uint32_t>(composed)});
  }
  pack(builder.ids(), builder.entries());
}

void UnicodeTables::add_composition(Composition added) {
  std::size_t slot = composition_slot(added.first, added.second);
  while (compositions_[slot].composed) slot = (slot + 1) % kCompositionSlots;
  compositions_[slot] = added;
}

// Keeps the entries still in use, and each distinct block of their indices once.
void UnicodeTables::pack(std::vector<std::uint16_t>& ids, const std::vector<CharInfo>& entries) {
  constexpr std::uint16_t kUnseen = 0xFFFF;
  std::vector<std::uint16_t> packed(entries.size(), kUnseen);
  for (std::uint16_t& id : ids) {
    if (packed[id] == kUnseen) {
      packed[id] = static_cast<std::uint16_t>(entries_.size());
      entries_.push_back(entries[id]);
      finish_flags(entries_.back());
    }
    id = packed[id];
  }
  constexpr std::size_t block_size = std::size_t{1} << kShift;
  std::unordered_map<std::string_view, std::uint16_t> seen;
  for (std::size_t at = 0; at < kCodePoints; at += block_size) {
    const std::string_view key(reinterpret_cast<const char*>(&ids[at]), block_size * sizeof ids[at]);
    const auto [found, is_new] = seen.try_emplace(key, static_cast<std::uint16_t>(seen.size()));
    if (is_new) {
      const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(at);
      indices_.insert(indices_.end(), begin, begin + static_cast<std::ptrdiff_t>(block_size));
    }
    block_of_.push_back(found->second);
  }
  entries_.shrink_to_fit();
  indices_.shrink_to_fit();
}

std::uint32_t UnicodeTables::compose(std::uint32_t first, std::uint32_t second) const noexcept {
  using namespace hangul;
  if (first - kLeadFirst < kLeadCount && second - kVowelFirst < kVowelCount)
    return kSyllableFirst + ((first - kLeadFirst) * kVowelCount + (second - kVowelFirst)) * kTailCount;
  if (first - kSyllableFirst < kSyllableCount && (first - kSyllableFirst) % kTailCount == 0 &&
      second - kTailFirst - 1 < kTailCount - 1)
    return first + (second - kTailFirst);
  for (std::size_t slot = composition_slot(first, second); compositions_[slot].composed;
       slot = (slot + 1) % kCompositionSlots)
    if (compositions_[slot].first == first && compositions_[slot].second == second) return compositions_[slot].composed;
  return 0;
}

std::size_t UnicodeTables::bytes() const noexcept {
  return block_of_.size() * sizeof block_of_[0] + indices_.size() * sizeof indices_[0] +
         entries_.size() * sizeof entries_[0] + decompositions_.size() * sizeof decompositions_[0] +
         compositions_.size() * sizeof compositions_[0];
}

const UnicodeTables& UnicodeTables::get() {
  // Never destroyed: threads may still encode while the process ends.
  static const UnicodeTables& tables = *new const UnicodeTables;
  return tables;
}

}  // namespace penstock
