// Merges the bytes of words: what byte-level BPE does with a word that no cache has.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "penstock/blob.h"
#include "penstock/bpe.h"
#include "penstock/double_array.h"

namespace penstock {

// The symbol of each byte.
using ByteIds = std::array<std::int32_t, 256>;

// A token of a word, in code points of the word.
struct Part {
  std::int32_t id;
  std::int32_t begin;
  std::int32_t end;
};

// Cuts words into tokens by their bytes. Immutable; holds 512 KiB.
class ByteMerger {
 public:
  // Up to so many symbols the next merge of a word is searched for; above, a heap has it.
  static constexpr std::size_t kSearchedMax = 24;
  // Longer words than twice this are merged in stretches, where searching is faster than a heap of the whole;
  // as long as the longest tokens of usual vocabularies.
  static constexpr std::size_t kStretchBytes = 64;

  // Reads kVocabularyTrie and kMergeTable in place. Throws std::invalid_argument if they are broken.
  ByteMerger(const BlobView& blob, const ByteIds& byte_ids);

  // Replaces `parts` by the tokens of a word (valid UTF-8, not empty). O(n log n).
  void cut(std::string_view word, Merger& merger, std::vector<Part>& parts) const;

 private:
  struct Symbols {
    std::int32_t id;
    std::size_t begin;  // in bytes
  };
  // The merges of the symbols of two bytes: half of all that are looked up.
  struct BytePair {
    std::int32_t rank;
    std::int32_t merged;  // -1 for none
  };

  std::int32_t find_word(std::string_view word) const noexcept;
  bool is_regular(const BlobView& blob) const;
  template <typename Take>
  void search(std::string_view bytes, Take take) const;
  template <typename Take>
  void merge(std::string_view bytes, std::size_t searched_max, Merger& merger, Take take) const;
  bool merge_stretches(std::string_view word, Merger& merger, std::vector<Part>& parts) const;
  bool stay_apart(std::string_view word, const Part& left, const Part& right, Merger& merger) const;
  static void add_part(std::string_view word, Symbols symbols, std::size_t end, std::vector<Part>& parts);

  DoubleArray vocabulary_;
  MergeTable merges_;
  ByteIds byte_ids_;
  bool takes_words_;
  bool is_regular_;  // each token is made by one merge, of what earlier merges make
  std::unique_ptr<BytePair[]> pairs_;
};

}  // namespace penstock
