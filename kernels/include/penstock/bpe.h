// Byte-pair encoding: neighbouring symbols are merged in the order of their pairs' ranks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "penstock/blob.h"
#include "penstock/double_array.h"
#include "penstock/pipeline.h"

namespace penstock {

// Section::kMergeTable: these, as build_merge_table() lays them out.
struct MergeRecord {
  std::int32_t left;    // id
  std::int32_t right;   // id
  std::int32_t rank;    // merges of lower rank come first
  std::int32_t merged;  // id of what the two become
};

// The section of merges in any order; of equal pairs the one given last counts. O(n log n). Throws
// std::invalid_argument if an id is negative or there are 2^21 merges or more.
//
// First a header (left: merges, right: log2 of the slots), then the merges by rank, then the slots, four to a
// record: an open-addressing hash table of u32, each the index of a merge and a tag out of its hash above that,
// or all ones if empty. So pairs that are no merge, which most are, cost one load from a table that is an
// eighth of the size of one of records; and frequent merges lie together.
std::vector<MergeRecord> build_merge_table(std::vector<MergeRecord> merges);

// A view of such a section that someone else owns (a blob). Reading is safe from many threads.
class MergeTable {
 public:
  // Throws std::invalid_argument if the section is broken.
  explicit MergeTable(std::span<const MergeRecord> section);

  // The merge of a pair, or null.
  const MergeRecord* find(std::int32_t left, std::int32_t right) const noexcept {
    const std::uint64_t mixed = hash(left, right);
    const std::uint32_t tag = tag_of(mixed);
    for (std::size_t at = mixed >> shift_;; at = (at + 1) & mask_) {
      const std::uint32_t slot = slots_[at];
      if (slot == kEmpty) return nullptr;
      if (slot >> kIndexBits != tag) continue;
      const MergeRecord& merge = merges_[slot & kIndexMask];
      if (merge.left == left && merge.right == right) return &merge;
    }
  }

  // Before a pair is looked up some time later.
  void prefetch(std::int32_t left, std::int32_t right) const noexcept {
    __builtin_prefetch(slots_ + (hash(left, right) >> shift_));
  }

 private:
  friend std::vector<MergeRecord> build_merge_table(std::vector<MergeRecord> merges);

  static constexpr unsigned kIndexBits = 21;
  static constexpr std::uint32_t kIndexMask = (1U << kIndexBits) - 1;
  static constexpr std::uint32_t kEmpty = 0xFFFFFFFF;

  static std::uint64_t hash(std::int32_t left, std::int32_t right) noexcept {
    const std::uint64_t pair =
        static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
    return (pair ^ pair >> 29) * 0x9E3779B97F4A7C15U;
  }
  // Of the bits below those that choose the slot, of which there are at most kIndexBits + 2.
  static std::uint32_t tag_of(std::uint64_t mixed) noexcept {
    return static_cast<std::uint32_t>(mixed >> 30) >> kIndexBits;
  }

  const MergeRecord* merges_;
  const std::uint32_t* slots_;
  std::size_t mask_;
  unsigned shift_;
};

// A symbol of a word that is being merged. A size of 0 marks one that was merged into its left.
struct Symbol {
  std::int32_t id;
  std::int32_t size;      // bytes of the word that it takes
  std::int32_t previous;  // index, or -1
  std::int32_t next;      // index, or -1
};

// Merges whole words; keeps its buffers. Belongs to one thread.
class Merger {
 public:
  std::vector<Symbol>& symbols() noexcept { return symbols_; }
  void clear() noexcept { symbols_.clear(); }
  void add(std::int32_t id, std::int32_t size) {
    const auto at = static_cast<std::int32_t>(symbols_.size());
    if (at) symbols_.back().next = at;
    symbols_.push_back({id, size, at - 1, -1});
  }

  // Merges until no pair can be, and drops the symbols that were merged into others. O(n log n) for n symbols.
  void merge(const MergeTable& table);

  std::size_t bytes() const noexcept {
    return symbols_.capacity() * sizeof(Symbol) + heap_.capacity() * sizeof(Candidate);
  }
  // Gives back what a very long word needed.
  void trim();

 private:
  struct Candidate {
    std::int32_t rank;
    std::int32_t position;
    std::int32_t merged;
  };

  void offer(const MergeTable& table, std::int32_t position);

  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

// Any BPE model of tokenizers but for dropout: unknown tokens, fused or not, byte fallback, prefixes and
// suffixes, words that are taken whole. Characters that are unknown and have no token are dropped.
class Bpe final : public Model {
 public:
  // Reads kConfig, kVocabularyTrie and kMergeTable in place. Throws std::invalid_argument if they are broken,
  // or for byte fallback together with a prefix or a suffix.
  explicit Bpe(const BlobView& blob);

  std::unique_ptr<Scratch> make_scratch() const override;
  void cut(const AlignedChar* begin, const AlignedChar* end, std::int32_t word, Scratch& scratch,
           TokenBuffer& out) const override;

 private:
  struct Room;

  void add_symbols(std::size_t chars, Room& room) const;

  DoubleArray vocabulary_;
  MergeTable merges_;
  std::string continuing_prefix_;
  std::string end_suffix_;
  std::int32_t flags_;
  std::int32_t unknown_id_;
  std::array<std::int32_t, 256> byte_ids_;  // of byte fallback; -1 where there is none
};

}  // namespace penstock
