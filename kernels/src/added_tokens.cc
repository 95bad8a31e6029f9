#include "penstock/added_tokens.h"

#include <algorithm>
#include <cstring>
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
    note_start(content);
  }
}

void AddedTokens::note_start(std::string_view content) {
  const auto first = static_cast<unsigned char>(content[0]);
  if (!first_bytes_[first]) distinct_first_bytes_ += content[0];
  first_bytes_[first] = true;
  for (std::size_t second = 0; second < 256; ++second)
    if (content.size() == 1 || static_cast<unsigned char>(content[1]) == second) first_pairs_.set(first << 8U | second);
}

std::size_t AddedTokens::next_candidate(std::string_view text, std::size_t at) const noexcept {
  const auto is_candidate = [&](std::size_t i) {
    const std::size_t first = static_cast<unsigned char>(text[i]);
    if (!first_bytes_[first]) return false;
    // At the end of the text only a token of one byte fits; the trie finds out.
    return i + 1 == text.size() || first_pairs_[first << 8U | static_cast<unsigned char>(text[i + 1])];
  };
  if (distinct_first_bytes_.size() == 1) {
    while (at < text.size()) {
      const void* found = std::memchr(text.data() + at, distinct_first_bytes_[0], text.size() - at);
      if (!found) return text.size();
      at = static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
      if (is_candidate(at)) return at;
      ++at;
    }
    return text.size();
  }
  while (at < text.size() && !is_candidate(at)) ++at;
  return at;
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
