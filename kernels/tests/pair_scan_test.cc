#include "penstock/pair_scan.h"

#include <random>
#include <string>
#include <vector>

#include "check.h"

using namespace penstock;

namespace {

std::size_t plainly(const std::vector<std::string>& tokens, const std::string& text, std::size_t at) {
  for (; at < text.size(); ++at)
    for (const std::string& token : tokens)
      if (text[at] == token[0] && (at + 1 == text.size() || token.size() == 1 || text[at + 1] == token[1])) return at;
  return text.size();
}

void every_candidate_is_found_and_no_other() {
  std::mt19937 random(7);
  const std::vector<std::vector<std::string>> sets{
      {"[PAD]", "[UNK]"}, {"  ", "   ", "|||", "<|"}, {"\xc3\xa9", "\xff"}, {"a"}, {"\x80\x7f", "\x7f\x80", "\x8f"}};
  for (const auto& tokens : sets) {
    PairScan scan;
    for (const std::string& token : tokens) scan.add(token);
    for (int run = 0; run < 4000; ++run) {
      const std::size_t size = random() % 140;
      std::string text;
      for (std::size_t i = 0; i < size; ++i) {
        const std::string& token = tokens[random() % tokens.size()];
        text += random() % 12 ? static_cast<char>(random()) : token[random() % token.size()];
      }
      const std::size_t at = size ? random() % (size + 1) : 0;
      const std::size_t wanted = plainly(tokens, text, at);
      CHECK(scan.next(text, at) == wanted);
      CHECK(scan.next_portable(text, at) == wanted);
    }
  }
}

}  // namespace

int main() { every_candidate_is_found_and_no_other(); }
