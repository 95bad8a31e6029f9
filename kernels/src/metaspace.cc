#include "penstock/metaspace.h"

#include <stdexcept>
#include <utility>

#include "penstock/utf8.h"

namespace penstock {

MetaspaceStage::MetaspaceStage(const std::string& replacement, std::int32_t prepend, bool splits)
    : prepend_(static_cast<Prepend>(prepend)), splits_(splits) {
  if (prepend < 0 || prepend > 2)
    throw std::invalid_argument("the compiled tokenizer has an unknown prepend scheme " + std::to_string(prepend));
  if (!is_utf8(replacement) || count_code_points(replacement) != 1)
    throw std::invalid_argument("Metaspace's replacement must be one character");
  std::size_t at = 0;
  replacement_ = next_code_point(replacement, at);
}

void MetaspaceStage::apply(Words& words, Words& spare) const {
  spare.clear();
  const auto size = [&spare] { return static_cast<std::uint32_t>(spare.chars.size()); };
  for (const Words::Word& word : words.words) {
    if (word.begin == word.end) continue;
    Words::Word part{size(), size(), word.origin};
    const AlignedChar first = words.chars[word.begin];
    const bool prepends = prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && word.origin == 0);
    // A part is a slice of its own, and begins where its first character does.
    if (splits_) part.origin = first.begin;
    if (prepends && first.code_point != replacement_ && first.code_point != ' ')
      spare.chars.push_back({replacement_, first.begin, first.end});
    for (std::uint32_t i = word.begin; i < word.end; ++i) {
      AlignedChar c = words.chars[i];
      if (c.code_point == ' ') c.code_point = replacement_;
      if (splits_ && c.code_point == replacement_ && size() > part.begin) {
        part.end = size();
        spare.words.push_back(part);
        part = {size(), size(), c.begin};
      }
      spare.chars.push_back(c);
    }
    part.end = size();
    spare.words.push_back(part);
  }
  std::swap(words, spare);
}

}  // namespace penstock
