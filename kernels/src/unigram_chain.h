// What the fast path of Unigram tokenizers needs to know of the normalisers and pre-tokenisers around the model.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/ascii_blocks.h"
#include "penstock/blob.h"
#include "penstock/metaspace.h"
#include "penstock/normalizers.h"
#include "penstock/pair_scan.h"
#include "penstock/pipeline.h"
#include "penstock/precompiled.h"
#include "penstock/trie.h"

namespace penstock {

// Texts to look for in others, all at once.
class AddedTexts {
 public:
  void add(std::string_view text);
  bool empty() const noexcept { return is_empty_; }

  // Whether any lies in the text. O(text size * longest), but for most texts a scan.
  bool lie_in(std::string_view text) const noexcept;

 private:
  PairScan starts_;
  Trie trie_;
  bool is_empty_ = true;
};

// A chain of stages, as settings.
struct UnigramChain {
  bool strips_left = false;         // raw whitespace, before all else
  bool strips_right = false;
  bool strips_normalized = false;   // whitespace at the end, after the character map
  bool collapses = false;           // runs of spaces are one
  bool cuts_at_whitespace = false;  // WhitespaceSplit before Metaspace
  // What comes before the character map and changes a word alike wherever it stands.
  std::vector<std::unique_ptr<const NormalizerStage>> stages;
  std::optional<Charsmap> charsmap;
  MetaspaceStage::Prepend prepend = MetaspaceStage::Prepend::kAlways;
  std::uint32_t mark = 0;           // Metaspace's character
  std::string mark_text;            // in UTF-8
  // Added tokens that are matched on normalised text, normalised. Each lies within a word.
  AddedTexts added;

  // None if the blob's stages are no such chain.
  static std::optional<UnigramChain> of(const BlobView& blob);

  // kSpace for characters that become a space (or whitespace, if that cuts) whatever is around them; else kWord.
  BlockClass class_of(std::uint32_t c) const;

  // Whether the map changes a separator alike whatever cluster it begins.
  bool is_fixed_separator(std::uint32_t c) const;

  // Whether a character stays as it is among others of which this is true, and is no space nor the mark.
  bool keeps(std::uint32_t c) const;

 private:
  bool take_normalizers(const BlobView& blob);
  bool take_normalizer(const BlobView& blob, const StageRecord& record);
  bool take_stage(const BlobView& blob, const StageRecord& record);
  bool take_pre_tokenizers(const BlobView& blob);
  bool take_added_tokens(const BlobView& blob);
  std::optional<std::string> normalize_added(std::string_view content) const;
  bool is_separable() const;
  bool stages_keep(std::uint32_t c) const;

  // What the stages change: see stages_keep().
  std::vector<UnicodeForm> forms_;
  std::vector<std::uint32_t> replaced_;  // characters of the patterns
  bool strips_accents_ = false;
  bool lowercases_ = false;
};

// The characters that a chain keeps, as a bit each.
class KeptChars {
 public:
  explicit KeptChars(const UnigramChain& chain);

  // Whether all characters of valid UTF-8 are kept.
  bool all(std::string_view text) const noexcept;

 private:
  // Characters above are rare: none counts as kept.
  static constexpr std::uint32_t kCodePoints = 0x32400;

  std::array<bool, 128> ascii_{};
  std::vector<std::uint64_t> bits_;
};

}  // namespace penstock
