// Added tokens (special or not) found in text, as AddedVocabulary of tokenizers 0.23.3 finds them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/pair_scan.h"
#include "penstock/trie.h"
#include "penstock/unicode.h"
#include "penstock/utf8.h"

namespace penstock {

struct AddedToken {
  std::string content;
  std::int32_t id;
  bool single_word;
  bool lstrip;
  bool rstrip;
  bool special = false;
};

// An added token in a text, or the text between two.
struct AddedSplit {
  const AddedToken* token;  // nullptr for text between
  std::size_t begin;
  std::size_t end;
  std::size_t content_end;  // of a token: from here on to its end there is stripped whitespace
};

// Splits text at added tokens: leftmost, longest, not overlapping. A match that single_word rejects is
// consumed all the same; rstrip may reach into the next match, which then begins before its predecessor's
// end: both are quirks that ids and offsets depend on. A match of which nothing is left is dropped.
// O(text size * longest token). Immutable.
class AddedTokens {
 public:
  // Throws std::invalid_argument if a content is empty or there twice.
  explicit AddedTokens(const std::vector<AddedToken>& tokens);

  bool empty() const noexcept { return tokens_.empty(); }

  // Calls visit(const AddedSplit&) from left to right, until it returns false. Empty texts between tokens are
  // left out. With `split_special`, special tokens are text like any other; their matches are consumed all the
  // same. Begins never move back, nor do the ends of tokens that strip on the right, nor those of the others; but
  // ends of the two kinds may take turns: whoever counts on the way to them keeps a count of each.
  template <typename Visit>
  void split(std::string_view text, bool split_special, Visit visit) const {
    std::size_t done = 0;
    std::size_t spaces_end = 0;  // end of the spaces scanned last, so that none is scanned twice
    for (std::size_t at = starts_.next(text, 0); at < text.size(); at = starts_.next(text, at)) {
      const Trie::Match match = trie_.longest(text.substr(at));
      if (!match.size) {
        ++at;
        continue;
      }
      const AddedToken& token = tokens_[static_cast<std::size_t>(match.value)];
      const std::size_t end = at + match.size;
      const bool is_text = split_special && token.special;
      if (!is_text && (!token.single_word || stands_alone(text, at, end))) {
        const std::size_t begin = token.lstrip ? skip_spaces_back(text, at, done) : at;
        if (token.rstrip && end > spaces_end) spaces_end = skip_spaces(text, end);
        // A predecessor's rstrip may have gone past this match: then nothing is left of it.
        const std::size_t stop = std::max(begin, token.rstrip ? std::max(end, spaces_end) : end);
        if (done < begin && !visit(AddedSplit{nullptr, done, begin, begin})) return;
        if (begin < stop && !visit(AddedSplit{&token, begin, stop, std::max(begin, end)})) return;
        done = stop;
      }
      at = end;
    }
    if (done < text.size()) visit(AddedSplit{nullptr, done, text.size(), text.size()});
  }

  // Whether any token could begin somewhere in the text.
  bool may_match(std::string_view text) const noexcept { return starts_.next(text, 0) < text.size(); }

 private:
  static bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) noexcept;
  static std::size_t skip_spaces_back(std::string_view text, std::size_t from, std::size_t limit) noexcept;
  static std::size_t skip_spaces(std::string_view text, std::size_t from) noexcept;

  std::vector<AddedToken> tokens_;
  Trie trie_;
  PairScan starts_;
};

// Spaces at the ends of what a token matched: of its content, as found in `text`, and of the `stripped` space
// characters behind it. The spaces are those that trimmed offsets leave out. Linear in the content.
struct EndSpaces {
  std::size_t leading;
  std::size_t trailing;
};
EndSpaces end_spaces(std::string_view text, const AddedSplit& split, std::size_t stripped) noexcept;

}  // namespace penstock
