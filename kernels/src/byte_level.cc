#include "penstock/byte_level.h"

#include <string>
#include <utility>

#include "penstock/unicode.h"
#include "penstock/utf8.h"

namespace penstock {
namespace {

constexpr std::array<std::uint16_t, 256> kByteCharacters = byte_characters();

std::uint32_t class_of(const UnicodeTables& tables, std::uint32_t c) noexcept {
  return tables.info(c).flags & (kLetter | kNumber | kWhitespace);
}

// Size of the contraction that begins with the apostrophe at `begin`, or 0.
std::size_t contraction(const AlignedChar* chars, std::size_t begin, std::size_t size) noexcept {
  if (begin + 1 >= size) return 0;
  const std::uint32_t first = chars[begin + 1].code_point;
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (begin + 2 >= size) return 0;
  const std::uint32_t second = chars[begin + 2].code_point;
  return ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l') ? 3 : 0;
}

void spell(const AlignedChar* begin, const AlignedChar* end, AlignedText& out) {
  std::string utf8;  // short enough to need no allocation
  for (const AlignedChar* at = begin; at < end; ++at) {
    utf8.clear();
    append_utf8(utf8, at->code_point);
    for (const char byte : utf8) out.push_back({kByteCharacters[static_cast<unsigned char>(byte)], at->begin, at->end});
  }
}

}  // namespace

std::size_t gpt2_match(const AlignedChar* chars, std::size_t begin, std::size_t size) noexcept {
  const UnicodeTables& tables = UnicodeTables::get();
  if (chars[begin].code_point == '\'')
    if (const std::size_t length = contraction(chars, begin, size)) return begin + length;
  const auto run = [&](std::size_t at, std::uint32_t kind) {
    while (at < size && class_of(tables, chars[at].code_point) == kind) ++at;
    return at;
  };
  const std::size_t first = begin + (chars[begin].code_point == ' ' && begin + 1 < size);
  const std::uint32_t kind = class_of(tables, chars[first].code_point);
  if (kind != kWhitespace) return run(first, kind);
  const std::size_t end = run(begin, kWhitespace);
  // The last whitespace before a word is left to it, unless there is only one.
  return end < size && end - begin > 1 ? end - 1 : end;
}

void ByteLevelStage::apply(Words& words, Words& spare) const {
  spare.clear();
  AlignedText spaced;
  for (const Words::Word& word : words.words) {
    const AlignedChar* chars = words.chars.data() + word.begin;
    std::size_t size = word.end - word.begin;
    if (add_prefix_space_ && chars->code_point != ' ') {
      // The space takes the first character's place, and that one is inserted after it, which copies where
      // it stands.
      spaced.assign(1, {' ', chars->begin, chars->end});
      spaced.insert(spaced.end(), chars, chars + size);
      chars = spaced.data();
      ++size;
    }
    for (std::size_t at = 0; at < size;) {
      const std::size_t end = use_regex_ ? gpt2_match(chars, at, size) : size;
      const auto begin = static_cast<std::uint32_t>(spare.chars.size());
      spell(chars + at, chars + end, spare.chars);
      spare.words.push_back(
          {begin, static_cast<std::uint32_t>(spare.chars.size()), use_regex_ ? chars[at].begin : word.origin});
      at = end;
    }
  }
  std::swap(words, spare);
}

}  // namespace penstock
