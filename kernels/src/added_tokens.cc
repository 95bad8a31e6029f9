#include "penstock/added_tokens.h"

#include <algorithm>
#include <stdexcept>

namespace penstock {
namespace {

bool has_flag(std::string_view text, std::size_t at, CharFlag flag) noexcept {
  return UnicodeTables::get().info(next_code_point(text, at)).flags & flag;
}

// A character that offset trimming takes for a space; U+0120 is how byte-level vocabularies write one.
bool is_space(std::uint32_t c) noexcept {
  return c == 0x120 || (UnicodeTables::get().info(c).flags & kWhitespace) != 0;
}

}  // namespace

EndSpaces end_spaces(std::string_view text, const AddedSplit& split, std::size_t stripped) noexcept {
  EndSpaces spaces{0, stripped};
  std::size_t at = split.begin;
  for (std::size_t next = at; at < split.content_end && is_space(next_code_point(text, next)); at = next)
    ++spaces.leading;
  if (at == split.content_end) {
    spaces.leading += stripped;
    spaces.trailing = spaces.leading;
    return spaces;
  }
  for (std::size_t end = split.content_end;; ++spaces.trailing) {
    std::size_t next = end = previous_start(text, end);
    if (!is_space(next_code_point(text, next))) return spaces;
  }
}

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens) : tokens_(tokens) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    if (content.empty() || trie_.longest(content).size == content.size())
      throw std::invalid_argument("the added token with id " + std::to_string(tokens_[i].id) +
                                  " is empty or the same as another once normalised; "
                                  "remove it, or set its \"normalized\" to false");
    trie_.insert(content, static_cast<std::int32_t>(i));
    starts_.add(content);
  }
}

bool AddedTokens::stands_alone(std::string_view text, std::size_t begin, std::size_t end) noexcept {
  return (begin == 0 || !has_flag(text, previous_start(text, begin), kWord)) &&
         (end == text.size() || !has_flag(text, end, kWord));
}

std::size_t AddedTokens::skip_spaces_back(std::string_view text, std::size_t from, std::size_t limit) noexcept {
  while (from > limit) {
    const std::size_t start = previous_start(text, from);
    if (!has_flag(text, start, kWhitespace)) break;
    from = start;
  }
  // A predecessor's rstrip may have gone past `from`; tokenizers then begins at the predecessor's end.
  return std::max(from, limit);
}

std::size_t AddedTokens::skip_spaces(std::string_view text, std::size_t from) noexcept {
  while (from < text.size() && has_flag(text, from, kWhitespace)) next_code_point(text, from);
  return from;
}

}  // namespace penstock
