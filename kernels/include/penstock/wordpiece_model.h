// WordPiece: the longest vocabulary entry from the left, again and again.
#pragma once

#include <cstdint>
#include <string>

#include "penstock/blob.h"
#include "penstock/double_array.h"
#include "penstock/pipeline.h"

namespace penstock {

// Greedy longest prefixes; entries inside a word begin with the continuing prefix. A word that the vocabulary
// cannot spell to its end, or of too many characters, becomes one unknown token. O(word * longest entry).
class WordPieceModel final : public Model {
 public:
  // Reads kConfig and kVocabularyTrie in place.
  explicit WordPieceModel(const BlobView& blob);

  std::unique_ptr<Scratch> make_scratch() const override;
  void cut(const AlignedChar* begin, const AlignedChar* end, std::int32_t word, Scratch& scratch,
           TokenBuffer& out) const override;

 private:
  DoubleArray vocabulary_;
  DoubleArray::State continuation_;
  std::int32_t unknown_id_;
  std::int64_t word_chars_max_;
};

}  // namespace penstock
