// SentencePiece's character map: the Precompiled normaliser of tokenizers 0.23.3, with its alignments.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "penstock/blob.h"
#include "penstock/pipeline.h"

namespace penstock {

// A view of a map that someone else owns (a blob). Reading is safe from many threads and, for broken maps,
// never leaves the memory that it was given: what points outside leads nowhere.
class Charsmap {
 public:
  // `units` is a Darts-clone double array, `texts` are the replacements, each ended by NUL. Throws
  // std::invalid_argument if there are no units or the texts are not UTF-8.
  Charsmap(std::span<const std::uint32_t> units, std::string_view texts);
  // That of kCharsmapTrie and kCharsmapTexts.
  explicit Charsmap(const BlobView& blob);

  // What the whole of `text` becomes: the replacement of its *shortest* prefix that is in the map. None is
  // looked for beyond a NUL.
  std::optional<std::string_view> replacement(std::string_view text) const noexcept;

  // Whether any key begins with this byte (not NUL).
  bool has_keys(unsigned char first) const noexcept { return unit(root_ ^ first, first) != nullptr; }

 private:
  const std::uint32_t* unit(std::uint32_t at, unsigned char label) const noexcept;
  std::optional<std::string_view> text(std::uint32_t leaf_at) const noexcept;

  std::span<const std::uint32_t> units_;
  std::string_view texts_;
  std::uint32_t root_;
};

// Replaces every grapheme cluster of fewer than six bytes by what the map says of the whole, or else each of
// its characters by what the map says of it. Linear.
class PrecompiledStage final : public NormalizerStage {
 public:
  explicit PrecompiledStage(const BlobView& blob) : charsmap_(blob) {}
  explicit PrecompiledStage(const Charsmap& charsmap) : charsmap_(charsmap) {}

  void apply(AlignedText& text, AlignedText& spare, std::int32_t piece_begin) const override;

 private:
  Charsmap charsmap_;
};

}  // namespace penstock
