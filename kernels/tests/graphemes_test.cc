#include "penstock/graphemes.h"

#include <string>
#include <vector>

#include "check.h"
#include "penstock/utf8.h"

using namespace penstock;

namespace {

using Clusters = std::vector<std::string>;

Clusters clusters(const std::string& text) {
  Clusters found;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = next_grapheme(text, at);
    CHECK(end > at && end <= text.size());
    found.push_back(text.substr(at, end - at));
    at = end;
  }
  AlignedText characters;
  for (std::size_t at = 0; at < text.size();) characters.push_back({next_code_point(text, at), 0, 0});
  std::size_t at = 0;
  for (const std::string& cluster : found) {
    at = next_grapheme(characters, at);
    CHECK(at <= characters.size());
    std::size_t size = 0;
    for (std::size_t i = 0; i < at; ++i) {
      std::string bytes;
      append_utf8(bytes, characters[i].code_point);
      size += bytes.size();
    }
    CHECK(text.compare(size - cluster.size(), cluster.size(), cluster) == 0);
  }
  CHECK(at == characters.size());
  return found;
}

void marks_stay_with_what_they_follow() {
  CHECK((clusters("ae\u0301\u0323b") == Clusters{"a", "e\u0301\u0323", "b"}));
  CHECK((clusters("\u0301a") == Clusters{"\u0301", "a"}));
  CHECK((clusters("\n\u0301") == Clusters{"\n", "\u0301"}));
  CHECK((clusters("\u0915\u093f\u0600a") == Clusters{"\u0915\u093f", "\u0600a"}));
}

void line_ends_are_one_cluster() {
  CHECK((clusters("a\r\nb\n\r") == Clusters{"a", "\r\n", "b", "\n", "\r"}));
  CHECK((clusters("\r\r\n") == Clusters{"\r", "\r\n"}));
}

void syllables_are_put_together_from_jamo() {
  CHECK((clusters("\u1100\u1161\u11a8\u1100") == Clusters{"\u1100\u1161\u11a8", "\u1100"}));
  CHECK((clusters("\uac00\u11a8\uac01\u1161") == Clusters{"\uac00\u11a8", "\uac01", "\u1161"}));
}

void flags_pair_up() {
  CHECK((clusters("\U0001F1E9\U0001F1EA\U0001F1EB\U0001F1F7\U0001F1E9") ==
         Clusters{"\U0001F1E9\U0001F1EA", "\U0001F1EB\U0001F1F7", "\U0001F1E9"}));
  CHECK((clusters("\U0001F1E9\u0301\U0001F1EA") == Clusters{"\U0001F1E9\u0301", "\U0001F1EA"}));
}

void joiners_join_pictographs_only() {
  CHECK((clusters("\U0001F468\U0001F3FD\u200D\U0001F467") == Clusters{"\U0001F468\U0001F3FD\u200D\U0001F467"}));
  CHECK((clusters("\U0001F468\u200D\u200D\U0001F467") == Clusters{"\U0001F468\u200D\u200D", "\U0001F467"}));
  CHECK((clusters("a\u200D\U0001F467") == Clusters{"a\u200D", "\U0001F467"}));
}

void linkers_join_consonants_only() {
  CHECK((clusters("\u0915\u094d\u200d\u0937\u093f") == Clusters{"\u0915\u094d\u200d\u0937\u093f"}));
  CHECK((clusters("\u0915\u094d\u200c\u0937") == Clusters{"\u0915\u094d\u200c", "\u0937"}));
  CHECK((clusters("a\u094d\u0937") == Clusters{"a\u094d", "\u0937"}));
  CHECK((clusters("\u0915\u0301\u0937") == Clusters{"\u0915\u0301", "\u0937"}));
}

}  // namespace

int main() {
  marks_stay_with_what_they_follow();
  line_ends_are_one_cluster();
  syllables_are_put_together_from_jamo();
  flags_pair_up();
  joiners_join_pictographs_only();
  linkers_join_consonants_only();
}
