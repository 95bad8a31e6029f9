#include "penstock/pre_tokenizers.h"

#include <utility>

#include "penstock/unicode.h"

namespace penstock {
namespace {

bool has_flag(const AlignedChar& c, unsigned flags) noexcept {
  return UnicodeTables::get().info(c.code_point).flags & flags;
}

// Cuts each word into spans that `cut` pushes; characters stay as they are.
template <typename Cut>
void recut(Words& words, Words& spare, Cut cut) {
  spare.words.clear();
  for (const Words::Word& word : words.words) {
    cut(word, [&](std::uint32_t begin, std::uint32_t end) {
      if (begin < end) spare.words.push_back({begin, end, words.chars[begin].begin});
    });
  }
  words.words.swap(spare.words);
}

// NormalizedString::split at the characters that `is_cut` names.
template <typename IsCut>
void split(Words& words, Words& spare, SplitBehavior behavior, IsCut is_cut) {
  recut(words, spare, [&](const Words::Word& word, auto push) {
    std::uint32_t begin = word.begin;  // of the span not pushed yet
    bool was_cut = false;              // whether the character before was one to cut at
    for (std::uint32_t at = word.begin; at < word.end; ++at) {
      const bool cuts = is_cut(words.chars[at]);
      bool begins = false;  // whether a span begins here
      switch (behavior) {
        case SplitBehavior::kRemoved:
        case SplitBehavior::kIsolated: begins = cuts || was_cut; break;
        case SplitBehavior::kMergedWithPrevious: begins = was_cut; break;
        case SplitBehavior::kMergedWithNext: begins = cuts; break;
        case SplitBehavior::kContiguous: begins = cuts != was_cut; break;
      }
      if (begins) {
        if (behavior != SplitBehavior::kRemoved || !was_cut) push(begin, at);
        begin = at;
      }
      was_cut = cuts;
    }
    if (behavior != SplitBehavior::kRemoved || !was_cut) push(begin, word.end);
  });
}

}  // namespace

void BertSplitStage::apply(Words& words, Words& spare) const {
  recut(words, spare, [&](const Words::Word& word, auto push) {
    std::uint32_t begin = word.begin;
    for (std::uint32_t at = word.begin; at < word.end; ++at) {
      if (!has_flag(words.chars[at], kWhitespace | kPunctuation)) continue;
      push(begin, at);
      if (!has_flag(words.chars[at], kWhitespace)) push(at, at + 1);
      begin = at + 1;
    }
    push(begin, word.end);
  });
}

void WhitespaceSplitStage::apply(Words& words, Words& spare) const {
  split(words, spare, SplitBehavior::kRemoved, [](const AlignedChar& c) { return has_flag(c, kWhitespace); });
}

void WhitespaceStage::apply(Words& words, Words& spare) const {
  enum class Class : std::uint8_t { kSpace, kWordChar, kOther };
  const auto class_of = [](const AlignedChar& c) {
    if (has_flag(c, kWord)) return Class::kWordChar;
    return has_flag(c, kWhitespace) ? Class::kSpace : Class::kOther;
  };
  recut(words, spare, [&](const Words::Word& word, auto push) {
    std::uint32_t begin = word.begin;
    Class current = Class::kSpace;
    for (std::uint32_t at = word.begin; at < word.end; ++at) {
      const Class next = class_of(words.chars[at]);
      if (next == current) continue;
      if (current != Class::kSpace) push(begin, at);
      begin = at;
      current = next;
    }
    if (current != Class::kSpace) push(begin, word.end);
  });
}

void PunctuationStage::apply(Words& words, Words& spare) const {
  split(words, spare, behavior_, [](const AlignedChar& c) { return has_flag(c, kPunctuation); });
}

void DigitsStage::apply(Words& words, Words& spare) const {
  split(words, spare, behavior_, [](const AlignedChar& c) { return has_flag(c, kNumeric); });
}

}  // namespace penstock
