#include "penstock/added_tokens.h"

#include <algorithm>
#include <stdexcept>

namespace penstock {
namespace {

bool has_flag(std::string_view text, std::size_t at, CharFlag flag) noexcept {
  return UnicodeTables::get().info(next_code_point(text, at)).flags & flag;
}

}  // namespace

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens) : tokens_(tokens) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    if (content.empty() || trie_.longest(content).size == content.size())
      throw std::invalid_argument("the added token with id " + std::to_string(tokens_[i].id) +
                                  " is empty or the same as another once normalised");
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
