#include "penstock/trie.h"

namespace penstock {
namespace {

constexpr unsigned kInitialBits = 8;

}  // namespace

Trie::Trie()
    : edges_(std::size_t{1} << kInitialBits, Edge{kFree, kNone}),
      values_{kNoValue},
      mask_((std::size_t{1} << kInitialBits) - 1),
      shift_(64 - kInitialBits) {}

void Trie::place(const Edge& edge) noexcept {
  std::size_t at = slot_of(edge.key);
  while (edges_[at & mask_].key != kFree) ++at;
  edges_[at & mask_] = edge;
}

void Trie::grow() {
  std::vector<Edge> old(edges_.size() * 2, Edge{kFree, kNone});
  old.swap(edges_);
  mask_ = edges_.size() - 1;
  --shift_;
  for (const Edge& edge : old)
    if (edge.key != kFree) place(edge);
}

void Trie::insert(std::string_view key, std::int32_t value) {
  Node node = kRoot;
  for (const char c : key) {
    const auto byte = static_cast<unsigned char>(c);
    Node child = step(node, byte);
    if (child == kNone) {
      // At most half full, so that a miss ends soon.
      if (values_.size() * 2 > edges_.size()) grow();
      child = static_cast<Node>(values_.size());
      values_.push_back(kNoValue);
      place({edge_key(node, byte), child});
    }
    node = child;
  }
  if (node != kRoot) values_[node] = value;
}

Trie::Node Trie::find(std::string_view key) const noexcept {
  Node node = kRoot;
  for (const char c : key) {
    node = step(node, static_cast<unsigned char>(c));
    if (node == kNone) break;
  }
  return node;
}

Trie::Match Trie::longest(std::string_view text, Node start) const noexcept {
  Match best{kNoValue, 0};
  Node node = start;
  for (std::size_t i = 0; i < text.size(); ++i) {
    node = step(node, static_cast<unsigned char>(text[i]));
    if (node == kNone) break;
    if (values_[node] != kNoValue) best = {values_[node], i + 1};
  }
  return best;
}

}  // namespace penstock
