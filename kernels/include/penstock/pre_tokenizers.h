// Pre-tokenisers that cut words by what class each character is of.
#pragma once

#include <cstdint>

#include "penstock/pipeline.h"

namespace penstock {

// What becomes of the characters that a stage cuts at; numbered as SplitBehavior in spec.py.
enum class SplitBehavior : std::int32_t {
  kRemoved = 0,
  kIsolated = 1,
  kMergedWithPrevious = 2,
  kMergedWithNext = 3,
  kContiguous = 4,
};

// BertPreTokenizer: whitespace is removed, punctuation isolated.
class BertSplitStage final : public PreTokenizerStage {
 public:
  void apply(Words& words, Words& spare) const override;
};

// WhitespaceSplit: whitespace is removed.
class WhitespaceSplitStage final : public PreTokenizerStage {
 public:
  void apply(Words& words, Words& spare) const override;
};

// Whitespace: runs of word characters, and runs of what is neither those nor whitespace.
class WhitespaceStage final : public PreTokenizerStage {
 public:
  void apply(Words& words, Words& spare) const override;
};

// Punctuation: cuts at each punctuation character.
class PunctuationStage final : public PreTokenizerStage {
 public:
  explicit PunctuationStage(SplitBehavior behavior) noexcept : behavior_(behavior) {}
  void apply(Words& words, Words& spare) const override;

 private:
  SplitBehavior behavior_;
};

// Digits: cuts numbers off, each digit alone or together.
class DigitsStage final : public PreTokenizerStage {
 public:
  explicit DigitsStage(bool individual) noexcept
      : behavior_(individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous) {}
  void apply(Words& words, Words& spare) const override;

 private:
  SplitBehavior behavior_;
};

}  // namespace penstock
