#include "penstock/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>

#include "penstock/utf8.h"

namespace penstock {
namespace {

// Buffers of a longer word than this are given back after it.
constexpr std::size_t kSymbolsKept = std::size_t{1} << 14;

std::array<std::int32_t, 256> fallback_ids(const DoubleArray& vocabulary, bool is_wanted) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::array<std::int32_t, 256> ids;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char name[] = {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
    ids[byte] = is_wanted && !vocabulary.empty() ? vocabulary.get({name, sizeof name}) : DoubleArray::kNoValue;
  }
  return ids;
}

}  // namespace

std::vector<MergeRecord> build_merge_table(std::vector<MergeRecord> merges) {
  const auto pair_order = [](const MergeRecord& a, const MergeRecord& b) {
    return a.left != b.left ? a.left < b.left : a.right < b.right;
  };
  const auto is_same = [](const MergeRecord& a, const MergeRecord& b) {
    return a.left == b.left && a.right == b.right;
  };
  // unique() keeps the first of equal ones: the last that was given.
  std::reverse(merges.begin(), merges.end());
  std::stable_sort(merges.begin(), merges.end(), pair_order);
  merges.erase(std::unique(merges.begin(), merges.end(), is_same), merges.end());
  std::stable_sort(merges.begin(), merges.end(),
                   [](const MergeRecord& a, const MergeRecord& b) { return a.rank < b.rank; });
  if (merges.size() >= MergeTable::kIndexMask) throw std::invalid_argument("there are too many merges");

  const std::size_t slot_count = std::bit_ceil(std::max<std::size_t>(2 * merges.size(), 4));
  const unsigned bits = static_cast<unsigned>(std::countr_zero(slot_count));
  std::vector<std::uint32_t> slots(slot_count, MergeTable::kEmpty);
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const MergeRecord& merge = merges[i];
    if (merge.left < 0 || merge.right < 0 || merge.merged < 0)
      throw std::invalid_argument("a merge has a negative id");
    const std::uint64_t mixed = MergeTable::hash(merge.left, merge.right);
    std::size_t at = mixed >> (64 - bits);
    while (slots[at] != MergeTable::kEmpty) at = (at + 1) & (slot_count - 1);
    slots[at] = MergeTable::tag_of(mixed) << MergeTable::kIndexBits | static_cast<std::uint32_t>(i);
  }
  const MergeRecord header{static_cast<std::int32_t>(merges.size()), static_cast<std::int32_t>(bits), 0, 0};
  merges.insert(merges.begin(), header);
  const std::size_t slots_at = merges.size();
  merges.resize(slots_at + slot_count / 4);
  std::memcpy(merges.data() + slots_at, slots.data(), slot_count * sizeof(std::uint32_t));
  return merges;
}

MergeTable::MergeTable(std::span<const MergeRecord> section) {
  const auto check = [](bool is_fine) {
    if (!is_fine) throw std::invalid_argument("the compiled tokenizer's merge table is broken; compile it anew");
  };
  check(!section.empty() && section[0].left >= 0 && section[0].right >= 2 &&
        section[0].right <= static_cast<std::int32_t>(kIndexBits) + 2);
  const auto count = static_cast<std::size_t>(section[0].left);
  const auto bits = static_cast<unsigned>(section[0].right);
  const std::size_t slot_count = std::size_t{1} << bits;
  check(section.size() == 1 + count + slot_count / 4);
  merges_ = section.data() + 1;
  slots_ = reinterpret_cast<const std::uint32_t*>(merges_ + count);
  mask_ = slot_count - 1;
  shift_ = 64 - bits;
  bool has_end = false;  // a search ends at an empty slot
  for (std::size_t at = 0; at < slot_count; ++at) {
    check(slots_[at] == kEmpty || (slots_[at] & kIndexMask) < count);
    has_end |= slots_[at] == kEmpty;
  }
  check(has_end);
}

void Merger::offer(const MergeTable& table, std::int32_t position) {
  const auto at = static_cast<std::size_t>(position);
  const Symbol& right = symbols_[static_cast<std::size_t>(symbols_[at].next)];
  if (const MergeRecord* merge = table.find(symbols_[at].id, right.id)) {
    heap_.push_back({merge->rank, position, merge->merged});
  }
}

void Merger::merge(const MergeTable& table) {
  const auto comes_later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  heap_.clear();
  for (std::size_t at = 0; at + 1 < symbols_.size(); ++at) offer(table, static_cast<std::int32_t>(at));
  std::make_heap(heap_.begin(), heap_.end(), comes_later);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), comes_later);
    const Candidate candidate = heap_.back();
    heap_.pop_back();
    Symbol& left = symbols_[static_cast<std::size_t>(candidate.position)];
    if (left.size == 0 || left.next < 0) continue;
    Symbol& right = symbols_[static_cast<std::size_t>(left.next)];
    // Out of date if its pair is gone. Like the reference, this compares only what the pair would become.
    const MergeRecord* merge = table.find(left.id, right.id);
    if (!merge || merge->merged != candidate.merged) continue;
    left.id = candidate.merged;
    left.size += right.size;
    left.next = right.next;
    right.size = 0;
    const std::size_t before = heap_.size();
    if (left.previous >= 0) offer(table, left.previous);
    if (heap_.size() > before) std::push_heap(heap_.begin(), heap_.end(), comes_later);
    const std::size_t between = heap_.size();
    if (left.next >= 0) {
      symbols_[static_cast<std::size_t>(left.next)].previous = candidate.position;
      offer(table, candidate.position);
    }
    if (heap_.size() > between) std::push_heap(heap_.begin(), heap_.end(), comes_later);
  }
  std::erase_if(symbols_, [](const Symbol& symbol) { return symbol.size == 0; });
}

void Merger::trim() {
  if (symbols_.capacity() <= kSymbolsKept && heap_.capacity() <= 2 * kSymbolsKept) return;
  symbols_.clear();
  symbols_.shrink_to_fit();
  heap_.clear();
  heap_.shrink_to_fit();
}

struct Bpe::Room final : Scratch {
  Merger merger;
  std::string text;                        // the word in UTF-8
  std::string key;                         // one symbol, with its prefix and suffix
  std::vector<std::uint32_t> byte_begins;  // of each character of the word, and the end

  std::size_t bytes() const noexcept override {
    return merger.bytes() + text.capacity() + key.capacity() + byte_begins.capacity() * sizeof(std::uint32_t);
  }
};

Bpe::Bpe(const BlobView& blob)
    : vocabulary_(blob.records<DoubleArray::Node>(Section::kVocabularyTrie)),
      merges_(blob.records<MergeRecord>(Section::kMergeTable)),
      continuing_prefix_(blob.text(blob.config().continuing_prefix)),
      end_suffix_(blob.text(blob.config().end_suffix)),
      flags_(blob.config().model_flags),
      unknown_id_(blob.config().unknown_id),
      byte_ids_(fallback_ids(vocabulary_, (blob.config().model_flags & kByteFallback) != 0)) {
  if (vocabulary_.empty()) throw std::invalid_argument("the compiled tokenizer has no vocabulary");
  if ((flags_ & kByteFallback) && (!continuing_prefix_.empty() || !end_suffix_.empty()))
    throw std::invalid_argument("BPE with byte_fallback and a subword prefix or suffix is not supported");
}

std::unique_ptr<Scratch> Bpe::make_scratch() const { return std::make_unique<Room>(); }

void Bpe::cut(const AlignedChar* begin, const AlignedChar* end, std::int32_t word, Scratch& scratch,
              TokenBuffer& out) const {
  Room& room = static_cast<Room&>(scratch);
  room.text.clear();
  room.byte_begins.clear();
  for (const AlignedChar* at = begin; at < end; ++at) {
    room.byte_begins.push_back(static_cast<std::uint32_t>(room.text.size()));
    append_utf8(room.text, at->code_point);
  }
  room.byte_begins.push_back(static_cast<std::uint32_t>(room.text.size()));
  if (flags_ & kIgnoreMerges) {
    if (const std::int32_t id = vocabulary_.get(room.text); id >= 0)
      return out.push(id, begin->begin, (end - 1)->end, word);
  }
  room.merger.clear();
  add_symbols(static_cast<std::size_t>(end - begin), room);
  room.merger.merge(merges_);

  // A token takes as many bytes as its symbols, from where the one before ended; so characters that were
  // dropped shift those after them.
  std::uint32_t at = 0;
  std::size_t first = 0;
  for (const Symbol& symbol : room.merger.symbols()) {
    const std::uint32_t stop = at + static_cast<std::uint32_t>(symbol.size);
    while (room.byte_begins[first + 1] <= at) ++first;
    std::size_t last = first;
    while (room.byte_begins[last + 1] < stop) ++last;
    out.push(symbol.id, begin[first].begin, begin[last].end, word);
    at = stop;
    first = last;
  }
  if (room.text.size() > kSymbolsKept) {
    room.merger.trim();
    room.text = std::string();
    room.byte_begins = std::vector<std::uint32_t>();
  }
}

void Bpe::add_symbols(std::size_t chars, Room& room) const {
  // An unknown token waits for more of its kind. Byte tokens do not end the wait: they come before it.
  std::int32_t unknown_size = 0;
  const auto flush = [&] {
    if (unknown_size) room.merger.add(unknown_id_, unknown_size);
    unknown_size = 0;
  };
  for (std::size_t i = 0; i < chars; ++i) {
    const std::size_t begin = room.byte_begins[i];
    const std::string_view text = std::string_view(room.text).substr(begin, room.byte_begins[i + 1] - begin);
    const auto size = static_cast<std::int32_t>(text.size());
    room.key.clear();
    if (i) room.key += continuing_prefix_;
    room.key += text;
    if (i + 1 == chars) room.key += end_suffix_;
    const std::int32_t id = vocabulary_.get(room.key);
    const auto is_spelt = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)] >= 0; };
    if (id >= 0) {
      flush();
      room.merger.add(id, size);
    } else if (std::all_of(text.begin(), text.end(), is_spelt)) {
      for (const char c : text) room.merger.add(byte_ids_[static_cast<unsigned char>(c)], 1);
    } else if (unknown_id_ >= 0) {
      if (!(flags_ & kFuseUnknown)) flush();
      unknown_size += size;
    }
  }
  flush();
}

}  // namespace penstock
