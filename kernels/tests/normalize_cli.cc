// Normalises standard input with the stages named as arguments, for comparison with the Python twin.
//
// Usage: normalize_cli BEGIN STAGE...; each line of input is the hexadecimal of UTF-8, each line of output its
// normalised characters as code_point,begin,end. BEGIN is the index of each line's first character. Stages:
// nfc nfd nfkc nfkd lowercase strip_accents strip:lr replace:OLD:NEW spaces:NEW prepend:TEXT, the texts in
// hexadecimal as well. The stage graphemes writes the index at which each cluster ends instead.
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "penstock/graphemes.h"
#include "penstock/normalizers.h"
#include "penstock/utf8.h"

using namespace penstock;

namespace {

std::string unhex(const std::string& digits) {
  std::string bytes;
  for (std::size_t at = 0; at + 1 < digits.size(); at += 2)
    bytes += static_cast<char>(std::stoi(digits.substr(at, 2), nullptr, 16));
  return bytes;
}

std::vector<std::string> fields(const std::string& stage) {
  std::vector<std::string> found;
  for (std::size_t at = 0; at <= stage.size();) {
    const std::size_t end = std::min(stage.find(':', at), stage.size());
    found.push_back(stage.substr(at, end - at));
    at = end + 1;
  }
  return found;
}

std::unique_ptr<const NormalizerStage> make_stage(const std::string& text) {
  const std::vector<std::string> stage = fields(text);
  if (stage[0] == "nfc") return std::make_unique<UnicodeFormStage>(UnicodeForm::kNfc);
  if (stage[0] == "nfd") return std::make_unique<UnicodeFormStage>(UnicodeForm::kNfd);
  if (stage[0] == "nfkc") return std::make_unique<UnicodeFormStage>(UnicodeForm::kNfkc);
  if (stage[0] == "nfkd") return std::make_unique<UnicodeFormStage>(UnicodeForm::kNfkd);
  if (stage[0] == "lowercase") return std::make_unique<LowercaseStage>();
  if (stage[0] == "strip_accents") return std::make_unique<StripAccentsStage>();
  if (stage[0] == "strip")
    return std::make_unique<StripStage>(stage[1].find('l') != std::string::npos, stage[1].find('r') != std::string::npos);
  if (stage[0] == "replace") return std::make_unique<ReplaceStage>(unhex(stage[1]), unhex(stage[2]));
  if (stage[0] == "spaces") return std::make_unique<ReplaceSpaceRunsStage>(unhex(stage[1]));
  CHECK(stage[0] == "prepend");
  return std::make_unique<PrependStage>(unhex(stage[1]));
}

void print_clusters(const AlignedText& text) {
  for (std::size_t at = 0; at < text.size();) std::printf("%zu ", at = next_grapheme(text, at));
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc >= 3);
  const std::int32_t begin = std::stoi(argv[1]);
  const bool cuts_clusters = std::string(argv[2]) == "graphemes";
  std::vector<std::unique_ptr<const NormalizerStage>> stages;
  if (!cuts_clusters)
    for (int i = 2; i < argc; ++i) stages.push_back(make_stage(argv[i]));
  AlignedText text, spare;
  for (std::string line; std::getline(std::cin, line);) {
    const std::string bytes = unhex(line);
    CHECK(is_utf8(bytes));
    text.clear();
    for (std::size_t at = 0; at < bytes.size();) {
      const auto index = begin + static_cast<std::int32_t>(text.size());
      text.push_back({next_code_point(bytes, at), index, index + 1});
    }
    for (const auto& stage : stages) stage->apply(text, spare, begin);
    if (cuts_clusters) print_clusters(text);
    else
      for (const AlignedChar& c : text) std::printf("%u,%d,%d ", c.code_point, c.begin, c.end);
    std::putchar('\n');
  }
}
