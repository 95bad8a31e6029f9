#include "penstock/live_queue.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace penstock {
namespace {

// Works of more rows are cut into units of their own: their rows are neighbours enough.
constexpr std::size_t kRowsPlacedOneByOne = 8;
// Open units looked at for a row: of its own padded length or more, and below it.
constexpr int kLongerUnits = 8;
constexpr int kShorterUnits = 2;
constexpr std::int64_t kLastSequence = std::numeric_limits<std::int64_t>::max();

std::int32_t rank_of(std::int32_t request_class) noexcept { return request_class == 1 ? 0 : 1; }

}  // namespace

std::int32_t LiveQueue::add_model(const CostGrid& grid) {
  grids_.push_back(grid);
  open_.resize(grids_.size() * kRanks);
  return static_cast<std::int32_t>(grids_.size() - 1);
}

std::int32_t LiveQueue::add_tenant(double weight) {
  tenants_.emplace_back().weight = weight;
  return static_cast<std::int32_t>(tenants_.size() - 1);
}

std::int64_t LiveQueue::reserved(std::int64_t cost_ns, double reserve) noexcept {
  return cost_ns + static_cast<std::int64_t>(static_cast<double>(cost_ns) * reserve);
}

std::int64_t LiveQueue::due(std::int64_t deadline_ns) const noexcept {
  return deadline_ns >= kNever ? kNever : deadline_ns - limits_.margin_ns;
}

std::int64_t LiveQueue::rows_full(std::int32_t model, std::int32_t padded_length) const noexcept {
  const CostGrid& grid = grids_[model];
  const std::int64_t fit = limits_.batch_tokens_max / std::max(padded_length, 1);
  std::int64_t most = grid.efficient_rows(padded_length, fit, limits_.efficiency);
  std::int64_t least = 1;
  while (least < most) {  // the most rows, at least one, that cost no more than the cap
    const std::int64_t middle = least + (most - least + 1) / 2;
    if (grid.upper(middle, padded_length) <= batch_cost_max_ns_) {
      least = middle;
    } else {
      most = middle - 1;
    }
  }
  return least;
}

std::int64_t LiveQueue::upper(const Unit& unit, std::int64_t rows, std::int32_t padded_length) const noexcept {
  return grids_[unit.model].upper(rows, padded_length);
}

// Where in virtual time the next row of a tenant stands: after all that it has waiting.
double LiveQueue::turn(std::int32_t tenant) const noexcept {
  const Tenant& owner = tenants_[tenant];
  const double now = owner.rows ? owner.virtual_ns : std::max(owner.virtual_ns, virtual_floor_ns_);
  return now + static_cast<double>(owner.queue.total_cost()) / owner.weight;
}

Answer LiveQueue::admit(const Arrival& arrival) {
  sort_rows(arrival);
  // What is kept free for others is no reason to say that an idle lane could not make it.
  const std::int64_t alone_ns = cost_alone(arrival, 0.0);
  if (arrival.now_ns + alone_ns > due(arrival.deadline_ns)) {
    return {Verdict::kUnmeetable, -1, arrival.now_ns + alone_ns - due(arrival.deadline_ns), alone_ns};
  }
  Answer answer = judge_share(arrival, alone_ns);
  if (answer.verdict != Verdict::kAdmitted) return answer;
  const std::int32_t work = new_work(arrival);
  answer = arrival.count <= kRowsPlacedOneByOne ? place_rows(arrival, work) : place_units(arrival, work);
  if (answer.verdict != Verdict::kAdmitted) {
    drop(work);
    works_[work].sequence = -1;
    free_works_.push_back(work);
    answer.work = -1;
    answer.cost_ns = alone_ns;
    return answer;
  }
  account(arrival, work, answer.cost_ns);
  return answer;
}

// Longest first, equal ones in the order in which they came.
void LiveQueue::sort_rows(const Arrival& arrival) {
  sorted_.clear();
  for (std::size_t at = 0; at < arrival.count; ++at) {
    const std::int32_t row = arrival.rows[at];
    sorted_.emplace_back(static_cast<std::int32_t>(arrival.starts[row + 1] - arrival.starts[row]), row);
  }
  if (arrival.count > 1) {
    std::stable_sort(sorted_.begin(), sorted_.end(), [](const auto& one, const auto& other) noexcept {
      return one.first > other.first;
    });
  }
}

std::int64_t LiveQueue::cost_alone(const Arrival& arrival, double reserve) const noexcept {
  const CostGrid& grid = grids_[arrival.model];
  if (sorted_.size() == 1) return reserved(grid.upper(1, sorted_[0].first), reserve);
  std::int64_t cost_ns = 0;
  for (std::size_t at = 0; at < sorted_.size();) {
    const std::int32_t length = sorted_[at].first;
    const std::int64_t left = static_cast<std::int64_t>(sorted_.size() - at);
    const std::int64_t rows = std::min(rows_full(arrival.model, length), left);
    cost_ns += reserved(grid.upper(rows, length), reserve);
    at += static_cast<std::size_t>(rows);
  }
  return cost_ns;
}

// Whether the tenant's queue, as far as it is due no later, leaves others of the time until then what they use, or have
// waiting, and a quantum to take their turn in; or stays within its share. Time that nobody else uses is free to all.
Answer LiveQueue::judge_share(const Arrival& arrival, std::int64_t cost_ns) const noexcept {
  const Answer admitted{Verdict::kAdmitted, -1, 0, cost_ns};
  if (arrival.share >= 1.0 || arrival.deadline_ns >= kNever) return admitted;
  const DeadlineTree& queue = tenants_[arrival.tenant].queue;
  const std::int64_t before_ns = queue.cost_before({0, arrival.deadline_ns, kLastSequence});
  const std::int64_t queued_ns = before_ns + cost_ns;
  if (before_ns == 0 || queued_ns <= limits_.quantum_ns) return admitted;
  const double queued = static_cast<double>(queued_ns);
  double needed = queued / arrival.share;
  if (arrival.others < 1.0) {
    const ScheduleKey last{rank_of(arrival.request_class), arrival.urgency_ns, kLastSequence};
    const std::int64_t all_ns = std::max(schedule_.cost_before(last), before_ns) + cost_ns + limits_.quantum_ns;
    const double used = (queued + static_cast<double>(limits_.quantum_ns)) / (1.0 - arrival.others);
    needed = std::min(needed, std::max(used, static_cast<double>(all_ns)));
  }
  const std::int64_t window_ns = due(arrival.deadline_ns) - arrival.free_ns;
  if (needed <= static_cast<double>(window_ns)) return admitted;
  const double most = static_cast<double>(kNever);
  return {Verdict::kOverShare, -1, static_cast<std::int64_t>(std::min(needed, most)) + 1 - window_ns, cost_ns};
}

// Whether a unit of this cost may be inserted at `key`.
Answer LiveQueue::judge(const Arrival& arrival, const ScheduleKey& key, std::int64_t cost_ns) const noexcept {
  const std::int64_t end_ns = arrival.free_ns + schedule_.cost_before(key) + cost_ns;
  const std::int64_t late_ns = end_ns - due(arrival.deadline_ns);
  if (late_ns > 0) return {Verdict::kLate, -1, late_ns, cost_ns};
  const std::int64_t harm_ns = cost_ns - (schedule_.least_slack_after(key) - arrival.free_ns);
  if (harm_ns > 0) return {Verdict::kHarmful, -1, harm_ns, cost_ns};
  return {Verdict::kAdmitted, -1, 0, cost_ns};
}

Answer LiveQueue::place_rows(const Arrival& arrival, std::int32_t work) {
  std::int64_t cost_ns = 0;
  for (std::size_t index = 0; index < sorted_.size(); ++index) {
    const Answer answer = place_row(arrival, work, index);
    if (answer.verdict != Verdict::kAdmitted) return answer;
    cost_ns += answer.cost_ns;
  }
  return {Verdict::kAdmitted, work, 0, cost_ns};
}

// Into the open unit that it makes dearer by the least, if that is less than a unit of its own.
Answer LiveQueue::place_row(const Arrival& arrival, std::int32_t work, std::size_t index) {
  const std::int32_t length = sorted_[index].first;
  const std::int64_t alone_ns = reserved(grids_[arrival.model].upper(1, length), limits_.reserve);
  find_joins(arrival, length, alone_ns);
  // Who goes ahead of its turn in a batch must leave others room to take theirs.
  const std::int64_t kept_ns = arrival.others > 0 ? limits_.quantum_ns : 0;
  for (const Join& join : joins_) {
    const DeadlineTree::Node node = units_[join.unit].node;
    const ScheduleKey& key = schedule_.key(node);
    const std::int64_t end_ns = schedule_.cost_before(key) + schedule_.cost(node);
    const std::int64_t slack_ns = std::min({due(arrival.deadline_ns) - end_ns, schedule_.due(node) - end_ns,
                                            schedule_.least_slack_after(key)});
    const std::int64_t room_ns = slack_ns - arrival.free_ns - (key.urgency_ns < arrival.urgency_ns ? kept_ns : 0);
    if (room_ns < join.added_ns) continue;
    add_member(join.unit, work, index);
    return {Verdict::kAdmitted, work, 0, join.added_ns};
  }
  const ScheduleKey key{rank_of(arrival.request_class), arrival.urgency_ns, sequence_++};
  const Answer answer = judge(arrival, key, alone_ns);
  if (answer.verdict != Verdict::kAdmitted) return answer;
  add_member(new_unit(arrival.model, arrival.tenant, key, turn(arrival.tenant)), work, index);
  return answer;
}

bool LiveQueue::may_join(const Arrival& arrival, const Unit& unit, double tag) const noexcept {
  return unit.tenant == arrival.tenant || std::abs(tag - unit.tag) <= static_cast<double>(limits_.quantum_ns);
}

// Open units in which a row of this length costs less than `below_ns`: the cheapest first, then the latest.
void LiveQueue::find_joins(const Arrival& arrival, std::int32_t length, std::int64_t below_ns) {
  joins_.clear();
  const auto& open = open_[static_cast<std::size_t>(arrival.model * kRanks + rank_of(arrival.request_class))];
  const double tag = turn(arrival.tenant);
  const auto consider = [&](std::int32_t at) {
    const Unit& unit = units_[at];
    const std::int64_t rows = static_cast<std::int64_t>(unit.members.size()) + 1;
    const std::int32_t padded = std::max(unit.padded_length, length);
    if (!may_join(arrival, unit, tag)) return;
    if (padded > unit.padded_length && rows > rows_full(unit.model, padded)) return;
    const std::int64_t added_ns = reserved(upper(unit, rows, padded), unit.reserve) - schedule_.cost(unit.node);
    if (added_ns < below_ns) joins_.push_back({added_ns, at});
  };
  const auto middle = open.lower_bound({length, std::numeric_limits<std::int64_t>::min()});
  auto longer = middle;
  for (int looked = 0; looked < kLongerUnits && longer != open.end(); ++looked, ++longer) consider(longer->second);
  auto shorter = middle;
  for (int looked = 0; looked < kShorterUnits && shorter != open.begin(); ++looked) consider((--shorter)->second);
  std::sort(joins_.begin(), joins_.end(), [this](const Join& one, const Join& other) noexcept {
    if (one.added_ns != other.added_ns) return one.added_ns < other.added_ns;
    return schedule_.key(units_[one.unit].node) > schedule_.key(units_[other.unit].node);
  });
}

// Cuts the rows, longest first, into full units; the last one may stay open.
Answer LiveQueue::place_units(const Arrival& arrival, std::int32_t work) {
  const ScheduleKey start{rank_of(arrival.request_class), arrival.urgency_ns, sequence_};
  const Answer answer = judge(arrival, start, cost_alone(arrival, limits_.reserve));
  if (answer.verdict != Verdict::kAdmitted) return answer;
  const double first_tag = turn(arrival.tenant);
  std::int64_t cost_ns = 0;
  for (std::size_t at = 0; at < sorted_.size();) {
    const std::int64_t full = rows_full(arrival.model, sorted_[at].first);
    const double tag = first_tag + static_cast<double>(cost_ns) / tenants_[arrival.tenant].weight;
    const ScheduleKey key{start.rank, start.urgency_ns, sequence_++};
    const std::int32_t unit = new_unit(arrival.model, arrival.tenant, key, tag);
    const std::size_t end = std::min(sorted_.size(), at + static_cast<std::size_t>(full));
    for (; at < end; ++at) add_member(unit, work, at);
    cost_ns += schedule_.cost(units_[unit].node);
  }
  return {Verdict::kAdmitted, work, 0, cost_ns};
}

std::int32_t LiveQueue::new_work(const Arrival& arrival) {
  std::int32_t handle;
  if (free_works_.empty()) {
    handle = static_cast<std::int32_t>(works_.size());
    works_.emplace_back();
  } else {
    handle = free_works_.back();
    free_works_.pop_back();
  }
  Work& work = works_[handle];
  work.deadline_ns = arrival.deadline_ns;
  work.sequence = sequence_++;
  work.request_class = arrival.request_class;
  work.tenant = arrival.tenant;
  work.rows = work.tokens = 0;
  work.queued = DeadlineTree::kNone;
  work.units.clear();
  return handle;
}

// Enters an admitted work in the sums of its class and tenant.
void LiveQueue::account(const Arrival& arrival, std::int32_t handle, std::int64_t cost_ns) {
  Work& work = works_[handle];
  Tenant& tenant = tenants_[work.tenant];
  if (!tenant.rows) tenant.virtual_ns = std::max(tenant.virtual_ns, virtual_floor_ns_);
  work.rows = static_cast<std::int64_t>(sorted_.size());
  for (const auto& [length, row] : sorted_) work.tokens += length;
  work.queued = tenant.queue.insert({0, arrival.deadline_ns, work.sequence}, kNever, cost_ns);
  tenant.rows += work.rows;
  tenant.tokens += work.tokens;
  class_rows_[work.request_class] += work.rows;
  class_tokens_[work.request_class] += work.tokens;
  if (work.deadline_ns < kNever) watch(handle);
}

std::int32_t LiveQueue::new_unit(std::int32_t model, std::int32_t tenant, const ScheduleKey& key, double tag) {
  std::int32_t handle;
  if (free_units_.empty()) {
    handle = static_cast<std::int32_t>(units_.size());
    units_.emplace_back();
  } else {
    handle = free_units_.back();
    free_units_.pop_back();
  }
  Unit& unit = units_[handle];
  unit.node = schedule_.insert(key, kNever, 0);
  unit.model = model;
  unit.rank = key.rank;
  unit.tenant = tenant;
  unit.padded_length = 0;
  unit.tag = tag;
  unit.reserve = limits_.reserve;
  unit.is_open = false;
  unit.members.clear();
  if (unit_of_node_.size() <= static_cast<std::size_t>(unit.node)) {
    unit_of_node_.resize(static_cast<std::size_t>(unit.node) + 1);
  }
  unit_of_node_[unit.node] = handle;
  tenants_[unit.tenant].units[unit.rank].emplace(key, handle);
  owners_[unit.rank].insert(unit.tenant);
  return handle;
}

void LiveQueue::add_member(std::int32_t handle, std::int32_t work, std::size_t index) {
  Unit& unit = units_[handle];
  const auto [length, row] = sorted_[index];
  close(handle);
  unit.members.push_back({work, row, length});
  if (length > unit.padded_length || unit.members.size() == 1) {
    unit.rows_full = rows_full(unit.model, length);
    unit.padded_length = length;
  }
  unit.cost_ns = upper(unit, static_cast<std::int64_t>(unit.members.size()), unit.padded_length);
  const std::int64_t due_ns = std::min(schedule_.due(unit.node), due(works_[work].deadline_ns));
  schedule_.update(unit.node, due_ns, reserved(unit.cost_ns, unit.reserve));
  open(handle);
  auto& of_work = works_[work].units;
  if (of_work.empty() || of_work.back() != handle) of_work.push_back(handle);
}

void LiveQueue::open(std::int32_t handle) {
  Unit& unit = units_[handle];
  if (static_cast<std::int64_t>(unit.members.size()) >= unit.rows_full) return;
  unit.is_open = true;
  open_units(unit).emplace(std::pair(unit.padded_length, schedule_.key(unit.node).sequence), handle);
}

void LiveQueue::close(std::int32_t handle) {
  Unit& unit = units_[handle];
  if (!unit.is_open) return;
  unit.is_open = false;
  open_units(unit).erase({unit.padded_length, schedule_.key(unit.node).sequence});
}

}  // namespace penstock
