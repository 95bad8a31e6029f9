// The Unigram model of tokenizers 0.23.3: the cut of a word whose pieces' scores have the greatest sum.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/blob.h"
#include "penstock/double_array.h"
#include "penstock/pipeline.h"

namespace penstock {

// A token of a word: bytes [begin, end) of it. Tokens of byte fallback all have those of their piece.
struct UnigramCut {
  std::int32_t id;
  std::uint32_t begin;
  std::uint32_t end;
};

// What cutting needs in each thread.
class UnigramScratch final : public Scratch {
 public:
  std::size_t bytes() const noexcept override;
  // Gives back what a very long word needed. cut() does so itself.
  void give_back_if_large();

  // The last word's tokens.
  std::vector<UnigramCut> cuts;

 private:
  friend class Unigram;

  // The best cut of the text before a byte: its last piece.
  struct Node {
    double score;
    std::int32_t begin;  // of the piece; -1 if none ends here
    std::int32_t id;
  };

  std::vector<Node> nodes_;
  std::string text_;
  std::vector<std::uint32_t> char_of_byte_;
};

// Forward Viterbi over bytes in doubles, in the reference's order of additions; of equal sums the piece that
// begins first wins. A character that is no piece costs unknown_score; unknown neighbours are joined, and what
// they join to is looked up again, then spelt in bytes if the model does so, else unknown.
class Unigram final : public Model {
 public:
  // Reads kConfig, kVocabularyTrie, kScores and kByteIds in place. Throws std::invalid_argument if they are
  // broken or there is no unknown token (the reference fails at the first text that needs one).
  explicit Unigram(const BlobView& blob);

  std::unique_ptr<Scratch> make_scratch() const override;
  void cut(const AlignedChar* begin, const AlignedChar* end, std::int32_t word, Scratch& scratch,
           TokenBuffer& out) const override;

  // Cuts valid UTF-8, below 2 GiB, into scratch.cuts. O(bytes x longest piece).
  void cut_text(std::string_view word, UnigramScratch& scratch) const;

 private:
  void search(std::string_view word, std::vector<UnigramScratch::Node>& nodes) const;
  void offer(UnigramScratch::Node& node, double score, std::size_t begin, std::int32_t id) const noexcept;
  void spell_backwards(std::string_view word, std::uint32_t begin, std::uint32_t end,
                       std::vector<UnigramCut>& out) const;

  DoubleArray vocabulary_;
  std::span<const double> scores_;
  std::int32_t unknown_id_;
  double unknown_score_;
  bool byte_fallback_;
  std::array<std::int32_t, 256> byte_ids_;
};

}  // namespace penstock
