// SentencePiece's pre-tokeniser: spaces are characters of words, and begin them.
#pragma once

#include <cstdint>
#include <string>

#include "penstock/pipeline.h"

namespace penstock {

// Metaspace of tokenizers 0.23.3. Linear.
class MetaspaceStage final : public PreTokenizerStage {
 public:
  // Numbers are those of PrependScheme in spec.py.
  enum class Prepend : std::int32_t { kAlways = 0, kNever = 1, kFirst = 2 };

  // `replacement` is one character, written for spaces and, as `prepend` says, before words that do not begin
  // with it: always, or only where the original begins (origin 0). `splits`: words are cut before each.
  // Throws std::invalid_argument if the replacement is not one character or the number is unknown.
  MetaspaceStage(const std::string& replacement, std::int32_t prepend, bool splits);

  void apply(Words& words, Words& spare) const override;

 private:
  std::uint32_t replacement_;
  Prepend prepend_;
  bool splits_;
};

}  // namespace penstock
